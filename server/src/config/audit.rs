//! Which calls are put on record (`--audit-log`), by a policy in YAML:
//!
//! ```yaml
//! rules:
//! - users: [system:apiserver]      # its leases and events are not of interest
//!   prefixes: [/registry/leases/, /registry/events/]
//!   record: false
//! - prefixes: [/registry/secrets/]
//!   values: size
//! - access: [write]
//! default: false
//! ```
//!
//! The first rule that fits a call decides. A rule fits if each of its conditions does; a condition that is left out
//! always fits.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cairn_proto::rpc::Method;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::log_settings::{LogOutput, LogRotation};
use super::value::Value;

/// Bytes of the largest policy.
const POLICY_BYTES_MAX: usize = 1 << 20;
/// Rules of the longest policy: each call goes through them.
const RULES_MAX: usize = 1000;

/// The record of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditConfig {
    /// `--audit-log`: where lines go. None: there is no record.
    pub output: Option<LogOutput>,
    /// `--audit-policy`: the file with the [`AuditPolicy`]. None: the default policy.
    pub policy_file: Option<PathBuf>,
    /// `--audit-rotation`: how a file is kept small. None: it is not.
    pub rotation: Option<LogRotation>,
    /// `--audit-blocking`: calls wait while lines cannot be written.
    pub blocking: bool,
}

/// Which calls are put on record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditPolicy {
    /// The first one that fits decides.
    #[serde(default)]
    pub rules: Vec<AuditRule>,
    /// Whether calls are put on record that no rule fits.
    #[serde(default)]
    pub default: bool,
}

/// What is done with some calls.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRule {
    /// Calls of these methods, by name (`Put`) or with their service (`KV/Put`).
    #[serde(default)]
    pub rpcs: Option<Vec<String>>,
    /// Calls of these users; the empty name is that of callers without one.
    #[serde(default)]
    pub users: Option<BTreeSet<String>>,
    /// Calls that touch a key under one of these; where they are not to be on record, calls that touch no other keys.
    /// Calls without keys fit no prefix.
    #[serde(default)]
    pub prefixes: Option<Vec<String>>,
    /// Calls that read, or that write, under the prefixes if there are some. What changes users, members or the member
    /// itself writes.
    #[serde(default)]
    pub access: Option<Vec<AuditAccess>>,
    /// Whether they are put on record.
    #[serde(default = "yes")]
    pub record: bool,
    /// What is said of values that are written.
    #[serde(default)]
    pub values: AuditValues,
}

/// What a call does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditAccess {
    /// It changes nothing.
    #[default]
    Read,
    /// It may change something.
    Write,
}

/// What is said of a value that is written. It is never said itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditValues {
    /// Nothing.
    #[default]
    None,
    /// Its bytes.
    Size,
    /// Its bytes and its SHA-256. Whoever can guess a value can tell it by its hash.
    Hash,
}

impl AuditConfig {
    /// Whether something is said of a record that there is not to be.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let alone = [
            ("--audit-policy", self.policy_file.is_some()),
            ("--audit-rotation", self.rotation.is_some()),
            ("--audit-blocking", self.blocking),
        ];
        match alone.into_iter().find(|(_, given)| *given && self.output.is_none()) {
            Some((flag, _)) => {
                Err(ConfigError::Invalid(format!("{flag} needs --audit-log, which says where calls are put on record")))
            }
            None => Ok(()),
        }
    }
}

const fn yes() -> bool {
    true
}

impl Value for Option<LogOutput> {
    /// Standard error or a file; empty is none.
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "" => None,
            "stderr" => Some(LogOutput::Stderr),
            path => Some(LogOutput::File(path.into())),
        })
    }
}

impl Value for Option<LogRotation> {
    /// As of the log; empty is none.
    fn parse(text: &str) -> Result<Self, String> {
        (!text.is_empty()).then(|| LogRotation::parse(text)).transpose()
    }
}

impl Default for AuditPolicy {
    /// Everything that may change something.
    fn default() -> Self {
        let writes = AuditRule {
            rpcs: None,
            users: None,
            prefixes: None,
            access: Some(vec![AuditAccess::Write]),
            record: true,
            values: AuditValues::None,
        };
        Self { rules: vec![writes], default: false }
    }
}

