//! The guard against corruption: a member whose store was altered while it was down is found out, and nobody else.

use std::{
    ops::ControlFlow,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{
        self as pb, AlarmType, alarm_request::AlarmAction, cluster_client::ClusterClient, kv_client::KvClient,
        maintenance_client::MaintenanceClient, watch_request::RequestUnion,
    },
    mvccpb::KeyValue,
    peer::{HashRequest, MembersRequest, peer_client::PeerClient},
};
use cairn_server::{
    config::{ClusterState, Config},
    server::{Server, StartError},
    store::{Batch, RocksOptions, StateDir, Store, Table},
};
use futures::{
    FutureExt,
    future::{Either, join, join_all, select},
};
use prost::Message;
use tempfile::TempDir;
use tonic::{Code, Status, transport::Endpoint};

use super::{
    cluster::free_port,
    process::refused,
    support::{TestServer, eventually},
    trio::{Places, Trio, url},
    watch::client::{Watching, all},
};

/// How often members are compared here.
const EVERY: Duration = Duration::from_millis(100);

/// Gives the newest value of `key` in the store below `data` another content, as no member would.
fn alter(data: &Path, key: &str) {
    let (_, store) = StateDir::open(&data.join("member"), &RocksOptions::default()).expect("the store opens");
    let mut newest = None;
    store
        .scan(Table::Rev, b"", None, &mut |at, stored| {
            let kv = KeyValue::decode(stored).expect("a stored value");
            if kv.key == key && !kv.value.is_empty() {
                newest = Some((at.to_vec(), kv));
            }
            ControlFlow::Continue(())
        })
        .expect("the store is read");
    let (at, mut kv) = newest.expect("the key is there");
    kv.value = "altered".into();
    let mut batch = Batch::default();
    batch.delete(Table::Rev, at.clone());
    batch.put(Table::Rev, at, kv.encode_to_vec());
    store.write(&batch).expect("it is written");
    store.flush().expect("it is kept");
}

impl Trio {
    /// Stops a member, alters its data, and starts it again.
    async fn corrupt(&mut self, at: usize) {
        self.down(at).await;
        alter(&self.dirs[at].path().join("data"), "key");
        self.up(at).await;
    }

    async fn alarms(&self, at: usize) -> Vec<pb::AlarmMember> {
        self.alarm(at, AlarmAction::Get, 0).await
    }

    async fn alarm(&self, at: usize, action: AlarmAction, member_id: u64) -> Vec<pb::AlarmMember> {
        self.try_alarm(at, action, member_id).await.expect("an answer")
    }

    async fn try_alarm(&self, at: usize, action: AlarmAction, member_id: u64) -> Result<Vec<pb::AlarmMember>, Status> {
        let alarm = if action == AlarmAction::Get { AlarmType::None } else { AlarmType::Corrupt };
        let request = pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
        let mut client = MaintenanceClient::new(self.channel(at));
        Ok(client.alarm(request).await?.into_inner().alarms)
    }

    /// Waits until the alarm is raised, and holds that it names `member` and nobody else, everywhere. A question that was on its
    /// way to a leader that went is asked again.
    async fn accused(&self, member: u64) {
        let expected = vec![pb::AlarmMember { member_id: member, alarm: AlarmType::Corrupt.into() }];
        for at in self.running() {
            let raised = eventually("the alarm is raised", async || {
                self.try_alarm(at, AlarmAction::Get, 0).await.ok().filter(|alarms| !alarms.is_empty())
            });
            assert_eq!(raised.await, expected, "as member {at} tells it");
        }
    }

    /// What was counted of comparisons, over all members.
    async fn checks(&self, check: &str, outcome: &str) -> u64 {
        self.counted("cairn_corruption_checks_total", &format!("check=\"{check}\",outcome=\"{outcome}\"")).await
    }
}

fn periodic(config: &mut Config) {
    config.corrupt_check_time = EVERY;
}

