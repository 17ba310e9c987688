//! The end of the replica task: what was accepted is finished, everybody else refused, threads and files brought home.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{End, INPUTS_MAX, Replica};
use crate::node::{
    NodeError, ProposeError, ReadIndexError,
    core::Core,
    shell::{
        inputs::{Input, ReadLeave, Writer},
        shared::Shared,
    },
};

/// How long a shutdown waits for what was accepted to be finished.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Ticks that a member goes on after it handed leadership over before a stop.
const LINGER_TICKS: u32 = 3;

impl Replica {
    /// Finishes what was accepted before the stop, for a while.
    pub(super) async fn drain(&mut self) {
        let until = Instant::now() + DRAIN_MAX;
        let mut ticks = self.ticks();
        let mut inputs = Vec::new();
        self.stopping = true;
        // After the hand-over, what the others still send here is refused, and they send it to the new leader.
        let mut linger_ticks = 0;
        if let Some(successor) = self.core.successor() {
            linger_ticks = LINGER_TICKS;
            tracing::info!(successor = format_args!("{successor:x}"), "handing leadership over");
            self.core.transfer_leader(successor);
            if let Err(error) = self.work().await {
                return self.shared.fail(error);
            }
        }
        // A transfer gives up after an election time-out; then there is no successor that could be waited for.
        let mut transfer_ticks = self.transfer_ticks;
        let hands_over = |core: &Core<_, _>, left: u32| left > 0 && core.successor().is_some();
        while self.core.status().pending > 0 || hands_over(&self.core, transfer_ticks) || linger_ticks > 0 {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                _ = ticks.tick() => {
                    if !hands_over(&self.core, transfer_ticks) {
                        linger_ticks = linger_ticks.saturating_sub(1);
                    }
                    transfer_ticks = transfer_ticks.saturating_sub(1);
                    self.core.time_is(self.shared.uptime_ms());
                    self.core.tick();
                }
                received = self.inbox.recv_many(&mut inputs, INPUTS_MAX) => {
                    if received == 0 {
                        return;
                    }
                    if let Some(End::Failed(error)) = self.take(&mut inputs) {
                        return self.shared.fail(error);
                    }
                }
            }
            if let Err(error) = self.work().await {
                return self.shared.fail(error);
            }
        }
        self.core.write_hard_state();
        if let Err(error) = self.submit() {
            self.shared.fail(error);
        }
    }

    pub(super) fn refuse_everybody(&mut self) {
        self.core.stop();
        self.deliver();
        for change in self.pending_changes.drain(..) {
            refuse_write(&self.shared, change.writer);
        }
        self.inbox.close();
        while let Ok(input) = self.inbox.try_recv() {
            match input {
                Input::Propose { writer, .. } | Input::Change { writer, .. } => refuse_write(&self.shared, writer),
                Input::Read(leave) => refuse_read(&self.shared, leave),
                _ => {}
            }
        }
    }

    /// Ends the threads; brings log and store to the disk, unless something failed.
    pub(super) async fn finish(self) {
        let Self { log, background, lock, shared, core, .. } = self;
        let clean = !shared.has_failed();
        let ended = tokio::task::spawn_blocking(move || {
            log.stop();
            background.stop(clean);
            drop(core);
            drop(lock);
        });
        if ended.await.is_err() {
            shared.fail(NodeError::Panicked("the end of the replica"));
        }
        shared.stopped();
    }
}

pub(super) fn refuse_write(shared: &Shared, writer: Writer) {
    shared.budget.give_back(writer.bytes);
    writer.result.give(Err(ProposeError::Stopped));
}

pub(super) fn refuse_read(shared: &Shared, leave: ReadLeave) {
    shared.budget.give_back(0);
    leave.give(Err(ReadIndexError::Stopped));
}

/// Tells the server if the task ended in a way that it should not.
pub(super) struct LastWords(pub(super) Arc<Shared>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(NodeError::Panicked("the replica's task"));
        }
        self.0.stopped();
    }
}
