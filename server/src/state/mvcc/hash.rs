//! Hashes over the history: equal on members with the same history, and equal to those of the store this API comes
//! from, so that they also prove a migration.
//!
//! HashKV at revision R, with C the compacted revision, is CRC-32C over the word "key" and, in order, every revision up
//! to R, each as
//! ```text
//! main u64 BE | '_' | sub u64 BE | 't' for a tombstone | the stored value
//! ```
//! Of the revisions at or below C only the **keep-set** counts: the value of each key that lives at R. If the keep-set
//! is empty, every value that compaction to C leaves counts. Tombstones at or below C never do, not even those at C,
//! which are kept. So the hash is a function of the log, R and C, whatever was physically removed.
//!
//! A compaction to C remembers the hash at C as seen just before it, that is with the compacted revision of then. The
//! newest ten of these answer HashKV at their revisions ever after; they are how members compare themselves at a common
//! point. The keep-set of such a hash is what compaction to C leaves, so it is empty only if there is no tombstone at
//! exactly C either. As it reads every value up to C, it is left out for stores of more than [`HASHED_KEYS_MAX`] keys,
//! which answer there as at any other revision.
//!
//! So HashKV at C may be another one before and after the compaction to C. Members that compare themselves say which one
//! they mean: a remembered one, or one computed for an R and a C that they name ([`Reader::begin_hash`]).

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use cairn_proto::ApiError;
use parking_lot::MutexGuard;

use super::{
    Horizon, Mvcc, Pin, ReadError, Reader,
    index::{RangeEnd, Visited},
    revision::Revision,
    value,
    view::PAGE_KEYS,
};
use crate::{
    state::record,
    store::{StoreError, Table},
};

/// Live keys up to which a compaction's hash is remembered.
pub(in crate::state) const HASHED_KEYS_MAX: u64 = 1 << 20;
/// Revisions hashed in one step.
const STEP_REVISIONS: usize = 256;

/// An answer of HashKV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    /// The hash.
    pub hash: u32,
    /// The compacted revision it was computed with, -1 for none.
    pub compact_revision: i64,
    /// The revision it was computed at.
    pub hash_revision: i64,
    /// The store's revision when it was asked for.
    pub header_revision: i64,
}

/// The hash at one point of history being computed, in steps between which its thread may rest or give up. It pins what it
/// reads.
#[derive(Debug)]
pub struct Hashing {
    pin: Pin,
    walk: HashWalk,
}

impl Hashing {
    /// Hashes some more; the answer when it is done. Waits for the disk. Ends in "compacted" if a compaction has waited
    /// for it too long.
    pub fn step(&mut self) -> Result<Option<KvHash>, ReadError> {
        let hash = self.walk.step(self.pin.mvcc())?;
        self.pin.check()?;
        Ok(hash.map(|hash| KvHash {
            hash,
            compact_revision: self.walk.compacted,
            hash_revision: self.walk.at,
            header_revision: self.pin.header_revision(),
        }))
    }
}

/// A hash being computed.
#[derive(Debug)]
pub(super) struct HashWalk {
    at: i64,
    compacted: i64,
    keep: Keep,
    from: Vec<u8>,
    crc: u32,
}

/// Which revisions at or below the compacted one count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Those whose key lives at the hash's revision with this value.
    Living,
    /// Values that compaction leaves.
    Surviving,
}

impl HashWalk {
    /// The hash at `at` with the compacted revision `compacted`; `for_compaction` if it is the one that compaction to
    /// `at` remembers.
    pub(super) fn new(mvcc: &Mvcc, at: i64, compacted: i64, for_compaction: bool) -> Result<Self, ReadError> {
        let mut keep = Keep::Living;
        if compacted > 0
            && at > 0
            && !any_key_lives(mvcc, at)
            && !(for_compaction && any_tombstone_survives_at(mvcc, at)?)
        {
            keep = Keep::Surviving;
        }
        Ok(Self { at, compacted, keep, from: Vec::new(), crc: crc32c::crc32c(b"key") })
    }