fn compactions(config: &mut Config) {
    config.compact_hash_check = true;
    config.compact_hash_check_time = EVERY;
}

fn range(serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest { key: "key".into(), serializable, ..Default::default() }
}

#[track_caller]
fn is_corrupt<T: std::fmt::Debug>(result: Result<T, tonic::Status>) {
    let error = result.expect_err("it is refused");
    assert_eq!((error.code(), error.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));
}

#[tokio::test]
async fn the_periodic_check_names_the_member_that_differs_which_stops_serving_until_it_is_replaced() {
    let mut trio = Trio::start(periodic).await;
    let bad = (trio.leader().await + 1) % 3;
    trio.corrupt(bad).await;
    let accused = trio.id(bad);
    trio.accused(accused).await;
    // The alarm outlives a restart.
    trio.down(bad).await;
    trio.up(bad).await;
    trio.accused(accused).await;

    for at in 0..3 {
        let mut kv = KvClient::new(trio.channel(at));
        is_corrupt(kv.put(pb::PutRequest { key: "key".into(), ..Default::default() }).await);
        is_corrupt(kv.delete_range(pb::DeleteRangeRequest { key: "key".into(), ..Default::default() }).await);
        is_corrupt(kv.compact(pb::CompactionRequest { revision: 2, ..Default::default() }).await);
        for serializable in [false, true] {
            let read = kv.range(range(serializable)).await;
            let txn = pb::TxnRequest {
                success: vec![pb::RequestOp {
                    request: Some(pb::request_op::Request::RequestRange(range(serializable))),
                }],
                ..Default::default()
            };
            let read_in_txn = kv.txn(txn).await;
            if at == bad {
                is_corrupt(read);
                is_corrupt(read_in_txn);
            } else {
                assert_eq!(read.expect("it serves reads").into_inner().kvs[0].value, "value");
                assert!(read_in_txn.is_ok(), "{read_in_txn:?}");
            }
        }
        let (health, alive) = (trio.http(at, "/health").await, trio.http(at, "/livez").await);
        assert_eq!(
            (health.status, health.body.as_str()),
            (503, "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n")
        );
        assert_eq!(alive.status, 200, "a restart would not help: {}", alive.body);
        let ready = trio.http(at, "/readyz").await;
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains("[-]data_corruption failed: alarm activated: CORRUPT"), "{}", ready.body);
        let excluded = trio.http(at, "/health?exclude=CORRUPT").await;
        assert_eq!(excluded.status, 200, "{}", excluded.body);
        let mut maintenance = MaintenanceClient::new(trio.channel(at));
        let status = maintenance.status(pb::StatusRequest {}).await.expect("a status").into_inner();
        assert_eq!(status.errors, [format!("memberID:{accused} alarm:CORRUPT")]);
    }
    let mut watching = Watching::on(trio.channel(bad)).await;
    watching.send(RequestUnion::CreateRequest(all(1))).await;
    is_corrupt(watching.try_next().await);

    // The operator takes it out, adds a new one in its place, and lowers the alarm.
    let good = trio.leader().await;
    let mut members = ClusterClient::new(trio.channel(good));
    let remove = pb::MemberRemoveRequest { id: accused };
    // Members want to have been connected for some seconds before one of them goes.
    eventually("it is removed", async || members.member_remove(remove).await.ok()).await;
    trio.down(bad).await;
    trio.dirs[bad] = TempDir::new().expect("a temporary directory");
    let peer_urls = vec![trio.urls[bad].to_string()];
    let add = pb::MemberAddRequest { peer_urls, is_learner: false };
    eventually("it is added", async || members.member_add(add.clone()).await.ok()).await;
    let joins = |config: &mut Config| {
        periodic(config);
        config.initial_cluster_state = ClusterState::Existing;
    };
    trio.servers[bad] = Some(trio.try_up(bad, joins).await.expect("it joins"));
    let lowered = trio.alarm(good, AlarmAction::Deactivate, accused).await;
    assert_eq!(lowered.len(), 1);
    for at in 0..3 {
        trio.put(at, "key", "again").await;
    }
    let agreed = trio.checks("Periodic", "Agreed").await;
    eventually("all agree again", async || (trio.checks("Periodic", "Agreed").await > agreed + 1).then_some(())).await;
    assert_eq!(trio.alarms(bad).await, []);
    trio.shutdown().await;
}

