//! Who speaks: for each member that has introduced itself the stream on which it is heard, and what it is told there.
//!
//! # Complaints
//!
//! A message that decodes and makes no sense is refused where raft is, on the replica's task. The member that sent it is
//! told, in words, on the stream that it came on, and both sides log it: once a minute, however many there are.
//!
//! # Two processes with one identity
//!
//! A copy of a member's data directory has its identity, and would vote again where the member has voted. Ids cannot tell
//! them apart, so each process draws a number when it starts.
//!
//! ```text
//!   member X  ──────────── its stream ────────────▶ heard          probe ──▶ X
//!   a second process: "I am X, run 2" ──────▶ waits           X: "alive" ──▶ the second one is refused, and X told of it
//!                                                  X's stream ends, or is silent: the second one takes its place
//! ```
//! A member that was restarted is let in at once, since its old stream has ended; after a power failure when the old stream has
//! been silent for [`PROOF_WAIT`]. What a process wrote before it died proves nothing: only the answer to the probe does.
//!
//! # Caveats
//!
//! While the member itself is down, or cannot be heard of here, nothing tells a copy from a member that was moved.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_proto::peer::{Answer, Hello};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::seldom::Seldom;

/// How long a process waits for a sign of life of an older one with the same identity. The caller waits longer for its
/// welcome.
const PROOF_WAIT: Duration = Duration::from_secs(2);
/// Processes with one identity that may come at the same time before one of them is refused unseen.
const ROUNDS_MAX: usize = 3;
/// Complaints about messages that are sent on one stream, a minute.
const COMPLAINTS_PER_MINUTE: u32 = 1;

/// The members that are heard.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    by_member: Mutex<BTreeMap<u64, Arc<Speaker>>>,
    probes: AtomicU64,
}

/// A member that is heard on a stream.
#[derive(Debug)]
struct Speaker {
    member: u64,
    run: u64,
    address: Option<SocketAddr>,
    words: Mutex<Words>,
    wake: Notify,
    proof: watch::Sender<Proof>,
    /// Another process has taken its place.
    replaced: AtomicBool,
}

/// What it is to be told.
#[derive(Debug)]
struct Words {
    probe: u64,
    /// The newest one only.
    complaint: String,
    refusals: Seldom,
}

#[derive(Debug, Default)]
struct Proof {
    /// The newest probe that was answered.
    number: u64,
    ended: bool,
}

impl Speaker {
    fn new(hello: &Hello, address: Option<SocketAddr>) -> Self {
        let words = Words { probe: 0, complaint: String::new(), refusals: Seldom::new(COMPLAINTS_PER_MINUTE) };
        Self {
            member: hello.from,
            run: hello.run,
            address,
            words: Mutex::new(words),
            wake: Notify::new(),
            proof: watch::Sender::default(),
            replaced: AtomicBool::new(false),
        }
    }

    /// Whether it is another process than the one that says `hello`. Those that do not say which they are may be the same.
    fn is_another(&self, hello: &Hello) -> bool {
        self.run != hello.run && self.run != 0 && hello.run != 0
    }

    /// Whether its process answers, now.
    async fn is_alive(&self, probe: u64) -> bool {
        let mut proof = self.proof.subscribe();
        self.words.lock().probe = probe;
        self.wake.notify_one();
        let answered = proof.wait_for(|proof| proof.ended || proof.number >= probe);
        // The sender is in `self`, so it cannot be gone.
        timeout(PROOF_WAIT, answered).await.is_ok_and(|proof| proof.is_ok_and(|proof| !proof.ended))
    }

    fn complain(&self, complaint: String) {
        self.words.lock().complaint = complaint;
        self.wake.notify_one();
    }
}

