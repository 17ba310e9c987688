//! What the hub counts, under the names that etcd gave to the same things.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The hub's metrics. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct WatchMetrics {
    /// `etcd_debugging_mvcc_watch_stream_total`: open streams.
    pub streams: Gauge,
    /// `etcd_debugging_mvcc_watcher_total`: watchers.
    pub watchers: Gauge,
    /// `etcd_debugging_mvcc_slow_watcher_total`: watchers that catch up.
    pub slow: Gauge,
    /// `etcd_debugging_mvcc_pending_events_total`: events that wait in watchers' queues.
    pub pending: Gauge,
    /// `etcd_debugging_mvcc_events_total`: events sent.
    pub events: Counter,
    /// `cairn_watch_fallen_behind_total`: times that a watcher's queue was full and it had to catch up.
    pub fallen_behind: Counter,
}

impl WatchMetrics {
    /// Enters everything into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams", &self.streams);
        gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers", &self.watchers);
        gauge("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers", &self.slow);
        gauge("etcd_debugging_mvcc_pending_events_total", "Total number of pending events to be sent", &self.pending);
        let mut counter = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("etcd_debugging_mvcc_events", "Total number of events sent by this member", &self.events);
        counter("cairn_watch_fallen_behind", "Times that a watcher had to catch up", &self.fallen_behind);
    }
}