    /// Hashes some more; the hash when it is done.
    pub(super) fn step(&mut self, mvcc: &Mvcc) -> Result<Option<u32>, ReadError> {
        if self.at < 1 {
            return Ok(Some(self.crc));
        }
        let mut left = STEP_REVISIONS;
        let mut more = false;
        let mut damaged = None;
        let (mut from, mut crc) = (std::mem::take(&mut self.from), self.crc);
        let until = Revision::new(self.at + 1, 0).put_key();
        mvcc.store.scan(Table::Rev, &from.clone(), Some(&until), &mut |key, stored| {
            if left == 0 {
                more = true;
                from = key.to_vec();
                return ControlFlow::Break(());
            }
            left -= 1;
            let (Some((at, tombstone)), Some(name)) = (Revision::decode(key), value::key_of(stored)) else {
                damaged = Some(key.to_vec());
                return ControlFlow::Break(());
            };
            if self.counts(mvcc, name, at, tombstone) {
                crc = crc32c::crc32c_append(crc, &wire_key(at, tombstone)[..if tombstone { 18 } else { 17 }]);
                crc = crc32c::crc32c_append(crc, stored);
            }
            ControlFlow::Continue(())
        })?;
        if let Some(key) = damaged {
            return Err(ReadError::Corrupt {
                what: format!("a stored revision has the key {key:02x?} or a value without a key"),
            });
        }
        (self.from, self.crc) = (from, crc);
        Ok((!more).then_some(crc))
    }

    fn counts(&self, mvcc: &Mvcc, key: &[u8], at: Revision, tombstone: bool) -> bool {
        if at.main > self.compacted {
            return true;
        }
        if tombstone {
            return false;
        }
        let index = mvcc.index.read();
        match self.keep {
            Keep::Living => index.get(key, Revision::whole(self.at)).is_some_and(|meta| meta.modified == at),
            Keep::Surviving => index.survives(key, at, self.compacted),
        }
    }
}

/// The revision as the hash sees it; without the last byte for a put.
fn wire_key(at: Revision, tombstone: bool) -> [u8; 18] {
    let mut key = [0; 18];
    key[..8].copy_from_slice(&at.main.to_be_bytes());
    key[8] = b'_';
    key[9..17].copy_from_slice(&u64::from(at.sub).to_be_bytes());
    key[17] = if tombstone { b't' } else { 0 };
    key
}

fn any_key_lives(mvcc: &Mvcc, at: i64) -> bool {
    let mut from = Bytes::new();
    loop {
        let visited =
            mvcc.index
                .read()
                .visit(&from, &RangeEnd::Unbounded, Revision::whole(at), PAGE_KEYS, &mut |_, _| ControlFlow::Break(()));
        match visited {
            Visited::Stopped => return true,
            Visited::Finished => return false,
            Visited::More(next) => from = next,
        }
    }
}

