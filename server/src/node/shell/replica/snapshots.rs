//! The replica task's part in snapshots: made, fetched, switched to, let go of.

use std::{mem, sync::Arc};

use super::Replica;
use crate::node::snapshot::Received;

impl Replica {
    /// Does what there is to do with snapshots.
    pub(super) fn move_snapshots(&mut self) {
        let out = &mut self.core.out;
        if mem::take(&mut out.checkpoint) {
            self.background.checkpoint();
        }
        if let Some(offer) = out.receive.take() {
            self.transport.fetch_snapshot(offer);
        }
        if let Some((leader, id)) = out.snapshot_failed.take() {
            self.transport.snapshot_failed(leader, id);
        }
        let mut received = |id| self.received.take_if(|received| received.meta.id == id);
        if let Some(received) = out.install.take().and_then(&mut received) {
            self.shared.metrics.snapshot_applying.set(1);
            self.background.switch(received);
        }
        // Files are removed, and stores closed, where that may take its time.
        if let Some(received) = out.abandon.take().and_then(&mut received) {
            let shared = Arc::clone(&self.shared);
            tokio::task::spawn_blocking(move || shared.installer.abandon(*received));
        }
        for id in out.discard.drain(..) {
            let shared = Arc::clone(&self.shared);
            tokio::task::spawn_blocking(move || shared.outgoing.discard(id));
        }
        if let Some(last) = out.settled.take() {
            self.background.settle(last);
        }
    }

    /// A snapshot has taken the state's place on the disk.
    pub(super) fn installed(&mut self, received: Received) {
        let replaced = self.core.installed(received.state);
        self.shared.metrics.snapshot_applying.set(0);
        tokio::task::spawn_blocking(move || drop(replaced));
        let mut compactor = self.core.state().compactor();
        compactor.limit_steps(self.compaction_step);
        self.background.replace_compactor(compactor);
        self.shared.lease_news.send_replace(());
    }
}
