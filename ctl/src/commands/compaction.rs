//! `compaction`.

use cairn_proto::etcdserverpb as pb;

use crate::cli::Invocation;
use crate::exit::Failure;
use crate::golang::parse_int;
use crate::output::emit;
use crate::session::Session;

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let [revision] = invocation.args.as_slice() else {
        return Err(Failure::bad_args("compaction command needs 1 argument"));
    };
    let revision = parse_int(&String::from_utf8_lossy(revision), 10).map_err(Failure::error)?;
    let session = Session::new(invocation)?;
    let request = pb::CompactionRequest { revision, physical: invocation.flags.bool("physical") };
    session.request(request).await?;
    emit(format!("compacted revision {revision}\n").as_bytes())
}
