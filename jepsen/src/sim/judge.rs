//! Whether answers are right, and why that makes the whole linearizable.
//!
//! The store's state is a function of its revision: [`History`](super::history::History) holds what each revision
//! changed, and every member is held to it. An answer names a revision, and is checked against the history there:
//!
//! * a write that took effect: at its revision, the history has exactly what was asked for, under this request's number,
//!   and a compare-and-swap found at the revision before what it compared with; the number is nowhere else in the
//!   history, so it was applied once;
//! * a write that changed nothing, and a read: at its revision, the history shows what the answer says;
//! * a write that was certainly not carried out is nowhere in the history; one whose fate is unknown is there once or
//!   not at all;
//! * **real time**: an answer's revision is at least the newest revision that *any member* had published when the request
//!   was sent, and greater than it for a write that took effect. Whatever an earlier answer said, some member had
//!   published before.
//!
//! From this follows linearizability: order all requests by their revisions, at each the write that made it first, then
//! the reads and the writes without effect, in the order in which they were sent. Every answer is what a single store
//! would have said in this order (first three points), and a request that was sent after another had been answered comes
//! after it (real time). As revisions belong to the whole store and not to a key, the whole store is one linearizable
//! object, transactions included.
//!
//! Serializable reads are only held to the history at the revision they name. Answers about leases are judged in
//! [`leases`](super::leases).

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cairn_proto::{ApiError, mvccpb::KeyValue};
use cairn_server::state::{
    Answer, MemberChange, Reader,
    auth::Authorizer,
    command::{OpReply, Reply},
    mvcc::{OpRows, Rows},
};
use prost::Message;

use super::{
    history::number_of,
    request::{Ask, Known},
    world::World,
};

fn decoded(kvs: &[Bytes]) -> Result<Vec<KeyValue>> {
    kvs.iter().map(|kv| Ok(KeyValue::decode(&kv[..])?)).collect()
}

impl World {
    /// Judges the answer that member `at` gives to the write `number`.
    pub(super) fn judge_write(&mut self, at: usize, number: u64, answer: &Answer) -> Result<()> {
        let ask = self.asked[number as usize].ask.clone();
        let reply = match &answer.outcome {
            Ok(reply) => reply,
            Err(error) => return self.judge_refusal(number, &ask, *error),
        };
        if ask.takes_space() {
            self.alarms.seen(false, self.asked[number as usize].at)?;
        }
        match (&ask, reply) {
            (Ask::Compact { .. }, Reply::Compact { .. })
            | (Ask::Revoke { .. }, Reply::Lease { .. })
            | (Ask::Publish { .. } | Ask::KeepAlive { .. }, Reply::Done) => Ok(()),
            (Ask::Change(change), Reply::Done) => {
                self.count_change(at, change);
                Ok(())
            }
            (Ask::Alarm { .. }, Reply::Alarms(_)) => {
                self.alarms.done(number, self.clock.now());
                Ok(())
            }
            (Ask::Grant { id, ttl }, Reply::Lease { id: told, ttl: given, .. }) => {
                ensure!((id, ttl) == (told, given), "lease {id} of {ttl} s is granted as {told} of {given} s");
                self.leases.told(*id, self.asked[number as usize].at, *ttl as u64 * 1000)
            }
            (_, Reply::Kv { revision, done }) => self.judge_change(at, number, &ask, *revision, done, answer),
            (ask, reply) => bail!("{ask:?} is answered by {reply:?}"),
        }
    }

    fn count_change(&mut self, at: usize, change: &MemberChange) {
        match change {
            MemberChange::Add(_) | MemberChange::Update { .. } => {}
            MemberChange::Promote(_) => self.coverage.promoted += 1,
            MemberChange::Remove(id) => {
                self.coverage.removed += 1;
                // Only a leader is asked.
                self.coverage.leaders_removed += u64::from(*id == self.members[at].id);
            }
        }
    }

    fn judge_refusal(&mut self, number: u64, ask: &Ask, error: ApiError) -> Result<()> {
        self.asked[number as usize].known = Known::Refused;
        match (ask, error) {
            (Ask::Compact { .. }, ApiError::Compacted | ApiError::FutureRevision) | (Ask::Change(_), _) => Ok(()),
            (Ask::Put { lease, .. }, ApiError::LeaseNotFound) if *lease != 0 => self.leases.told_gone(*lease),
            (Ask::Revoke { id }, ApiError::LeaseNotFound) => self.leases.told_gone(*id),
            (ask, ApiError::NoSpace) if ask.takes_space() => {
                self.coverage.no_space += 1;
                self.alarms.seen(true, self.asked[number as usize].at)
            }
            (ask, error) => bail!("{ask:?} is refused: {}", error.text()),
        }
    }