#[tokio::test]
async fn a_leader_that_differs_from_the_others_is_named_itself_and_leads_no_more() {
    let mut trio = Trio::start(|_| ()).await;
    let bad = (trio.leader().await + 1) % 3;
    trio.corrupt(bad).await;
    trio.change = periodic;
    for at in 0..3 {
        trio.down(at).await;
        trio.up(at).await;
    }
    trio.lead(bad).await;
    trio.accused(trio.id(bad)).await;
    eventually("another one leads", async || (trio.leader().await != bad).then_some(())).await;
    trio.shutdown().await;
}

#[tokio::test]
async fn without_a_majority_that_agrees_the_alarm_names_all() {
    let mut trio = Trio::start(periodic).await;
    trio.down(2).await;
    trio.corrupt(1).await;
    trio.accused(0).await;
    for at in 0..2 {
        let mut kv = KvClient::new(trio.channel(at));
        is_corrupt(kv.put(pb::PutRequest { key: "key".into(), ..Default::default() }).await);
        kv.range(range(false)).await.expect("nobody knows that it is wrong");
    }
    // The third one shows who is right.
    trio.alarm(0, AlarmAction::Deactivate, 0).await;
    trio.up(2).await;
    let named = pb::AlarmMember { member_id: trio.id(1), alarm: AlarmType::Corrupt.into() };
    eventually("the alarm names it", async || trio.alarms(0).await.contains(&named).then_some(())).await;
    trio.shutdown().await;
}

#[tokio::test]
async fn hashes_of_compactions_name_the_member_that_differs() {
    let mut trio = Trio::start(compactions).await;
    let bad = (trio.leader().await + 1) % 3;
    trio.corrupt(bad).await;
    let good = trio.leader().await;
    assert_ne!(good, bad);
    for _ in 0..3 {
        trio.put(good, "other", "value").await;
    }
    assert_eq!(trio.alarms(good).await, [], "nothing was compacted yet");
    let compact = pb::CompactionRequest { revision: 4, physical: true };
    trio.of(good).client().call(compact).await.expect("it compacts");
    trio.accused(trio.id(bad)).await;
    assert!(trio.checks("Compaction", "Differ").await > 0);
    assert_eq!(trio.checks("Compaction", "Agreed").await, 0);
    trio.shutdown().await;
}

#[tokio::test]
async fn a_member_that_differs_does_not_start_and_one_that_does_not_differ_does() {
    let mut trio = Trio::start(|_| ()).await;
    let bad = (trio.leader().await + 1) % 3;
    let id = trio.id(bad);
    trio.down(bad).await;
    alter(&trio.dirs[bad].path().join("data"), "key");
    let compares = |config: &mut Config| config.initial_corrupt_check = true;
    let error = trio.try_up(bad, compares).await.expect_err("it must not start");
    let text = error.to_string();
    assert!(text.starts_with(&format!("member {id:x} found data inconsistency with peers: ")), "{text}");
    assert!(text.contains("remove this member from the cluster, and add it anew"), "{text}");
    // It left nothing behind: without the check it starts, and the others start beside it, for they are more.
    trio.up(bad).await;
    trio.change = compares;
    for good in (0..3).filter(|at| *at != bad) {
        trio.down(good).await;
        trio.up(good).await;
    }
    // Now that they serve they name it.
    trio.accused(id).await;
    trio.shutdown().await;
}

