//! Questions about leases, which only the leader can answer: from a follower's clients to the leader and back.
//!
//! ```text
//!   Lease service ──▶ questions (bounded) ──▶ rounds: whatever waits, as one call ──▶ the leader: one read index, then its clock
//!                 ◀──────────────── each with its age ◀──────────────────────────────┘
//! ```
//! A few rounds are under way at a time; what comes meanwhile waits for the next one, so that a thousand keep-alives cost
//! the leader one read index and not a thousand. A round ends when the leader answers, when another leader is seen, or
//! when it takes too long; a question that is left without an answer may be asked again, whatever became of it: renewing
//! a lease twice is renewing it once.
//!
//! What the leader tells is as old as its answer took to come at most ([`Told::age`]): whoever passes a time on takes
//! that off.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use cairn_proto::{
    ApiError,
    peer::{LeaseRenewal, LeaseTime, LeasesRequest, LeasesResponse, lease_renewal::Outcome},
};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{metrics::PeerMetrics, registry::Peers};
use crate::{
    lease::{NotLeading, Renewal, TimeLeft},
    node::Leases,
};

/// Questions that may wait; who comes then is refused.
const QUESTIONS_MAX: usize = 16 << 10;
/// Questions of one round.
const ROUND_QUESTIONS_MAX: usize = 1024;
/// Rounds that may be under way at a time.
const ROUNDS_MAX: usize = 4;
/// Lists of all leases that may be under way at a time; the next ones wait for their turn.
const LISTS_MAX: usize = 2;

/// What the leader told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<T> {
    /// Its answer.
    pub what: T,
    /// It was true at some moment of this time up to now.
    pub age: Duration,
}

/// Why the leader told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    /// It could not be reached, or does not lead: somebody may later.
    #[error("there is no leader that answers")]
    Nobody,
    /// It, or this member, does not take the question.
    #[error("refused: {}", .0.text())]
    Refused(ApiError),
}

/// A question, and where its answer goes.
#[derive(Debug)]
enum Question {
    Renew(i64, Waiting<Renewal>),
    Time(i64, Waiting<Option<TimeLeft>>),
}

type Waiting<T> = oneshot::Sender<Result<Told<T>, Untold>>;

/// Takes questions.
#[derive(Debug)]
pub(super) struct Desk {
    questions: mpsc::Sender<Question>,
    waiting: Gauge,
    lists: Semaphore,
}

/// The other end of a [`Desk`].
#[derive(Debug)]
pub(super) struct Questions {
    incoming: mpsc::Receiver<Question>,
    waiting: Gauge,
    rounds: Counter,
}

impl Desk {
    /// A desk that counts what waits at it, and the rounds.
    pub(super) fn new(metrics: &PeerMetrics) -> (Self, Questions) {
        let (questions, incoming) = mpsc::channel(QUESTIONS_MAX);
        let (waiting, rounds) = (metrics.lease_questions.clone(), metrics.lease_rounds.clone());
        (
            Self { questions, waiting: waiting.clone(), lists: Semaphore::new(LISTS_MAX) },
            Questions { incoming, waiting, rounds },
        )
    }

    pub(super) async fn renew(&self, id: i64) -> Result<Told<Renewal>, Untold> {
        self.ask(|waiting| Question::Renew(id, waiting)).await
    }

    pub(super) async fn time_left(&self, id: i64) -> Result<Told<Option<TimeLeft>>, Untold> {
        self.ask(|waiting| Question::Time(id, waiting)).await
    }

    async fn ask<T>(&self, question: impl FnOnce(Waiting<T>) -> Question) -> Result<Told<T>, Untold> {
        let (waiting, told) = oneshot::channel();
        match self.questions.try_send(question(waiting)) {
            Ok(()) => self.waiting.inc(),
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Untold::Refused(ApiError::TooManyRequests)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Untold::Refused(ApiError::Stopped)),
        };
        // A question that is dropped was not answered.
        told.await.unwrap_or(Err(Untold::Nobody))
    }

    /// All leases, the one that runs out first first.
    pub(super) async fn list(&self, peers: &Peers) -> Result<Told<Vec<i64>>, Untold> {
        // The semaphore is never closed.
        let _turn = self.lists.acquire().await;
        let asked = Instant::now();
        let answer = call(peers, LeasesRequest { list: true, ..LeasesRequest::default() }).await?;
        Ok(Told { what: answer.ids, age: asked.elapsed() })
    }
}

