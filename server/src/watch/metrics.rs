//! What the hub counts, under the names that etcd gave to the same things.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::durations::Durations;

/// The hub's metrics. Clones share their values.
#[derive(Debug, Clone)]
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
    /// `etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds`: handing an answer with events over.
    pub send_events: Durations,
    /// `etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds`: the same for each event.
    pub send_per_event: Durations,
    /// `etcd_debugging_server_watch_send_loop_control_stream_duration_seconds`: handing an answer without events over.
    pub send_control: Durations,
    /// `etcd_debugging_server_watch_send_loop_progress_duration_seconds`: looking for watchers to be told the revision.
    pub progress: Durations,
}

impl Default for WatchMetrics {
    fn default() -> Self {
        // 1 ms to 8 s.
        let durations = || Durations::new(Duration::from_millis(1), 14);
        Self {
            streams: Gauge::default(),
            watchers: Gauge::default(),
            slow: Gauge::default(),
            pending: Gauge::default(),
            events: Counter::default(),
            fallen_behind: Counter::default(),
            send_events: durations(),
            send_per_event: durations(),
            send_control: durations(),
            progress: durations(),
        }
    }
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
        let mut send_loop = |part: &str, help: &str, durations: &Durations| {
            let name = format!("etcd_debugging_server_watch_send_loop_{part}");
            registry.register_with_unit(name, help, Unit::Seconds, durations.clone());
        };
        send_loop(
            "watch_stream_duration",
            "The duration from an answer with events until the next one is asked for, of one answer in 16",
            &self.send_events,
        );
        send_loop(
            "watch_stream_duration_per_event",
            "The same duration divided by the events of the answer",
            &self.send_per_event,
        );
        send_loop(
            "control_stream_duration",
            "The duration from an answer without events until the next one is asked for",
            &self.send_control,
        );
        send_loop(
            "progress_duration",
            "The duration of looking for the watchers of a stream that are to be told the revision",
            &self.progress,
        );
    }
}
