//! Applying committed entries.
//!
//! Entries are evaluated in log order into one open batch: data, applied index, revision, compactions, leases, members,
//! alarms. The batch is written to the store, then published to readers, then answered. If the store asks to wait, the
//! batch is kept and nothing more is applied until it is through.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmType, LeaseCheckpointRequest, LeaseGrantRequest, alarm_request::AlarmAction,
    },
};
use prost::Message;
use raft::eraftpb::{ConfChangeV2, ConfState};
use semver::Version;

use super::{
    State, StateError,
    auth::{AuthRequest, AuthStore, Need, Written},
    command::{Command, OpReply, Outcome, Reply, Request, RequestId, decode_entry},
    leases::LeaseChange,
    members::MemberChange,
    mvcc::{Changes, HASHED_KEYS_MAX, Pin, Write, puts},
    record::{self, applied::Applied, lease::LeaseRecord, scheduled::Scheduled},
};
use crate::store::Table;

/// A committed entry of the log.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What it holds.
    pub data: CommittedData,
}

/// What a committed entry holds.
#[derive(Debug, Clone)]
pub enum CommittedData {
    /// Commands, as [`EntryBuilder`](super::command::EntryBuilder) packed them.
    Commands(Bytes),
    /// A membership change, raft's membership after it, and its context: a [`MemberChange`], or nothing.
    ConfChange(ConfChangeV2, ConfState, Bytes),
    /// Nothing: a leader began its term.
    Empty,
}

/// What a request gets.
#[derive(Debug)]
pub struct Answer {
    /// Whose it is.
    pub id: RequestId,
    /// The same on every member.
    pub outcome: Outcome,
    /// Keeps what the answer's rows are read from.
    pub pin: Option<Pin>,
}

/// An answer before its batch is written.
#[derive(Debug)]
pub(super) struct Planned {
    id: RequestId,
    outcome: Outcome,
    pin: Option<i64>,
}

/// A command's outcome, and the revision to pin for its rows.
type Evaluated = Result<(Reply, Option<i64>), StateError>;

impl State {
    /// Applies entries, which must follow the applied one without a gap; those applied before are skipped. Answers come
    /// in the order of the commands.
    ///
    /// [`StateError::Stalled`]: all of them are evaluated and kept; call [`State::retry`], not this, until it answers.
    /// Any other error is fatal.
    pub fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Answer>, StateError> {
        self.usable()?;
        if self.stalled {
            return Err(StateError::Unusable { why: "entries were handed over while earlier ones wait to be written" });
        }
        for entry in entries {
            if let Err(error) = self.apply_entry(entry) {
                self.unusable = true;
                return Err(error);
            }
        }
        self.write()
    }

    /// Tries again to write what [`State::apply`] had to keep.
    pub fn retry(&mut self) -> Result<Vec<Answer>, StateError> {
        self.usable()?;
        self.write()
    }

