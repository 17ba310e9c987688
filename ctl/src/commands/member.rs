//! `member list`.

use cairn_proto::etcdserverpb as pb;

use crate::cli::Invocation;
use crate::exit::Failure;
use crate::session::Session;

pub async fn list(invocation: &Invocation) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    let request = pb::MemberListRequest { linearizable: true };
    session.printer.members(&session.request(request).await?)
}