#[tokio::test]
async fn members_that_cannot_be_asked_keep_nobody_from_starting() {
    let mut trio = Trio::start(|config| config.initial_corrupt_check = true).await;
    for at in 0..3 {
        trio.down(at).await;
    }
    // The first is alone, the second finds one member, the third two.
    for at in 0..3 {
        trio.up(at).await;
    }
    trio.put(0, "key", "again").await;
    // What they could not compare when they started they have compared since.
    eventually("all are compared", async || (trio.checks("Initial", "Agreed").await == 3).then_some(())).await;
    assert_eq!(trio.alarms(0).await, []);
    trio.shutdown().await;
}

#[tokio::test]
async fn a_member_that_starts_first_finds_out_who_differs_when_the_others_are_there() {
    let mut trio = Trio::start(|_| ()).await;
    let (first, bad) = (0, 1);
    let id = trio.id(bad);
    for at in 0..3 {
        trio.down(at).await;
    }
    alter(&trio.dirs[bad].path().join("data"), "key");
    let compares = |config: &mut Config| config.initial_corrupt_check = true;
    trio.servers[first] = Some(trio.try_up(first, compares).await.expect("there is nobody to compare with"));
    trio.up(bad).await;
    // The two differ, and the third one shows who is right.
    trio.up(2).await;
    trio.accused(id).await;
    eventually("it is counted", async || (trio.checks("Initial", "Differ").await == 1).then_some(())).await;
    trio.shutdown().await;
}

/// Alters member `bad`. Starts member 0, which does not look at the others, then member 1, which has to wait, and then member
/// 2, which is set up by `third`.
async fn with_a_third(
    trio: &mut Trio,
    bad: usize,
    third: impl FnOnce(&mut Config),
) -> (Result<Server, StartError>, Result<Server, StartError>) {
    for at in 0..3 {
        trio.down(at).await;
    }
    alter(&trio.dirs[bad].path().join("data"), "key");
    trio.up(0).await;
    let mut first = Box::pin(trio.try_up(1, |config| config.initial_corrupt_check = true));
    let peer_url = trio.urls[1].to_string();
    let talks = pin!(eventually("it talks with the members", async || {
        let mut peer = PeerClient::connect(peer_url.clone()).await.ok()?;
        peer.members(MembersRequest {}).await.ok()
    }));
    if let Either::Left((ended, _)) = select(&mut first, talks).await {
        panic!("it has to wait: {:?}", ended.map(drop));
    }
    assert!(first.as_mut().now_or_never().is_none(), "it must not serve clients");
    join(first, trio.try_up(2, third)).await
}

#[tokio::test]
async fn a_right_member_that_finds_only_the_wrong_one_waits_for_another_one() {
    let mut trio = Trio::start(|_| ()).await;
    let bad = trio.id(0);
    let (first, second) = with_a_third(&mut trio, 0, |config| config.initial_corrupt_check = true).await;
    trio.servers[1] = Some(first.expect("it starts"));
    trio.servers[2] = Some(second.expect("it starts"));
    trio.accused(bad).await;
    trio.shutdown().await;
}

#[tokio::test]
async fn a_member_that_waited_does_not_start_if_the_third_one_shows_that_it_is_wrong() {
    let mut trio = Trio::start(|_| ()).await;
    let (first, second) = with_a_third(&mut trio, 1, |_| ()).await;
    let text = first.map(drop).expect_err("it is wrong").to_string();
    assert!(text.contains("found data inconsistency with peers"), "{text}");
    trio.servers[2] = Some(second.expect("it starts"));
    trio.put(0, "other", "value").await;
    assert_eq!(trio.alarms(0).await, []);
    trio.shutdown().await;
}

#[tokio::test]
async fn members_that_have_compacted_since_are_compared_as_they_are() {
    let mut trio = Trio::start(|_| ()).await;
    for at in 0..3 {
        trio.down(at).await;
    }
    let compares = |config: &mut Config| config.initial_corrupt_check = true;
    trio.servers[0] = Some(trio.try_up(0, compares).await.expect("there is nobody to compare with"));
    trio.up(1).await;
    trio.put(1, "key", "again").await;
    let compact = pb::CompactionRequest { revision: trio.of(1).node().reader().revision(), physical: true };
    trio.of(1).client().call(compact).await.expect("it compacts");
    trio.up(2).await;
    eventually("all are compared", async || (trio.checks("Initial", "Agreed").await == 1).then_some(())).await;
    trio.shutdown().await;
}