    fn judge_change(
        &mut self,
        at: usize,
        number: u64,
        ask: &Ask,
        revision: i64,
        done: &OpReply,
        answer: &Answer,
    ) -> Result<()> {
        let reader = self.running(at)?.core.state().reader().clone();
        let rows = reader.answer(done, answer.pin.as_ref())?;
        let before = |key: &Bytes| self.history.living(revision - 1, key, b"").remove(key);
        match (ask, rows) {
            (Ask::Put { key, previous, .. }, OpRows::Put { previous: told, .. }) => {
                let told = told.map(|told| KeyValue::decode(&told[..])).transpose()?;
                let was = before(key).filter(|_| *previous);
                ensure!(told == was, "write {number} at {revision} replaced {was:?}, and says {told:?}");
                self.took_effect(number, revision, std::slice::from_ref(key))
            }
            (Ask::Puts { keys }, OpRows::Txn { succeeded: true, .. }) => self.took_effect(number, revision, keys),
            (Ask::Swap { key, modified }, OpRows::Txn { succeeded: true, .. }) => {
                let was = before(key).map_or(0, |kv| kv.mod_revision);
                ensure!(was == *modified, "swap {number} of {key:?} at {modified} went through, it stood at {was}");
                self.took_effect(number, revision, std::slice::from_ref(key))
            }
            (Ask::Swap { key, modified }, OpRows::Txn { succeeded: false, ops }) => {
                self.saw_all_before(number, revision)?;
                let [OpRows::Range { rows, .. }] = &ops[..] else { bail!("swap {number} is answered by {ops:?}") };
                let told = decoded(&rows.kvs)?;
                self.shows(revision, key, b"", &told)?;
                let stood = told.first().map_or(0, |kv| kv.mod_revision);
                ensure!(stood != *modified, "swap {number} of {key:?} at {modified} failed, it stood there");
                Ok(())
            }
            (Ask::Delete { key, end }, OpRows::DeleteRange { deleted, .. }) => {
                if deleted == 0 {
                    self.saw_all_before(number, revision)?;
                    return self.shows(revision, key, end, &[]);
                }
                let gone = self.history.living(revision - 1, key, end);
                ensure!(gone.len() as i64 == deleted, "delete {number} took {deleted} keys, {} were there", gone.len());
                let floor = self.asked[number as usize].floor;
                ensure!(revision > floor, "delete {number} took effect at {revision}, at {floor} it was not sent yet");
                let events = self.history.events(revision);
                let same = events.len() == gone.len()
                    && events.iter().zip(gone.keys()).all(|(event, key)| event.deleted && event.kv.key == *key);
                ensure!(same, "delete {number} says that it took effect at {revision}, where {events:?} happened");
                Ok(())
            }
            (ask, rows) => bail!("{ask:?} is answered by {rows:?}"),
        }
    }

    /// A write says that it put `keys` at a revision.
    fn took_effect(&self, number: u64, revision: i64, keys: &[Bytes]) -> Result<()> {
        let floor = self.asked[number as usize].floor;
        ensure!(revision > floor, "write {number} took effect at {revision}, at {floor} it was not sent yet");
        let events = self.history.events(revision);
        let same = events.len() == keys.len()
            && events
                .iter()
                .zip(keys)
                .all(|(event, key)| event.kv.key == *key && number_of(&event.kv.value) == Some(number));
        ensure!(same, "write {number} says that it took effect at {revision}, where {events:?} happened");
        Ok(())
    }

    /// An answer that changed nothing has to have seen everything that was there before it was asked for.
    fn saw_all_before(&self, number: u64, revision: i64) -> Result<()> {
        let floor = self.asked[number as usize].floor;
        ensure!(
            revision >= floor,
            "request {number} is answered as of revision {revision}, but {floor} was there before it was sent"
        );
        Ok(())
    }

    /// At a revision, a range holds just this.
    fn shows(&self, revision: i64, key: &[u8], end: &[u8], told: &[KeyValue]) -> Result<()> {
        let was = self.history.living(revision, key, end);
        ensure!(was.values().eq(told), "{told:?} is said to be there at revision {revision}, which is {was:?}");
        Ok(())
    }

    /// Reads what a client asked to read and judges it.
    pub(super) fn read(&mut self, at: usize, number: u64) -> Result<()> {
        let Ask::Read { key, end, revision, serializable } = self.asked[number as usize].ask.clone() else {
            bail!("request {number} is no read")
        };
        let reader = self.running(at)?.core.state().reader().clone();
        let newest = reader.revision();
        if !serializable {
            self.saw_all_before(number, newest)?;
        }
        let pin = match reader.pin(&Authorizer::default().own(), revision) {
            Ok(pin) => pin,
            Err(ApiError::Compacted) if revision < self.history.compaction => return Ok(()),
            Err(ApiError::FutureRevision) if serializable && revision > newest => return Ok(()),
            Err(error) => bail!("a read at revision {revision} of {newest} is refused: {}", error.text()),
        };
        let Rows { kvs, count, .. } = reader.range(&pin, &super::request::range(&key, &end, revision))?;
        ensure!(count as usize == kvs.len(), "{count} keys are counted, {} are told", kvs.len());
        self.coverage.reads += 1;
        self.shows(pin.revision(), &key, &end, &decoded(&kvs)?).with_context(|| format!("read {number} at {at}"))
    }

    /// Whether a state that was opened shows at its revision what was there then: its index was read, not written.
    pub(super) fn check_index(&self, reader: &Reader) -> Result<()> {
        let all = Bytes::from_static(b"\0");
        let Ok(pin) = reader.pin(&Authorizer::default().own(), 0) else { bail!("the newest revision cannot be read") };
        let rows = reader.range(&pin, &super::request::range(&all, &all, 0))?;
        ensure!(rows.count as usize == rows.kvs.len(), "{} keys are counted, {} are told", rows.count, rows.kvs.len());
        self.shows(pin.revision(), &all, &all, &decoded(&rows.kvs)?)
    }

    /// Judges the writes whose answers never came, and those that were refused, once everything is known.
    pub(super) fn judge_unanswered(&self) -> Result<()> {
        for (number, asked) in self.asked.iter().enumerate() {
            let Some(revision) = self.history.revision_of(number as u64) else { continue };
            ensure!(asked.known != Known::Refused, "write {number} was refused, but took effect at {revision}");
            ensure!(revision > asked.floor, "write {number} took effect at {revision} before it was sent");
        }
        Ok(())
    }
}