impl Questions {
    /// Asks what waits, round after round, until there is no desk any more.
    pub(super) async fn run(mut self, peers: Weak<Peers>) {
        let turns = Arc::new(Semaphore::new(ROUNDS_MAX));
        loop {
            // The semaphore is never closed.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            let mut questions = Vec::new();
            let count = self.incoming.recv_many(&mut questions, ROUND_QUESTIONS_MAX).await;
            self.waiting.dec_by(count as i64);
            let Some(peers) = peers.upgrade().filter(|_| count > 0) else { return };
            self.rounds.inc();
            tokio::spawn(async move {
                round(&peers, questions).await;
                drop(turn);
            });
        }
    }
}

/// Asks questions together. Those that are dropped are not answered.
async fn round(peers: &Peers, questions: Vec<Question>) {
    let (mut renewals, mut times) = (Vec::new(), Vec::new());
    for question in questions {
        match question {
            Question::Renew(id, waiting) => renewals.push((id, waiting)),
            Question::Time(id, waiting) => times.push((id, waiting)),
        }
    }
    let asked = Instant::now();
    let request = LeasesRequest {
        renew: renewals.iter().map(|(id, _)| *id).collect(),
        time: times.iter().map(|(id, _)| *id).collect(),
        ..LeasesRequest::default()
    };
    let answer = call(peers, request).await;
    let age = asked.elapsed();
    let refused = match answer {
        Ok(answer) if answer.renewed.len() == renewals.len() && answer.times.len() == times.len() => {
            for ((_, waiting), renewed) in renewals.into_iter().zip(&answer.renewed) {
                tell(waiting, Ok(Told { what: renewal_of(renewed), age }));
            }
            for ((_, waiting), time) in times.into_iter().zip(&answer.times) {
                tell(waiting, Ok(Told { what: time_of(time), age }));
            }
            return;
        }
        Ok(_) => {
            tracing::warn!("the leader answered other questions about leases than it was asked");
            Untold::Nobody
        }
        Err(untold) => untold,
    };
    for (_, waiting) in renewals {
        tell(waiting, Err(refused));
    }
    for (_, waiting) in times {
        tell(waiting, Err(refused));
    }
}

fn tell<T>(waiting: Waiting<T>, told: Result<Told<T>, Untold>) {
    // Whoever has gone away does not want to know.
    let _ = waiting.send(told);
}

/// Asks the leader that is known now.
async fn call(peers: &Peers, request: LeasesRequest) -> Result<LeasesResponse, Untold> {
    let local = peers.local().ok_or(Untold::Refused(ApiError::Stopped))?;
    let mut leaders = local.node.leader_seen();
    let leader = *leaders.borrow_and_update();
    let mut client = peers.client_of(leader).ok_or(Untold::Nobody)?;
    let request = LeasesRequest { cluster_id: local.cluster, ..request };
    let answer = tokio::select! {
        answer = client.leases(request) => answer,
        _ = leaders.wait_for(|now| *now != leader) => return Err(Untold::Nobody),
        () = tokio::time::sleep(peers.request_timeout()) => return Err(Untold::Nobody),
    };
    match answer {
        Ok(answer) => Some(answer.into_inner()).filter(|answer| answer.leads).ok_or(Untold::Nobody),
        Err(status) => {
            tracing::debug!(leader = format_args!("{leader:x}"), %status, "the leader did not answer about leases");
            let refused = ApiError::from_status(&status).filter(|error| *error == ApiError::TooManyRequests);
            Err(refused.map_or(Untold::Nobody, Untold::Refused))
        }
    }
}

