//! What was counted, and what was not as promised.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Broken promises are shown up to this many.
const SHOWN_MAX: usize = 20;

/// Something that is counted.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// At least this much.
    pub fn raise(&self, to: u64) {
        self.0.fetch_max(to, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts and the broken promises of a run.
#[derive(Default)]
pub struct Audit {
    broken: Mutex<Vec<String>>,
    run_ms: Count,
    pub writes: Count,
    pub conflicts: Count,
    /// Writes of deposed leaders, which the store refused.
    pub fenced: Count,
    pub watched: Count,
    /// Watches started again, after a compaction or a broken stream.
    pub rewatched: Count,
    pub heartbeats: Count,
    /// Longest time from the moment a heartbeat was due until it was stored.
    pub heartbeat_max_ms: Count,
    pub terms: Count,
    pub bound: Count,
    pub rollouts: Count,
    pub namespaces: Count,
    /// Objects that went with their namespaces.
    pub swept: Count,
    pub events: Count,
    pub expired: Count,
}

impl Audit {
    /// Records what was not as promised, unless it was.
    pub fn expect(&self, as_promised: bool, what: impl FnOnce() -> String) {
        if !as_promised {
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(what());
        }
    }

    /// How long the control plane ran.
    pub fn note_run(&self, run: Duration) {
        self.run_ms.raise(run.as_millis() as u64);
    }

    /// Whether every promise was kept and the run was not idle.
    pub fn is_clean(&self) -> bool {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).is_empty() && !self.is_idle()
    }

    fn is_idle(&self) -> bool {
        let parts = [&self.heartbeats, &self.bound, &self.rollouts, &self.namespaces, &self.expired, &self.fenced];
        parts.iter().any(|count| count.get() == 0)
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.run_ms.get() as f64 / 1000.0;
        let mut line = |what: &str, count: u64, more: String| writeln!(f, "{what:<24} {count:>9}   {more}");
        line("seconds", seconds as u64, String::new())?;
        line("writes", self.writes.get(), format!("{:.0}/s", self.writes.get() as f64 / seconds.max(0.001)))?;
        line("conflicts", self.conflicts.get(), "read again and done again".into())?;
        line("changes watched", self.watched.get(), format!("{} watches started again", self.rewatched.get()))?;
        line(
            "heartbeats",
            self.heartbeats.get(),
            format!("the latest {} ms after it was due", self.heartbeat_max_ms.get()),
        )?;
        line("terms of leaders", self.terms.get(), format!("{} writes of deposed ones refused", self.fenced.get()))?;
        line("pods bound", self.bound.get(), String::new())?;
        line("replica sets rolled over", self.rollouts.get(), String::new())?;
        line("namespaces deleted", self.namespaces.get(), format!("{} objects with them", self.swept.get()))?;
        line("events", self.events.get(), format!("{} expired", self.expired.get()))?;
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        for what in broken.iter().take(SHOWN_MAX) {
            writeln!(f, "BROKEN: {what}")?;
        }
        if broken.is_empty() && self.is_idle() {
            return write!(f, "some part of the control plane did nothing");
        }
        write!(f, "{} promises broken", broken.len())
    }
}