impl Speakers {
    /// Lets a member be heard that has introduced itself, unless another process with its identity is.
    ///
    /// # Errors
    /// There is another one. The text is for both sides.
    pub(super) async fn admit(
        self: &Arc<Self>,
        hello: &Hello,
        address: Option<SocketAddr>,
    ) -> Result<Speaking, String> {
        let speaker = Arc::new(Speaker::new(hello, address));
        for _ in 0..ROUNDS_MAX {
            let Some(older) = self.take_place(&speaker, |older| !older.is_another(hello)) else {
                return Ok(Speaking { speakers: Arc::clone(self), speaker });
            };
            let probe = self.probes.fetch_add(1, Ordering::Relaxed) + 1;
            if older.is_alive(probe).await {
                let caller = address.map_or_else(String::new, |address| format!(" from {}", address.ip()));
                older.complain(format!(
                    "a second process with this member's identity calls{caller}, and is refused: look for a copy of this \
                     member's data directory"
                ));
                return Err(twin(hello.from, older.address));
            }
            if self.take_place(&speaker, |current| Arc::ptr_eq(current, &older)).is_none() {
                older.replaced.store(true, Ordering::Relaxed);
                return Ok(Speaking { speakers: Arc::clone(self), speaker });
            }
        }
        Err(twin(hello.from, None))
    }

    /// Puts `speaker` in the place of whoever speaks for its member, if there is nobody or `gives_way` says so. Else: who
    /// speaks.
    fn take_place(
        &self,
        speaker: &Arc<Speaker>,
        gives_way: impl FnOnce(&Arc<Speaker>) -> bool,
    ) -> Option<Arc<Speaker>> {
        let mut by_member = self.by_member.lock();
        if let Some(older) = by_member.get(&speaker.member).filter(|older| !gives_way(older)) {
            return Some(Arc::clone(older));
        }
        by_member.insert(speaker.member, Arc::clone(speaker));
        None
    }

    /// Whether run `run` of a member is heard on a stream.
    pub(super) fn hears(&self, member: u64, run: u64) -> bool {
        self.by_member.lock().get(&member).is_some_and(|speaker| speaker.run == run)
    }

    /// Notes that something that `member` sent was refused, and has it told. If that is to be logged: how often it was not
    /// since the last time.
    pub(super) fn refused(&self, member: u64, why: &str) -> Option<u64> {
        let speaker = self.by_member.lock().get(&member).cloned();
        // Without a stream nothing more comes.
        let Some(speaker) = speaker else { return Some(0) };
        let withheld = speaker.words.lock().refusals.permits(Instant::now())?;
        speaker.complain(format!("a message is refused: {why}"));
        Some(withheld)
    }
}

/// A member that is being heard. It is not any more when this is dropped.
#[derive(Debug)]
pub(super) struct Speaking {
    speakers: Arc<Speakers>,
    speaker: Arc<Speaker>,
}

impl Speaking {
    /// What the member is to be told next. May be given up at any time.
    pub(super) async fn next_word(&self) -> Answer {
        loop {
            {
                let mut words = self.speaker.words.lock();
                if words.probe != 0 || !words.complaint.is_empty() {
                    let (probe, complaint) = (std::mem::take(&mut words.probe), std::mem::take(&mut words.complaint));
                    return Answer { probe, complaint, ..Answer::default() };
                }
            }
            self.speaker.wake.notified().await;
        }
    }

    /// The member has answered a probe; 0 is none.
    pub(super) fn alive(&self, probe: u64) {
        if probe != 0 {
            self.speaker.proof.send_modify(|proof| proof.number = proof.number.max(probe));
        }
    }

    /// Why the member is not heard any more, if another process has taken its place.
    pub(super) fn replaced(&self) -> Option<String> {
        self.speaker.replaced.load(Ordering::Relaxed).then(|| {
            let by = self.speakers.by_member.lock().get(&self.speaker.member).and_then(|newer| newer.address);
            twin(self.speaker.member, by)
        })
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        self.speaker.proof.send_modify(|proof| proof.ended = true);
        let mut by_member = self.speakers.by_member.lock();
        if by_member.get(&self.speaker.member).is_some_and(|current| Arc::ptr_eq(current, &self.speaker)) {
            by_member.remove(&self.speaker.member);
        }
    }
}