/// Answers a follower's questions, as leader. Waits for a read index first.
///
/// # Errors
/// There was none in time, or there are too many questions.
pub(super) async fn answer(node: &Leases, request: LeasesRequest) -> Result<LeasesResponse, tonic::Status> {
    if request.renew.len() + request.time.len() > ROUND_QUESTIONS_MAX {
        return Err(tonic::Status::invalid_argument("too many questions about leases at once"));
    }
    node.linearize().await.map_err(ApiError::from)?;
    let told = || {
        let renewed = request.renew.iter().map(|id| node.renew(*id).map(as_renewal));
        let renewed = renewed.collect::<Result<_, NotLeading>>()?;
        let times = request.time.iter().map(|id| node.time_left(*id).map(as_time));
        let times = times.collect::<Result<_, NotLeading>>()?;
        let expiries = if request.list { node.expiries()? } else { Vec::new() };
        Ok::<_, NotLeading>((LeasesResponse { leads: true, renewed, times, ids: Vec::new() }, expiries))
    };
    let Ok((answer, mut expiries)) = told() else { return Ok(LeasesResponse::default()) };
    if expiries.is_empty() {
        return Ok(answer);
    }
    // There may be a million.
    let sorted = tokio::task::spawn_blocking(move || {
        expiries.sort_unstable();
        expiries.into_iter().map(|(_, _, id)| id).collect()
    });
    Ok(LeasesResponse { ids: sorted.await.map_err(|_| ApiError::Stopped)?, ..answer })
}

fn as_renewal(renewal: Renewal) -> LeaseRenewal {
    let (outcome, ttl) = match renewal {
        Renewal::Unknown => (Outcome::Unknown, 0),
        Renewal::Renewed(ttl) => (Outcome::Renewed, ttl),
        Renewal::Recorded => (Outcome::Recorded, 0),
        Renewal::Expired => (Outcome::Expired, 0),
    };
    LeaseRenewal { outcome: outcome.into(), ttl }
}

fn renewal_of(told: &LeaseRenewal) -> Renewal {
    match told.outcome() {
        Outcome::Unknown => Renewal::Unknown,
        Outcome::Renewed => Renewal::Renewed(told.ttl),
        Outcome::Recorded => Renewal::Recorded,
        Outcome::Expired => Renewal::Expired,
    }
}

fn as_time(time: Option<TimeLeft>) -> LeaseTime {
    time.map_or_else(LeaseTime::default, |TimeLeft { ttl, left_ms }| LeaseTime { known: true, ttl, left_ms })
}

fn time_of(told: &LeaseTime) -> Option<TimeLeft> {
    told.known.then_some(TimeLeft { ttl: told.ttl, left_ms: told.left_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_out_as_they_went_in() {
        for renewal in [Renewal::Renewed(60), Renewal::Recorded, Renewal::Expired, Renewal::Unknown] {
            assert_eq!(renewal_of(&as_renewal(renewal)), renewal);
        }
        for time in [None, Some(TimeLeft { ttl: 9, left_ms: 0 }), Some(TimeLeft { ttl: 60, left_ms: 59_999 })] {
            assert_eq!(time_of(&as_time(time)), time);
        }
    }

    #[tokio::test]
    async fn who_finds_the_desk_full_is_refused_and_what_is_dropped_is_not_answered() {
        let (desk, questions) = Desk::new(&PeerMetrics::default());
        let mut asking: Vec<_> = (0..QUESTIONS_MAX as i64).map(|id| Box::pin(desk.renew(id))).collect();
        for asked in &mut asking {
            assert!(futures::poll!(asked).is_pending());
        }
        assert_eq!(desk.waiting.get(), QUESTIONS_MAX as i64);
        assert_eq!(desk.time_left(1).await, Err(Untold::Refused(ApiError::TooManyRequests)));
        drop(questions);
        for asked in asking {
            assert_eq!(asked.await, Err(Untold::Nobody));
        }
        assert_eq!(desk.renew(1).await, Err(Untold::Refused(ApiError::Stopped)));
    }
}
