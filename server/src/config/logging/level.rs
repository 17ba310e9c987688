//! The level of the log, and how it changes while the process runs.
//!
//! On a signal the level is read again: from `log-level` of the config file that the server was started with, and for
//! one that was started with flags or variables from the file `log-level` in its data directory; it holds the name of
//! the level and nothing else. Where neither says one, the level is that of the start.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer, Registry, reload};

use super::super::file;
use super::super::flag::Draft;
use super::super::load::Loaded;
use super::super::log_settings::LogLevel;
use super::super::value::Value as _;

/// Our crates, whose events are logged at the configured level.
const OWN_TARGETS: [&str; 3] = ["cairn", "cairn_server", "cairn_client"];

/// The file in the data directory.
const LEVEL_FILE: &str = "log-level";

/// Changes the level of the log of this process.
#[derive(Clone, Debug)]
pub struct LevelControl {
    filter: reload::Handle<Targets, Registry>,
    at_start: LogLevel,
    source: Source,
}

/// Where the level is read from again.
#[derive(Clone, Debug)]
enum Source {
    None,
    /// A config file.
    Config(PathBuf),
    /// A file that holds the level alone.
    Level(PathBuf),
}

impl LevelControl {
    /// A filter of events of this level, and what changes it.
    pub(super) fn new(level: LogLevel) -> (impl Layer<Registry>, Self) {
        let (filter, handle) = reload::Layer::new(targets(level));
        (filter, Self { filter: handle, at_start: level, source: Source::None })
    }

    /// Reads the level again from where the configuration came from.
    #[must_use]
    pub fn following(self, loaded: &Loaded) -> Self {
        let source = match &loaded.config_file {
            Some(path) => Source::Config(path.clone()),
            None => Source::Level(loaded.config.data_dir().join(LEVEL_FILE)),
        };
        Self { source, ..self }
    }

    /// Reads the level again and logs at it from now on; says so in the log. What cannot be read changes nothing.
    pub fn reload(&self) {
        let (level, from) = match &self.source {
            Source::None => return,
            Source::Config(path) => (of_config_file(path), path),
            Source::Level(path) => (self.of_level_file(path), path),
        };
        let from = from.display();
        let told = |level| tracing::warn!(?level, %from, "read the log level again");
        let changed = level.and_then(|level| {
            // At this level a warning is no longer written.
            if level == LogLevel::Error {
                told(level);
            }
            self.filter.reload(targets(level)).map_err(|error| error.to_string())?;
            if level != LogLevel::Error {
                told(level);
            }
            Ok(())
        });
        if let Err(error) = changed {
            tracing::warn!(error, %from, "the log level stays: it cannot be read again");
        }
    }

    fn of_level_file(&self, path: &Path) -> Result<LogLevel, String> {
        match fs::read_to_string(path) {
            Ok(text) => LogLevel::parse(text.trim()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.at_start),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn of_config_file(path: &Path) -> Result<LogLevel, String> {
    let mut draft = Draft::default();
    file::read(path, &mut draft).map_err(|error| error.to_string())?;
    Ok(draft.config.log.level)
}

fn targets(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // Libraries say at info what only their authors act on.
    let others = if level == LogLevel::Debug { LevelFilter::INFO } else { own.min(LevelFilter::WARN) };
    OWN_TARGETS.iter().fold(Targets::new().with_default(others), |targets, target| targets.with_target(*target, own))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn our_events_are_written_at_the_level_and_those_of_libraries_above_it() {
        for (level, own, others) in [
            (LogLevel::Debug, Level::DEBUG, Level::INFO),
            (LogLevel::Info, Level::INFO, Level::WARN),
            (LogLevel::Warn, Level::WARN, Level::WARN),
            (LogLevel::Error, Level::ERROR, Level::ERROR),
        ] {
            let targets = targets(level);
            for event in [Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR] {
                assert_eq!(targets.would_enable("cairn_server::peer", &event), event <= own, "{level:?} {event}");
                assert_eq!(targets.would_enable("hyper", &event), event <= others, "{level:?} {event}");
            }
        }
    }
}
