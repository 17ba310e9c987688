//! The one table of flags: every flag of etcd 3.5, 3.6 and 3.7, and Cairn's own.
//!
//! Command line, environment, config file, `--help` and `docs/flags.md` are all read from it. A row is
//! `name kind default, text, class;`. The kind is the syntax of the value, the default is written in that syntax
//! (a test holds it against `Config::default()`), and the class says what happens when the flag is given.

mod clustering;
mod legacy;
mod member;
mod security;

use super::flag::Flag;

/// Builds the rows of one group.
macro_rules! rows {
    ($group:ident: $($name:literal $kind:ident $default:literal, $text:literal, $class:expr;)*) => {
        &[$(Flag {
            group: Group::$group,
            name: $name,
            kind: Kind::$kind,
            default: $default,
            text: $text,
            class: $class,
        }),*]
    };
}

/// A setter of a field of the configuration.
macro_rules! set {
    ($($field:ident).+) => {
        |draft: &mut Draft, text: &str| put(&mut draft.config.$($field).+, text)
    };
}

use {rows, set};

static GROUPS: [&[Flag]; 9] = [
    member::MEMBER,
    clustering::CLUSTERING,
    security::SECURITY,
    security::AUTH,
    member::MONITORING,
    member::LOGGING,
    member::MEMORY,
    member::COMMANDS,
    legacy::OLDER,
];

/// Every flag, in the order of `--help`.
pub(crate) fn flags() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|group| group.iter())
}

/// The flag of this name.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    flags().find(|flag| flag.name == name)
}

#[cfg(test)]
mod etcd_tests;
#[cfg(test)]
mod tests;
