//! The Lock service, from outside.

use std::time::Duration;

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{
        self as pb, Compare, compare::CompareTarget, compare::TargetUnion, kv_client::KvClient,
        lease_client::LeaseClient, request_op,
    },
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, lock_client::LockClient},
};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status, transport::Channel};

use super::support::{DEADLINE, TestServer, eventually};

/// What a caller of a lock needs, on a connection of its own.
#[derive(Clone)]
pub struct Caller {
    pub lock: LockClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub kv: KvClient<Channel>,
}

impl Caller {
    pub fn on(channel: Channel) -> Self {
        Self {
            lock: LockClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            kv: KvClient::new(channel),
        }
    }

    pub async fn of(server: &TestServer) -> Self {
        Self::on(server.channel().await)
    }

    pub async fn grant(&mut self, id: i64, ttl: i64) {
        self.lease.lease_grant(pb::LeaseGrantRequest { id, ttl }).await.expect("granted");
    }

    pub async fn lock(&mut self, name: &'static str, lease: i64) -> Result<LockResponse, Status> {
        let call = self.lock.lock(LockRequest { name: name.into(), lease });
        tokio::time::timeout(DEADLINE, call).await.expect("an answer in time").map(tonic::Response::into_inner)
    }

    /// Begins to wait for a lock, and returns when it stands in the queue, of which it is to be the `place`th.
    pub async fn begin(
        &mut self,
        name: &'static str,
        lease: i64,
        place: i64,
    ) -> JoinHandle<Result<LockResponse, Status>> {
        let mut waiting = self.clone();
        let waiting = tokio::spawn(async move { waiting.lock(name, lease).await });
        self.queue_has(name, place).await;
        waiting
    }

    pub async fn unlock(&mut self, key: &Bytes) -> i64 {
        let unlocked = self.lock.unlock(UnlockRequest { key: key.clone() }).await.expect("unlocked").into_inner();
        unlocked.header.expect("a header").revision
    }

    /// A server, and a caller who was granted these leases, of ten minutes.
    async fn with_leases(leases: impl IntoIterator<Item = i64>) -> (TestServer, Self) {
        let server = TestServer::start().await;
        let mut caller = Self::of(&server).await;
        for lease in leases {
            caller.grant(lease, 600).await;
        }
        (server, caller)
    }

    /// Takes a lock that nobody has, and returns its key.
    async fn take(&mut self, name: &'static str, lease: i64) -> Bytes {
        self.lock(name, lease).await.expect("it is free").key
    }

    /// The keys of a queue with their create revisions, oldest first.
    pub async fn queue(&mut self, name: &str) -> Vec<(Bytes, i64)> {
        let (key, range_end) = (format!("{name}/").into(), format!("{name}0").into());
        let found = self.kv.range(pb::RangeRequest { key, range_end, ..Default::default() }).await.expect("a range");
        let mut keys: Vec<_> = found.into_inner().kvs.into_iter().map(|kv| (kv.key, kv.create_revision)).collect();
        keys.sort_by_key(|(_, created)| *created);
        keys
    }

    pub async fn queue_has(&mut self, name: &str, places: i64) {
        eventually("the queue's length", async || (self.queue(name).await.len() as i64 == places).then_some(())).await;
    }
}

/// How a wait for a lock ended.
async fn end_of(waiter: JoinHandle<Result<LockResponse, Status>>) -> Result<LockResponse, Status> {
    waiter.await.expect("it goes on")
}

/// What is told to who waited and has the lock.
async fn locked(waiter: JoinHandle<Result<LockResponse, Status>>) -> LockResponse {
    end_of(waiter).await.expect("it has the lock")
}