    fn usable(&self) -> Result<(), StateError> {
        if self.unusable {
            return Err(StateError::Unusable { why: "an earlier error was fatal" });
        }
        if self.applied == Applied::default() {
            return Err(StateError::Empty);
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Committed) -> Result<(), StateError> {
        if entry.index <= self.applied.index {
            return Ok(());
        }
        let expected = self.applied.index + 1;
        if entry.index != expected {
            return Err(StateError::OutOfOrder { expected, found: entry.index });
        }
        let damaged = |source| StateError::Command { index: entry.index, source };
        match &entry.data {
            CommittedData::Empty => {}
            CommittedData::Commands(data) => {
                for command in decode_entry(data.clone()) {
                    self.apply_command(entry.term, &command.map_err(damaged)?)?;
                }
            }
            CommittedData::ConfChange(_, conf_state, context) => {
                self.open.batch.put(Table::Meta, record::conf_state::KEY, record::conf_state::encode(conf_state));
                self.raft_members = conf_state.clone();
                if !context.is_empty() {
                    let (id, change) = MemberChange::decode(context.clone()).map_err(damaged)?;
                    let outcome = self.change_members(change);
                    self.plan(id, outcome)?;
                }
            }
        }
        self.applied = Applied { index: entry.index, term: entry.term };
        Ok(())
    }

    fn apply_command(&mut self, term: u64, command: &Command) -> Result<(), StateError> {
        self.commands += 1;
        let outcome = self.evaluate(term, command);
        if let Some(observer) = &self.observer {
            let refused = match &outcome {
                Err(StateError::Refused(error)) => Err(*error),
                _ => Ok(()),
            };
            observer.evaluated(command.request.kind(), refused);
        }
        self.plan(command.id, outcome)
    }

    /// Notes an answer, if somebody here waits for it; hands on an error that is none.
    fn plan(&mut self, id: RequestId, evaluated: Evaluated) -> Result<(), StateError> {
        let (outcome, pin) = match evaluated {
            Ok((reply, pin)) => (Ok(reply), pin),
            Err(StateError::Refused(error)) => (Err(error), None),
            Err(error) => return Err(error),
        };
        if self.answers_for.is_none_or(|own| own == (id.member, id.nonce)) {
            self.planned.push(Planned { id, outcome, pin });
        }
        Ok(())
    }

    fn evaluate(&mut self, term: u64, Command { actor, request, .. }: &Command) -> Evaluated {
        self.admit(request)?;
        let auth = self.auth.load();
        if auth.is_enabled() {
            auth.check(actor, Need::Apply(request), &*self.leases.read())?;
        }
        match request {
            Request::Put(put) => self.change_keys(|write| write.put(put)),
            Request::DeleteRange(delete) => self.change_keys(|write| write.delete_range(delete)),
            Request::Txn(txn) => self.change_keys(|write| write.txn(txn)),
            Request::Compact(compact) => self.compact(compact.revision),
            Request::LeaseGrant(grant) => self.grant(grant),
            Request::LeaseRevoke { expired_in_term: Some(decided), .. } if *decided != term => Ok((Reply::Done, None)),
            Request::LeaseRevoke { id, expired_in_term } => self.revoke(*id, expired_in_term.is_some()),
            Request::LeaseCheckpoint(request) => Ok(self.checkpoint(request)),
            Request::Alarm(alarm) => Ok(self.alarm(alarm)),
            Request::PublishMember { member, name, client_urls } => Ok(self.publish_member(*member, name, client_urls)),
            Request::ClusterVersion(version) => Ok(self.raise_version(version)),
            Request::CommandLevel(level) => Ok(self.raise_command_level(*level)),
            Request::Auth(request) => self.change_auth(request),
            Request::Token { user, token, made } => Ok(self.assign_token(user, token, *made)),
        }
    }

    /// What raised alarms forbid.
    fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let alarms = self.alarms.load();
        let changes_keys = matches!(
            request,
            Request::Put(_)
                | Request::DeleteRange(_)
                | Request::Txn(_)
                | Request::Compact(_)
                | Request::LeaseGrant(_)
                | Request::LeaseRevoke { .. }
        );
        if changes_keys && alarms.any(AlarmType::Corrupt) {
            return Err(ApiError::Corrupt);
        }
        let takes_space = match request {
            Request::Put(_) | Request::LeaseGrant(_) => true,
            Request::Txn(txn) => puts(txn),
            _ => false,
        };
        if takes_space && alarms.any(AlarmType::Nospace) { Err(ApiError::NoSpace) } else { Ok(()) }
    }

