//! The Lock and Election services, each call once of a genuine etcd and once of Cairn: answers and refusals are the same after the ids are set aside that a
//! server chooses.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use cairn_jepsen::process::{self, Member};
use cairn_proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseRevokeRequest, RangeRequest, ResponseHeader, kv_client::KvClient,
        lease_client::LeaseClient,
    },
    v3electionpb::{
        CampaignRequest, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tonic::{Response, Status, Streaming, transport::Channel};

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A server, and what it said.
struct Session {
    _member: Member,
    _directory: TempDir,
    channel: Channel,
    transcript: Vec<String>,
}

/// An answer that has a header.
trait Headed: std::fmt::Debug {
    fn header(&mut self) -> &mut Option<ResponseHeader>;
}

macro_rules! headed {
    ($($answer:ty),+) => { $(impl Headed for $answer {
        fn header(&mut self) -> &mut Option<ResponseHeader> {
            &mut self.header
        }
    })+ };
}

headed!(
    cairn_proto::v3lockpb::LockResponse,
    cairn_proto::v3lockpb::UnlockResponse,
    cairn_proto::v3electionpb::CampaignResponse,
    cairn_proto::v3electionpb::ProclaimResponse,
    cairn_proto::v3electionpb::ResignResponse,
    LeaderResponse
);

/// An answer as text, without what a server chooses.
fn said<A: Headed>(answer: Result<Response<A>, Status>) -> String {
    match answer {
        Ok(answer) => told(answer.into_inner()),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn told(mut answer: impl Headed) -> String {
    if let Some(header) = answer.header() {
        *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
    }
    format!("{answer:?}")
}

impl Session {
    /// With leases 1 to 9 and a tenth with a negative id.
    async fn with(binary: &std::path::Path) -> Result<Self> {
        let directory = TempDir::new()?;
        let mut member = Member::new(binary, directory.path(), &["--log-level", "error"])?;
        let channel = member.start().await?;
        let mut lease = LeaseClient::new(channel.clone());
        for id in (1..10).chain([-10]) {
            lease.lease_grant(LeaseGrantRequest { id, ttl: 600 }).await?;
        }
        Ok(Self { _member: member, _directory: directory, channel, transcript: Vec::new() })
    }

    fn note(&mut self, what: impl std::fmt::Display, answer: &str) {
        self.transcript.push(format!("{what}: {answer}"));
    }

    async fn lock(&mut self, name: &'static str, lease: i64) -> Result<()> {
        let waiting = self.begin_lock(name, lease);
        self.end(format!("lock {name} {lease}"), waiting).await
    }

    fn begin_lock(&self, name: &'static str, lease: i64) -> JoinHandle<String> {
        let mut lock = LockClient::new(self.channel.clone());
        tokio::spawn(async move { said(lock.lock(LockRequest { name: name.into(), lease }).await) })
    }

    async fn unlock(&mut self, key: &'static str) {
        let answer = LockClient::new(self.channel.clone()).unlock(UnlockRequest { key: key.into() }).await;
        self.note(format!("unlock {key}"), &said(answer));
    }

    fn begin_campaign(&self, name: &'static str, lease: i64, value: &'static str) -> JoinHandle<String> {
        let mut election = ElectionClient::new(self.channel.clone());
        let request = CampaignRequest { name: name.into(), lease, value: value.into() };
        tokio::spawn(async move { said(election.campaign(request).await) })
    }

    async fn campaign(&mut self, name: &'static str, lease: i64, value: &'static str) -> Result<()> {
        let waiting = self.begin_campaign(name, lease, value);
        self.end(format!("campaign {name} {lease} {value}"), waiting).await
    }

    async fn proclaim(&mut self, leader: impl Into<Option<LeaderKey>>, value: &'static str) {
        let leader = leader.into();
        let what = format!("proclaim {leader:?} {value}");
        let request = ProclaimRequest { leader, value: value.into() };
        self.note(what, &said(ElectionClient::new(self.channel.clone()).proclaim(request).await));
    }

    async fn resign(&mut self, leader: impl Into<Option<LeaderKey>>) {
        let leader = leader.into();
        let what = format!("resign {leader:?}");
        self.note(what, &said(ElectionClient::new(self.channel.clone()).resign(ResignRequest { leader }).await));
    }

    async fn leader(&mut self, name: &'static str) {
        let answer = ElectionClient::new(self.channel.clone()).leader(LeaderRequest { name: name.into() }).await;
        self.note(format!("leader {name}"), &said(answer));
    }

    fn observe(&self, name: &'static str) -> Observer {
        let mut election = ElectionClient::new(self.channel.clone());
        let opening =
            async move { election.observe(LeaderRequest { name: name.into() }).await.map(Response::into_inner) };
        Observer::Opening(tokio::spawn(opening))
    }

    async fn observed(&mut self, observer: &mut Observer) -> Result<()> {
        let next = timeout(DEADLINE, observer.next()).await.context("nothing was told")??;
        self.note("observed", &told(next));
        Ok(())
    }

    async fn revoke(&mut self, id: i64) -> Result<()> {
        LeaseClient::new(self.channel.clone()).lease_revoke(LeaseRevokeRequest { id }).await?;
        Ok(())
    }

    /// Waits until so many stand in a queue.
    async fn queue_has(&mut self, name: &str, places: usize) -> Result<()> {
        let mut kv = KvClient::new(self.channel.clone());
        let (key, range_end) = (format!("{name}/").into(), format!("{name}0").into());
        let all = RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() };
        let deadline = Instant::now() + DEADLINE;
        while kv.range(all.clone()).await?.into_inner().count != places as i64 {
            ensure!(Instant::now() < deadline, "{name} never had {places} places");
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits for a call's answer.
    async fn end(&mut self, what: String, waiting: JoinHandle<String>) -> Result<()> {
        let answer = timeout(DEADLINE, waiting).await.with_context(|| format!("{what} is not answered"))??;
        self.note(what, &answer);
        Ok(())
    }
}

/// An observer's stream. A genuine etcd opens it when there is something to tell.
enum Observer {
    Opening(JoinHandle<Result<Streaming<LeaderResponse>, Status>>),
    Open(Box<Streaming<LeaderResponse>>),
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse> {
        if let Self::Opening(opening) = self {
            *self = Self::Open(Box::new(opening.await??));
        }
        let Self::Open(stream) = self else { bail!("the stream is not open") };
        stream.message().await?.context("the stream ended")
    }
}

fn leader_key(name: &'static str, key: &'static str, rev: i64, lease: i64) -> LeaderKey {
    LeaderKey { name: name.into(), key: key.into(), rev, lease }
}

/// Has a session with both servers and compares the transcripts.
async fn compare<F: Future<Output = Result<Session>>>(session: impl Fn(Session) -> F) -> Result<()> {
    let mut transcripts = Vec::new();
    for binary in [process::etcd_binary()?, process::cairn_binary()?] {
        let ended = session(Session::with(&binary).await?).await.with_context(|| format!("{}", binary.display()))?;
        transcripts.push(ended.transcript.join("\n"));
    }
    ensure!(transcripts[0] == transcripts[1], "with etcd:\n{}\n\nwith Cairn:\n{}", transcripts[0], transcripts[1]);
    println!("{}", transcripts[1]);
    Ok(())
}

#[tokio::test]
async fn locks_are_answered_as_by_a_genuine_etcd() -> Result<()> {
    compare(async |mut with| {
        with.lock("l", 3).await?;
        with.lock("l", 3).await?;
        let second = with.begin_lock("l", 1);
        with.queue_has("l", 2).await?;
        let third = with.begin_lock("l", 2);
        with.queue_has("l", 3).await?;
        with.unlock("l/3").await;
        with.end("the second".to_owned(), second).await?;
        with.unlock("l/3").await;
        with.revoke(1).await?;
        with.end("the third".to_owned(), third).await?;
        let given_up = with.begin_lock("l", 4);
        with.queue_has("l", 2).await?;
        given_up.abort();
        with.queue_has("l", 1).await?;
        with.lock("", -10).await?;
        with.lock("other", 99).await?;
        with.unlock("").await;
        with.unlock("nothing").await;
        with.unlock("l/2").await;
        with.lock("l", 5).await?;
        Ok(with)
    })
    .await
}

#[tokio::test]
async fn elections_are_answered_as_by_a_genuine_etcd() -> Result<()> {
    compare(async |mut with| {
        with.leader("office").await;
        with.proclaim(None, "x").await;
        with.resign(None).await;
        let mut observer = with.observe("office");
        with.campaign("office", 2, "two").await?;
        with.observed(&mut observer).await?;
        with.leader("office").await;
        let second = with.begin_campaign("office", 1, "one");
        with.queue_has("office", 2).await?;
        let two = || leader_key("office", "office/2", 2, 2);
        with.proclaim(two(), "II").await;
        with.observed(&mut observer).await?;
        with.campaign("office", 2, "II").await?;
        with.campaign("office", 2, "zwei").await?;
        with.observed(&mut observer).await?;
        with.proclaim(leader_key("office", "office/2", 1, 2), "never").await;
        with.proclaim(leader_key("office", "office/2", 2, 99), "never").await;
        with.proclaim(leader_key("", "", 0, 2), "never").await;
        with.resign(leader_key("office", "office/2", 1, 2)).await;
        with.leader("office").await;
        with.resign(two()).await;
        with.end("the second".to_owned(), second).await?;
        with.observed(&mut observer).await?;
        with.resign(two()).await;
        with.proclaim(two(), "never").await;
        with.revoke(1).await?;
        with.leader("office").await;
        with.campaign("office", 3, "three").await?;
        with.observed(&mut observer).await?;
        with.campaign("office", 99, "no lease").await?;
        with.campaign("", -10, "no name").await?;
        with.leader("").await;
        let mut late = with.observe("office");
        with.observed(&mut late).await?;
        Ok(with)
    })
    .await
}
