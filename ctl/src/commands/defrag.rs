//! `defrag`.

use cairn_proto::etcdserverpb as pb;

use crate::cli::Invocation;
use crate::connection::{CallError, Connection, method};
use crate::exit::{Failure, code};
use crate::output::emit;
use crate::session::{Session, explain};

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    let connection = session.connect().await?;
    let mut all_done = true;
    for endpoint in session.endpoints(invocation.flags.bool("cluster")).await? {
        match defragment(&session, &connection, &endpoint).await? {
            Ok(_) => emit(format!("Finished defragmenting etcd member[{endpoint}]\n").as_bytes())?,
            Err(error) => {
                explain(&error);
                eprintln!("Failed to defragment etcd member[{endpoint}] ({error})");
                all_done = false;
            }
        }
    }
    if all_done { Ok(()) } else { Err(Failure::silent(code::ERROR)) }
}

async fn defragment(
    session: &Session,
    connection: &Connection,
    endpoint: &str,
) -> Result<Result<pb::DefragmentResponse, CallError>, Failure> {
    let mut member = connection.at(endpoint)?;
    Ok(member.unary(method::DEFRAGMENT, &pb::DefragmentRequest {}, session.deadline()).await)
}
