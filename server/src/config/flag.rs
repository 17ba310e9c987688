//! What a flag is, and the draft that flags are read into.
//!
//! A setting passes through [`Draft::apply`] whatever its source, so a flag, its variable and its key in a file
//! have one meaning, one syntax and one set of errors.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::{ConfigError, Notice, nearest};
use super::log_settings::LogRotation;
use super::settings::{AutoCompaction, CompactionMode, Config};
use super::table;
use super::value::{Value, comma_list, parse_duration};
use crate::types::Url;

/// The feature gates of etcd 3.6 and 3.7. All are accepted; those that are no [`Gate`] change nothing here.
const FEATURE_GATES: [&str; 10] = [
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "FastLeaseKeepAlive",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];

/// Reads a value into a draft, or says what is wrong with it.
pub(crate) type Setter = fn(&mut Draft, &str) -> Result<(), String>;

/// One row of the table.
pub(crate) struct Flag {
    /// Where `--help` lists it.
    pub(crate) group: Group,
    /// Its name without dashes; also the key in a config file.
    pub(crate) name: &'static str,
    /// The syntax of its value.
    pub(crate) kind: Kind,
    /// Its default, in that syntax.
    pub(crate) default: &'static str,
    /// What it does; for one that does nothing, why.
    pub(crate) text: &'static str,
    /// What happens when it is given.
    pub(crate) class: Class,
}

/// What happens when a flag is given.
pub(crate) enum Class {
    /// It is done.
    Effect(Setter),
    /// It is read and checked, but what it is about is still missing (the reason). A warning says so.
    Pending(Setter, &'static str),
    /// Accepted, with a warning that nothing follows from it.
    Ignored,
    /// An error unless the value is the default: ignoring it could cost data, security or an outage.
    Refused,
    /// No current release of etcd knows it. An error on the command line, like [`Class::Refused`]; its variable and its key in
    /// a file are left over from an older release and only warned about.
    Dropped,
    /// An older name of another flag.
    Alias(&'static str),
    /// Seen to before any other flag: `--help`, `--version`, `--config-file`.
    Action,
}

/// Syntax of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Uint,
    Int,
    Millis,
    Duration,
    Text,
    Urls,
    List,
    Gates,
    /// Anything, or nothing.
    Any,
}

impl Kind {
    /// Whether `text` is of this syntax.
    fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Bool => bool::parse(text).map(drop),
            Self::Uint | Self::Millis => u64::parse(text).map(drop),
            Self::Int => i64::parse(text).map(drop),
            Self::Duration => parse_duration(text).map(drop),
            Self::Urls => Vec::<Url>::parse(text).map(drop),
            Self::Gates => parse_gates(text).map(drop),
            Self::Text | Self::List | Self::Any => Ok(()),
        }
    }

    /// Whether the flag may stand without a value.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::Bool | Self::Any)
    }

    /// Whether two texts of this syntax mean the same.
    pub(crate) fn same(self, a: &str, b: &str) -> bool {
        match self {
            Self::Bool => bool::parse(a) == bool::parse(b),
            Self::Uint | Self::Int | Self::Millis => i128_of(a).is_some_and(|value| i128_of(b) == Some(value)),
            Self::Duration => parse_duration(a).is_ok_and(|value| parse_duration(b) == Ok(value)),
            _ => a == b,
        }
    }
}

fn i128_of(text: &str) -> Option<i128> {
    text.parse().ok()
}

/// A feature gate that opens something here.
struct Gate {
    name: &'static str,
    /// The flag of older releases that does the same.
    older: &'static str,
    field: fn(&mut Config) -> &mut bool,
}

/// Both are alpha in etcd.
static GATES: [Gate; 2] = [
    Gate {
        name: "CompactHashCheck",
        older: "experimental-compact-hash-check-enabled",
        field: |config| &mut config.compact_hash_check,
    },
    Gate {
        name: "InitialCorruptCheck",
        older: "experimental-initial-corrupt-check",
        field: |config| &mut config.initial_corrupt_check,
    },
];

