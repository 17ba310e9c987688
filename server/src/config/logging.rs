//! The log: one line an event, in the form of etcd's.
//!
//! etcd logs through zap, and tools read those lines, so ours have the same fields in the same order:
//!
//! ```text
//! {"level":"info","ts":"2026-11-21T07:06:36.316122Z","caller":"server/mod.rs:210","msg":"ready to serve client requests","address":"127.0.0.1:2379"}
//! ```
//!
//! or, with `--log-format=console`, the same separated by tabs, the event's own fields as one JSON object at the end.
//!
//! Lines are written by the thread that logs them, so that none is lost when the process ends. The volume is meant for that:
//! an event is something an operator acts on, never something that happens for every request.
//!
//! A file may be [rotated](rotation), and the level of a running process be [changed](LevelControl).

mod level;
mod rotation;

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

pub(crate) use rotation::RotatingFile;

use super::log_settings::{LogConfig, LogFormat, LogOutput, LogRotation};

pub use level::LevelControl;

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file of `--log-outputs` cannot be opened.
    #[error("cannot open log file {} of --log-outputs: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What opening answered.
        source: io::Error,
    },
    /// The process has a log already.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Sets up logging for the whole process, and gives what its level is changed with. For the binary; a program that
/// embeds a server has its own subscriber.
pub fn init_logging(config: &LogConfig) -> Result<LevelControl, LogError> {
    let open = |output| open(output, config.rotation.as_ref());
    let sinks = config.outputs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let (subscriber, level) = subscriber(config, Sinks(sinks.into()));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok(level)
}

/// A subscriber that writes lines of the configured level and form to `writer`.
#[expect(clippy::disallowed_methods, reason = "a log line carries the time")]
fn subscriber<W>(config: &LogConfig, writer: W) -> (impl Subscriber + Send + Sync, LevelControl)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, control) = LevelControl::new(config.level);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(ZapLines { format: config.format, clock: SystemTime::now })
        .with_writer(writer)
        .with_ansi(false);
    (tracing_subscriber::registry().with(filter).with(lines), control)
}

/// Formats events as zap does.
struct ZapLines {
    format: LogFormat,
    clock: fn() -> SystemTime,
}

impl<S, N> FormatEvent<S, N> for ZapLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::TRACE | Level::DEBUG => "debug",
            Level::INFO => "info",
            Level::WARN => "warn",
            Level::ERROR => "error",
        };
        let time = humantime::format_rfc3339_micros((self.clock)());
        let caller = Caller(metadata.file().unwrap_or("unknown"), metadata.line().unwrap_or(0));
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = Json(&fields.message);
        match self.format {
            LogFormat::Json => {
                write!(writer, r#"{{"level":"{level}","ts":"{time}","caller":"{caller}","msg":{message}"#)?;
                if !fields.rest.is_empty() {
                    write!(writer, ",{}", fields.rest)?;
                }
                writeln!(writer, "}}")
            }
            LogFormat::Console => {
                // A line break in a message must not make a second line.
                write!(writer, "{time}\t{level}\t{caller}\t{}", fields.message.replace(['\n', '\r'], " "))?;
                if !fields.rest.is_empty() {
                    write!(writer, "\t{{{}}}", fields.rest)?;
                }
                writeln!(writer)
            }
        }
    }
}

/// File and line, the file with only its last folder, as zap's short caller.
struct Caller(&'static str, u32);

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Path::new(self.0);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        write!(f, "{folder}/{file}:{}", self.1)
    }
}

/// A text as a JSON string.
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

/// The fields of an event: its message, and `"name":value` of all others.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl fmt::Display) {
        let comma = if self.rest.is_empty() { "" } else { "," };
        // A name given as r#type stands for type.
        let name = field.name().trim_start_matches("r#");
        let _ = write!(self.rest, "{comma}{}:{value}", Json(name));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.put(field, Json(&format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.put(field, Json(value));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.put(field, value);
        } else {
            self.put(field, Json(&value.to_string()));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Json(&value.to_string()));
    }
}

/// Where lines go.
pub(crate) enum Sink {
    Stderr,
    Stdout,
    File(File),
    Rotating(RotatingFile),
}

impl Sink {
    /// Opens an output, which is rotated if it is a file.
    pub(crate) fn open(output: &LogOutput, rotation: Option<&LogRotation>) -> io::Result<Self> {
        match (output, rotation) {
            (LogOutput::Stderr, _) => Ok(Self::Stderr),
            (LogOutput::Stdout, _) => Ok(Self::Stdout),
            (LogOutput::File(path), None) => open_file(path).map(Self::File),
            (LogOutput::File(path), Some(rotation)) => RotatingFile::open(path, rotation.clone()).map(Self::Rotating),
        }
    }

    /// Writes whole lines, which stay together.
    pub(crate) fn write_lines(&self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(lines),
            Self::Stdout => io::stdout().lock().write_all(lines),
            Self::File(file) => (&mut &*file).write_all(lines),
            Self::Rotating(file) => file.write_line(lines),
        }
    }
}

fn open(output: &LogOutput, rotation: Option<&LogRotation>) -> Result<Sink, LogError> {
    let path = || output.file().unwrap_or(Path::new("")).to_owned();
    Sink::open(output, rotation).map_err(|source| LogError::Open { path: path(), source })
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// All outputs. A line is handed over whole, in one write each.
#[derive(Clone)]
struct Sinks(Arc<[Sink]>);

impl Write for Sinks {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for sink in self.0.iter() {
            // An output that fails must not silence the others, and there is nowhere left to report it.
            let _ = sink.write_lines(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sinks {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests;
