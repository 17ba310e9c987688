//! Commands on their way from the queue into entries, or to the leader.

use super::{
    Core, NodeError, Role,
    queue::{Queued, Source},
};

impl<W, R> Core<W, R> {
    /// Puts waiting commands into entries, or sends them to the leader.
    pub(super) fn pack(&mut self) -> Result<(), NodeError> {
        if self.queue.is_empty() {
            return Ok(());
        }
        if self.standing.role != Role::Leader {
            if self.standing.leader != 0 {
                while let Some(queued) = self.next_queued() {
                    if let Source::Own { counter } = queued.source {
                        self.waiters.forwarded(counter);
                    }
                    self.out.forwards.push((self.standing.leader, queued.command));
                }
            }
            return Ok(());
        }
        if !self.may_propose() {
            return Ok(());
        }
        let mut bytes = 0;
        while bytes < self.options.write_bytes_max {
            let Some(queued) = self.next_queued() else { break };
            if !self.builder.push(&queued.command) {
                bytes += self.close_entry()?;
                let alone = self.builder.push(&queued.command);
                debug_assert!(alone, "an empty entry takes any one command");
            }
            self.see_grant(self.group.last_index() + 1, &queued.command);
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

    /// The next command whose result somebody still waits for.
    pub(super) fn next_queued(&mut self) -> Option<Queued> {
        loop {
            let queued = self.queue.pop()?;
            let awaited = match queued.source {
                Source::Own { counter } => self.waiters.contains(counter),
                Source::Other { until } => self.now < until,
            };
            if awaited {
                return Some(queued);
            }
        }
    }

    pub(super) fn close_entry(&mut self) -> Result<usize, NodeError> {
        let data = self.builder.finish();
        let bytes = data.len();
        // The conditions under which a leader drops a proposal were looked at before.
        self.group.propose(data).map_err(|source| NodeError::Raft { action: "proposal", source })?;
        Ok(bytes)
    }
}
