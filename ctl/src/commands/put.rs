//! `put`.

use std::io::Read as _;

use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;

use crate::cli::{Flags, Invocation};
use crate::exit::Failure;
use crate::golang::parse_int;
use crate::session::Session;

const USAGE: &str = "put command needs 1 argument and input from stdin or 2 arguments";

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let request = request(&invocation.flags, &invocation.args, || {
        let mut value = Vec::new();
        std::io::stdin().lock().read_to_end(&mut value).ok().filter(|_| !value.is_empty()).map(|_| value)
    })?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    session.printer.put(&session.request(request).await?)
}

/// The request that flags and arguments describe; also for a `put` within a transaction. A value that is no argument comes
/// from `input`.
pub fn request(
    flags: &Flags,
    args: &[Vec<u8>],
    input: impl FnOnce() -> Option<Vec<u8>>,
) -> Result<pb::PutRequest, Failure> {
    let Some(key) = args.first() else { return Err(Failure::bad_args(USAGE)) };
    let ignore_value = flags.bool("ignore-value");
    if ignore_value && args.len() > 1 {
        return Err(Failure::bad_args("put command needs only 1 argument when 'ignore-value' is set"));
    }
    let value = match args.get(1) {
        _ if ignore_value => Vec::new(),
        Some(value) => value.clone(),
        None => input().ok_or_else(|| Failure::bad_args(USAGE))?,
    };
    let lease = parse_int(&flags.text("lease"), 16)
        .map_err(|error| Failure::bad_args(format!("bad lease ID ({error}), expecting ID in Hex")))?;
    Ok(pb::PutRequest {
        key: Bytes::copy_from_slice(key),
        value: value.into(),
        lease,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}
