//! The record of calls: a line of JSON for each, by the [policy](crate::config::AuditPolicy).
//!
//! ```text
//!   Router, Watch ─▶ Trail: who, which keys, how it ended ─▶ line ─▶ Queue, bounded ─▶ a thread ─▶ file or stderr
//! ```
//!
//! * A [`Trail`] follows one call. It is made only for calls that the policy may want, and its line is written when it
//!   ends, or when it is dropped: then the client has given the call up, and what became of it is not known.
//! * [`record`] says which keys a request reads and writes, and what its answer says.
//! * [`queue`] holds lines until they are written. What does not fit is lost and counted, or waited for.
//!
//! No value that is stored, no password and no token is ever in a line.

pub mod queue;
pub mod record;

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use cairn_proto::{etcdserverpb as pb, rpc::Method};
use prost::Message;
use tonic::Code;

use self::{
    queue::Queue,
    record::{Happened, Line},
};
use crate::config::{AuditConfig, AuditPolicy, AuditRule, AuditValues, is_kept};

/// Why there can be no record.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy cannot be read, or is none.
    #[error("--audit-policy: {} {reason}", path.display())]
    Policy {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The record cannot be written.
    #[error("--audit-log: cannot open {place}: {source}")]
    Open {
        /// Where it was to be.
        place: String,
        /// What opening answered.
        source: std::io::Error,
    },
}

thread_local! {
    /// The line that a thread makes.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Puts calls on record.
#[derive(Debug)]
pub struct Audit {
    policy: AuditPolicy,
    /// By the number of the method.
    plans: Vec<Plan>,
    blocking: bool,
    member: String,
    queue: Queue,
}

/// What the policy means to calls of one method.
#[derive(Debug)]
struct Plan {
    /// One of them may have to be put on record.
    followed: bool,
    /// The rules that name the method, in their order.
    rules: Vec<usize>,
}

impl Plan {
    fn of(method: Method, policy: &AuditPolicy) -> Self {
        let rules: Vec<_> = (0..).zip(&policy.rules).filter(|(_, rule)| rule.names(method)).collect();
        let may = |rule: &AuditRule| record::accesses_of(method).iter().any(|access| rule.wants(*access));
        let followed = is_kept(method) && (policy.default || rules.iter().any(|(_, rule)| rule.record && may(rule)));
        Self { followed, rules: rules.into_iter().map(|(at, _)| at).collect() }
    }
}

/// Who calls, from where.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The user, as far as it is known.
    pub user: Option<Bytes>,
    /// The common name of the client's verified certificate.
    pub common_name: Option<Arc<str>>,
    /// The client's address, if it came by TCP.
    pub address: Option<SocketAddr>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The code.
    pub code: Code,
    /// The text of an error.
    pub error: &'a str,
    /// The first bytes of the answer, which hold its header.
    pub answer: &'a [u8],
}

impl Audit {
    /// Opens the record, if there is to be one. Blocks on the disk.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn open(config: &AuditConfig) -> Result<Option<Self>, AuditError> {
        let Some(output) = &config.output else { return Ok(None) };
        let policy = match &config.policy_file {
            None => AuditPolicy::default(),
            Some(path) => {
                let failed = |reason| AuditError::Policy { path: path.clone(), reason };
                let text = std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
                AuditPolicy::parse(&text).map_err(failed)?
            }
        };
        let queue = Queue::open(output.clone(), config.rotation.clone(), config.blocking).map_err(|source| {
            let place = output.file().map_or("stderr".to_owned(), |path| path.display().to_string());
            AuditError::Open { place, source }
        })?;
        let plans = Method::ALL.iter().map(|method| Plan::of(*method, &policy)).collect();
        Ok(Some(Self { policy, plans, blocking: config.blocking, member: String::new(), queue }))
    }

    /// Says in each line that this member served the call.
    #[must_use]
    pub fn of_member(self, id: u64) -> Arc<Self> {
        Arc::new(Self { member: format!("{id:x}"), ..self })
    }

    /// Opens the file anew, as after another program has put it aside.
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// The lines on their way.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Follows a call of a method, if one of it may have to be put on record.
    pub fn follow(self: &Arc<Self>, method: Method, caller: impl FnOnce() -> Caller) -> Option<Trail> {
        self.plans[method as usize].followed.then(|| Trail {
            audit: self.clone(),
            method,
            caller: caller(),
            request: Bytes::new(),
            lease_keys: Vec::new(),
            began: Instant::now(),
            ended: false,
        })
    }

    /// What is said of values, if the policy wants what happened on record.
    fn wanted(&self, method: Method, caller: &Caller, happened: &Happened) -> Option<AuditValues> {
        let user = caller.user.as_deref().unwrap_or_default();
        let fits = |rule: &&AuditRule| {
            rule.users.as_ref().is_none_or(|users| users.iter().any(|one| one.as_bytes() == user))
                && if rule.record { happened.concerns(rule) } else { happened.is_within(rule) }
        };
        match self.plans[method as usize].rules.iter().map(|at| &self.policy.rules[*at]).find(fits) {
            Some(rule) => rule.record.then_some(rule.values),
            None => self.policy.default.then_some(AuditValues::None),
        }
    }
}

