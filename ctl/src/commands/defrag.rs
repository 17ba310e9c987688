//! `defrag`.

use std::time::Instant;

use cairn_proto::etcdserverpb as pb;

use crate::cli::Invocation;
use crate::connection::error_text;
use crate::exit::{Failure, code};
use crate::golang::format_duration;
use crate::output::emit;
use crate::session::{Session, explain};

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    let mut all_done = true;
    for endpoint in session.endpoints(invocation.flags.bool("cluster")).await? {
        let start = Instant::now();
        let answer = session.request_to(&endpoint, pb::DefragmentRequest {}).await?;
        let took = format_duration(start.elapsed());
        match answer {
            Ok(_) => emit(format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n").as_bytes())?,
            Err(error) => {
                explain(&error);
                eprintln!("Failed to defragment etcd member[{endpoint}]. took {took}. ({})", error_text(&error));
                all_done = false;
            }
        }
    }
    if all_done { Ok(()) } else { Err(Failure::silent(code::ERROR)) }
}
