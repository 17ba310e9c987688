//! Snapshots: when one is made, offered, fetched and installed.
//!
//! ```text
//!   leader                                              member that lags
//!   raft needs one: `checkpoint` ──▶ made
//!   offer it: MsgSnapshot ───────────────────────────▶ `receive` (one at a time)
//!   the member fetches: heard of ◀── files, beside raft ──▶ received, whole and verified
//!                                                       raft begins its log anew: `install`, further writes are held back
//!                                                       installed: state, applied index and retention are the snapshot's
//!                                                       the reset of the log is written and synced: `settled`
//!   raft hears of it and goes on with the log ◀──────── MsgAppendResponse
//! ```
//!
//! Three rules make it right:
//! 1. The reset of the log is written only after the state has durably been replaced: a log that begins after the applied
//!    index would be of no use. A state that is ahead of its log is, if it says itself that it was being installed.
//! 2. While a snapshot is on its way, the log is kept from its last entry on: else the member would need the next one.
//! 3. A member that is sent a snapshot and does not fetch it for [`CoreOptions::snapshot_silence_ticks`](super::CoreOptions) counts as
//!    one that cannot: raft looks again where it stands, and offers the same snapshot again. One that says itself that it
//!    could not take it is offered it again at once; then, while it goes on failing, later and later, up to that same time.
//!    A snapshot that has failed [`FAILURES_MAX`] times is replaced by a new one: its files may be what is wrong.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use raft::eraftpb::Message;

use super::{Core, ProposeError, retention::Retention};
use crate::{
    log::EntryId,
    raft::{InFlight, Offer, Refused, Role, SnapshotMeta},
    state::{Replaced, State},
};

/// Failures of a member in a row after which a new snapshot is made for it.
const FAILURES_MAX: u32 = 3;

/// A snapshot that is offered to whoever needs one.
#[derive(Debug)]
struct Made {
    id: u64,
    used_at: u64,
}

/// A member that was sent a snapshot.
#[derive(Debug)]
struct Sending {
    id: u64,
    index: u64,
    /// When it was sent, or last fetched from.
    heard_at: u64,
    /// It has failed, and is given up then.
    give_up_at: Option<u64>,
}

/// A snapshot on its way to this member.
#[derive(Debug)]
struct Incoming {
    offer: Offer,
    /// It is here, whole and verified.
    received: Option<SnapshotMeta>,
}

/// A snapshot that raft has taken and that is about to become the state.
#[derive(Debug)]
struct Installing {
    /// Writes from the reset of the log on.
    held: Vec<InFlight>,
}

/// The snapshots' part of a core.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    making: bool,
    made: Option<Made>,
    sending: BTreeMap<u64, Sending>,
    /// How often members have said in a row that they could not take one.
    failures: BTreeMap<u64, u32>,
    incoming: Option<Incoming>,
    installing: Option<Installing>,
    /// The write that resets the log, and to what, until it is synced.
    reset: Option<(u64, EntryId)>,
}

impl Snapshots {
    /// Takes a write for later, if there is a snapshot to be installed first.
    pub(super) fn hold(&mut self, write: InFlight) -> Option<InFlight> {
        match &mut self.installing {
            Some(installing) => {
                installing.held.push(write);
                None
            }
            None => Some(write),
        }
    }

    /// Whether the state is about to be replaced.
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The last entry of the oldest snapshot that is on its way.
    fn oldest_sent(&self) -> Option<u64> {
        self.sending.values().map(|sending| sending.index).min()
    }
}

impl<W, R> Core<W, R> {
    /// The snapshot that was to be made is there, or could not be made.
    pub fn checkpointed(&mut self, made: Option<&SnapshotMeta>) {
        self.snapshots.making = false;
        let Some(meta) = made else { return };
        self.group.offer_snapshot(Some(meta));
        let new = Made { id: meta.id, used_at: self.now };
        if let Some(old) = self.snapshots.made.replace(new) {
            self.discard_unless_sent(old.id);
        }
    }

