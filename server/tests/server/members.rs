//! Watches, leases, locks and elections on three members: whichever is asked, and whatever becomes of the leader.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, lease_client::LeaseClient, watch_client::WatchClient},
};
use cairn_server::server::Server;
use futures::future::join_all;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{
    cluster::Cluster,
    election::Candidate,
    lease::KeepAlive,
    lock::Caller,
    process::Process,
    support::{DEADLINE, eventually, http},
    trio::Places,
    watch::client::{Watching, Writer, all, create, revision_of, texts},
};

/// Three members, and who of them leads.
struct Members {
    cluster: Cluster,
}

impl Members {
    /// With an election time-out in milliseconds.
    async fn start(election_ms: u64) -> Self {
        let cluster = Cluster::of_three("http", |_, config| {
            config.heartbeat_interval = Duration::from_millis(election_ms / 10);
            config.election_timeout = Duration::from_millis(election_ms);
        })
        .await;
        let members = Self { cluster };
        members.leader().await;
        members
    }

    fn servers(&self) -> &[Server] {
        &self.cluster.servers
    }

    /// The member that all know to lead.
    async fn leader(&self) -> usize {
        eventually("all know one leader", async || {
            let statuses: Vec<_> = self.servers().iter().map(|server| server.node().status()).collect();
            let leader = statuses[0].leader;
            let known = leader != 0 && statuses.iter().all(|status| status.leader == leader);
            known.then(|| statuses.iter().position(|status| status.member_id == leader)).flatten()
        })
        .await
    }

    /// Two members that follow.
    async fn followers(&self) -> [usize; 2] {
        let leader = self.leader().await;
        [(leader + 1) % 3, (leader + 2) % 3]
    }

    /// Has another member lead.
    async fn move_leader(&self, to: usize) {
        let target = self.servers()[to].node().status().member_id;
        eventually("the leader moves", async || {
            let leader = self.leader().await;
            if leader == to {
                return Some(());
            }
            self.servers()[leader].node().membership().transfer_leader(target);
            None
        })
        .await;
    }

    fn caller(&self, at: usize) -> Caller {
        Caller::on(self.servers()[at].channel())
    }

    /// The value of a metric without labels.
    async fn metric(&self, at: usize, name: &str) -> u64 {
        let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let page = http(self.servers()[at].addrs()[0], request).await.body;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing")).parse().expect("a number")
    }

    /// Waits until a member tells that a lease has that little time left.
    async fn falls_to(&self, at: usize, id: i64, seconds: i64) {
        eventually("time passes", async || {
            let left = self.time_to_live(at, id).await.ttl;
            assert_ne!(left, -1, "it ran out");
            (left <= seconds).then_some(())
        })
        .await;
    }

    /// Asks what a lease has left that was given its whole time after `since`, which has to be that time but for what has passed.
    async fn counts_down(&self, at: usize, id: i64, granted: i64, since: Instant) -> pb::LeaseTimeToLiveResponse {
        let asked = Instant::now();
        let found = self.time_to_live(at, id).await;
        // The second that has begun does not count; a follower takes off what its answer took; the leader's clock goes in ticks.
        let gone = since.elapsed() + asked.elapsed() + Duration::from_millis(1_100);
        let owed = granted * 1000 - gone.as_millis() as i64;
        assert!(found.ttl * 1000 >= owed && found.ttl <= granted, "{} of {owed} ms at member {at}", found.ttl * 1000);
        found
    }

    async fn time_to_live(&self, at: usize, id: i64) -> pb::LeaseTimeToLiveResponse {
        let about = pb::LeaseTimeToLiveRequest { id, keys: true };
        self.caller(at).lease.lease_time_to_live(about).await.expect("an answer").into_inner()
    }
}

/// What was told of a lease that was asked for at `asked` is what it was granted, but for the time that the answer took: followers take that off, to the
/// nearest second.
#[track_caller]
fn is_whole(told: i64, granted: i64, asked: Instant) {
    let latency = (asked.elapsed() + Duration::from_millis(500)).as_secs() as i64;
    assert!(((granted - latency).max(1)..=granted).contains(&told), "{told} seconds of {granted}, {latency} later");
}

/// Renews a lease for as long as it was granted, and gives what it is told.
async fn renew(stream: &mut KeepAlive, id: i64, granted: i64) -> i64 {
    let asked = Instant::now();
    let told = stream.renew(id).await;
    is_whole(told, granted, asked);
    told
}

