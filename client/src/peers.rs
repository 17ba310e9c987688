//! The endpoints of a client, and whose turn it is.
//!
//! Round robin over the endpoints that can be expected to answer. One that refused a connection rests: shortly at first,
//! twice as long each time, at most [`REST_MAX`]. When all rest, the one whose rest ends first is next, and whoever wants it
//! waits that long.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    endpoint::Endpoint,
    transport::{Link, Transport},
};

const REST_MIN: Duration = Duration::from_millis(25);
const REST_MAX: Duration = Duration::from_secs(1);

/// Rests and pauses are scaled by a random factor, so that many clients do not come back at once.
const JITTER: RangeInclusive<f64> = 0.8..=1.2;

pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(JITTER))
}

/// All endpoints of a client.
#[derive(Debug)]
pub(crate) struct Peers {
    list: Box<[Arc<Peer>]>,
    turn: AtomicUsize,
}

/// One endpoint with its connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) transport: Transport,
    pub(crate) link: Arc<Link>,
    /// False while the last attempt to reach it failed. Spares the lock where all is well.
    reachable: AtomicBool,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    failures: u32,
    until: Option<Instant>,
}

/// Whose turn it is, and from when on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) peer: usize,
    pub(crate) not_before: Option<Instant>,
}

impl Peers {
    /// These, at least one.
    pub(crate) fn new(list: impl IntoIterator<Item = Arc<Peer>>) -> Self {
        Self { list: list.into_iter().collect(), turn: AtomicUsize::new(0) }
    }

    pub(crate) fn list(&self) -> &[Arc<Peer>] {
        &self.list
    }

    /// The next to try: rested, and if possible not one of those `tried` already.
    pub(crate) fn next(&self, tried: &[usize], now: Instant) -> Turn {
        let rests = self.in_turn().map(|peer| Turn { peer, not_before: self.list[peer].rests_until(now) });
        // `min_by_key` keeps the first of equals, which is the one whose turn it is.
        let soonest = rests.min_by_key(|turn| (turn.not_before, tried.contains(&turn.peer)));
        soonest.expect("a client has at least one endpoint")
    }

    /// The next not `tried` yet, rested or not.
    pub(crate) fn untried(&self, tried: &[usize]) -> Option<usize> {
        self.in_turn().find(|peer| !tried.contains(peer))
    }

    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.list.len();
        (first..self.list.len()).chain(0..first)
    }
}

impl Peer {
    pub(crate) fn new(endpoint: Endpoint, transport: Transport, link: Arc<Link>) -> Self {
        Self { endpoint, transport, link, reachable: AtomicBool::new(true), rest: Mutex::default() }
    }

    fn rests_until(&self, now: Instant) -> Option<Instant> {
        if self.reachable.load(Ordering::Relaxed) {
            return None;
        }
        self.rest.lock().until.filter(|until| *until > now)
    }

    /// It has answered.
    pub(crate) fn is_reachable(&self) {
        if !self.reachable.load(Ordering::Relaxed) {
            *self.rest.lock() = Rest::default();
            self.reachable.store(true, Ordering::Relaxed);
            tracing::info!(endpoint = %self.endpoint, "endpoint answers again");
        }
    }

    /// It did not take a request, or gave no answer in time.
    pub(crate) fn is_unreachable(&self, why: &dyn std::fmt::Display, now: Instant) {
        let mut rest = self.rest.lock();
        if rest.until.is_some_and(|until| until > now) {
            return; // one of several requests that failed together
        }
        let doubled = REST_MIN.saturating_mul(1 << rest.failures.min(16));
        rest.until = Some(now + jittered(doubled.min(REST_MAX)));
        rest.failures += 1;
        if self.reachable.swap(false, Ordering::Relaxed) {
            tracing::warn!(endpoint = %self.endpoint, %why, "endpoint does not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: u16) -> Peers {
        let service = tower::service_fn(|_: http::Request<tonic::body::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty()))
        });
        Peers::new((0..count).map(|port| {
            let endpoint = format!("host:{port}").parse().unwrap();
            Arc::new(Peer::new(endpoint, Transport::in_process(service), Arc::new(Link::in_process())))
        }))
    }

    fn next(peers: &Peers, now: Instant) -> usize {
        peers.next(&[], now).peer
    }

    #[test]
    fn endpoints_take_turns() {
        let (peers, now) = (peers(3), Instant::now());
        let order: Vec<usize> = (0..6).map(|_| next(&peers, now)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn an_unreachable_endpoint_rests_and_then_takes_its_turn_again() {
        let (peers, now) = (peers(2), Instant::now());
        peers.list[0].is_unreachable(&"refused", now);
        assert_eq!([next(&peers, now), next(&peers, now)], [1, 1]);
        let later = now + REST_MAX;
        assert_eq!([next(&peers, later), next(&peers, later)], [0, 1]);
    }

    #[test]
    fn rests_grow_up_to_a_limit_and_an_answer_ends_them() {
        let (peers, mut now) = (peers(1), Instant::now());
        let mut rests = Vec::new();
        for _ in 0..20 {
            peers.list[0].is_unreachable(&"refused", now);
            let until = peers.next(&[], now).not_before.unwrap();
            rests.push(until - now);
            now = until;
        }
        assert!(rests[0] <= REST_MIN.mul_f64(1.2) && rests[3] > rests[0]);
        assert!(rests.iter().all(|rest| *rest <= REST_MAX.mul_f64(1.2)));
        peers.list[0].is_unreachable(&"refused", now);
        peers.list[0].is_reachable();
        assert_eq!(peers.next(&[], now).not_before, None);
    }

    #[test]
    fn when_all_rest_the_first_to_be_rested_is_next() {
        let (peers, now) = (peers(2), Instant::now());
        peers.list[0].is_unreachable(&"refused", now + REST_MAX);
        peers.list[1].is_unreachable(&"refused", now);
        let turn = peers.next(&[], now);
        assert_eq!(turn.peer, 1);
        assert!(turn.not_before.unwrap() > now);
    }

    #[test]
    fn an_endpoint_tried_before_is_taken_only_if_no_other_is_rested() {
        let (peers, now) = (peers(2), Instant::now());
        assert_eq!(peers.next(&[0], now).peer, 1);
        assert_eq!(peers.next(&[0], now).peer, 1);
        peers.list[1].is_unreachable(&"refused", now);
        assert_eq!(peers.next(&[0], now), Turn { peer: 0, not_before: None });
    }

    #[test]
    fn whoever_cannot_wait_gets_every_endpoint_once() {
        let (peers, now) = (peers(3), Instant::now());
        peers.list[1].is_unreachable(&"refused", now);
        let mut tried = Vec::new();
        while let Some(peer) = peers.untried(&tried) {
            tried.push(peer);
        }
        tried.sort_unstable();
        assert_eq!(tried, [0, 1, 2]);
    }
}
