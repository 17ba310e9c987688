//! What is logged, where, in which form, and how log files are kept small.

use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::value::Value;

/// What is logged and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `--log-level`: the least severe level that is written. Default info.
    pub level: LogLevel,
    /// `--log-format`: how a line looks. Default JSON.
    pub format: LogFormat,
    /// `--log-outputs`: where lines go. Default stderr.
    pub outputs: Vec<LogOutput>,
    /// `--enable-log-rotation` and `--log-rotation-config-json`: how the one file among the outputs is kept small.
    /// Default not at all.
    pub rotation: Option<LogRotation>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Json, outputs: vec![LogOutput::Stderr], rotation: None }
    }
}

/// A log level. etcd's `panic`, `dpanic` and `fatal` are accepted and mean `error`, since nothing is logged above that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl Value for LogLevel {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" | "dpanic" | "panic" | "fatal" => Ok(Self::Error),
            _ => Err("expected debug, info, warn, error, panic or fatal".to_owned()),
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, with the fields of etcd's logs.
    #[default]
    Json,
    /// Tab-separated, for people.
    Console,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "console" => Ok(Self::Console),
            _ => Err("expected json or console".to_owned()),
        }
    }
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error; also what `default` and `systemd/journal` mean (the journal collects it from there).
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

impl Value for Vec<LogOutput> {
    fn parse(text: &str) -> Result<Self, String> {
        let names = Vec::<String>::parse(text)?;
        if names.len() > 1 && names.iter().any(|name| name == "default") {
            return Err("default cannot be combined with other outputs".to_owned());
        }
        let mut outputs: Vec<LogOutput> = Vec::new();
        for name in names {
            let output = match name.as_str() {
                "default" | "stderr" | "systemd/journal" => LogOutput::Stderr,
                "stdout" => LogOutput::Stdout,
                path => LogOutput::File(path.into()),
            };
            if !outputs.contains(&output) {
                outputs.push(output);
            }
        }
        if outputs.is_empty() {
            outputs.push(LogOutput::Stderr);
        }
        Ok(outputs)
    }
}

impl LogOutput {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Stderr | Self::Stdout => None,
        }
    }
}

/// When a log file is put aside, and what becomes of those that were. The names and meanings of its JSON are those of
/// lumberjack, which etcd rotates its logs with; what it leaves out is zero or false.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct LogRotation {
    /// The size of a file in MiB beyond which it is put aside; 0 is 100 MiB.
    #[serde(rename = "maxsize")]
    pub max_size_mib: u64,
    /// The age in days from which files that were put aside are removed; 0 is never.
    #[serde(rename = "maxage", deserialize_with = "count")]
    pub max_age_days: u32,
    /// How many of the files that were put aside are kept; 0 is all.
    #[serde(rename = "maxbackups", deserialize_with = "count")]
    pub max_backups: u32,
    /// Whether the times in their names are those of the system's time zone, and not UTC.
    #[serde(rename = "localtime")]
    pub local_time: bool,
    /// Whether they are compressed with gzip.
    pub compress: bool,
}

/// A negative number is as good as none.
fn count<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number: i64 = serde::Deserialize::deserialize(deserializer)?;
    Ok(number.clamp(0, i64::from(u32::MAX)) as u32)
}

impl LogRotation {
    /// The size that a file may have, in bytes.
    pub fn max_bytes(&self) -> u64 {
        let mib = if self.max_size_mib == 0 { 100 } else { self.max_size_mib };
        mib.saturating_mul(1024 * 1024)
    }
}

impl Value for LogRotation {
    fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => format!("invalid log rotation config: {error}"),
            _ => format!("improperly formatted log rotation config: {error}"),
        })
    }
}

impl LogConfig {
    /// Whether what is said about files that are rotated makes sense, as etcd sees it.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let files = self.outputs.iter().filter(|output| output.file().is_some()).count();
        if self.rotation.is_some() && (files > 1 || (files == 0 && self.outputs.len() == 1)) {
            let text = "--log-outputs requires a single file path when --log-rotate-config-json is defined";
            return Err(ConfigError::Invalid(format!("{text} and --enable-log-rotation is set")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_outputs_are_named_or_files() {
        let parse = Vec::<LogOutput>::parse;
        assert_eq!(parse("default"), Ok(vec![LogOutput::Stderr]));
        assert_eq!(parse(""), Ok(vec![LogOutput::Stderr]));
        assert_eq!(
            parse("stdout,/var/log/x,stdout"),
            Ok(vec![LogOutput::Stdout, LogOutput::File("/var/log/x".into())])
        );
        assert!(parse("default,stdout").is_err());
    }

    #[test]
    fn rotation_is_described_in_json_as_for_etcd() {
        let parse = LogRotation::parse;
        let default = r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;
        assert_eq!(parse(default).unwrap().max_bytes(), parse("{}").unwrap().max_bytes());
        let all = r#"{"maxsize": 1, "maxage": 2, "maxbackups": 3, "localtime": true, "compress": true, "other": 4}"#;
        let expected =
            LogRotation { max_size_mib: 1, max_age_days: 2, max_backups: 3, local_time: true, compress: true };
        assert_eq!(parse(all), Ok(expected));
        assert_eq!(parse(r#"{"maxage": -1, "maxbackups": -1}"#), parse("{}"));
        for text in ["", "{", "{maxsize: 1}"] {
            assert!(parse(text).unwrap_err().starts_with("improperly formatted log rotation config: "), "{text}");
        }
        for text in [r#"{"maxsize": "1"}"#, r#"{"compress": 1}"#, r#"{"maxsize": -1}"#, "1"] {
            assert!(parse(text).unwrap_err().starts_with("invalid log rotation config: "), "{text}");
        }
    }

    #[test]
    fn one_file_is_rotated_and_no_more() {
        let valid = |outputs: &str, rotates: bool| {
            let outputs = Vec::parse(outputs).unwrap();
            let rotation = rotates.then(LogRotation::default);
            LogConfig { outputs, rotation, ..LogConfig::default() }.validate().map_err(|error| error.to_string())
        };
        for outputs in ["/l", "stderr,/l", "/l,stdout", "stdout,stderr"] {
            assert_eq!(valid(outputs, true), Ok(()), "{outputs}");
        }
        for outputs in ["default", "stderr", "stdout", "/l,/m"] {
            assert!(valid(outputs, true).unwrap_err().starts_with("--log-outputs requires a single file path"));
            assert_eq!(valid(outputs, false), Ok(()), "{outputs}");
        }
    }
}
