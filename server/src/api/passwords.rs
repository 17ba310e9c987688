//! Checks of passwords: at most once for what is known to be right, ever slower for a guesser.
//!
//! To compare a password with its bcrypt hash takes a core for tens of milliseconds, by design. Clients of one user
//! that connect by the thousand after a restart would take minutes of it. So that a password was right is remembered,
//! as a keyed hash of user, password and stored hash: a changed password is unknown again, and memory tells no
//! password.
//!
//! Wrong passwords are counted per user and address. After a few, each further check waits for a pause that grows with
//! their number. Right ones that are remembered never wait, nor do other users of the address: it may be a proxy's.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::ApiError;
use parking_lot::Mutex;
use ring::hmac;
use tokio::time::Instant;

use super::{context::Context, refusal::Refusal};

/// Right passwords that are remembered. Of more, all are learned anew.
const RIGHT_MAX: usize = 16 << 10;
/// Guessers whose wrong passwords are counted.
const GUESSERS_MAX: usize = 16 << 10;
/// Wrong passwords without a pause.
const FREE: u32 = 5;
/// The pause after the first wrong password that is not free. Each further one doubles it.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// A check that would have to wait for longer is refused.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// A guesser that was silent for so long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_mins(5);

/// A keyed hash. Only equality is of interest.
type Tag = [u8; 32];

/// What is known of passwords.
pub(super) struct Passwords {
    /// Drawn at the start.
    key: hmac::Key,
    right: Mutex<HashSet<Tag>>,
    guessers: Mutex<HashMap<Tag, Guesses>>,
}

/// Wrong passwords of a guesser.
#[derive(Debug, Clone, Copy)]
struct Guesses {
    wrong: u32,
    /// When the next check may begin.
    next: Instant,
}

impl Passwords {
    pub(super) fn new() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Self { key, right: Mutex::default(), guessers: Mutex::default() }
    }

    /// Whether `password` is the one whose hash is stored for `user`. Without a stored hash it is not, which takes as
    /// long to find.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`] for a guesser that does not wait for its turns.
    pub(super) async fn is_right(
        &self,
        context: &Context,
        address: Option<IpAddr>,
        (user, password): (&str, &str),
        stored: Option<&Bytes>,
    ) -> Result<bool, Refusal> {
        let tag = self.tag(&[b"password", user.as_bytes(), password.as_bytes(), stored.map_or(&b""[..], |hash| hash)]);
        let guesser = self.guesser(user, address);
        if stored.is_some() && self.right.lock().contains(&tag) {
            self.guessers.lock().remove(&guesser);
            return Ok(true);
        }
        let turn = self.take_turn(guesser, Instant::now()).ok_or(ApiError::TooManyRequests)?;
        tokio::time::sleep_until(turn).await;
        let (password, stored, cost) = (password.to_owned(), stored.cloned(), context.bcrypt_cost);
        let is_known = || self.right.lock().contains(&tag);
        let compare = move || {
            let Some(hash) = stored else {
                let _ = bcrypt::hash(password, cost);
                return false;
            };
            str::from_utf8(&hash).is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))
        };
        // Many calls with the same password may wait for their turns: the first one compares it.
        let right = context.hashing_unless(is_known, compare).await?.unwrap_or(true);
        self.learn(right.then_some(tag), guesser, Instant::now());
        Ok(right)
    }

    fn learn(&self, right: Option<Tag>, guesser: Tag, now: Instant) {
        let Some(tag) = right else { return self.count_wrong(guesser, now) };
        let mut known = self.right.lock();
        if known.len() >= RIGHT_MAX {
            known.clear();
        }
        known.insert(tag);
        drop(known);
        // Who knows the password may have mistyped it.
        self.guessers.lock().remove(&guesser);
    }

    fn guesser(&self, user: &str, address: Option<IpAddr>) -> Tag {
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        self.tag(&[b"guesser", user.as_bytes(), address.as_bytes()])
    }

    /// When a check of a guesser may begin; the next one may a pause later. None if that is too far away.
    fn take_turn(&self, guesser: Tag, now: Instant) -> Option<Instant> {
        let mut known = self.guessers.lock();
        let Some(guesses) = known.get_mut(&guesser).filter(|guesses| guesses.wrong >= FREE) else { return Some(now) };
        let turn = guesses.next.max(now);
        let is_near = turn.saturating_duration_since(now) <= WAIT_MAX;
        is_near.then(|| {
            guesses.next = turn + pause(guesses.wrong - FREE);
            turn
        })
    }

    fn count_wrong(&self, guesser: Tag, now: Instant) {
        let forgiven = |guesses: &Guesses| now.saturating_duration_since(guesses.next) >= FORGIVEN_AFTER;
        let mut known = self.guessers.lock();
        if known.len() >= GUESSERS_MAX {
            known.retain(|_, guesses| !forgiven(guesses));
            if known.len() >= GUESSERS_MAX {
                known.clear();
            }
        }
        let guesses = known.entry(guesser).or_insert(Guesses { wrong: 0, next: now });
        if forgiven(guesses) {
            guesses.wrong = 0;
        }
        guesses.wrong = guesses.wrong.saturating_add(1);
        let wait = guesses.wrong.checked_sub(FREE).map_or(Duration::ZERO, pause);
        guesses.next = guesses.next.max(now + wait);
    }

    /// A keyed hash of parts, told apart by their lengths.
    fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut hash = hmac::Context::with_key(&self.key);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(hash.sign().as_ref());
        tag
    }
}

