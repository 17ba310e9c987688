//! Checks of passwords: at most once for what is known to be right, ever slower for a guesser.
//!
//! To compare a password with its bcrypt hash takes a core for tens of milliseconds, by design. Clients of one user that
//! connect by the thousand after a restart would take minutes of it. So that a password was right is remembered, as a keyed
//! hash of user, password and stored hash: a changed password is unknown again, and memory tells no password.
//!
//! Wrong passwords are counted per user and address, and per address. After a few, each further check waits for a pause that
//! grows with their number. Right ones that are remembered never wait.

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
/// Wrong passwords without a pause, of one user from one address.
const FREE_OF_USER: u32 = 5;
/// Wrong passwords without a pause from one address.
const FREE_OF_ADDRESS: u32 = 100;
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

    /// Whether `password` is the one whose hash is stored for `user`. Without a stored hash it is not, which takes as long
    /// to find.
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
        if stored.is_some() && self.right.lock().contains(&tag) {
            return Ok(true);
        }
        let guessers = self.guessers_of(user, address);
        self.wait_turn(&guessers).await?;
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
        self.learn(right.then_some(tag), &guessers, Instant::now());
        Ok(right)
    }

    fn learn(&self, right: Option<Tag>, guessers: &[(Tag, u32)], now: Instant) {
        let Some(tag) = right else { return self.count_wrong(guessers, now) };
        let mut known = self.right.lock();
        if known.len() >= RIGHT_MAX {
            known.clear();
        }
        known.insert(tag);
        drop(known);
        // Who knows the password may have mistyped it. What the address tried at others is not forgiven.
        if let Some((guesser, _)) = guessers.first() {
            self.guessers.lock().remove(guesser);
        }
    }

    /// The guesser of a user, and that of all users from its address; with the wrong passwords that are free.
    fn guessers_of(&self, user: &str, address: Option<IpAddr>) -> Vec<(Tag, u32)> {
        let address = address.map(|address| address.to_string());
        let from = address.as_deref().unwrap_or_default();
        let of_user = (self.tag(&[b"user", user.as_bytes(), from.as_bytes()]), FREE_OF_USER);
        let of_address = address.as_ref().map(|from| (self.tag(&[b"address", from.as_bytes()]), FREE_OF_ADDRESS));
        std::iter::once(of_user).chain(of_address).collect()
    }

    /// Waits as long as the guessers have to.
    async fn wait_turn(&self, guessers: &[(Tag, u32)]) -> Result<(), Refusal> {
        let turn = self.take_turn(guessers, Instant::now()).ok_or(ApiError::TooManyRequests)?;
        tokio::time::sleep_until(turn).await;
        Ok(())
    }

    /// When a check may begin; the next one may a pause later. None if that is too far away.
    fn take_turn(&self, guessers: &[(Tag, u32)], now: Instant) -> Option<Instant> {
        let mut known = self.guessers.lock();
        let held = guessers.iter().filter_map(|(guesser, free)| known.get(guesser).filter(|one| one.wrong >= *free));
        let turn = held.map(|one| one.next).max().map_or(now, |next| next.max(now));
        if turn.saturating_duration_since(now) > WAIT_MAX {
            return None;
        }
        for (guesser, free) in guessers {
            if let Some(one) = known.get_mut(guesser).filter(|one| one.wrong >= *free) {
                one.next = turn + pause(one.wrong - free);
            }
        }
        Some(turn)
    }

    fn count_wrong(&self, guessers: &[(Tag, u32)], now: Instant) {
        let mut known = self.guessers.lock();
        if known.len() + guessers.len() > GUESSERS_MAX {
            known.retain(|_, one| now.saturating_duration_since(one.next) < FORGIVEN_AFTER);
            if known.len() + guessers.len() > GUESSERS_MAX {
                known.clear();
            }
        }
        for (guesser, free) in guessers {
            let one = known.entry(*guesser).or_insert(Guesses { wrong: 0, next: now });
            if now.saturating_duration_since(one.next) >= FORGIVEN_AFTER {
                one.wrong = 0;
            }
            one.wrong = one.wrong.saturating_add(1);
            let wait = one.wrong.checked_sub(*free).map_or(Duration::ZERO, pause);
            one.next = one.next.max(now + wait);
        }
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
        let turn = passwords.take_turn(&passwords.guessers_of(user, address), now);
        turn.map(|turn| turn.saturating_duration_since(now))
    }

    fn guess(passwords: &Passwords, user: &str, address: Option<IpAddr>, now: Instant, times: u32) {
        for _ in 0..times {
            passwords.count_wrong(&passwords.guessers_of(user, address), now);
        }
    }

    #[test]
    fn a_guesser_waits_longer_each_time_and_others_do_not() {
        let (passwords, mut now) = (Passwords::new(), Instant::now());
        guess(&passwords, "root", HOME, now, FREE_OF_USER - 1);
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
    fn an_address_that_tries_many_users_waits_as_well() {
        let passwords = Passwords::new();
        let now = Instant::now();
        for at in 0..FREE_OF_ADDRESS {
            guess(&passwords, &format!("user{at}"), HOME, now, 1);
        }
        assert!(waits(&passwords, "another", HOME, now).is_some_and(|wait| wait > Duration::ZERO));
        assert_eq!(waits(&passwords, "another", None, now), Some(Duration::ZERO));
    }

    #[test]
    fn a_right_password_and_time_forgive() {
        let (passwords, now) = (Passwords::new(), Instant::now());
        guess(&passwords, "root", HOME, now, FREE_OF_USER + 3);
        passwords.learn(Some(Tag::default()), &passwords.guessers_of("root", HOME), now);
        assert_eq!(waits(&passwords, "root", HOME, now), Some(Duration::ZERO));
        guess(&passwords, "root", HOME, now, FREE_OF_USER + 3);
        let later = now + 2 * FORGIVEN_AFTER;
        guess(&passwords, "root", HOME, later, 1);
        assert_eq!(waits(&passwords, "root", HOME, later), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_known_is_bounded_and_tells_parts_apart() {
        let (passwords, now) = (Passwords::new(), Instant::now());
        for at in 0..2 * GUESSERS_MAX {
            guess(&passwords, &at.to_string(), None, now, 1);
            passwords.learn(Some(passwords.tag(&[at.to_string().as_bytes()])), &[], now);
        }
        assert!(passwords.guessers.lock().len() <= GUESSERS_MAX && passwords.right.lock().len() <= RIGHT_MAX);
        assert_ne!(passwords.tag(&[b"ab", b"c"]), passwords.tag(&[b"a", b"bc"]));
        assert_ne!(passwords.tag(&[b"a"]), Passwords::new().tag(&[b"a"]));
    }
}
