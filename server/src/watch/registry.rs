//! The hub's table of live watchers.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    interest::Interest,
    mailbox::Mailbox,
    matcher::{Matcher, Slot},
};

/// A live watcher: every event after the dispatched revision that it wants is put into its stream's mailbox.
#[derive(Debug)]
pub(super) struct Live {
    /// Unique in the hub.
    pub(super) serial: u64,
    /// Its number on its stream.
    pub(super) id: i64,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) interest: Arc<Interest>,
    /// Older events are not for it.
    pub(super) start: i64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Vec<Option<Live>>,
    free: Vec<Slot>,
    pub(super) matcher: Matcher,
    /// Number of the event to be dispatched next.
    pub(super) cursor: u64,
    /// Streams to be woken once a revision is dispatched.
    pub(super) waiting: Vec<(i64, Arc<Mailbox>)>,
    /// All open streams.
    pub(super) mailboxes: BTreeMap<u64, Arc<Mailbox>>,
}

impl Registry {
    /// Enters a watcher.
    pub(super) fn insert(&mut self, live: Live) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            Slot::try_from(self.entries.len() - 1).expect("4 billion watchers would have exhausted memory before")
        });
        self.matcher.insert(slot, &live.interest);
        self.entries[slot as usize] = Some(live);
        slot
    }

    /// A watcher.
    pub(super) fn get(&self, slot: Slot) -> Option<&Live> {
        self.entries.get(slot as usize)?.as_ref()
    }

    /// Removes a watcher, unless another one has its place by now.
    pub(super) fn remove(&mut self, slot: Slot, serial: u64) -> Option<Live> {
        let entry = self.entries.get_mut(slot as usize)?;
        let live = entry.take_if(|live| live.serial == serial)?;
        self.matcher.remove(slot, &live.interest);
        self.free.push(slot);
        if self.matcher.len() == 0 {
            (self.entries, self.free) = (Vec::new(), Vec::new());
        }
        Some(live)
    }

    /// All watchers, removed.
    pub(super) fn take_all(&mut self) -> Vec<Live> {
        self.matcher = Matcher::default();
        self.free.clear();
        std::mem::take(&mut self.entries).into_iter().flatten().collect()
    }

    /// The streams that wait for a revision up to `dispatched`.
    pub(super) fn take_waiting(&mut self, dispatched: i64) -> Vec<Arc<Mailbox>> {
        let mut due = Vec::new();
        self.waiting.retain(|(revision, mailbox)| {
            let waits = *revision > dispatched;
            if !waits {
                due.push(mailbox.clone());
            }
            waits
        });
        due
    }
}
