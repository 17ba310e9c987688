//! Simple tokens: random words that stand for a user until they have not been used for a while.
//!
//! Every member hears of every token by the log. The table is not replicated state: a token that was not used at one member
//! for its time to live is forgotten there. So the table knows the time, which nothing replicated may.

#![expect(clippy::disallowed_methods, reason = "the table is not replicated")]

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::RwLock;

/// Tokens that a member knows; the ones that were not used for longest make room for others.
const TOKENS_MAX: usize = 1 << 18;

/// The tokens that a member knows. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    all: HashMap<Bytes, Token>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Token {
    user: Bytes,
    used: RwLock<Instant>,
}

impl Tokens {
    /// A token that was made at `made`, in seconds since 1970, stands for a user.
    pub fn assign(&self, token: Bytes, user: Bytes, made: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.assign_used(token, user, Duration::from_secs(now.saturating_sub(made)));
    }

    fn assign_used(&self, token: Bytes, user: Bytes, ago: Duration) {
        // A token from before the machine's start is too old to be told from one that has run out.
        let Some(used) = Instant::now().checked_sub(ago) else { return };
        let all = &mut self.0.write().all;
        if all.len() >= TOKENS_MAX {
            // The half that was used last stays.
            let mut times: Vec<Instant> = all.values().map(|token| *token.used.read()).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            all.retain(|_, token| *token.used.read() > median);
        }
        all.insert(token, Token { user, used: RwLock::new(used) });
    }

    /// The user that a token stands for; the token lives its whole time again.
    pub fn user_of(&self, token: &[u8], ttl: Duration) -> Option<Bytes> {
        let table = self.0.read();
        let token = table.all.get(token)?;
        let now = Instant::now();
        let mut used = token.used.write();
        (now.saturating_duration_since(*used) < ttl).then(|| {
            *used = now;
            token.user.clone()
        })
    }

    /// Forgets the tokens of a user.
    pub fn forget_user(&self, user: &[u8]) {
        self.0.write().all.retain(|_, token| token.user != user);
    }

    /// Forgets all tokens.
    pub fn clear(&self) {
        self.0.write().all.clear();
    }

    /// Forgets what was not used for `ttl`, unless that was done in the last tenth of it.
    pub fn sweep(&self, ttl: Duration) {
        let now = Instant::now();
        let mut table = self.0.write();
        if table.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= ttl / 10) {
            table.swept = Some(now);
            table.all.retain(|_, token| now.saturating_duration_since(*token.used.read()) < ttl);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.read().all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_mins(5);

    #[test]
    fn a_token_is_its_users_until_it_was_not_used_for_its_time() {
        let tokens = Tokens::default();
        tokens.assign_used("fresh".into(), "alice".into(), Duration::ZERO);
        tokens.assign_used("old".into(), "alice".into(), TTL);
        assert_eq!(tokens.user_of(b"fresh", TTL), Some("alice".into()));
        assert_eq!((tokens.user_of(b"old", TTL), tokens.user_of(b"other", TTL)), (None, None));
        tokens.sweep(TTL);
        assert_eq!(tokens.count(), 1);
        tokens.forget_user(b"bob");
        assert_eq!(tokens.count(), 1);
        tokens.forget_user(b"alice");
        assert_eq!(tokens.count(), 0);
    }

    #[test]
    fn an_old_log_revives_no_token() {
        let tokens = Tokens::default();
        tokens.assign("ancient".into(), "alice".into(), 0);
        tokens.assign_used("older than the machine".into(), "alice".into(), Duration::MAX);
        for token in [&b"ancient"[..], b"older than the machine"] {
            assert_eq!(tokens.user_of(token, TTL), None);
        }
    }
}