#[tokio::test]
async fn every_member_answers_for_leases() {
    let members = Members::start(1000).await;
    let [one, other] = members.followers().await;
    let leader = members.leader().await;
    for (at, id, ttl) in [(one, 1, 300), (leader, 2, 100), (other, 3, 200)] {
        members.caller(at).grant(id, ttl).await;
    }
    let put = pb::PutRequest { key: "k".into(), lease: 3, ..Default::default() };
    members.caller(leader).kv.put(put).await.expect("a put");
    for at in [one, other, leader] {
        let mut caller = members.caller(at);
        let listed = caller.lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("listed").into_inner();
        assert_eq!(listed.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [2, 3, 1], "of member {at}");
        assert!(listed.header.expect("a header").revision >= 2);
        let mut stream = KeepAlive::open(&mut caller.lease).await;
        renew(&mut stream, 1, 300).await;
        assert_eq!(stream.renew(9).await, 0);
        let renewed = Instant::now();
        renew(&mut stream, 3, 200).await;
        let found = members.counts_down(at, 3, 200, renewed).await;
        assert_eq!((found.granted_ttl, found.keys), (200, vec![Bytes::from("k")]), "as it was acknowledged elsewhere");
        let unknown = members.time_to_live(at, 9).await;
        assert_eq!((unknown.ttl, unknown.granted_ttl), (-1, 0));
    }
    members.cluster.shutdown().await;
}

#[tokio::test]
async fn a_lease_revoked_at_any_member_is_renewed_by_none() {
    let members = Members::start(1000).await;
    let mut streams = Vec::new();
    for at in 0..3 {
        streams.push(KeepAlive::open(&mut members.caller(at).lease).await);
    }
    for round in 0..30 {
        let (granting, revoking) = (round % 3, (round / 3) % 3);
        members.caller(granting).grant(7, 600).await;
        for stream in &mut streams {
            renew(stream, 7, 600).await;
        }
        let revoke = pb::LeaseRevokeRequest { id: 7 };
        members.caller(revoking).lease.lease_revoke(revoke).await.expect("revoked");
        for stream in &mut streams {
            assert_eq!(stream.renew(7).await, 0, "round {round}");
        }
    }
    members.cluster.shutdown().await;
}

#[tokio::test]
async fn keep_alives_through_a_follower_go_on_when_the_leader_changes() {
    const TTL: i64 = 6;
    let members = Members::start(500).await;
    let [at, next] = members.followers().await;
    let first = members.leader().await;
    members.caller(at).grant(1, TTL).await;
    let put = pb::PutRequest { key: "k".into(), lease: 1, ..Default::default() };
    members.caller(at).kv.put(put).await.expect("a put");
    let mut stream = KeepAlive::open(&mut members.caller(at).lease).await;
    // For longer than the lease lives, the leader moves to and fro.
    let until = Instant::now() + Duration::from_secs(8);
    for leader in [next, first].into_iter().cycle().take_while(|_| Instant::now() < until) {
        members.move_leader(leader).await;
        for _ in 0..5 {
            renew(&mut stream, 1, TTL).await;
        }
    }
    // To the member itself, and away again.
    for leader in [at, next] {
        members.move_leader(leader).await;
        renew(&mut stream, 1, TTL).await;
    }
    assert_eq!(members.time_to_live(first, 1).await.keys, ["k"]);
    // Every new leader gives it its whole time: only when some of that is over a renewal shows.
    members.falls_to(at, 1, TTL - 3).await;
    let last = Instant::now();
    let told = renew(&mut stream, 1, TTL).await;
    eventually("the lease runs out", async || {
        let left = members.time_to_live(at, 1).await.ttl;
        (left == -1).then_some(())
    })
    .await;
    assert!(last.elapsed().as_secs() as i64 >= told - 1, "it lived for {:?}, {told} seconds were told", last.elapsed());
    assert_eq!(stream.renew(1).await, 0);
    members.cluster.shutdown().await;
}

#[tokio::test]
async fn a_new_leader_gives_a_lease_its_whole_time_again() {
    const TTL: i64 = 60;
    let members = Members::start(500).await;
    members.caller(0).grant(1, TTL).await;
    for _ in 0..3 {
        let [at, next] = members.followers().await;
        members.falls_to(at, 1, TTL - 4).await;
        let moved = Instant::now();
        members.move_leader(next).await;
        for member in 0..3 {
            members.counts_down(member, 1, TTL, moved).await;
        }
    }
    members.cluster.shutdown().await;
}

