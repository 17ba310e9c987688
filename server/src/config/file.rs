//! The YAML config file.
//!
//! Keys are flag names; the TLS flags and those of discovery stand in sections of their own, under shorter names, as
//! in etcd. Unlike etcd, which ignores what it does not know and so serves in plain text when `cert-file` stands at
//! the top level, every key must mean something. As in etcd, capital letters do not matter, and a key without a value
//! is as good as absent.

use std::path::Path;

use serde_json::Value as Node;
use serde_saphyr::DuplicateKeyPolicy;

use super::error::{ConfigError, Notice, nearest};
use super::flag::{Class, Draft, Flag, Kind, Origin};
use super::table;

/// A section: its name, after that of the section it stands in, and its keys with the flags they set.
struct Section {
    name: &'static str,
    /// Whether its flags mean something here alone: at the top level etcd ignores them, and that is dangerous.
    only_here: bool,
    keys: &'static [(&'static str, &'static str)],
    /// Keys that change nothing, in etcd neither, with the reason.
    idle: &'static [(&'static str, &'static str)],
}

static SECTIONS: [Section; 6] = [
    Section {
        name: "client-transport-security",
        only_here: true,
        keys: &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-cn", "client-cert-allowed-cn"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
            ("crl-file", "client-crl-file"),
        ],
        idle: &[(
            "skip-client-san-verification",
            "the address that a client comes from is never compared with its certificate",
        )],
    },
    Section {
        name: "peer-transport-security",
        only_here: true,
        keys: &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("crl-file", "peer-crl-file"),
            ("skip-client-san-verification", "peer-skip-client-san-verification"),
        ],
        idle: &[],
    },
    Section {
        name: "socket-options",
        only_here: true,
        keys: &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")],
        idle: &[],
    },
    Section {
        name: "discovery-config",
        only_here: false,
        keys: &[
            ("endpoints", "discovery-endpoints"),
            ("token", "discovery-token"),
            ("dial-timeout", "discovery-dial-timeout"),
            ("request-timeout", "discovery-request-timeout"),
            ("keepalive-time", "discovery-keepalive-time"),
            ("keepalive-timeout", "discovery-keepalive-timeout"),
        ],
        idle: &[("max-request-bytes", NO_DISCOVERY), ("max-recv-bytes", NO_DISCOVERY)],
    },
    Section {
        name: "discovery-config.secure",
        only_here: false,
        keys: &[
            ("cert", "discovery-cert"),
            ("key", "discovery-key"),
            ("cacert", "discovery-cacert"),
            ("insecure-transport", "discovery-insecure-transport"),
            ("insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify"),
        ],
        idle: &[("server-name", NO_DISCOVERY)],
    },
    Section {
        name: "discovery-config.auth",
        only_here: false,
        keys: &[("username", "discovery-user"), ("password", "discovery-password")],
        idle: &[("token", NO_DISCOVERY)],
    },
];

const NO_DISCOVERY: &str = "discovery is not served";

/// Go code that embeds an etcd may set it; in a file it can only be empty.
const GO_ONLY: &str = "grpc-additional-server-options";

/// Reads the file at `path` into `draft`.
pub(crate) fn read(path: &Path, draft: &mut Draft) -> Result<(), ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::ReadFile { path: path.to_owned(), source })?;
    parse(&text, path, draft)
}

fn parse(text: &str, path: &Path, draft: &mut Draft) -> Result<(), ConfigError> {
    let fail = |reason| ConfigError::ParseFile { path: path.to_owned(), reason };
    let root = if is_blank(text) {
        Node::Null
    } else {
        match serde_saphyr::from_str(text) {
            Ok(root) => root,
            Err(error) => {
                // As in etcd, the last one counts.
                let twice = set_twice(&error).ok_or_else(|| fail(error.to_string()))?;
                draft.notices.push(Notice::new(format!("config file {}", path.display()), twice));
                let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
                serde_saphyr::from_str_with_options(text, options).map_err(|error| fail(error.to_string()))?
            }
        }
    };
    let root = match root {
        Node::Object(root) => root,
        Node::Null => return Ok(()),
        _ => return Err(fail("expected keys with values".to_owned())),
    };
    for (key, node) in &root {
        let key = &key.to_ascii_lowercase();
        if let Some(section) = section(key) {
            read_section(section, node, path, draft)?;
            continue;
        }
        if key == GO_ONLY && is_empty(node) {
            continue;
        }
        let known = table::find(key).filter(|flag| !matches!(flag.class, Class::Action));
        let Some(flag) = known else {
            return Err(unknown_key(key, path));
        };
        if let Some((section, name)) = section_of(flag).filter(|_| !is_empty(node)) {
            return Err(ConfigError::MisplacedKey { key: key.clone(), path: path.to_owned(), section, name });
        }
        apply(draft, flag, key, node, path)?;
    }
    Ok(())
}