    fn change_keys(&mut self, change: impl FnOnce(&mut Write<'_>) -> Result<OpReply, StateError>) -> Evaluated {
        let mut write = Write::new(&self.mvcc, &mut self.open, &self.leases);
        let done = change(&mut write)?;
        let (revision, pin) = write.finish();
        Ok((Reply::Kv { revision, done }, pin))
    }

    fn compact(&mut self, revision: i64) -> Evaluated {
        let newest = self.open.revision;
        if revision <= self.open.compacted {
            return Err(ApiError::Compacted.into());
        }
        if revision > newest {
            return Err(ApiError::FutureRevision.into());
        }
        let hashed = self.mvcc.index.read().stats().live_keys <= HASHED_KEYS_MAX;
        let one = Scheduled { revision, previous: self.open.compacted, hashed };
        self.scheduled.push(one);
        let excess = self.scheduled.len().saturating_sub(record::scheduled::SCHEDULED_MAX);
        self.scheduled.drain(..excess);
        self.open.scheduled.push(one);
        self.open.compacted = revision;
        self.open.batch.put(Table::Meta, record::scheduled::KEY, record::scheduled::encode(&self.scheduled));
        Ok((Reply::Compact { revision: newest, compacted: revision }, None))
    }

    fn grant(&mut self, request: &LeaseGrantRequest) -> Evaluated {
        let LeaseGrantRequest { id, ttl } = *request;
        let mut leases = self.leases.write();
        if id == 0 {
            return Err(ApiError::LeaseNotFound.into());
        }
        if leases.contains(id) {
            return Err(ApiError::LeaseExists.into());
        }
        let record = LeaseRecord { ttl, remaining: 0 };
        leases.insert(id, record);
        self.lease_changes.push(LeaseChange::Granted { id, ttl });
        self.open.batch.put(Table::Lease, record::lease::key(id).to_vec(), record.encode().to_vec());
        Ok((Reply::Lease { revision: self.open.revision, id, ttl }, None))
    }

    fn revoke(&mut self, id: i64, expired: bool) -> Evaluated {
        let Some(keys) = self.leases.write().remove(id) else { return Err(ApiError::LeaseNotFound.into()) };
        self.lease_changes.push(LeaseChange::Revoked { id, expired });
        self.open.batch.delete(Table::Lease, record::lease::key(id).to_vec());
        let mut write = Write::new(&self.mvcc, &mut self.open, &self.leases);
        write.delete_keys(keys);
        let (revision, _) = write.finish();
        Ok((Reply::Lease { revision, id, ttl: 0 }, None))
    }

    fn checkpoint(&mut self, request: &LeaseCheckpointRequest) -> (Reply, Option<i64>) {
        let mut leases = self.leases.write();
        for one in &request.checkpoints {
            if let Some(record) = leases.set_remaining(one.id, one.remaining_ttl) {
                self.lease_changes.push(LeaseChange::Checkpointed { id: one.id, remaining: one.remaining_ttl });
                self.open.batch.put(Table::Lease, record::lease::key(one.id).to_vec(), record.encode().to_vec());
            }
        }
        (Reply::Done, None)
    }

    fn alarm(&mut self, request: &AlarmRequest) -> (Reply, Option<i64>) {
        let AlarmRequest { action, member_id, alarm } = *request;
        let one = || vec![AlarmMember { member_id, alarm }];
        let key = || record::alarm::key(alarm, member_id).to_vec();
        let alarms = match AlarmAction::try_from(action) {
            Ok(AlarmAction::Get) => self.alarms.load().list(alarm),
            Ok(AlarmAction::Activate) if alarm != AlarmType::None as i32 => {
                if self.edit_alarms(|alarms| alarms.raise(alarm, member_id)) {
                    self.open.batch.put(Table::Alarm, key(), Bytes::new());
                }
                one()
            }
            Ok(AlarmAction::Deactivate) if self.edit_alarms(|alarms| alarms.lower(alarm, member_id)) => {
                self.open.batch.delete(Table::Alarm, key());
                one()
            }
            _ => Vec::new(),
        };
        (Reply::Alarms(alarms), None)
    }

    fn edit_alarms(&mut self, edit: impl FnOnce(&mut super::Alarms) -> bool) -> bool {
        let mut alarms = self.alarms.load().as_ref().clone();
        let changed = edit(&mut alarms);
        if changed {
            self.alarms.store(Arc::new(alarms));
        }
        changed
    }

    fn publish_member(&mut self, id: u64, name: &str, client_urls: &[String]) -> (Reply, Option<i64>) {
        let mut members = self.members.load().as_ref().clone();
        // A member that was removed meanwhile has nothing to publish.
        if let Some(member) = members.members.get_mut(&id) {
            name.clone_into(&mut member.name);
            client_urls.clone_into(&mut member.client_urls);
            self.open.batch.put(Table::Member, record::member::key(id), record::member::encode(member));
            self.members.store(Arc::new(members));
        }
        (Reply::Done, None)
    }

    fn change_members(&mut self, change: MemberChange) -> Evaluated {
        let mut members = self.members.load().as_ref().clone();
        let batch = &mut self.open.batch;
        let changed = match change {
            MemberChange::Add(member) => {
                let id = member.id;
                members.members.insert(id, member);
                id
            }
            MemberChange::Remove(id) => {
                members.members.remove(&id);
                members.removed.insert(id);
                batch.delete(Table::Member, record::member::key(id));
                batch.put(Table::Member, record::member::removed_key(id), Bytes::new());
                id
            }
            MemberChange::Update { id, peer_urls } => {
                members.members.get_mut(&id).ok_or(ApiError::MemberNotFound)?.peer_urls = peer_urls;
                id
            }
            MemberChange::Promote(id) => {
                members.members.get_mut(&id).ok_or(ApiError::MemberNotFound)?.is_learner = false;
                id
            }
        };
        if let Some(member) = members.members.get(&changed) {
            batch.put(Table::Member, record::member::key(changed), record::member::encode(member));
        }
        self.members.store(Arc::new(members));
        Ok((Reply::Done, None))
    }

    fn raise_version(&mut self, version: &Version) -> (Reply, Option<i64>) {
        if self.version.load().as_ref().is_none_or(|present| **present < *version) {
            self.open.batch.put(Table::Meta, record::version::KEY, record::version::encode(version));
            self.version.store(Some(Arc::new(version.clone())));
        }
        (Reply::Done, None)
    }

    fn change_auth(&mut self, request: &AuthRequest) -> Evaluated {
        let mut auth = AuthStore::clone(&self.auth.load());
        let written = auth.evaluate(request)?;
        let batch = &mut self.open.batch;
        for record in written {
            match record {
                Written::Switch => {
                    let switch = record::auth::encode_switch(auth.is_enabled(), auth.revision());
                    batch.put(Table::Auth, record::auth::SWITCH, switch);
                }
                Written::User(name, Some(user)) => {
                    batch.put(Table::Auth, record::auth::user_key(&name), user.encode_to_vec());
                }
                Written::User(name, None) => batch.delete(Table::Auth, record::auth::user_key(&name)),
                Written::Role(name, Some(role)) => {
                    batch.put(Table::Auth, record::auth::role_key(&name), role.encode_to_vec());
                }
                Written::Role(name, None) => batch.delete(Table::Auth, record::auth::role_key(&name)),
            }
        }
        match request {
            AuthRequest::Disable => self.tokens.clear(),
            AuthRequest::UserDelete(request) => self.tokens.forget_user(request.name.as_bytes()),
            AuthRequest::UserChangePassword(request) => self.tokens.forget_user(request.name.as_bytes()),
            _ => {}
        }
        self.auth.store(Arc::new(auth));
        if let Some(sink) = &self.changes {
            sink.permissions_changed();
        }
        Ok((Reply::Done, None))
    }

    /// A token is known at once, wherever its command is applied.
    fn assign_token(&mut self, user: &Bytes, token: &Bytes, made: u64) -> (Reply, Option<i64>) {
        if self.auth.load().is_enabled() {
            self.tokens.assign(token.clone(), user.clone(), made);
        }
        (Reply::Done, None)
    }

    fn raise_command_level(&mut self, level: u32) -> (Reply, Option<i64>) {
        if self.command_level.load(Ordering::Relaxed) < level {
            self.open.batch.put(Table::Meta, record::command_level::KEY, record::command_level::encode(level).to_vec());
            self.command_level.store(level, Ordering::Relaxed);
        }
        (Reply::Done, None)
    }

    /// Writes and publishes the open batch.
    fn write(&mut self) -> Result<Vec<Answer>, StateError> {
        if !self.stalled {
            if self.applied == self.written {
                return Ok(Vec::new());
            }
            self.open.batch.put(Table::Meta, record::applied::KEY, self.applied.encode().to_vec());
            if self.open.revision != self.reader.revision() {
                self.open.batch.put(
                    Table::Meta,
                    record::current::KEY,
                    record::current::encode(self.open.revision).to_vec(),
                );
            }
            self.stalled = true;
        }
        match self.mvcc.store.write(&self.open.batch).map_err(StateError::from) {
            Ok(()) => {}
            Err(StateError::Stalled) => return Err(StateError::Stalled),
            Err(error) => {
                self.unusable = true;
                return Err(error);
            }
        }
        if let Some(observer) = &self.observer {
            observer.written();
        }
        self.mvcc.count_written(self.open.batch.bytes());
        self.stalled = false;
        self.written = self.applied;
        let planned = std::mem::take(&mut self.planned);
        let changes = self.open.take_changes();
        // Whoever is told of changes may want to know what was there before them.
        let before = self.changes.as_ref().filter(|sink| !changes.is_empty() && sink.needs_previous());
        let before = before.map(|_| self.reader.revision());
        let wanted = planned.iter().map(|one| one.pin).chain(before.map(Some));
        let mut pins = self.mvcc.publish(self.open.revision, &self.open.scheduled, wanted);
        if let Some(sink) = self.changes.as_ref().filter(|_| !changes.is_empty()) {
            let pin = before.and_then(|_| pins.pop().flatten());
            sink.changed(Changes { list: changes, pin });
        }
        let compacts = !self.open.scheduled.is_empty();
        self.open.clear();
        if compacts && let Some(call) = &self.on_compaction {
            call();
        }
        Ok(planned
            .into_iter()
            .zip(pins)
            .map(|(Planned { id, outcome, .. }, pin)| Answer { id, outcome, pin })
            .collect())
    }
}