#[tokio::test]
async fn a_lease_that_runs_out_is_told_so_through_a_follower() {
    let members = Members::start(300).await;
    let [at, _] = members.followers().await;
    let mut asked = Instant::now();
    members.caller(at).grant(1, 2).await;
    let mut stream = KeepAlive::open(&mut members.caller(at).lease).await;
    // Ever longer pauses: at some time one is too long, and the answer may meet the revoke on its way.
    let mut pause = Duration::from_millis(1_700);
    loop {
        tokio::time::sleep(pause).await;
        let before = std::mem::replace(&mut asked, Instant::now());
        if stream.renew(1).await == 0 {
            assert!(before.elapsed() >= Duration::from_secs(2), "{:?} after a renewal", before.elapsed());
            break;
        }
        pause += Duration::from_millis(60);
    }
    assert_eq!(stream.renew(1).await, 0);
    members.cluster.shutdown().await;
}

#[tokio::test]
async fn many_keep_alives_of_a_follower_share_the_leaders_rounds() {
    let members = Members::start(1000).await;
    let [at, _] = members.followers().await;
    let mut caller = members.caller(at);
    let ids: Vec<i64> = (1..=300).collect();
    for id in &ids {
        caller.grant(*id, 600).await;
    }
    let before = members.metric(at, "cairn_peer_lease_rounds_total").await;
    let asked = Instant::now();
    let streams = ids.chunks(10).map(|ids| {
        let (mut client, ids) = (caller.lease.clone(), ids.to_vec());
        tokio::spawn(async move {
            let requests = ids.iter().cycle().take(ids.len() * 10).map(|id| pb::LeaseKeepAliveRequest { id: *id });
            let requests: Vec<_> = requests.collect();
            let mut answers =
                client.lease_keep_alive(tokio_stream::iter(requests)).await.expect("it opens").into_inner();
            let mut ttls = Vec::new();
            while let Some(answer) = answers.message().await.expect("the stream goes on") {
                ttls.push((answer.id, answer.ttl));
            }
            let expected: Vec<_> = ids.iter().cycle().take(ids.len() * 10).copied().collect();
            assert_eq!(ttls.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected, "each is answered, in order");
            for (_, ttl) in ttls {
                is_whole(ttl, 600, asked);
            }
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        timeout(DEADLINE, stream).await.expect("in time").expect("it goes well");
    }
    let rounds = members.metric(at, "cairn_peer_lease_rounds_total").await - before;
    println!("3000 keep-alives took {rounds} rounds");
    assert!((1..=1_000).contains(&rounds), "3000 keep-alives took {rounds} rounds");
    members.cluster.shutdown().await;
}

#[tokio::test]
async fn without_a_majority_nobody_answers_for_leases() {
    let members = Members::start(300).await;
    members.caller(0).grant(1, 600).await;
    let [at, other] = members.followers().await;
    let leader = members.leader().await;
    let mut lease = members.caller(at).lease;
    let mut stream = KeepAlive::open(&mut lease).await;
    renew(&mut stream, 1, 600).await;
    let Cluster { servers, .. } = members.cluster;
    let mut servers: Vec<_> = servers.into_iter().map(Some).collect();
    for gone in [other, leader] {
        let server = servers[gone].take().expect("it is there");
        server.shutdown().await;
    }
    let left = servers[at].take().expect("it is there");
    let asked = Instant::now();
    let mut second = lease.clone();
    let told = tokio::join!(
        stream.try_renew(1),
        lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 1, keys: false }),
        second.lease_leases(pb::LeaseLeasesRequest {}),
    );
    let refusals = [told.0.map(drop), told.1.map(drop), told.2.map(drop)];
    for refusal in refusals.map(|told| told.expect_err("nobody knows")) {
        assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
        let known = [ApiError::NoLeader, ApiError::Timeout, ApiError::TimeoutLeaderFailure];
        assert!(known.iter().any(|error| error.text() == refusal.message()), "{refusal:?}");
    }
    // A request may take five seconds and two elections.
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    left.shutdown().await;
}

/// A request that is rather ended than left without a leader.
fn wanting<T>(stream: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(stream);
    request.metadata_mut().insert("hasleader", "true".parse().expect("a metadata value"));
    request
}

#[tokio::test]
async fn streams_that_want_a_leader_end_without_one_and_the_others_stay() {
    let members = Members::start(300).await;
    let [at, other] = members.followers().await;
    let leader = members.leader().await;
    let channel = members.servers()[at].channel();
    let mut watch = WatchClient::new(channel.clone());
    let mut watching =
        watch.watch(wanting(ReceiverStream::new(mpsc::channel(1).1))).await.expect("it opens").into_inner();
    let (_requests, open) = mpsc::channel(1);
    let mut lease = LeaseClient::new(channel.clone());
    let kept = wanting(ReceiverStream::new(open));
    let mut kept = lease.lease_keep_alive(kept).await.expect("it opens").into_inner();
    let mut patient = Watching::on(channel).await;
    patient.create(create("k", "")).await;

    let Cluster { servers, .. } = members.cluster;
    let mut servers: Vec<_> = servers.into_iter().map(Some).collect();
    for gone in [other, leader] {
        servers[gone].take().expect("it is there").shutdown().await;
    }
    let ended = timeout(DEADLINE, watching.message()).await.expect("it ends in time").expect_err("there is no leader");
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, ApiError::NoLeader.text()));
    let ended = timeout(DEADLINE, kept.message()).await.expect("it ends in time").expect_err("there is no leader");
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, ApiError::NoLeader.text()));
    patient.is_silent().await;
    servers[at].take().expect("it is there").shutdown().await;
}