fn any_tombstone_survives_at(mvcc: &Mvcc, main: i64) -> Result<bool, StoreError> {
    let (from, until) = (Revision::new(main, 0).put_key(), Revision::new(main + 1, 0).put_key());
    let mut found = false;
    mvcc.store.scan(Table::Rev, &from, Some(&until), &mut |key, stored| {
        found = match (Revision::decode(key), value::key_of(stored)) {
            (Some((at, true)), Some(name)) => mvcc.index.read().survives(name, at, main),
            _ => false,
        };
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

fn walk(pin: &Pin, mut walk: HashWalk) -> Result<u32, ReadError> {
    loop {
        let hash = walk.step(pin.mvcc())?;
        pin.check()?;
        if let Some(hash) = hash {
            return Ok(hash);
        }
    }
}

/// The hash at `at` as of now, whatever compactions have remembered.
fn hash_at(mvcc: &Arc<Mvcc>, mut horizon: MutexGuard<'_, Horizon>, at: i64) -> Result<KvHash, ReadError> {
    let (compacted, header_revision) = (horizon.compacted, horizon.revision);
    let pin = mvcc.pin_known(&mut horizon, compacted.max(0));
    drop(horizon);
    let hash = walk(&pin, HashWalk::new(mvcc, at, compacted, false)?)?;
    Ok(KvHash { hash, compact_revision: compacted, hash_revision: at, header_revision })
}

impl Reader {
    /// The hash of all keys up to `revision`, the newest one if it is 0. Reads everything: not for a thread that must
    /// not block.
    pub fn hash_kv(&self, revision: i64) -> Result<KvHash, ReadError> {
        let mvcc = &self.mvcc();
        let mut horizon = mvcc.horizon.lock();
        let header_revision = horizon.revision;
        let remembered =
            horizon.compactions.iter().find(|one| one.scheduled.hashed && one.scheduled.revision == revision).copied();
        if let Some(one) = remembered {
            let answer = |hash| KvHash {
                hash,
                compact_revision: one.scheduled.previous,
                hash_revision: revision,
                header_revision,
            };
            if let Some(hash) = one.hash {
                return Ok(answer(hash));
            }
            if revision > horizon.finished {
                // Its turn has not come: nothing is removed before it is known, so it can be computed here too.
                let pin = mvcc.pin_known(&mut horizon, one.scheduled.previous.max(0));
                drop(horizon);
                let hash = walk(&pin, HashWalk::new(mvcc, revision, one.scheduled.previous, true)?)?;
                mvcc.horizon.lock().record_hash(revision, hash);
                return Ok(answer(hash));
            }
        }
        if revision > header_revision {
            return Err(ApiError::FutureRevision.into());
        }
        if revision > 0 && revision < horizon.compacted {
            return Err(ApiError::Compacted.into());
        }
        hash_at(mvcc, horizon, if revision == 0 { header_revision } else { revision })
    }

    /// Begins the hash of all keys up to `revision`, the newest one if it is 0, as of the compacted revision `compacted`,
    /// this member's if that is `None`. What compactions have remembered plays no part: two members that are asked for
    /// the same two revisions hash the same, whatever either has been told to compact, or has removed.
    ///
    /// # Errors
    /// "Compacted" if this member has compacted further than that, "future revision" if it is not there yet.
    pub fn begin_hash(&self, revision: i64, compacted: Option<i64>) -> Result<Hashing, ReadError> {
        let mvcc = self.mvcc();
        let mut horizon = mvcc.horizon.lock();
        let at = if revision == 0 { horizon.revision } else { revision };
        if at > horizon.revision {
            return Err(ApiError::FutureRevision.into());
        }
        let own = horizon.compacted;
        let compacted = compacted.unwrap_or(own);
        if compacted < own || at < compacted {
            return Err(ApiError::Compacted.into());
        }
        let pin = mvcc.pin_known(&mut horizon, own.max(0));
        drop(horizon);
        let walk = HashWalk::new(&mvcc, at, compacted, false)?;
        Ok(Hashing { pin, walk })
    }

    /// The hashes that compactions have remembered and that are known, the newest first.
    pub fn compaction_hashes(&self) -> Vec<KvHash> {
        let mvcc = self.mvcc();
        let horizon = mvcc.horizon.lock();
        let known = horizon.compactions.iter().rev().filter_map(|one| {
            one.hash.map(|hash| KvHash {
                hash,
                compact_revision: one.scheduled.previous,
                hash_revision: one.scheduled.revision,
                header_revision: horizon.revision,
            })
        });
        known.collect()
    }

    /// A hash over all replicated data, keys included, and the store's revision. For tests: it is a point of history
    /// only while nothing is applied.
    pub fn hash(&self) -> Result<(u32, i64), ReadError> {
        let mvcc = self.mvcc();
        let horizon = mvcc.horizon.lock();
        let newest = horizon.revision;
        let keys = hash_at(&mvcc, horizon, newest)?;
        let mut crc = keys.hash;
        for table in [Table::Lease, Table::Auth, Table::Member, Table::Alarm] {
            crc = crc32c::crc32c_append(crc, table.name().as_bytes());
            mvcc.store.scan(table, b"", None, &mut |key, value| {
                crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
                ControlFlow::Continue(())
            })?;
        }
        for key in [record::cluster::KEY, record::version::KEY, record::downgrade::KEY] {
            let value = mvcc.store.get(Table::Meta, key)?.unwrap_or_default();
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), &value);
        }
        Ok((crc, keys.header_revision))
    }
}