impl AuditPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > POLICY_BYTES_MAX {
            return Err("is larger than 1 MiB".to_owned());
        }
        let policy: Self = serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
        if policy.rules.len() > RULES_MAX {
            return Err(format!("has more than {RULES_MAX} rules"));
        }
        for (at, rule) in (1..).zip(&policy.rules) {
            for name in rule.rpcs.iter().flatten() {
                let mut named = Method::ALL.iter().filter(|method| is_named(**method, name)).peekable();
                if named.peek().is_none() {
                    return Err(format!("rule {at}: there is no RPC {name:?}"));
                }
                if !named.any(|method| is_kept(*method)) {
                    return Err(format!("rule {at}: calls of {name} are never put on record"));
                }
            }
        }
        Ok(policy)
    }
}

impl AuditRule {
    /// Whether the rule is about calls of a method.
    pub fn names(&self, method: Method) -> bool {
        self.rpcs.as_ref().is_none_or(|names| names.iter().any(|name| is_named(method, name)))
    }

    /// Whether the rule is about what does this.
    pub fn wants(&self, access: AuditAccess) -> bool {
        self.access.as_ref().is_none_or(|wanted| wanted.contains(&access))
    }
}

/// Whether calls of a method are ever put on record: not those that come all the time and touch nothing.
pub fn is_kept(method: Method) -> bool {
    method != Method::LeaseKeepAlive && !method.service().starts_with("grpc.")
}

/// Whether a method has this name, alone or behind that of its service.
fn is_named(method: Method, name: &str) -> bool {
    let (service, method) = (method.service(), method.name());
    let service = service.rsplit_once('.').map_or(service, |(_, service)| service);
    name.split_once('/').map_or(name == method, |(of, name)| of == service && name == method)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_policy_is_read_whole_or_not_at_all() {
        let text = "rules:\n- rpcs: [Put, KV/Txn]\n  users: [alice, '']\n  prefixes: [/a/]\n  access: [write]\n  values: hash\n\
                    - record: false\ndefault: true\n";
        let policy = AuditPolicy::parse(text).expect("a policy");
        assert_eq!((policy.rules.len(), policy.default), (2, true));
        assert_eq!(policy.rules[0].values, AuditValues::Hash);
        assert!(policy.rules[0].names(Method::Txn) && !policy.rules[0].names(Method::Range));
        assert!(policy.rules[0].wants(AuditAccess::Write) && !policy.rules[0].wants(AuditAccess::Read));
        let many = "rules:\n".to_owned() + &"- record: true\n".repeat(RULES_MAX + 1);
        let deep = "[".repeat(100_000);
        for (text, reason) in [
            ("rules: [{rpc: [Put]}]", "rpc"),
            ("rules: [{rpcs: [Puts]}]", "no RPC \"Puts\""),
            ("rules: [{rpcs: [Lease/Put]}]", "no RPC \"Lease/Put\""),
            ("rules: [{rpcs: [Put, LeaseKeepAlive]}]", "LeaseKeepAlive are never"),
            ("rules: [{rpcs: [Health/Check]}]", "Health/Check are never"),
            ("rules: [{access: [delete]}]", "delete"),
            ("rules: [{values: all}]", "all"),
            ("rules: 7", ""),
            ("default: maybe", ""),
            ("rule: []", "rule"),
            ("rules: []\nrules: []\n", "rules"),
            (&many, "more than 1000 rules"),
            (&deep, ""),
            (&" ".repeat(POLICY_BYTES_MAX + 1), "larger than 1 MiB"),
        ] {
            let error = AuditPolicy::parse(text).expect_err(&text[..text.len().min(40)]);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn every_method_has_a_name_of_its_own_with_its_service() {
        for method in Method::ALL {
            let service = method.service().rsplit_once('.').expect("a package").1;
            let name = format!("{service}/{}", method.name());
            let named: Vec<_> = Method::ALL.iter().filter(|other| is_named(**other, &name)).collect();
            assert!(named.contains(&method), "{name}");
        }
    }

    #[test]
    fn what_is_said_of_a_record_needs_one() {
        let given = [
            AuditConfig { policy_file: Some("p".into()), ..AuditConfig::default() },
            AuditConfig { rotation: Some(LogRotation::default()), ..AuditConfig::default() },
            AuditConfig { blocking: true, ..AuditConfig::default() },
        ];
        for alone in given {
            assert!(alone.validate().expect_err("no record").to_string().contains("needs --audit-log"), "{alone:?}");
            let config = AuditConfig { output: Some(LogOutput::Stderr), ..alone };
            assert!(config.validate().is_ok(), "{config:?}");
        }
        assert!(AuditConfig::default().validate().is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_a_policy_or_an_error(text in ".{0,200}") {
            let _ = AuditPolicy::parse(&text);
        }
    }
}