    /// A member fetches from the snapshot that it was offered, or is about to install it.
    pub fn snapshot_heard(&mut self, member: u64, id: u64) {
        let heard = self.snapshots.sending.get_mut(&member).filter(|sending| sending.id == id);
        if let Some(sending) = heard {
            sending.heard_at = self.now;
        }
    }

    /// A member says that it could not fetch or open the snapshot that it was offered.
    pub fn snapshot_unfetched(&mut self, member: u64, id: u64) {
        let sending = self.snapshots.sending.get_mut(&member);
        let Some(sending) = sending.filter(|sending| sending.id == id && sending.give_up_at.is_none()) else { return };
        let failures = self.snapshots.failures.entry(member).or_default();
        *failures += 1;
        let pause = if *failures == 1 { 0 } else { 1 << (*failures).min(u64::BITS - 1) };
        let pause = self.options.snapshot_silence_ticks.min(pause);
        sending.give_up_at = Some(self.now + pause);
        let failures = *failures;
        tracing::warn!(
            member = format_args!("{member:x}"),
            failures,
            "a member could not take the snapshot it was offered"
        );
        if failures.is_multiple_of(FAILURES_MAX) && self.snapshots.made.take_if(|made| made.id == id).is_some() {
            self.group.offer_snapshot(None);
        }
        if pause == 0 {
            self.give_up_sending(member);
        }
    }

    /// The snapshot `id` that this member was to fetch is here, or could not be fetched.
    pub fn received(&mut self, id: u64, received: Option<SnapshotMeta>) {
        let known = self.snapshots.incoming.take_if(|incoming| incoming.offer.id == id);
        let Some(incoming) = known else {
            if received.is_some() {
                self.out.abandon = Some(id);
            }
            return;
        };
        if received.is_some() {
            self.snapshots.incoming = Some(Incoming { received, ..incoming });
        } else {
            self.out.snapshot_failed = Some((incoming.offer.from, id));
        }
    }

    /// The snapshot has taken the state's place, durably. Gives the old state's remains, which may take long to drop.
    pub fn installed(&mut self, state: State) -> Replaced {
        let replaced = self.state.replace(state);
        self.applied = self.state.applied();
        self.stalled = None;
        self.piece.clear();
        self.joint = self.group.is_joint();
        self.retention = Retention::new(self.options.retention.clone(), self.applied.0, self.applied.0);
        // Whether their commands are among those that were skipped is not known.
        for waiter in self.waiters.take_given() {
            self.refuse(waiter, ProposeError::TimeoutLeaderFailure);
        }
        self.leases_applied();
        if let Some(installing) = self.snapshots.installing.take() {
            self.out.writes.extend(installing.held);
        }
        self.answer_reads();
        tracing::info!(index = self.applied.0, term = self.applied.1, "a snapshot was installed");
        replaced
    }

    /// A leader's word that it has a snapshot for this member.
    pub(super) fn offered(&mut self, message: Message) -> Result<(), Refused> {
        let offer = self.group.offered(message)?;
        // Another one than that which is on its way: the leader offers it again.
        if let Some(offer) = offer.filter(|_| self.snapshots.incoming.is_none() && !self.snapshots.is_installing()) {
            tracing::info!(from = format_args!("{:x}", offer.from), index = offer.last.index, "a snapshot is offered");
            self.snapshots.incoming = Some(Incoming { offer, received: None });
            self.out.receive = Some(offer);
        }
        Ok(())
    }

    /// Sees who was sent a snapshot. It may be one that is gone: its offer waited for a write. Then the member will say so, and
    /// has to be listened to, or raft would count on its coming for ever.
    pub(super) fn see_sent(&mut self, messages: &[Message]) {
        for message in messages {
            let Some(Offer { id, last, .. }) = Offer::of(message) else { continue };
            if let Some(made) = self.snapshots.made.as_mut().filter(|made| made.id == id) {
                made.used_at = self.now;
            }
            let sending = Sending { id, index: last.index, heard_at: self.now, give_up_at: None };
            tracing::info!(to = format_args!("{:x}", message.to), index = last.index, "offering a snapshot");
            self.snapshots.sending.insert(message.to, sending);
        }
    }

