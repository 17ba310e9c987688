//! Data of earlier builds. `testdata/data-of-command-level-1.tar.gz` is the data directory of a single member that was
//! killed with -9, as written by the last build that had no command level: puts, an overwritten and a deleted key, a lease,
//! a transaction, a compaction at revision 10, and a log that has to be replayed. That of level 2 is the same directory after
//! a run of the last build of that level.
//!
//! `testdata/data-of-command-level-4.tar.gz` is of a member of its own, killed with -9, too, of the first build with
//! users: users with and without a password, one of them dropped, a changed password, roles and permissions granted and
//! revoked, authentication on, tokens, a lease, a compaction at revision 8. Half of it is in the store, the rest is in
//! the log only. `RocksDB`'s own `LOG` is left out.

use std::process::Command;

use cairn_proto::{ApiError, authpb::permission::Type, etcdserverpb as pb};
use cairn_server::state::command::COMMAND_LEVEL;
use tempfile::TempDir;
use tonic::{Request, Status, transport::Channel};

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

/// A directory with the data of this level in `data`.
fn unpacked(level: u32) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    let data = format!("{TESTDATA}/data-of-command-level-{level}.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(data).arg("-C").arg(dir.path()).status();
    assert!(unpacked.expect("tar runs").success());
    dir
}

async fn opens_and_rises(level: u32) {
    let dir = unpacked(level);
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

/// What the build of level 4 told of its data.
mod users {
    pub const REVISION: i64 = 18;
    pub const HASH: u32 = 4_153_594_127;
    pub const LEASE: i64 = 0x359f_2bde_d562_3260;
    pub const AUTH_REVISION: u64 = 23;
    /// One of bob's.
    pub const TOKEN: &str = "lITjCyDYRsSSTSVs.50";
}

/// A caller that has shown its password.
struct Caller(Channel, String);

impl Caller {
    async fn new(channel: &Channel, name: &str, password: &str) -> Result<Self, Status> {
        let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
        let answer = pb::auth_client::AuthClient::new(channel.clone()).authenticate(request).await?;
        Ok(Self(channel.clone(), answer.into_inner().token))
    }

    fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("token", self.1.parse().expect("a token"));
        request
    }

    async fn get(&self, key: &'static str) -> Result<Option<Vec<u8>>, Status> {
        let request = self.with_token(pb::RangeRequest { key: key.into(), ..Default::default() });
        let answer = pb::kv_client::KvClient::new(self.0.clone()).range(request).await?.into_inner();
        Ok(answer.kvs.into_iter().next().map(|kv| kv.value.to_vec()))
    }

    async fn put(&self, key: &'static str) -> Result<(), Status> {
        let request = self.with_token(pb::PutRequest { key: key.into(), ..Default::default() });
        pb::kv_client::KvClient::new(self.0.clone()).put(request).await.map(drop)
    }
}

fn refused<T>(answer: &Result<T, Status>) -> Option<ApiError> {
    answer.as_ref().err().and_then(ApiError::from_status)
}

#[tokio::test]
async fn users_of_a_build_of_command_level_4_may_what_they_might() {
    let dir = unpacked(4);
    for round in 0..2 {
        let server = Process::start(dir.path(), &[]);
        let channel = server.channel().await;
        let range = pb::RangeRequest { key: "/app/first".into(), ..Default::default() };
        let anonymous = server.kv().await.range(range).await;
        assert_eq!(refused(&anonymous), Some(ApiError::UserEmpty), "authentication is on");
        let earlier = Caller(channel.clone(), users::TOKEN.to_owned());
        // Its time is over, unless this machine's clock is behind the fixture's.
        let told = refused(&earlier.get("/secret").await);
        assert!(matches!(told, Some(ApiError::InvalidAuthToken | ApiError::PermissionDenied)), "{told:?}");
        for (name, password) in [
            ("alice", "old-password"),
            ("bob", "new-password"),
            ("bob", ""),
            ("root", "root-secre"),
            ("mallory", "gone"),
            ("carol", "carol"),
        ] {
            assert!(Caller::new(&channel, name, password).await.is_err(), "{name} shows {password:?}");
        }

        let root = Caller::new(&channel, "root", "root-secret").await.expect("root's password");
        let alice = Caller::new(&channel, "alice", "new-password").await.expect("alice's password");
        let bob = Caller::new(&channel, "bob", "bob-password").await.expect("bob's password");
        for (caller, key, reads, writes) in [
            (&root, "/app/first", true, true),
            (&root, "/secret", true, true),
            (&alice, "/app/first", true, false),
            (&alice, "/secret", false, false),
            (&alice, "/log", false, false),
            (&bob, "/app/first", true, true),
            (&bob, "/log", false, true),
            (&bob, "/secret", false, false),
        ] {
            let (read, written) = (refused(&caller.get(key).await), refused(&caller.put(key).await));
            let denied = |may: bool| (!may).then_some(ApiError::PermissionDenied);
            assert_eq!((read, written), (denied(reads), denied(writes)), "{key}");
        }

        let mut auth = pb::auth_client::AuthClient::new(channel.clone());
        let status = auth.auth_status(root.with_token(pb::AuthStatusRequest {})).await.expect("a status").into_inner();
        assert_eq!((status.enabled, status.auth_revision), (true, users::AUTH_REVISION), "round {round}");
        let listed = auth.user_list(root.with_token(pb::AuthUserListRequest {})).await.expect("a list").into_inner();
        assert_eq!(listed.users, ["alice", "bob", "carol", "root"]);
        for (name, roles) in [("alice", "reader"), ("bob", "writer"), ("carol", "reader"), ("root", "root")] {
            let request = root.with_token(pb::AuthUserGetRequest { name: name.into() });
            assert_eq!(auth.user_get(request).await.expect("a user").into_inner().roles, [roles], "{name}");
        }
        let request = root.with_token(pb::AuthRoleGetRequest { role: "writer".into() });
        let perms = auth.role_get(request).await.expect("a role").into_inner().perm;
        let perms: Vec<_> = perms.iter().map(|perm| (perm.perm_type(), &perm.key[..], &perm.range_end[..])).collect();
        assert_eq!(perms, [(Type::Readwrite, &b"/app/"[..], &b"/app0"[..]), (Type::Write, b"/log", b"")]);
        let roles = auth.role_list(root.with_token(pb::AuthRoleListRequest {})).await.expect("a list").into_inner();
        assert_eq!(roles.roles, ["reader", "writer"]);

        let request = root.with_token(pb::HashKvRequest { revision: users::REVISION });
        let hashed = server.maintenance().await.hash_kv(request).await.expect("a hash").into_inner();
        assert_eq!((hashed.hash, hashed.compact_revision), (users::HASH, 8), "round {round}");
        let request = root.with_token(pb::LeaseTimeToLiveRequest { id: users::LEASE, keys: true });
        let lease = pb::lease_client::LeaseClient::new(channel).lease_time_to_live(request).await;
        assert_eq!(lease.expect("the lease").into_inner().keys, ["/app/leased"]);
        assert_eq!(bob.get("/app/many12").await.expect("it may"), Some(b"v12".to_vec()));
        server.kill();
    }
}