pub fn is_unknown(status: &Status, text: &str) -> bool {
    (status.code(), status.message()) == (Code::Unknown, text)
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next_in_the_order_in_which_they_asked() {
    let (server, mut caller) = Caller::with_leases([]).await;
    for lease in [30, 10, 40, 20] {
        caller.grant(lease, 600).await;
    }
    let first = caller.lock("a/lock", 30).await.expect("it is free");
    assert_eq!((first.key.as_ref(), first.header.expect("a header").revision), (&b"a/lock/1e"[..], 2));
    let mut waiting = Vec::new();
    // On connections of their own, the smallest lease not first.
    for (place, lease) in [(2, 10), (3, 40), (4, 20)] {
        waiting.push(Caller::of(&server).await.begin("a/lock", lease, place).await);
    }
    let mut held = first.key;
    for (waiter, key) in waiting.into_iter().zip(["a/lock/a", "a/lock/28", "a/lock/14"]) {
        assert!(!waiter.is_finished(), "{key} has the lock too early");
        let released = caller.unlock(&held).await;
        let answer = locked(waiter).await;
        assert_eq!(answer.key, key);
        assert_eq!(answer.header.expect("a header").revision, released, "as of when it became free");
        held = answer.key;
    }
    caller.unlock(&held).await;
    assert_eq!(caller.queue("a/lock").await, []);
}

#[tokio::test]
async fn the_key_and_its_create_revision_fence_off_those_who_held_the_lock_before() {
    let (_server, mut caller) = Caller::with_leases([1, 2]).await;
    let write = async |caller: &mut Caller, (key, created): &(Bytes, i64), value: &'static str| {
        let held = Compare {
            target: CompareTarget::Create.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::CreateRevision(*created)),
            ..Default::default()
        };
        let put = pb::PutRequest { key: "guarded".into(), value: value.into(), ..Default::default() };
        let success = vec![pb::RequestOp { request: Some(request_op::Request::RequestPut(put)) }];
        let txn = pb::TxnRequest { compare: vec![held], success, failure: vec![] };
        caller.kv.txn(txn).await.expect("an answer").into_inner().succeeded
    };
    caller.take("l", 1).await;
    let first = caller.queue("l").await.remove(0);
    let waiter = caller.begin("l", 2, 2).await;
    assert!(write(&mut caller, &first, "by the first").await);
    // The first one's lease ends, of which it knows nothing.
    caller.lease.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.expect("revoked");
    locked(waiter).await;
    let second = caller.queue("l").await.remove(0);
    assert!(second.1 > first.1, "tokens rise");
    assert!(write(&mut caller, &second, "by the second").await);
    assert!(!write(&mut caller, &first, "too late").await);
    // The same lease may come back: its key is the old one, its token is not.
    caller.unlock(&second.0).await;
    caller.grant(1, 600).await;
    caller.take("l", 1).await;
    let third = caller.queue("l").await.remove(0);
    assert_eq!(third.0, first.0);
    assert!(third.1 > second.1);
    assert!(!write(&mut caller, &first, "much too late").await);
    assert!(write(&mut caller, &third, "by the third").await);
}

#[tokio::test]
async fn who_goes_away_while_waiting_gives_the_place_up() {
    let (server, mut caller) = Caller::with_leases(1..=5).await;
    let held = caller.take("l", 1).await;
    // The call is cancelled.
    let cancelled = caller.begin("l", 2, 2).await;
    // Its connection is lost.
    let mut lost = Caller::of(&server).await;
    let lost_call = lost.begin("l", 3, 3).await;
    let patient = caller.begin("l", 5, 4).await;
    cancelled.abort();
    caller.queue_has("l", 3).await;
    lost_call.abort();
    drop(lost);
    caller.queue_has("l", 2).await;
    // Its time is over.
    let mut hasty = Request::new(LockRequest { name: "l".into(), lease: 4 });
    hasty.set_timeout(Duration::from_millis(300));
    let late = caller.lock.lock(hasty).await.expect_err("it is late");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    caller.queue_has("l", 2).await;
    assert!(!patient.is_finished());
    caller.unlock(&held).await;
    let answer = locked(patient).await;
    assert_eq!(answer.key, "l/5");
    // Leases are not touched by any of this.
    let leases = caller.lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("listed").into_inner().leases;
    assert_eq!(leases.len(), 5);
}

#[tokio::test]
async fn a_place_in_the_middle_of_the_queue_that_is_given_up_wakes_nobody_too_early() {
    let (_server, mut caller) = Caller::with_leases(1..=3).await;
    let held = caller.take("l", 1).await;
    let middle = caller.begin("l", 2, 2).await;
    let last = caller.begin("l", 3, 3).await;
    middle.abort();
    caller.queue_has("l", 2).await;
    // It looks again, and finds the holder before it: whatever it does comes before this answer.
    caller.kv.put(pb::PutRequest { key: "x".into(), ..Default::default() }).await.expect("a put");
    assert!(!last.is_finished());
    caller.unlock(&held).await;
    assert_eq!(locked(last).await.key, "l/3");
}