    /// Asks for a snapshot if one is needed and there is none; begins to install one that was received.
    pub(super) fn advance_snapshots(&mut self) {
        if !self.group.snapshot_wishes().is_empty() && !self.snapshots.making && self.standing.role == Role::Leader {
            self.snapshots.making = true;
            self.out.checkpoint = true;
        }
        let Some(incoming) = &self.snapshots.incoming else { return };
        let Some(meta) = &incoming.received else { return };
        let id = meta.id;
        let needed = self.standing.role != Role::Leader && meta.last.index > self.group.committed();
        if needed && self.standing.leader == 0 {
            // raft takes a snapshot from a leader only.
            return;
        }
        if needed && self.group.install(meta) {
            self.out.install = Some(id);
            self.snapshots.installing = Some(Installing { held: Vec::new() });
        } else {
            self.out.abandon = Some(id);
        }
        self.snapshots.incoming = None;
    }

    /// Notes that a write begins with a reset of the log.
    pub(super) fn note_reset(&mut self, write: Option<&InFlight>) {
        if let Some((number, last)) = write.and_then(|write| Some((write.number, write.reset?))) {
            self.snapshots.reset = Some((number, last));
        }
    }

    /// Notes that writes up to `number` are synced.
    pub(super) fn snapshots_synced(&mut self, number: u64) {
        if let Some((_, last)) = self.snapshots.reset.take_if(|(reset, _)| *reset <= number) {
            self.out.settled = Some(last);
        }
    }

    /// A message to a member was lost; an offer may have been among those.
    pub(super) fn snapshot_lost(&mut self, member: u64) {
        if self.snapshots.sending.get(&member).is_some_and(|sending| sending.heard_at == self.now) {
            self.give_up_sending(member);
        }
    }

    /// Lets a tick pass.
    pub(super) fn tick_snapshots(&mut self) {
        let silent_since = self.now.saturating_sub(self.options.snapshot_silence_ticks);
        let is_over =
            |sending: &Sending| sending.heard_at < silent_since || sending.give_up_at.is_some_and(|at| at <= self.now);
        let silent = |(&member, sending): (&u64, &Sending)| is_over(sending).then_some(member);
        let silent: Vec<u64> = self.snapshots.sending.iter().filter_map(silent).collect();
        for member in silent {
            self.give_up_sending(member);
        }
        let idle_since = self.now.saturating_sub(self.options.snapshot_idle_ticks);
        let snapshots = &mut self.snapshots;
        if let Some(made) = &mut snapshots.made
            && snapshots.sending.values().any(|sending| sending.id == made.id)
        {
            made.used_at = self.now;
        }
        if let Some(made) = snapshots.made.take_if(|made| made.used_at < idle_since) {
            self.group.offer_snapshot(None);
            self.out.discard.push(made.id);
        }
    }

    fn give_up_sending(&mut self, member: u64) {
        let Some(sending) = self.snapshots.sending.remove(&member) else { return };
        if self.group.sends_snapshot_to(member) {
            if sending.give_up_at.is_none() {
                tracing::warn!(
                    member = format_args!("{member:x}"),
                    "a member does not fetch the snapshot it was offered"
                );
            }
            self.group.snapshot_failed(member);
        } else {
            self.snapshots.failures.remove(&member);
        }
        self.discard_unless_sent(sending.id);
    }

    /// Lets go of a snapshot's files, if nobody is offered it any more.
    fn discard_unless_sent(&mut self, id: u64) {
        let snapshots = &self.snapshots;
        let offered = snapshots.made.as_ref().is_some_and(|made| made.id == id);
        if !offered && snapshots.sending.values().all(|sending| sending.id != id) {
            self.out.discard.push(id);
        }
    }

    /// The entry after which everything in the log is needed by others, as far as that is known here.
    pub(super) fn needed_after(&self) -> u64 {
        let sent = self.snapshots.oldest_sent().unwrap_or(u64::MAX);
        sent.min(self.group.matched_by_active().unwrap_or(u64::MAX))
    }
}