#[tokio::test]
async fn members_under_load_with_compactions_snapshots_and_changing_leaders_never_differ() {
    const TIME: Duration = Duration::from_secs(15);
    let mut trio = Trio::start(|config| {
        config.corrupt_check_time = Duration::from_millis(20);
        config.compact_hash_check = true;
        config.compact_hash_check_time = Duration::from_millis(30);
        config.initial_corrupt_check = true;
        config.snapshot_count = 50;
        config.snapshot_catchup_entries = 10;
        config.compaction_batch_limit = 7;
        config.compaction_sleep_interval = Duration::from_millis(1);
    })
    .await;
    let writers: Vec<_> = (0..3)
        .flat_map(|at| (0..4).map(move |number| (at, number)))
        .map(|(at, number)| {
            let mut kv = KvClient::new(trio.channel(at));
            tokio::spawn(async move {
                let until = Instant::now() + TIME;
                let mut written = 0_u64;
                while Instant::now() < until {
                    let key = format!("k{}", rand::random_range(0..40));
                    let done = match rand::random_range(0..10) {
                        0..7 => {
                            let value = format!("{at} {number} {written}").into();
                            let put = pb::PutRequest { key: key.into(), value, ..Default::default() };
                            kv.put(put).await.ok().map(|answer| answer.into_inner().header)
                        }
                        7 => {
                            // Everything, so that there are times at which nothing lives.
                            let (key, range_end) = ("k".into(), "l".into());
                            let delete = pb::DeleteRangeRequest { key, range_end, ..Default::default() };
                            kv.delete_range(delete).await.ok().map(|answer| answer.into_inner().header)
                        }
                        _ => {
                            let delete = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
                            kv.delete_range(delete).await.ok().map(|answer| answer.into_inner().header)
                        }
                    };
                    let Some(header) = done else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    };
                    written += 1;
                    if number == 0 && written.is_multiple_of(5) {
                        let revision = header.expect("a header").revision - rand::random_range(0..4);
                        // Somebody else may have compacted further.
                        let _ = kv.compact(pb::CompactionRequest { revision, physical: false }).await;
                    }
                }
                written
            })
        })
        .collect();
    let until = Instant::now() + TIME;
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        trio.lead(round % 3).await;
        let lags = (round + 1) % 3;
        if round.is_multiple_of(3) {
            // Long enough to need a snapshot.
            let last = trio.of(lags).node().status().raft_index;
            trio.down(lags).await;
            eventually("the others cut their logs, or the time is over", async || {
                let cut = |at: usize| trio.of(at).node().history().first_index > last + 1;
                (trio.running().all(cut) || Instant::now() > until).then_some(())
            })
            .await;
            trio.up(lags).await;
        }
    }
    let written: u64 = join_all(writers).await.into_iter().map(|written| written.expect("it goes on")).sum();
    assert!(written > 500, "only {written} writes");
    let leader = trio.leader().await;
    trio.put(leader, "last", "value").await;
    // Before the last compaction, which may have been compared by the time that it is answered.
    let agreed = (trio.checks("Periodic", "Agreed").await, trio.checks("Compaction", "Agreed").await);
    let compact = pb::CompactionRequest { revision: trio.of(leader).node().reader().revision(), physical: true };
    trio.of(leader).client().call(compact).await.expect("it compacts");
    eventually("all agree once more", async || {
        let now = (trio.checks("Periodic", "Agreed").await, trio.checks("Compaction", "Agreed").await);
        (now.0 > agreed.0 && now.1 > agreed.1).then_some(())
    })
    .await;
    let snapshots = trio.counted("etcd_network_snapshot_send_success", "To").await;
    println!("{written} writes, {round} leaders, {snapshots} snapshots, agreed {agreed:?} since the last starts");
    assert!(snapshots > 0, "nobody needed one");
    for check in ["Periodic", "Compaction"] {
        assert_eq!(trio.checks(check, "Differ").await, 0, "{check}");
    }
    for at in 0..3 {
        assert_eq!(trio.alarms(at).await, []);
    }
    trio.shutdown().await;
}