/// What `Gate=true,Other=false` says.
fn parse_gates(text: &str) -> Result<Vec<(&'static str, bool)>, String> {
    let gate = |gate: &str| {
        let (name, value) = gate.split_once('=').ok_or_else(|| format!("missing bool value for {gate}"))?;
        let Some(name) = FEATURE_GATES.into_iter().find(|known| *known == name) else {
            let hint = nearest(name, FEATURE_GATES).map_or(String::new(), |name| format!(", did you mean {name}?"));
            return Err(format!("unrecognized feature gate: {name}{hint}"));
        };
        Ok((name, bool::parse(value).map_err(|reason| format!("{gate}: {reason}"))?))
    };
    comma_list(text).map(gate).collect()
}

/// A section of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Memory,
    Commands,
    Older,
}

impl Group {
    pub(crate) const ALL: [Self; 9] = [
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Monitoring,
        Self::Logging,
        Self::Memory,
        Self::Commands,
        Self::Older,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Monitoring => "Profiling and Monitoring",
            Self::Logging => "Logging",
            Self::Memory => "Memory and threads (Cairn's own)",
            Self::Commands => "Configuration file and information",
            Self::Older => "Names of older etcd releases",
        }
    }
}

/// Where a setting was given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// On the command line.
    Flag,
    /// In the environment.
    Variable,
    /// In a config file, under this key.
    File(&'a Path, &'a str),
}

impl Origin<'_> {
    /// The setting in the words of this source.
    fn setting(self, flag: &Flag) -> String {
        match self {
            Self::Flag => format!("--{}", flag.name),
            Self::Variable => flag.variable(),
            Self::File(path, key) => format!("{key} in config file {}", path.display()),
        }
    }
}

impl Flag {
    /// The environment variable: `--data-dir` is `ETCD_DATA_DIR`.
    pub(crate) fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    fn is_default(&self, text: &str) -> bool {
        self.kind.same(text, self.default)
    }
}

/// A configuration while its settings come in, in any order.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) config: Config,
    pub(crate) compaction_mode: CompactionMode,
    pub(crate) compaction_retention: String,
    pub(crate) rotates_log: bool,
    /// What `--log-rotation-config-json` says.
    pub(crate) log_rotation: String,
    /// What `--feature-gates` says.
    gates: Vec<(&'static str, bool)>,
    /// Which flags were set, and how the source called them. Aliases count as what they stand for.
    given: BTreeMap<&'static str, String>,
    pub(crate) notices: Vec<Notice>,
}

impl Draft {
    /// Takes one setting.
    pub(crate) fn apply(&mut self, flag: &'static Flag, text: &str, origin: Origin<'_>) -> Result<(), ConfigError> {
        let left_over = matches!((&flag.class, origin), (Class::Dropped, Origin::Variable | Origin::File(..)));
        if left_over && !flag.is_default(text) {
            let text = format!("no current release knows it, accepted without effect: {}", flag.text);
            self.notices.push(Notice::new(origin.setting(flag), text));
            return Ok(());
        }
        self.apply_as(flag, text, &origin.setting(flag))
    }

