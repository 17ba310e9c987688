//! The Election service, from outside.

use bytes::Bytes;
use cairn_proto::{
    ApiError, etcdserverpb as pb,
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
};
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    lock::{Caller, is_unknown},
    support::{DEADLINE, TestServer},
};

/// Somebody who takes part in elections.
#[derive(Clone)]
pub struct Candidate {
    pub election: ElectionClient<Channel>,
    pub caller: Caller,
}

impl Candidate {
    pub fn on(channel: Channel) -> Self {
        Self { election: ElectionClient::new(channel.clone()), caller: Caller::on(channel) }
    }

    /// With leases 1 to 5.
    async fn of(server: &TestServer) -> Self {
        let mut candidate = Self::on(server.channel().await);
        for id in 1..=5 {
            candidate.caller.grant(id, 600).await;
        }
        candidate
    }

    pub async fn campaign(
        &mut self,
        name: &'static str,
        lease: i64,
        value: &'static str,
    ) -> Result<CampaignResponse, Status> {
        let call = self.election.campaign(CampaignRequest { name: name.into(), lease, value: value.into() });
        tokio::time::timeout(DEADLINE, call).await.expect("an answer in time").map(tonic::Response::into_inner)
    }

    /// Wins at once.
    pub async fn win(&mut self, name: &'static str, lease: i64, value: &'static str) -> LeaderKey {
        self.campaign(name, lease, value).await.expect("nobody else stands").leader.expect("a proof of leadership")
    }

    /// Begins to stand, as the `place`th.
    pub async fn begin(
        &mut self,
        name: &'static str,
        lease: i64,
        value: &'static str,
        place: i64,
    ) -> JoinHandle<Result<CampaignResponse, Status>> {
        let mut waiting = self.clone();
        let waiting = tokio::spawn(async move { waiting.campaign(name, lease, value).await });
        self.caller.queue_has(name, place).await;
        waiting
    }

    pub async fn proclaim(&mut self, leader: &LeaderKey, value: &'static str) -> Result<i64, Status> {
        let request = ProclaimRequest { leader: Some(leader.clone()), value: value.into() };
        Ok(self.election.proclaim(request).await?.into_inner().header.expect("a header").revision)
    }

    pub async fn resign(&mut self, leader: &LeaderKey) -> i64 {
        let resigned = self.election.resign(ResignRequest { leader: Some(leader.clone()) }).await;
        resigned.expect("an answer").into_inner().header.expect("a header").revision
    }

    pub async fn leader(&mut self, name: &'static str) -> Result<String, Status> {
        let found = self.election.leader(LeaderRequest { name: name.into() }).await?.into_inner();
        Ok(value_of(&found))
    }

    pub async fn observe(&mut self, name: &'static str) -> Observed {
        let told = self.election.observe(LeaderRequest { name: name.into() }).await.expect("the stream opens");
        Observed(told.into_inner())
    }
}

/// What an observer is told.
pub struct Observed(Streaming<LeaderResponse>);

impl Observed {
    pub async fn try_next(&mut self) -> Result<LeaderResponse, Status> {
        let told = tokio::time::timeout(DEADLINE, self.0.message()).await.expect("something is told in time");
        told.map(|told| told.expect("it does not end"))
    }

    pub async fn next(&mut self) -> String {
        value_of(&self.try_next().await.expect("the stream goes on"))
    }
}

fn value_of(told: &LeaderResponse) -> String {
    String::from_utf8_lossy(&told.kv.as_ref().expect("a key").value).into_owned()
}