#[tokio::test]
async fn watchers_on_every_member_are_told_the_same_while_the_leader_changes() {
    let members = Members::start(500).await;
    let mut watching = Vec::new();
    for server in members.servers() {
        let mut on = Watching::on(server.channel()).await;
        on.create(all(1)).await;
        watching.push(on);
    }
    let mut last = 0;
    for round in 0..6 {
        let mut writer = Writer::on(members.servers()[round % 3].channel());
        for number in 0..20 {
            last = writer.put(&format!("k{}", number % 7), format!("{round}")).await;
        }
        last = writer.delete("k1", "k3").await.max(last);
        let [next, _] = members.followers().await;
        members.move_leader(next).await;
    }
    let mut told = Vec::new();
    for on in &mut watching {
        let mut events = Vec::new();
        while events.last().map_or(0, revision_of) < last {
            events.extend(on.next().await.events);
        }
        let mut revisions: Vec<_> = events.iter().map(revision_of).collect();
        revisions.dedup();
        assert_eq!(revisions, (2..=last).collect::<Vec<_>>());
        told.push(texts(&events));
    }
    assert!(told.iter().all(|by| *by == told[0]), "the members tell different things: {told:?}");
    members.cluster.shutdown().await;
}

/// A member's own id, and that of the leader it knows.
async fn ids_of(member: &Process) -> (u64, u64) {
    let status = member.maintenance().await.status(pb::StatusRequest {}).await.expect("a status").into_inner();
    (status.header.expect("a header").member_id, status.leader)
}

/// The member that all know to lead, and its id.
async fn leader_of(members: &[Process]) -> (usize, u64) {
    eventually("all know one leader", async || {
        let ids = join_all(members.iter().map(ids_of)).await;
        let leader = ids[0].1;
        let at = ids.iter().position(|(own, _)| *own == leader)?;
        ids.iter().all(|(_, known)| *known == leader).then_some((at, leader))
    })
    .await
}

#[tokio::test]
async fn a_leader_that_was_paused_renews_nothing_that_was_revoked_meanwhile() {
    let places = Places::new("http");
    let members = places.start(&[]);
    let mut callers = Vec::new();
    for member in &members {
        callers.push(Caller::on(member.channel().await));
    }
    for round in 0..3 {
        callers[0].grant(7, 600).await;
        callers[0].grant(8, 600).await;
        let (paused, leader) = leader_of(&members).await;
        let mut stream = KeepAlive::open(&mut callers[paused].lease).await;
        renew(&mut stream, 7, 600).await;
        renew(&mut stream, 8, 600).await;
        members[paused].pause();
        // While it knows nothing of it, others elect a leader that ends one of the leases.
        let other = (paused + 1) % 3;
        eventually("another one leads", async || {
            let (_, now) = ids_of(&members[other]).await;
            (now != 0 && now != leader).then_some(())
        })
        .await;
        callers[other].lease.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await.expect("revoked");
        // Asked while it sleeps, it answers as soon as it wakes up.
        let mut asking = tokio::spawn(async move { (stream.try_renew(7).await, stream) });
        timeout(Duration::from_millis(200), &mut asking).await.expect_err("it sleeps");
        members[paused].resume();
        let (told, mut stream) = timeout(DEADLINE, asking).await.expect("in time").expect("it goes on");
        assert_eq!(told.expect("an answer"), 0, "round {round}: it was revoked");
        renew(&mut stream, 8, 600).await;
        callers[other].lease.lease_revoke(pb::LeaseRevokeRequest { id: 8 }).await.expect("revoked");
    }
}