    fn apply_as(&mut self, flag: &'static Flag, text: &str, setting: &str) -> Result<(), ConfigError> {
        let invalid =
            |reason| ConfigError::InvalidValue { setting: setting.to_owned(), value: text.to_owned(), reason };
        flag.kind.check(text).map_err(invalid)?;
        if flag.kind == Kind::Duration && text.starts_with('-') {
            self.notices.push(Notice::new(setting, "a negative duration counts as 0"));
        }
        match flag.class {
            Class::Effect(set) => set(self, text).map_err(invalid)?,
            Class::Pending(set, why) => {
                set(self, text).map_err(invalid)?;
                if !flag.is_default(text) {
                    self.notices.push(Notice::new(setting, format!("accepted, but without effect: {why}")));
                }
            }
            Class::Ignored => {
                if !flag.is_default(text) {
                    self.notices.push(Notice::new(setting, format!("accepted, but without effect: {}", flag.text)));
                }
            }
            Class::Refused | Class::Dropped => {
                if !flag.is_default(text) {
                    let value = text.to_owned();
                    return Err(ConfigError::Refused { setting: setting.to_owned(), value, reason: flag.text });
                }
            }
            Class::Alias(target) => {
                let target = table::find(target).expect("a test holds that every alias names a flag");
                self.notices.push(Notice::new(setting, format!("an older name, use --{} instead", target.name)));
                return self.apply_as(target, text, setting);
            }
            Class::Action => {}
        }
        // A repeated flag goes by one name, and its last value counts; two names may contradict each other.
        match self.given.insert(flag.name, setting.to_owned()) {
            Some(first) if first != setting => Err(ConfigError::GivenTwice { first, second: setting.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Whether a flag was given.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Takes what `--feature-gates` says.
    pub(crate) fn set_gates(&mut self, text: &str) -> Result<(), String> {
        self.gates = parse_gates(text)?;
        Ok(())
    }

    /// Opens the gates that were named. A gate's own name counts more than that of a group of gates.
    fn open_gates(&mut self) -> Result<(), ConfigError> {
        let setting = self.given.get("feature-gates").cloned().unwrap_or_default();
        let said = |name: &str| self.gates.iter().rev().find(|(gate, _)| *gate == name).map(|(_, open)| *open);
        for gate in &GATES {
            let named = said(gate.name);
            if let (Some(_), Some(older)) = (named, self.given.get(gate.older)) {
                return Err(ConfigError::GivenTwice { first: older.clone(), second: setting });
            }
            if let Some(open) = named.or(said("AllAlpha").filter(|_| !self.given.contains_key(gate.older))) {
                *(gate.field)(&mut self.config) = open;
            }
        }
        let idle = |name: &&str| GATES.iter().all(|gate| gate.name != *name) && *name != "AllAlpha";
        let idle: Vec<_> = self.gates.iter().map(|(name, _)| *name).filter(idle).collect();
        if !idle.is_empty() {
            let what = "what these gates of etcd guard is either always on here or not there";
            self.notices
                .push(Notice::new(setting, format!("accepted, but without effect: {}: {what}", idle.join(", "))));
        }
        Ok(())
    }

    /// The configuration, with what two flags say together put into one.
    pub(crate) fn finish(mut self) -> Result<(Config, Vec<Notice>), ConfigError> {
        self.open_gates()?;
        if self.rotates_log {
            self.config.log.rotation = Some(self.rotation()?);
        }
        if !self.compaction_retention.is_empty() {
            self.config.auto_compaction = AutoCompaction::from_flags(self.compaction_mode, &self.compaction_retention)
                .map_err(|reason| ConfigError::InvalidValue {
                    setting: self.given.remove("auto-compaction-retention").unwrap_or_default(),
                    value: self.compaction_retention,
                    reason,
                })?;
        }
        Ok((self.config, self.notices))
    }

    /// How log files are rotated. As in etcd, it is only looked at when they are.
    fn rotation(&self) -> Result<LogRotation, ConfigError> {
        const FLAG: &str = "log-rotation-config-json";
        let given = self.given.get(FLAG);
        let text = if given.is_some() { self.log_rotation.as_str() } else { "{}" };
        LogRotation::parse(text).map_err(|reason| ConfigError::InvalidValue {
            setting: given.cloned().unwrap_or_default(),
            value: text.to_owned(),
            reason,
        })
    }
}

/// Parses `text` into `field`.
pub(crate) fn put<T: Value>(field: &mut T, text: &str) -> Result<(), String> {
    *field = T::parse(text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_gates_are_checked_by_name_and_value() {
        assert_eq!(parse_gates(""), Ok(Vec::new()));
        let two = vec![("InitialCorruptCheck", true), ("LeaseCheckpoint", false)];
        assert_eq!(parse_gates("InitialCorruptCheck=true,LeaseCheckpoint=false"), Ok(two));
        assert!(parse_gates("InitialCorruptChek=true").unwrap_err().contains("did you mean InitialCorruptCheck?"));
        assert!(parse_gates("LeaseCheckpoint").unwrap_err().contains("missing bool value"));
        assert!(parse_gates("LeaseCheckpoint=maybe").is_err());
    }

    #[test]
    fn every_gate_is_one_of_etcd() {
        assert!(GATES.iter().all(|gate| FEATURE_GATES.contains(&gate.name) && table::find(gate.older).is_some()));
    }

    #[test]
    fn a_default_is_known_in_any_spelling() {
        assert!(Kind::Duration.same("600s", "10m"));
        assert!(Kind::Bool.same("T", "true"));
        assert!(Kind::Uint.same("05", "5"));
        assert!(!Kind::Text.same("simple", "jwt"));
    }
}
