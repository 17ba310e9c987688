//! raft-rs's log lines as `tracing` events.

use std::fmt::Write;

use slog::{Drain, KV, Key, Level, Never, OwnedKVList, Record, Serializer};

/// A logger for raft-rs that writes to `tracing`, target `raft`.
pub fn logger() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

/// Key-value pairs as text.
struct Pairs(String);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        let gap = if self.0.is_empty() { "" } else { " " };
        write!(self.0, "{gap}{key}={value}").map_err(slog::Error::from)
    }
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        macro_rules! forward {
            ($level:expr) => {
                if tracing::enabled!(target: "raft", $level) {
                    let mut pairs = Pairs(String::new());
                    // Writing to a string does not fail; a value that cannot be shown is left out.
                    let _ = record.kv().serialize(record, &mut pairs);
                    let _ = values.serialize(record, &mut pairs);
                    tracing::event!(target: "raft", $level, details = pairs.0, "{}", record.msg());
                }
            };
        }
        match record.level() {
            Level::Critical | Level::Error => forward!(tracing::Level::ERROR),
            Level::Warning => forward!(tracing::Level::WARN),
            Level::Info => forward!(tracing::Level::INFO),
            Level::Debug => forward!(tracing::Level::DEBUG),
            Level::Trace => forward!(tracing::Level::TRACE),
        }
        Ok(())
    }
}