#[tokio::test]
async fn a_lock_is_handed_on_over_all_members_while_the_leader_changes() {
    let members = Members::start(500).await;
    for lease in 1..=6 {
        members.caller(lease as usize % 3).grant(lease, 600).await;
    }
    let mut held = members.caller(1).lock("l", 1).await.expect("it is free").key;
    let mut waiting = Vec::new();
    for lease in 2..=6 {
        waiting.push(members.caller(lease as usize % 3).begin("l", lease, lease).await);
    }
    for (waiter, lease) in waiting.into_iter().zip(2..) {
        members.move_leader(lease as usize % 3).await;
        assert!(!waiter.is_finished(), "the {lease}th is too early");
        members.caller((lease as usize + 1) % 3).unlock(&held).await;
        let answer = waiter.await.expect("it goes on").expect("it has the lock");
        assert_eq!(answer.key, format!("l/{lease}"));
        held = answer.key;
    }
    assert_eq!(members.caller(0).queue("l").await.len(), 1);
    members.cluster.shutdown().await;
}

#[tokio::test]
async fn of_many_clients_at_all_members_only_one_has_the_lock_at_a_time() {
    const CLIENTS: i64 = 12;
    const ROUNDS: usize = 8;
    let members = Members::start(500).await;
    let holder = Arc::new(AtomicI64::new(0));
    let mut clients = Vec::new();
    for client in 1..=CLIENTS {
        let mut caller = members.caller(client as usize % 3);
        caller.grant(client, 600).await;
        let holder = holder.clone();
        clients.push(tokio::spawn(async move {
            let mut tokens = Vec::new();
            while tokens.len() < ROUNDS {
                // Now and then somebody loses patience.
                let patience = Duration::from_millis(rand::random_range(20..2_000));
                let Ok(locked) = timeout(patience, caller.lock("l", client)).await else { continue };
                let key = locked.expect("it has the lock").key;
                assert_eq!(holder.swap(client, Ordering::SeqCst), 0, "somebody else has it");
                let places = caller.queue("l").await;
                assert_eq!(places[0].0, key, "it is not the first");
                tokens.push(places[0].1);
                assert_eq!(holder.swap(0, Ordering::SeqCst), client, "somebody else had it");
                caller.unlock(&key).await;
            }
            tokens
        }));
    }
    while clients.iter().any(|client| !client.is_finished()) {
        let [next, _] = members.followers().await;
        members.move_leader(next).await;
    }
    let mut tokens = Vec::new();
    for client in clients {
        let own = client.await.expect("it goes on");
        assert!(own.is_sorted(), "tokens rise: {own:?}");
        tokens.extend(own);
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), ROUNDS * CLIENTS as usize, "no token is given twice");
    eventually("nobody is left in the queue", async || members.caller(0).queue("l").await.is_empty().then_some(()))
        .await;
    members.cluster.shutdown().await;
}

#[tokio::test]
async fn an_election_is_observed_on_all_members_while_the_leader_changes() {
    let members = Members::start(500).await;
    let candidate = |at: usize| Candidate::on(members.servers()[at].channel());
    for lease in 1..=4 {
        candidate(0).caller.grant(lease, 600).await;
    }
    let mut observers = Vec::new();
    for at in 0..3 {
        observers.push(candidate(at).observe("office").await);
    }
    for (lease, value) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        let at = lease as usize % 3;
        let leader = candidate(at).win("office", lease, value).await;
        for observer in &mut observers {
            assert_eq!(observer.next().await, value);
        }
        let [next, _] = members.followers().await;
        members.move_leader(next).await;
        assert_eq!(candidate((at + 1) % 3).leader("office").await.expect("it leads"), value);
        candidate((at + 2) % 3).resign(&leader).await;
    }
    members.cluster.shutdown().await;
}