#[tokio::test]
async fn a_wait_ends_with_the_lease_of_who_waits() {
    let (_server, mut caller) = Caller::with_leases([1, 2]).await;
    caller.take("l", 1).await;
    let waiter = caller.begin("l", 2, 2).await;
    caller.lease.lease_revoke(pb::LeaseRevokeRequest { id: 2 }).await.expect("revoked");
    let ended = end_of(waiter).await.expect_err("it has no place any more");
    assert!(is_unknown(&ended, "mutex: session is expired"), "{ended:?}");
    assert_eq!(caller.queue("l").await.len(), 1, "the holder still holds it");
}

#[tokio::test]
async fn a_lease_that_runs_out_hands_the_lock_on_and_ends_a_wait() {
    let server = TestServer::with(|config| {
        config.heartbeat_interval = Duration::from_millis(10);
        config.election_timeout = Duration::from_millis(100);
    })
    .await;
    let mut caller = Caller::of(&server).await;
    caller.grant(3, 600).await;
    caller.take("held", 3).await;
    // Leases that outlive a slow machine's way into the queue.
    caller.grant(2, 4).await;
    let short = caller.begin("held", 2, 2).await;
    caller.grant(1, 4).await;
    caller.take("l", 1).await;
    let long = caller.begin("l", 3, 2).await;
    let ended = end_of(short).await.expect_err("its lease ran out first");
    assert!(is_unknown(&ended, "mutex: session is expired"), "{ended:?}");
    assert_eq!(caller.queue("held").await.len(), 1, "the holder still holds it");
    assert_eq!(end_of(long).await.expect("the holder's lease ran out").key, "l/3");
}

#[tokio::test]
async fn a_lease_has_one_place_however_often_it_asks() {
    let (_server, mut caller) = Caller::with_leases([1, 2]).await;
    let first = caller.lock("l", 1).await.expect("it is free");
    let again = caller.lock("l", 1).await.expect("it is held already");
    assert_eq!(again.key, first.key);
    assert_eq!(again.header.expect("a header").revision, 2, "nothing was written");
    let waiter = caller.begin("l", 2, 2).await;
    let mut twice = caller.clone();
    let twice = tokio::spawn(async move { twice.lock("l", 2).await });
    caller.unlock(&first.key).await;
    for waiter in [waiter, twice] {
        assert_eq!(locked(waiter).await.key, "l/2");
    }
}

#[tokio::test]
async fn who_asks_again_does_not_lose_the_place_when_the_earlier_call_is_over() {
    let (server, mut caller) = Caller::with_leases([1, 2]).await;
    let over = async |calls: usize| {
        eventually("calls are over", async || {
            let metrics = server.http("GET", "/metrics").await.body;
            let of_lock =
                |line: &&str| line.contains("grpc_method=\"Lock\"") && line.contains("grpc_code=\"Canceled\"");
            let line = metrics.lines().filter(|line| line.starts_with("grpc_server_handled_total")).find(of_lock)?;
            line.ends_with(&format!(" {calls}")).then_some(())
        })
        .await;
    };
    let held = caller.take("l", 1).await;
    let earlier = caller.begin("l", 2, 2).await;
    let mut again = Caller::of(&server).await;
    let again = again.begin("l", 2, 2).await;
    earlier.abort();
    over(1).await;
    caller.queue_has("l", 2).await;
    caller.unlock(&held).await;
    let key = locked(again).await.key;
    assert_eq!(caller.queue("l").await.len(), 1, "and keeps it");
    caller.unlock(&key).await;

    // When all are over, it is given up.
    caller.take("l", 1).await;
    let both = [caller.begin("l", 2, 2).await, Caller::of(&server).await.begin("l", 2, 2).await];
    both[0].abort();
    over(2).await;
    both[1].abort();
    caller.queue_has("l", 1).await;
}