#[tokio::test]
async fn leadership_goes_from_one_to_the_next_in_the_order_in_which_they_stood() {
    let server = TestServer::start().await;
    let mut candidate = Candidate::of(&server).await;
    let first = candidate.win("office", 3, "three").await;
    let expected = LeaderKey { name: "office".into(), key: "office/3".into(), rev: 2, lease: 3 };
    assert_eq!(first, expected);
    let second = candidate.begin("office", 1, "one", 2).await;
    let third = Candidate::on(server.channel().await).begin("office", 2, "two", 3).await;
    assert_eq!(candidate.leader("office").await.expect("there is one"), "three");
    assert!(!second.is_finished() && !third.is_finished());
    candidate.resign(&first).await;
    let won = second.await.expect("it goes on").expect("it leads");
    assert_eq!(won.header.expect("a header").revision, 3, "as of when it stood");
    let second = won.leader.expect("a proof of leadership");
    assert_eq!((second.key.as_ref(), second.rev), (&b"office/1"[..], 3));
    assert_eq!(candidate.leader("office").await.expect("there is one"), "one");
    assert!(!third.is_finished());
    candidate.caller.lease.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.expect("revoked");
    third.await.expect("it goes on").expect("it leads");
    assert_eq!(candidate.leader("office").await.expect("there is one"), "two");
}

#[tokio::test]
async fn only_the_leader_proclaims() {
    let server = TestServer::start().await;
    let mut candidate = Candidate::of(&server).await;
    let leader = candidate.win("office", 1, "a").await;
    assert_eq!(candidate.proclaim(&leader, "b").await.expect("it leads"), 3);
    assert_eq!(candidate.leader("office").await.expect("there is one"), "b");
    // Standing again changes the value too.
    assert_eq!(candidate.win("office", 1, "c").await, leader);
    assert_eq!(candidate.leader("office").await.expect("there is one"), "c");
    let stale = LeaderKey { rev: leader.rev + 1, ..leader.clone() };
    let refused = candidate.proclaim(&stale, "d").await.expect_err("it does not lead");
    assert!(is_unknown(&refused, "election: not leader"), "{refused:?}");
    candidate.resign(&leader).await;
    let refused = candidate.proclaim(&leader, "d").await.expect_err("it leads no more");
    assert!(is_unknown(&refused, "election: not leader"), "{refused:?}");
    let refused = candidate.leader("office").await.expect_err("nobody leads");
    assert!(is_unknown(&refused, "election: no leader"), "{refused:?}");
}

#[tokio::test]
async fn a_stale_resign_is_answered_and_changes_nothing() {
    let server = TestServer::start().await;
    let mut candidate = Candidate::of(&server).await;
    let first = candidate.win("office", 1, "a").await;
    assert_eq!(candidate.resign(&first).await, 3);
    assert_eq!(candidate.resign(&first).await, 3, "it resigned before");
    let again = candidate.win("office", 1, "b").await;
    assert_eq!(again.key, first.key);
    assert_eq!(candidate.resign(&first).await, again.rev, "of an earlier time");
    assert_eq!(candidate.leader("office").await.expect("there is one"), "b");
}

#[tokio::test]
async fn what_makes_no_sense_is_told_without_a_code() {
    let server = TestServer::start().await;
    let mut candidate = Candidate::of(&server).await;
    let missing = "\"leader\" field must be provided";
    let refused = candidate.election.proclaim(ProclaimRequest::default()).await.expect_err("nothing named");
    assert!(is_unknown(&refused, missing), "{refused:?}");
    let refused = candidate.election.resign(ResignRequest::default()).await.expect_err("nothing named");
    assert!(is_unknown(&refused, missing), "{refused:?}");
    let refused = candidate.campaign("office", 99, "a").await.expect_err("no such lease");
    assert!(is_unknown(&refused, ApiError::LeaseNotFound.text()), "{refused:?}");
    let nobody = candidate.leader("nowhere").await.expect_err("nobody leads");
    assert!(is_unknown(&nobody, "election: no leader"), "{nobody:?}");
    let empty = LeaderKey::default();
    let refused = candidate.proclaim(&empty, "a").await.expect_err("no key");
    assert!(is_unknown(&refused, ApiError::EmptyKey.text()), "{refused:?}");
}