/// Follows one call to its end.
#[derive(Debug)]
pub struct Trail {
    audit: Arc<Audit>,
    method: Method,
    caller: Caller,
    request: Bytes,
    /// The keys of the lease that it is about to revoke.
    lease_keys: Vec<Bytes>,
    began: Instant,
    ended: bool,
}

impl Trail {
    /// What is asked for, encoded.
    pub fn request(&mut self, message: Bytes) {
        self.request = message;
    }

    /// The call revokes a lease, and deletes its keys: `keys_of` says which they are now.
    pub fn revokes(&mut self, keys_of: impl FnOnce(i64) -> Vec<Bytes>) {
        if let Ok(revoke) = pb::LeaseRevokeRequest::decode(self.request.clone()) {
            self.lease_keys = keys_of(revoke.id);
        }
    }

    /// Puts the call on record, if the policy wants it. What is given is to be waited for, where lines may not be lost.
    #[must_use]
    pub fn end(mut self, outcome: &Outcome<'_>) -> Option<Waiting> {
        self.ended = true;
        LINE.with_borrow_mut(|line| {
            if !self.write(outcome, line) || self.audit.queue.push(line) {
                return None;
            }
            if self.audit.blocking {
                return Some(Waiting { audit: self.audit.clone(), line: line.clone() });
            }
            self.audit.queue.push_late(line);
            None
        })
    }

    /// Writes the line, if the policy wants it; whether it does.
    #[expect(clippy::disallowed_methods, reason = "a record carries the time")]
    fn write(&self, outcome: &Outcome<'_>, line: &mut Vec<u8>) -> bool {
        let answered = record::read_answer(outcome.answer);
        let happened = Happened::of(self.method, &self.request, &answered, &self.lease_keys);
        let Some(values) = self.audit.wanted(self.method, &self.caller, &happened) else { return false };
        line.clear();
        let of_call = Line {
            now: SystemTime::now(),
            member: &self.audit.member,
            method: self.method,
            caller: &self.caller,
            happened: &happened,
            values,
            revision: answered.revision,
            code: outcome.code,
            error: outcome.error,
            took: self.began.elapsed(),
        };
        of_call.write(line);
        true
    }
}

/// A line that waits for room.
#[derive(Debug)]
pub struct Waiting {
    audit: Arc<Audit>,
    /// Empty once it is queued.
    line: Vec<u8>,
}

impl Waiting {
    /// Waits until the line is queued.
    pub async fn wait(mut self) {
        if self.audit.queue.push_waiting(&self.line).await {
            self.line.clear();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // The client has given up, but what it did is done.
            self.audit.queue.push_late(&self.line);
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let outcome = Outcome { code: Code::Cancelled, error: "", answer: &[] };
        LINE.with_borrow_mut(|line| {
            // What is dropped cannot wait.
            if self.write(&outcome, line) && !self.audit.queue.push(line) {
                self.audit.queue.push_late(line);
            }
        });
    }
}
