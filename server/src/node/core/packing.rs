//! Commands on their way from the queue into entries.

use super::{Core, NodeError, Role, queue::Source};

impl<W, R> Core<W, R> {
    /// Puts waiting commands into entries, or sends them to the leader.
    pub(super) fn pack(&mut self) -> Result<(), NodeError> {
        if self.queue.is_empty() {
            return Ok(());
        }
        if self.standing.role != Role::Leader {
            self.forward_queued();
            return Ok(());
        }
        if !self.may_propose() {
            return Ok(());
        }
        // Where no other can lead, a command need not be kept to be handed on.
        let keeps = !self.group.is_only_member();
        let mut bytes = 0;
        while bytes < self.options.write_bytes_max {
            let Some(queued) = self.next_queued() else { break };
            if !self.builder.push(&queued.command) {
                bytes += self.close_entry()?;
                let alone = self.builder.push(&queued.command);
                debug_assert!(alone, "an empty entry takes any one command");
            }
            self.see_grant(self.group.last_index() + 1, &queued.command);
            if let Source::Own { counter } = queued.source
                && keeps
            {
                self.waiters.keep(counter, queued.command);
            }
        }
        if !self.builder.is_empty() {
            self.close_entry()?;
        }
        Ok(())
    }

    /// Whether a leader may add to the log now.
    pub(super) fn may_propose(&self) -> bool {
        self.stalled.is_none()
            && self.group.unsynced() < self.options.writes_in_flight_max
            && self.group.cache().bytes_not_applied() < self.options.unapplied_bytes_max
            && self.group.takes_proposals()
    }

    pub(super) fn close_entry(&mut self) -> Result<usize, NodeError> {
        let data = self.builder.finish();
        let bytes = data.len();
        // The conditions under which a leader drops a proposal were looked at before.
        self.group.propose(data).map_err(|source| NodeError::Raft { action: "proposal", source })?;
        Ok(bytes)
    }
}
