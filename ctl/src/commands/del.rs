//! `del`.

use std::time::Duration;

use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;

use super::keys;
use crate::cli::{Flags, Invocation};
use crate::exit::Failure;
use crate::golang::quote;
use crate::session::Session;

/// Time to reconsider deleting a range that was named by two keys, as if two keys were to be deleted.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let request = request(&invocation.flags, &invocation.args)?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    if let [key, end] = invocation.args.as_slice()
        && !invocation.flags.bool("range")
    {
        eprintln!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds to \
             cancel. You can provide `--range` flag to avoid the delay.",
            quote(key),
            quote(end)
        );
        tokio::time::sleep(SECOND_THOUGHTS).await;
    }
    session.printer.del(&session.request(request).await?)
}

/// The request that flags and arguments describe; also for a `del` within a transaction.
pub fn request(flags: &Flags, args: &[Vec<u8>]) -> Result<pb::DeleteRangeRequest, Failure> {
    let (key, end) = match args {
        [key] => (key, None),
        [key, end] => (key, Some(end)),
        _ => {
            let text = "del command needs one argument as key and an optional argument as range_end";
            return Err(Failure::bad_args(text));
        }
    };
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if prefix && from_key {
        return Err(Failure::bad_args("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    if end.is_some() && (prefix || from_key) {
        let text = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
        return Err(Failure::bad_args(text));
    }
    let (key, range_end) = match end {
        _ if prefix => keys::prefix(key),
        _ if from_key => keys::from_key(key),
        Some(end) => (Bytes::copy_from_slice(key), Bytes::copy_from_slice(end)),
        None => (Bytes::copy_from_slice(key), Bytes::new()),
    };
    Ok(pb::DeleteRangeRequest { key, range_end, prev_kv: flags.bool("prev-kv") })
}
