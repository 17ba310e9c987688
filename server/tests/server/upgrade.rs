//! Data of earlier builds. `testdata/data-of-command-level-1.tar.gz` is the data directory of a single member that was
//! killed with -9, as written by the last build that had no command level: puts, an overwritten and a deleted key, a lease,
//! a transaction, a compaction at revision 10, and a log that has to be replayed. That of level 2 is the same directory after
//! a run of the last build of that level.

use std::process::Command;

use cairn_proto::etcdserverpb as pb;
use cairn_server::state::command::COMMAND_LEVEL;
use tempfile::TempDir;

use super::{process::Process, support::eventually};

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/testdata");
/// As the earlier build told them.
const REVISION: i64 = 25;
const HASH: u32 = 2_760_867_968;
const LEASE: i64 = 0x7445_94ac_9a85_5d59;

#[tokio::test]
async fn data_of_a_build_without_command_levels_opens_and_rises() {
    opens_and_rises(1).await;
}

#[tokio::test]
async fn data_of_a_build_without_actors_in_commands_opens_and_rises() {
    opens_and_rises(2).await;
}

async fn opens_and_rises(level: u32) {
    let dir = TempDir::new().expect("a temporary directory");
    let data = format!("{TESTDATA}/data-of-command-level-{level}.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(data).arg("-C").arg(dir.path()).status();
    assert!(unpacked.expect("tar runs").success());
    // Once as it was, once with what this build has written.
    for round in 0..2 {
        let server = Process::start(dir.path(), &[]);
        assert_eq!(server.get("key1").await, Some(b"second".to_vec()));
        assert_eq!(server.get("key20").await, None);
        let mut maintenance = server.maintenance().await;
        let hashed = maintenance.hash_kv(pb::HashKvRequest { revision: REVISION }).await.expect("a hash").into_inner();
        assert_eq!((hashed.hash, hashed.compact_revision), (HASH, 10), "round {round}");
        let mut lease = pb::lease_client::LeaseClient::new(server.channel().await);
        let left = lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: LEASE, keys: true }).await;
        assert_eq!(left.expect("the lease").into_inner().keys, ["leased"]);
        let level = format!("cairn_command_level {COMMAND_LEVEL}");
        let raised = async || server.http("/metrics").await.lines().any(|line| line == level).then_some(());
        eventually("the command level is this build's", raised).await;
        server.put(&format!("new{round}"), "value").await;
        server.kill();
    }
}
