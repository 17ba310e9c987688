//! What happened to the keys: the one history that every member must have and every answer must be a part of.
//!
//! The first member that publishes a revision tells what it changed; every other one, and every one that applies it again
//! after a restart, must publish the same. What is stored (create revision, version, lease) is worked out here from the
//! changes alone and compared.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cairn_proto::mvccpb::KeyValue;
use cairn_server::{
    state::mvcc::{Change, revision::Revision},
    store::{Store, Table},
};
use prost::Message;

use crate::watch::checker::{self, Known};

/// The revision of a fresh store.
pub(super) const FIRST_REVISION: i64 = 1;

/// See the module's text.
#[derive(Debug)]
pub(super) struct History {
    /// As sessions of watchers are held against it.
    pub(super) told: checker::History,
    /// What each revision changed, from the one after [`FIRST_REVISION`] on.
    changes: Vec<Vec<Change>>,
    /// At which revision each write took effect, by the number in its value.
    writes: HashMap<u64, i64>,
    /// The highest revision to which a compaction was asked for.
    pub(super) compaction: i64,
}

/// The number of the write that wrote a value.
pub(super) fn number_of(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim_end().parse().ok()
}

impl History {
    pub(super) fn new() -> Self {
        Self { told: checker::History::new(), changes: Vec::new(), writes: HashMap::new(), compaction: 0 }
    }

    /// The newest revision that any member has published.
    pub(super) fn newest(&self) -> i64 {
        FIRST_REVISION + self.changes.len() as i64
    }

    /// `member` published `changes`, whole revisions in order.
    pub(super) fn published(&mut self, member: u64, changes: &[Change]) -> Result<()> {
        for revision in changes.chunk_by(|one, next| one.at.main == next.at.main) {
            let main = revision[0].at.main;
            match self.changes_of(main) {
                Some(known) => {
                    ensure!(known == revision, "member {member} publishes another revision {main} than others did");
                }
                None => self.learn(main, revision).with_context(|| format!("member {member}, revision {main}"))?,
            }
        }
        Ok(())
    }

    fn learn(&mut self, main: i64, changes: &[Change]) -> Result<()> {
        ensure!(main == self.newest() + 1, "it comes after revision {}", self.newest());
        let mut plain = Vec::new();
        for (sub, change) in changes.iter().enumerate() {
            ensure!(change.at.sub as usize == sub, "its changes are not counted from 0 on");
            let kv = KeyValue::decode(&change.stored[..])?;
            if change.tombstone {
                plain.push(checker::Change::delete(kv.key));
                continue;
            }
            if let Some(number) = number_of(&kv.value) {
                let before = self.writes.insert(number, main);
                ensure!(before.is_none_or(|before| before == main), "write {number} was applied before, at {before:?}");
            }
            plain.push(checker::Change { key: kv.key, value: Some(kv.value), lease: kv.lease });
        }
        self.told.learn(main, plain);
        for (known, change) in self.told.of(main).iter().zip(changes).filter(|(_, change)| !change.tombstone) {
            let stored = KeyValue::decode(&change.stored[..])?;
            ensure!(known.kv == stored, "{stored:?} is stored instead of {:?}", known.kv);
        }
        self.changes.push(changes.to_vec());
        Ok(())
    }

    fn changes_of(&self, main: i64) -> Option<&[Change]> {
        let at = usize::try_from(main - FIRST_REVISION - 1).ok()?;
        self.changes.get(at).map(Vec::as_slice)
    }

    /// What happened at a revision.
    pub(super) fn events(&self, revision: i64) -> &[Known] {
        self.told.of(revision)
    }

    /// The keys of a range as they were at a revision.
    pub(super) fn living(&self, revision: i64, key: &[u8], end: &[u8]) -> BTreeMap<Bytes, KeyValue> {
        let mut living = BTreeMap::new();
        for known in self.told.up_to(revision).iter().filter(|known| contains(key, end, &known.kv.key)) {
            if known.deleted {
                living.remove(&known.kv.key);
            } else {
                living.insert(known.kv.key.clone(), known.kv.clone());
            }
        }
        living
    }

    /// At which revision a write took effect, if it did.
    pub(super) fn revision_of(&self, write: u64) -> Option<i64> {
        self.writes.get(&write).copied()
    }

    /// Whether everything in `store` is part of the history, and everything is there that compaction to `compacted` leaves.
    pub(super) fn check_stored(&self, store: &dyn Store, revision: i64, compacted: i64) -> Result<()> {
        let mut stored: BTreeMap<(i64, u32), (bool, Bytes)> = BTreeMap::new();
        let mut odd = None;
        store.scan(Table::Rev, b"", None, &mut |key, value| {
            let Some((at, tombstone)) = Revision::decode(key) else {
                odd = Some(key.to_vec());
                return ControlFlow::Break(());
            };
            stored.insert((at.main, at.sub), (tombstone, Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        ensure!(odd.is_none(), "{odd:02x?} is stored as a revision");
        for (&(main, sub), (tombstone, value)) in &stored {
            let known = self.changes_of(main).and_then(|changes| changes.get(sub as usize));
            let known = known.with_context(|| format!("revision {main}/{sub} is stored, which never was"))?;
            ensure!(
                known.tombstone == *tombstone && known.stored == *value,
                "revision {main}/{sub} is stored differently from what was published"
            );
        }
        let needed = (compacted.max(FIRST_REVISION) + 1..=revision).filter_map(|main| self.changes_of(main)).flatten();
        for change in needed {
            ensure!(
                stored.contains_key(&(change.at.main, change.at.sub)),
                "revision {}/{} is not stored any more",
                change.at.main,
                change.at.sub
            );
        }
        let kept = self.living(compacted.min(revision), b"\0", b"\0");
        for kv in kept.values() {
            let there = self.events(kv.mod_revision).iter().position(|known| known.kv.key == kv.key);
            ensure!(
                there.is_some_and(|sub| stored.contains_key(&(kv.mod_revision, sub as u32))),
                "compaction to {compacted} took {kv:?}"
            );
        }
        Ok(())
    }
}

/// Whether a range of the wire contains a key.
pub(super) fn contains(from: &[u8], end: &[u8], key: &[u8]) -> bool {
    match end {
        [] => key == from,
        [0] => key >= from,
        _ => key >= from && key < end,
    }
}