#[tokio::test]
async fn who_goes_away_while_standing_or_loses_its_lease_stands_no_more() {
    let server = TestServer::start().await;
    let mut candidate = Candidate::of(&server).await;
    let leader = candidate.win("office", 1, "a").await;
    let gone = Candidate::on(server.channel().await).begin("office", 2, "b", 2).await;
    let lost = candidate.begin("office", 3, "c", 3).await;
    let last = candidate.begin("office", 4, "d", 4).await;
    gone.abort();
    candidate.caller.queue_has("office", 3).await;
    candidate.caller.lease.lease_revoke(pb::LeaseRevokeRequest { id: 3 }).await.expect("revoked");
    let ended = lost.await.expect("it goes on").expect_err("it stands no more");
    assert!(is_unknown(&ended, "election: not leader"), "{ended:?}");
    assert!(!last.is_finished());
    candidate.resign(&leader).await;
    last.await.expect("it goes on").expect("it leads");
}

#[tokio::test]
async fn an_observer_is_told_of_every_leader_and_its_values() {
    let server = TestServer::start().await;
    let mut candidate = Candidate::of(&server).await;
    let mut early = candidate.observe("office").await;
    let first = candidate.win("office", 1, "a").await;
    assert_eq!(early.next().await, "a");
    let mut late = candidate.observe("office").await;
    assert_eq!(late.next().await, "a");
    candidate.proclaim(&first, "b").await.expect("it leads");
    let second = candidate.begin("office", 2, "c", 2).await;
    for observer in [&mut early, &mut late] {
        let told = observer.try_next().await.expect("the stream goes on");
        assert_eq!((value_of(&told).as_str(), told.header.expect("a header").revision), ("b", 3));
    }
    candidate.resign(&first).await;
    let second = second.await.expect("it goes on").expect("it leads").leader.expect("a proof of leadership");
    for observer in [&mut early, &mut late] {
        assert_eq!(observer.next().await, "c");
    }
    candidate.resign(&second).await;
    candidate.win("office", 3, "d").await;
    for observer in [&mut early, &mut late] {
        assert_eq!(observer.next().await, "d");
    }
    let stopped = tokio::join!(server.server.shutdown(), early.try_next()).1.expect_err("the server stops");
    assert_eq!(stopped.code(), Code::Unavailable, "{stopped:?}");
}

#[tokio::test]
async fn an_observer_goes_on_when_history_is_compacted() {
    let server = TestServer::start().await;
    let mut candidate = Candidate::of(&server).await;
    let mut observer = candidate.observe("office").await;
    let mut leader = candidate.win("office", 1, "0").await;
    assert_eq!(observer.next().await, "0");
    for value in ["1", "2", "3", "4"] {
        let revision = candidate.resign(&leader).await;
        candidate.caller.kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compacted");
        leader = candidate.win("office", 1, value).await;
        assert_eq!(observer.next().await, value);
    }
}

#[tokio::test]
async fn an_observer_whose_leader_is_gone_long_since_is_told_of_the_present_one() {
    let server = TestServer::start().await;
    let mut candidate = Candidate::of(&server).await;
    let leader = candidate.win("office", 1, "a").await;
    let mut observer = candidate.observe("office").await;
    assert_eq!(observer.next().await, "a");
    // More than a stream holds for somebody who does not read.
    for _ in 0..200 {
        let put = pb::PutRequest {
            key: leader.key.clone(),
            value: Bytes::from(vec![b'x'; 16 << 10]),
            lease: 1,
            ..Default::default()
        };
        candidate.caller.kv.put(put).await.expect("a put");
    }
    candidate.resign(&leader).await;
    candidate.win("office", 2, "b").await;
    let mut seen = 0;
    while observer.next().await != "b" {
        seen += 1;
    }
    assert!(seen <= 200, "{seen} values of a leader that proclaimed 200");
}
