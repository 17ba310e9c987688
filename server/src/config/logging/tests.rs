use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use super::super::log_settings::LogLevel;
use super::*;

/// Collects what is logged.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Collected {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn logged(config: &LogConfig, events: impl FnOnce()) -> String {
    let collected = Collected::default();
    tracing::subscriber::with_default(subscriber(config, collected.clone()).0, events);
    collected.text()
}

fn json() -> LogConfig {
    LogConfig::default()
}

#[test]
fn a_json_line_has_zaps_fields_first_and_in_order() {
    let text = logged(&json(), || {
        tracing::info!(address = "127.0.0.1:2379", count = 3, ok = true, "ready to serve client requests");
    });
    let line = text.strip_suffix('\n').unwrap();
    assert!(line.starts_with(r#"{"level":"info","ts":"20"#), "{line}");
    assert!(
        line.ends_with(r#","msg":"ready to serve client requests","address":"127.0.0.1:2379","count":3,"ok":true}"#),
        "{line}"
    );
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(value["caller"].as_str().unwrap().starts_with("logging/tests.rs:"), "{line}");
    let ts = value["ts"].as_str().unwrap();
    assert_eq!((ts.len(), ts.ends_with('Z')), (27, true), "{ts}");
}

#[test]
fn a_line_is_one_json_object_whatever_is_logged() {
    let error = io::Error::other("with \"quotes\"\nand lines");
    let text = logged(&json(), || {
        tracing::warn!(error = &error as &dyn std::error::Error, nan = f64::NAN, debug = ?Some("x"), r#type = "t", "a\tb\n{}", "\u{1}");
    });
    assert_eq!(text.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["level"], "warn");
    assert_eq!(value["msg"], "a\tb\n\u{1}");
    assert_eq!(value["error"], "with \"quotes\"\nand lines");
    assert_eq!(value["nan"], "NaN");
    assert_eq!(value["debug"], "Some(\"x\")");
    assert_eq!(value["type"], "t");
}

#[test]
fn a_console_line_is_separated_by_tabs() {
    let config = LogConfig { format: LogFormat::Console, ..json() };
    let text = logged(&config, || {
        tracing::error!(member = "a", "it failed");
        tracing::info!("two\nlines");
    });
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0][1], "error");
    assert!(lines[0][2].starts_with("logging/tests.rs:"));
    assert_eq!(lines[0][3..], ["it failed", r#"{"member":"a"}"#]);
    assert_eq!(lines[1][3..], ["two lines"]);
}

#[test]
fn only_the_level_asked_for_and_worse_is_written() {
    let events = || {
        tracing::debug!("d");
        tracing::info!("i");
        tracing::warn!("w");
        tracing::error!("e");
    };
    let levels = |level| {
        let text = logged(&LogConfig { level, ..json() }, events);
        text.lines().map(|line| line.split('"').nth(3).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(levels(LogLevel::Debug), ["debug", "info", "warn", "error"]);
    assert_eq!(levels(LogLevel::Info), ["info", "warn", "error"]);
    assert_eq!(levels(LogLevel::Error), ["error"]);
}

#[test]
fn libraries_are_heard_only_when_something_is_wrong() {
    let events = || {
        tracing::info!(target: "h2::proto", "frame");
        tracing::warn!(target: "h2::proto", "trouble");
        tracing::debug!(target: "h2::proto", "noise");
    };
    assert_eq!(logged(&json(), events).lines().count(), 1);
    assert_eq!(logged(&LogConfig { level: LogLevel::Debug, ..json() }, events).lines().count(), 2);
    assert_eq!(logged(&LogConfig { level: LogLevel::Error, ..json() }, events), "");
}

#[test]
fn the_time_is_utc_with_microseconds() {
    let time = UNIX_EPOCH + Duration::from_micros(1_795_244_796_316_122);
    assert_eq!(humantime::format_rfc3339_micros(time).to_string(), "2026-11-21T07:06:36.316122Z");
}

#[test]
fn a_file_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "before\n").unwrap();
    let mut sinks = Sinks(Arc::new([open(&LogOutput::File(path.clone()), None).unwrap()]));
    sinks.write_all(b"after\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let Err(error) = open(&LogOutput::File("/nonexistent/log".into()), None) else { panic!("opened") };
    assert!(error.to_string().starts_with("cannot open log file /nonexistent/log of --log-outputs"), "{error}");
}
