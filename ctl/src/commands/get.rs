//! `get`.

use bytes::Bytes;
use cairn_client::Client;
use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tokio::time::timeout;

use super::keys;
use crate::cli::{Flags, Invocation};
use crate::exit::Failure;
use crate::golang::quote;
use crate::output::Format;
use crate::session::{Session, failed};

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let flags = &invocation.flags;
    let request = request(flags, &invocation.args)?;
    let mut session = Session::new(invocation)?;
    if request.count_only && session.printer.format != Format::Fields {
        return Err(Failure::bad_args("--count-only is only for `--write-out=fields`"));
    }
    if flags.bool("print-value-only") {
        if session.printer.format != Format::Simple {
            return Err(Failure::bad_args("print-value-only is only for `--write-out=simple`"));
        }
        session.printer.value_only = true;
    }
    session.printer.expect_answer()?;
    let answer = if flags.bool("stream") {
        let client = session.connect().await?;
        timeout(session.command_timeout(), in_pieces(&client, request))
            .await
            .map_err(|_| Failure::error("context deadline exceeded"))??
    } else {
        session.request(request).await?
    };
    session.printer.get(&answer)
}

/// A range in pieces, put together to the answer a plain range would have given.
async fn in_pieces(client: &Client, request: pb::RangeRequest) -> Result<pb::RangeResponse, Failure> {
    let mut pieces = client.stream(request).await.map_err(|error| failed(&error))?;
    let mut whole = pb::RangeResponse::default();
    while let Some(piece) = pieces.next().await.map_err(|error| failed(&error))? {
        let Some(piece) = piece.range_response else { continue };
        whole.kvs.extend(piece.kvs);
        whole.header = piece.header.or(whole.header);
        whole.more |= piece.more;
        whole.count = whole.count.max(piece.count);
    }
    Ok(whole)
}

/// The request that flags and arguments describe; also for a `get` within a transaction.
pub fn request(flags: &Flags, args: &[Vec<u8>]) -> Result<pb::RangeRequest, Failure> {
    let Some(first) = args.first() else {
        let text = "get command needs one argument as key and an optional argument as range_end";
        return Err(Failure::bad_args(text));
    };
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if prefix && from_key {
        return Err(Failure::bad_args("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    let (keys_only, count_only) = (flags.bool("keys-only"), flags.bool("count-only"));
    if keys_only && count_only {
        return Err(Failure::bad_args("`--keys-only` and `--count-only` cannot be set at the same time, choose one"));
    }
    let serializable = match flags.bytes("consistency") {
        b"l" => false,
        b"s" => true,
        other => return Err(Failure::bad_feature(format!("unknown consistency flag {}", quote(other)))),
    };
    if args.len() > 1 && (prefix || from_key) {
        let text = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
        return Err(Failure::bad_args(text));
    }
    let (sort_order, sort_target) = sorting(flags)?;
    let (key, range_end) = match args.get(1) {
        _ if prefix => keys::prefix(first),
        _ if from_key => keys::from_key(first),
        Some(end) => (Bytes::copy_from_slice(first), Bytes::copy_from_slice(end)),
        None => (Bytes::copy_from_slice(first), Bytes::new()),
    };
    Ok(pb::RangeRequest {
        key,
        range_end,
        limit: flags.int("limit"),
        revision: flags.int("rev").max(0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only,
        count_only,
        min_mod_revision: flags.int("min-mod-rev"),
        max_mod_revision: flags.int("max-mod-rev"),
        min_create_revision: flags.int("min-create-rev"),
        max_create_revision: flags.int("max-create-rev"),
    })
}

fn sorting(flags: &Flags) -> Result<(SortOrder, SortTarget), Failure> {
    let (order, target) = (flags.text("order"), flags.text("sort-by"));
    let sort_order = match order.to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(Failure::bad_feature(format!("bad sort order {order}"))),
    };
    let sort_target = match target.to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Failure::bad_feature(format!("bad sort target {target}"))),
    };
    // Keys come in ascending order anyway; asking for it would make the member collect the whole range first.
    let natural = sort_target == SortTarget::Key && sort_order == SortOrder::Ascend;
    Ok((if natural { SortOrder::None } else { sort_order }, sort_target))
}