#[tokio::test]
async fn without_a_lease_the_lock_lives_on_one_of_a_minute() {
    let (_server, mut caller) = Caller::with_leases([]).await;
    let key = caller.take("l", 0).await;
    let leases = caller.lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("listed").into_inner().leases;
    let [pb::LeaseStatus { id }] = leases[..] else { panic!("one lease is granted: {leases:?}") };
    assert_eq!(key, format!("l/{id:x}"));
    let about = pb::LeaseTimeToLiveRequest { id, keys: true };
    let lease = caller.lease.lease_time_to_live(about).await.expect("found").into_inner();
    assert_eq!((lease.granted_ttl, lease.keys), (60, vec![key]));
}

#[tokio::test]
async fn what_makes_no_sense_is_told_without_a_code() {
    let (_server, mut caller) = Caller::with_leases([]).await;
    for unknown in [7, -7] {
        let refused = caller.lock("l", unknown).await.expect_err("no such lease");
        assert!(is_unknown(&refused, ApiError::LeaseNotFound.text()), "{refused:?}");
    }
    let refused = caller.lock.unlock(UnlockRequest::default()).await.expect_err("no key");
    assert!(is_unknown(&refused, ApiError::EmptyKey.text()), "{refused:?}");
    assert_eq!(caller.unlock(&"never/locked".into()).await, 1, "it is not locked, then");
    caller.grant(-7, 600).await;
    assert_eq!(caller.lock("", -7).await.expect("a name may be empty").key, "/-7");
    // A key that stands in the queue without being a place of it counts all the same.
    caller.kv.put(pb::PutRequest { key: "l/squatter".into(), ..Default::default() }).await.expect("a put");
    let waiter = caller.begin("l", -7, 2).await;
    caller.unlock(&"l/squatter".into()).await;
    assert_eq!(locked(waiter).await.key, "l/-7");
}

#[tokio::test]
async fn a_full_store_takes_no_locks_but_gives_them_up() {
    let (server, mut caller) = Caller::with_leases([1, 2]).await;
    let held = caller.take("l", 1).await;
    let raise = pb::AlarmRequest { action: 1, member_id: 1, alarm: pb::AlarmType::Nospace.into() };
    server.maintenance().await.alarm(raise).await.expect("raised");
    let full = caller.lock("l", 2).await.expect_err("there is no space");
    assert!(is_unknown(&full, ApiError::NoSpace.text()), "{full:?}");
    caller.unlock(&held).await;
    assert_eq!(caller.queue("l").await, []);
}

#[tokio::test]
async fn history_may_be_compacted_while_somebody_waits() {
    let (_server, mut caller) = Caller::with_leases([1, 2]).await;
    let held = caller.take("l", 1).await;
    let waiter = caller.begin("l", 2, 2).await;
    for _ in 0..20 {
        let put = caller.kv.put(pb::PutRequest { key: "x".into(), ..Default::default() }).await.expect("a put");
        let revision = put.into_inner().header.expect("a header").revision;
        caller.kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compacted");
    }
    assert!(!waiter.is_finished());
    caller.unlock(&held).await;
    assert_eq!(locked(waiter).await.key, "l/2");
}

#[tokio::test]
async fn a_stop_of_the_server_ends_waits() {
    let (server, mut caller) = Caller::with_leases([1, 2]).await;
    caller.take("l", 1).await;
    let waiter = caller.begin("l", 2, 2).await;
    server.server.shutdown().await;
    let ended = end_of(waiter).await.expect_err("the server stops");
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
}

#[tokio::test]
async fn a_program_that_has_the_server_inside_locks_the_same_way() {
    let server = TestServer::start().await;
    let client = server.server.client();
    for id in [1, 2] {
        client.call(pb::LeaseGrantRequest { id, ttl: 600 }).await.expect("granted");
    }
    let held = client.call(LockRequest { name: "l".into(), lease: 1 }).await.expect("it is free").key;
    let mut caller = Caller::of(&server).await;
    {
        let mut given_up = Box::pin(client.call(LockRequest { name: "l".into(), lease: 2 }));
        tokio::select! {
            _ = &mut given_up => panic!("the lock is held"),
            () = caller.queue_has("l", 2) => {}
        }
    }
    caller.queue_has("l", 1).await;
    client.call(UnlockRequest { key: held }).await.expect("unlocked");
    let next = client.call(LockRequest { name: "l".into(), lease: 2 }).await.expect("it is free");
    assert_eq!(next.key, "l/2");
}