/// What both sides log about a process whose identity another one has.
fn twin(member: u64, other: Option<SocketAddr>) -> String {
    let other = other.map_or_else(String::new, |other| format!(", from {}", other.ip()));
    format!(
        "another process with the identity of member {member:x} is connected{other}: a copy of a member's data directory is no \
         new member; stop it, add a member and start it with an empty data directory"
    )
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn hello(run: u64) -> Hello {
        Hello { from: 7, run, ..Hello::default() }
    }

    /// Answers whatever probe comes.
    async fn answers(speaking: &Speaking) {
        loop {
            let word = speaking.next_word().await;
            speaking.alive(word.probe);
        }
    }

    #[tokio::test]
    async fn a_second_process_is_refused_while_the_first_one_answers_and_both_are_told() {
        let speakers = Arc::<Speakers>::default();
        let first = speakers.admit(&hello(1), "10.0.0.1:1".parse().ok()).await.unwrap();
        let second = hello(2);
        let second = speakers.admit(&second, "10.0.0.2:2".parse().ok());
        let refused = tokio::select! {
            () = answers(&first) => unreachable!("it answers for ever"),
            refused = second => refused.unwrap_err(),
        };
        assert!(refused.contains("identity of member 7 is connected, from 10.0.0.1"), "{refused}");
        let told = first.next_word().await.complaint;
        assert!(told.contains("a second process") && told.contains("10.0.0.2"), "{told}");
        assert_eq!(first.replaced(), None);
    }

    #[tokio::test]
    async fn a_member_that_was_restarted_is_let_in_when_its_old_stream_ends() {
        let speakers = Arc::<Speakers>::default();
        let first = speakers.admit(&hello(1), None).await.unwrap();
        let second = hello(2);
        let (second, ()) = tokio::join!(speakers.admit(&second, None), async {
            assert_ne!(first.next_word().await.probe, 0);
            drop(first);
        });
        let second = second.unwrap();
        assert_eq!(second.replaced(), None);
        drop(second);
        assert!(speakers.by_member.lock().is_empty());
    }

    #[tokio::test]
    async fn a_stream_that_is_silent_gives_way_and_is_ended_if_it_speaks_again() {
        let speakers = Arc::<Speakers>::default();
        let first = speakers.admit(&hello(1), None).await.unwrap();
        // What comes late answers another probe.
        first.alive(0);
        let second = speakers.admit(&hello(2), "10.0.0.2:2".parse().ok()).await.unwrap();
        assert!(first.replaced().unwrap().contains("is connected, from 10.0.0.2"));
        drop(first);
        assert_eq!(speakers.refused(7, "nonsense"), Some(0));
        assert_eq!(second.next_word().await.complaint, "a message is refused: nonsense");
    }

    #[tokio::test]
    async fn the_same_process_may_come_again_and_so_may_one_that_does_not_say_which_it_is() {
        let speakers = Arc::<Speakers>::default();
        let old = speakers.admit(&hello(1), None).await.unwrap();
        let new = speakers.admit(&hello(1), None).await.unwrap();
        let unknown = speakers.admit(&hello(0), None).await.unwrap();
        assert_eq!([old.replaced(), new.replaced(), unknown.replaced()], [None, None, None]);
        drop(old);
        assert_eq!(speakers.by_member.lock().len(), 1, "the newest one is heard");
    }

    #[tokio::test]
    async fn a_member_is_told_once_of_many_refused_messages() {
        let speakers = Arc::<Speakers>::default();
        let speaking = speakers.admit(&hello(1), None).await.unwrap();
        let logged = (0..100).filter_map(|_| speakers.refused(7, "nonsense")).count();
        assert_eq!(logged, 1);
        assert!(speakers.hears(7, 1) && !speakers.hears(7, 2) && !speakers.hears(8, 1));
        assert_eq!(speaking.next_word().await.complaint, "a message is refused: nonsense");
        assert!(speaking.next_word().now_or_never().is_none());
        assert_eq!(speakers.refused(8, "from nowhere"), Some(0));
    }
}
