//! What a member does unasked.
//!
//! | duty | where | what it does |
//! |---|---|---|
//! | auto_compaction | [`compaction`] | drops old history, while the member leads |
//! | cluster_version | [`version`] | raises the cluster's version and its command level, while the member leads |
//! | periodic_hash_check, compact_hash_check, initial_hash_check | [`corruption`] | compares the members' keys |
//! | leader_watch | [`leader`] | tells streams when there has been no leader for too long |
//! | token_keys | [`token_keys`] | reads the keys of signed tokens again when their files change |
//! | publication | [`publication`] | publishes the member's name and URLs at its start |
//!
//! A duty is a loop of turns ([`Turns::after`]), which end when the server stops. [`Monitor`] runs the duties: it counts their
//! turns, shows which run, and waits for their ends.

pub mod compaction;
pub mod corruption;
pub mod leader;
pub mod publication;
pub mod token_keys;
pub mod version;

use std::{thread, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Something that a member does unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "as in the module's table")]
pub enum Duty {
    AutoCompaction,
    ClusterVersion,
    PeriodicHashCheck,
    CompactHashCheck,
    InitialHashCheck,
    LeaderWatch,
    Publication,
    TokenKeys,
}

impl EncodeLabelValue for Duty {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

impl Duty {
    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AutoCompaction => "auto_compaction",
            Self::ClusterVersion => "cluster_version",
            Self::PeriodicHashCheck => "periodic_hash_check",
            Self::CompactHashCheck => "compact_hash_check",
            Self::InitialHashCheck => "initial_hash_check",
            Self::LeaderWatch => "leader_watch",
            Self::Publication => "publication",
            Self::TokenKeys => "token_keys",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    duty: Duty,
}

/// Runs the duties of a member. Clones share them.
#[derive(Debug, Clone)]
pub struct Monitor {
    stopping: CancellationToken,
    tasks: TaskTracker,
    running: Family<Labels, Gauge>,
    turns: Family<Labels, Counter>,
}

impl Monitor {
    /// Duties that end when `stopping` is cancelled, shown in `registry`.
    pub fn new(registry: &mut Registry, stopping: CancellationToken) -> Self {
        let monitor =
            Self { stopping, tasks: TaskTracker::new(), running: Family::default(), turns: Family::default() };
        let help = "Duties of the member that run (1), have ended or have failed (0)";
        registry.register("cairn_duty_running", help, monitor.running.clone());
        registry.register("cairn_duty_turns", "Turns that the member's duties have taken", monitor.turns.clone());
        monitor
    }

    /// Runs a duty on `runtime`.
    pub fn spawn<F>(&self, duty: Duty, runtime: &runtime::Handle, work: impl FnOnce(Turns) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let labels = Labels { duty };
        let running = Running { duty, gauge: self.running.get_or_create_owned(&labels) };
        running.gauge.set(1);
        let turns = Turns { stopping: self.stopping.clone(), count: self.turns.get_or_create_owned(&labels) };
        let work = work(turns);
        self.tasks.spawn_on(
            async move {
                let _running = running;
                work.await;
            },
            runtime,
        );
    }

    /// Waits until all duties have ended. To be called once the server stops.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Shows that a duty runs until this is dropped.
struct Running {
    duty: Duty,
    gauge: Gauge,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gauge.set(0);
        if thread::panicking() {
            tracing::error!(duty = self.duty.name(), "a duty of the member has failed and is not done any more");
        }
    }
}

/// The turns of one duty.
#[derive(Debug)]
pub struct Turns {
    stopping: CancellationToken,
    count: Counter,
}

impl Turns {
    /// Waits for the next turn; `false` if the server stops before.
    pub async fn after(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stopping.cancelled() => return false,
            () = tokio::time::sleep(pause) => {}
        }
        self.count.inc();
        true
    }

    /// What `work` gives; `None` if the server stops before.
    pub async fn unless_stopping<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.stopping.cancelled() => None,
            done = work => Some(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn duties_are_shown_counted_and_end_with_the_server() {
        let (mut registry, stopping) = (Registry::default(), CancellationToken::new());
        let monitor = Monitor::new(&mut registry, stopping.clone());
        let runtime = runtime::Handle::current();
        monitor.spawn(Duty::LeaderWatch, &runtime, |turns| async move {
            while turns.after(Duration::from_millis(1)).await {}
        });
        monitor.spawn(Duty::Publication, &runtime, |_| async {});
        monitor.spawn(Duty::ClusterVersion, &runtime, |_| async { panic!("a defect, for the test") });
        let labels = |duty| Labels { duty };
        let running = |duty| monitor.running.get_or_create_owned(&labels(duty)).get();
        let shown = async {
            while running(Duty::Publication) + running(Duty::ClusterVersion) > 0
                || monitor.turns.get_or_create_owned(&labels(Duty::LeaderWatch)).get() < 3
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), shown).await.expect("two have ended, and one goes on");
        assert_eq!(running(Duty::LeaderWatch), 1);
        stopping.cancel();
        tokio::time::timeout(Duration::from_secs(30), monitor.ended()).await.expect("it ends");
        assert_eq!(running(Duty::LeaderWatch), 0);
    }
}