/// How long a check keeps the next one away, after so many wrong passwords that were not free.
fn pause(wrong: u32) -> Duration {
    PAUSE.saturating_mul(1 << wrong.min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn waits(passwords: &Passwords, user: &str, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let turn = passwords.take_turn(passwords.guesser(user, address), now);
        turn.map(|turn| turn.saturating_duration_since(now))
    }

    fn guess(passwords: &Passwords, user: &str, address: Option<IpAddr>, now: Instant, times: u32) {
        for _ in 0..times {
            passwords.count_wrong(passwords.guesser(user, address), now);
        }
    }

    #[test]
    fn a_guesser_waits_longer_each_time_and_others_do_not() {
        let (passwords, mut now) = (Passwords::new(), Instant::now());
        guess(&passwords, "root", HOME, now, FREE - 1);
        assert_eq!(waits(&passwords, "root", HOME, now), Some(Duration::ZERO));
        let mut last = Duration::ZERO;
        for _ in 0..8 {
            now += 4 * PAUSE_MAX;
            guess(&passwords, "root", HOME, now, 1);
            let wait = waits(&passwords, "root", HOME, now).expect("a turn");
            assert!(wait > last || wait == PAUSE_MAX, "{wait:?} after {last:?}");
            last = wait;
        }
        for (user, address) in [("root", None), ("alice", HOME), ("root", Some([10, 0, 0, 1].into()))] {
            assert_eq!(waits(&passwords, user, address, now), Some(Duration::ZERO), "{user} {address:?}");
        }
        // Those that come meanwhile take turns, and are refused when too many wait.
        let turns: Vec<_> = std::iter::from_fn(|| waits(&passwords, "root", HOME, now)).take(10).collect();
        assert!(turns.is_sorted() && turns.len() < 5, "{turns:?}");
    }

    #[test]
    fn a_right_password_and_time_forgive() {
        let (passwords, now) = (Passwords::new(), Instant::now());
        guess(&passwords, "root", HOME, now, FREE + 3);
        passwords.learn(Some(Tag::default()), passwords.guesser("root", HOME), now);
        assert_eq!(waits(&passwords, "root", HOME, now), Some(Duration::ZERO));
        guess(&passwords, "root", HOME, now, FREE + 3);
        let later = now + 2 * FORGIVEN_AFTER;
        guess(&passwords, "root", HOME, later, 1);
        assert_eq!(waits(&passwords, "root", HOME, later), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_known_is_bounded_and_tells_parts_apart() {
        let (passwords, now) = (Passwords::new(), Instant::now());
        for at in 0..2 * GUESSERS_MAX {
            guess(&passwords, &at.to_string(), None, now, 1);
            passwords.learn(Some(passwords.tag(&[at.to_string().as_bytes()])), Tag::default(), now);
        }
        assert!(passwords.guessers.lock().len() <= GUESSERS_MAX && passwords.right.lock().len() <= RIGHT_MAX);
        assert_ne!(passwords.tag(&[b"ab", b"c"]), passwords.tag(&[b"a", b"bc"]));
        assert_ne!(passwords.tag(&[b"a"]), Passwords::new().tag(&[b"a"]));
    }
}