/// What there is to say if nothing is wrong with a file but a key that is set twice; names the first one.
fn set_twice(error: &serde_saphyr::Error) -> Option<String> {
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = error.without_snippet() else { return None };
    let key = key.as_deref().unwrap_or_default();
    Some(format!("line {} sets {key:?} a second time, and the last one counts: keep one of the two", location.line()))
}

/// Whether there is nothing but comments.
fn is_blank(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

fn read_section(section: &Section, node: &Node, path: &Path, draft: &mut Draft) -> Result<(), ConfigError> {
    let map = match node {
        Node::Object(map) => map,
        Node::Null => return Ok(()),
        _ => {
            let reason = format!("{} must hold keys with values", section.name);
            return Err(ConfigError::ParseFile { path: path.to_owned(), reason });
        }
    };
    for (key, node) in map {
        let key = &key.to_ascii_lowercase();
        let full_key = format!("{}.{key}", section.name);
        if let Some(inner) = self::section(&full_key) {
            read_section(inner, node, path, draft)?;
            continue;
        }
        if let Some((_, why)) = section.idle.iter().find(|(idle, _)| idle == key) {
            draft.notices.push(Notice::new(full_key, format!("accepted, but without effect: {why}")));
            continue;
        }
        let Some((_, name)) = section.keys.iter().find(|(known, _)| known == key) else {
            let nearest = nearest(key, section.keys.iter().map(|(key, _)| *key));
            return Err(ConfigError::UnknownKey {
                key: full_key,
                path: path.to_owned(),
                nearest: nearest.map(|key| format!("{}.{key}", section.name)),
            });
        };
        let flag = table::find(name).expect("a test holds that every key of a section names a flag");
        apply(draft, flag, &full_key, node, path)?;
    }
    Ok(())
}

fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// Whether a key without it means the same.
fn is_empty(node: &Node) -> bool {
    match node {
        Node::Null => true,
        Node::String(text) => text.is_empty(),
        Node::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The section and key under which a flag stands in a file, if it must not stand at the top level.
fn section_of(flag: &Flag) -> Option<(&'static str, &'static str)> {
    SECTIONS.iter().filter(|section| section.only_here).find_map(|section| {
        section.keys.iter().find(|(_, name)| *name == flag.name).map(|(key, _)| (section.name, *key))
    })
}

fn unknown_key(key: &str, path: &Path) -> ConfigError {
    let names = table::flags()
        .filter(|flag| !matches!(flag.class, Class::Action) && section_of(flag).is_none())
        .map(|flag| flag.name)
        .chain(SECTIONS.iter().map(|section| section.name));
    let nearest = nearest(key, names).map(str::to_owned);
    ConfigError::UnknownKey { key: key.to_owned(), path: path.to_owned(), nearest }
}

fn apply(draft: &mut Draft, flag: &'static Flag, key: &str, node: &Node, path: &Path) -> Result<(), ConfigError> {
    let invalid = |value: String, reason: &str| ConfigError::InvalidValue {
        setting: format!("{key} in config file {}", path.display()),
        value,
        reason: reason.to_owned(),
    };
    let text = match node {
        Node::Array(items) if matches!(flag.kind, Kind::List | Kind::Urls) => {
            let texts: Option<Vec<String>> = items.iter().map(|item| scalar(flag.kind, item)).collect();
            texts.ok_or_else(|| invalid(node.to_string(), "expected a list of texts"))?.join(",")
        }
        Node::Null => return Ok(()),
        // As in etcd, where that is only so in a file.
        Node::Number(zero) if flag.name == "self-signed-cert-validity" && zero.as_u64() == Some(0) => return Ok(()),
        _ => scalar(flag.kind, node).ok_or_else(|| invalid(node.to_string(), "expected a single value"))?,
    };
    if text.is_empty() {
        return Ok(());
    }
    draft.apply(flag, &text, Origin::File(path, key))
}

/// A scalar as the text of a flag. A bare number for a duration counts nanoseconds, as it does in etcd's files.
fn scalar(kind: Kind, node: &Node) -> Option<String> {
    match node {
        Node::Bool(value) => Some(value.to_string()),
        Node::Number(value) if kind == Kind::Duration => Some(format!("{value}ns")),
        Node::Number(value) => Some(value.to_string()),
        Node::String(value) => Some(value.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
