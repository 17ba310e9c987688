//! What can be wrong with a configuration.

use std::path::PathBuf;

/// Why a configuration was refused. Every message names the setting as the user wrote it and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No flag has this name.
    #[error("unknown flag --{name}{}; --help lists the flags", did_you_mean("--", .nearest.as_ref()))]
    UnknownFlag {
        /// The name as given, without dashes.
        name: String,
        /// The most similar flag, if one is similar.
        nearest: Option<&'static str>,
    },
    /// An argument that is no flag.
    #[error("{0:?} is not a valid flag")]
    UnexpectedArgument(String),
    /// A flag at the end of the command line that takes a value.
    #[error("flag --{0} needs a value")]
    MissingValue(&'static str),
    /// A flag and its environment variable are both set, and which one was meant cannot be known.
    #[error("environment variable {variable} is shadowed by the flag --{flag}: unset the variable or drop the flag")]
    ShadowedVariable {
        /// The variable.
        variable: String,
        /// The flag.
        flag: &'static str,
    },
    /// A value that its setting cannot take.
    #[error("invalid value {value:?} for {setting}: {reason}")]
    InvalidValue {
        /// The setting in the words of its source: `--name`, `ETCD_NAME` or `name` of a file.
        setting: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of etcd's that would change what the server does, in a way that it cannot.
    #[error("{setting}={value} is refused: {reason}")]
    Refused {
        /// The setting in the words of its source.
        setting: String,
        /// The value as given.
        value: String,
        /// Why it is not served.
        reason: &'static str,
    },
    /// Old and new name of a flag are both given.
    #[error("{first} and {second} set the same thing: keep one of the two")]
    GivenTwice {
        /// The one that came first, in the words of its source.
        first: String,
        /// The one that came after it.
        second: String,
    },
    /// The config file cannot be read.
    #[error("cannot read config file {}: {source}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What reading answered.
        source: std::io::Error,
    },
    /// The config file is not YAML, or not a map of settings.
    #[error("cannot parse config file {}: {reason}", path.display())]
    ParseFile {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A key of the config file that means nothing.
    #[error("unknown key {key} in config file {}{}", path.display(), did_you_mean("", .nearest.as_ref()))]
    UnknownKey {
        /// The key, with its section.
        key: String,
        /// The file.
        path: PathBuf,
        /// The most similar key, if one is similar.
        nearest: Option<String>,
    },
    /// A TLS key outside its section of the config file, where etcd ignores it and serves in plain text.
    #[error("key {key} in config file {} must stand under {section}, as {name}", path.display())]
    MisplacedKey {
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
        /// The section it belongs to.
        section: &'static str,
        /// Its name there.
        name: &'static str,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Invalid(String),
}

/// Flags whose values etcd takes for any text at first, and judges when it has read all of them.
const JUDGED_LATER: [&str; 7] = [
    "--auto-compaction-mode",
    "--auto-compaction-retention",
    "--cipher-suites",
    "--log-format",
    "--log-rotation-config-json",
    "--tls-max-version",
    "--tls-min-version",
];

impl ConfigError {
    /// The exit status of a program that is started with such a configuration, which is etcd's: 2 for a command line that cannot be parsed, 1 for what
    /// it, the environment or a file says.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::UnknownFlag { .. } | Self::MissingValue(_) => 2,
            Self::InvalidValue { setting, .. }
                if setting.starts_with("--") && !JUDGED_LATER.contains(&setting.as_str()) =>
            {
                2
            }
            _ => 1,
        }
    }
}

/// `, did you mean …?`, or nothing.
fn did_you_mean(dashes: &str, nearest: Option<&impl std::fmt::Display>) -> String {
    nearest.map_or(String::new(), |name| format!(", did you mean {dashes}{name}?"))
}

/// The candidate most similar to `name`.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Something an operator should know about a configuration that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The setting in the words of its source.
    pub setting: String,
    /// What there is to know.
    pub text: String,
}

impl Notice {
    pub(crate) fn new(setting: impl Into<String>, text: impl Into<String>) -> Self {
        Self { setting: setting.into(), text: text.into() }
    }

    /// Writes the notice to the log as a warning.
    pub fn log(&self) {
        tracing::warn!(setting = %self.setting, "{}", self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_most_similar_one() {
        let names = ["name", "data-dir", "listen-client-urls", "listen-peer-urls"];
        assert_eq!(nearest("nme", names), Some("name"));
        assert_eq!(nearest("listen-client-url", names), Some("listen-client-urls"));
        assert_eq!(nearest("datadir", names), Some("data-dir"));
        assert_eq!(nearest("data-directory", names), Some("data-dir"));
        assert_eq!(nearest("name", []), None);
    }

    #[test]
    fn messages_say_what_to_do() {
        let error = ConfigError::UnknownFlag { name: "nme".to_owned(), nearest: Some("name") };
        assert_eq!(error.to_string(), "unknown flag --nme, did you mean --name?; --help lists the flags");
        let error = ConfigError::UnknownFlag { name: "x".to_owned(), nearest: None };
        assert_eq!(error.to_string(), "unknown flag --x; --help lists the flags");
    }
}