#[tokio::test]
async fn questions_for_hashes_that_make_no_sense_are_refused() {
    let port = free_port();
    let server = TestServer::with(|config| config.listen_peer_urls = vec![url(port)]).await;
    for _ in 0..3 {
        server.server.client().call(pb::PutRequest { key: "key".into(), ..Default::default() }).await.expect("a put");
    }
    let status = server.server.node().status();
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URL");
    let mut peer = PeerClient::new(endpoint.connect().await.expect("it accepts"));
    let good = HashRequest { cluster_id: status.cluster_id, revision: 3, compact_revision: -1, ..Default::default() };
    let nonsense = [
        (HashRequest { cluster_id: 5, ..good }, Code::FailedPrecondition),
        (HashRequest { revision: 0, ..good }, Code::InvalidArgument),
        (HashRequest { revision: i64::MIN, ..good }, Code::InvalidArgument),
        (HashRequest { compact_revision: -2, ..good }, Code::InvalidArgument),
        (HashRequest { compact_revision: 4, ..good }, Code::InvalidArgument),
    ];
    for (request, code) in nonsense {
        assert_eq!(peer.hash(request).await.expect_err("it makes no sense").code(), code, "{request:?}");
    }
    let mut ask = async |request| peer.hash(request).await.expect("an answer").into_inner();
    let own = MaintenanceClient::new(server.channel().await)
        .hash_kv(pb::HashKvRequest { revision: 3 })
        .await
        .expect("a hash")
        .into_inner();
    let told = ask(good).await;
    assert_eq!((told.member, told.revision, told.compact_revision), (status.member_id, 4, -1));
    assert_eq!(told.hash, Some(own.hash));
    for unknown in [
        HashRequest { revision: i64::MAX, compact_revision: i64::MAX, ..good },
        HashRequest { revision: 9, settled: true, ..good },
        HashRequest { remembered: true, ..good },
    ] {
        assert_eq!(ask(unknown).await.hash, None, "{unknown:?}");
    }
}

#[tokio::test]
async fn processes_find_the_member_that_differs_when_it_starts_and_when_it_runs() {
    const EVERY: &str = "--corrupt-check-time=300ms";
    let places = Places::new("http");
    let [first, second, altered] = places.start(&[EVERY]);
    // A write through it, and so in it.
    altered.put("key", "value").await;
    altered.stop();
    alter(&places.dir(2).join("data"), "key");

    let gate = places.flags(2, &["--feature-gates=InitialCorruptCheck=true"]);
    let gate: Vec<_> = gate.iter().map(String::as_str).collect();
    refused(places.dir(2), &gate).says(&["found data inconsistency with peers", "remove this member"]);
    first.put("other", "value").await;

    let mut altered = places.spawn(2, &[EVERY]);
    altered.serves().expect("without the check it starts");
    let id = altered.maintenance().await.status(pb::StatusRequest {}).await.expect("a status").into_inner();
    let id = id.header.expect("a header").member_id;
    let raised = eventually("the alarm is raised", async || {
        let alarms = altered.maintenance().await.alarm(pb::AlarmRequest::default()).await.ok()?.into_inner().alarms;
        (!alarms.is_empty()).then_some(alarms)
    })
    .await;
    assert_eq!(raised, [pb::AlarmMember { member_id: id, alarm: AlarmType::Corrupt.into() }]);
    is_corrupt(altered.kv().await.range(range(true)).await);
    assert_eq!(second.get("key").await, Some(b"value".to_vec()));
    assert_eq!(ApiError::Corrupt.text(), "etcdserver: corrupt cluster");
}
