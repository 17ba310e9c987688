//! What the table of flags looks like to people: `--help`, `--version` and `docs/flags.md`.

use std::fmt::Write as _;

use super::flag::{Class, Flag, Group};
use super::table;
use crate::types::API_VERSION;

/// What `--version` prints. The first line is for tools that look for an etcd.
pub fn version_text() -> String {
    format!(
        "etcd Version: {API_VERSION}\nCairn Version: {}\nOS/Arch: {}/{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

/// What `--help` prints.
pub fn help_text() -> String {
    let mut text = String::from(
        "Usage:\n\n  cairn [flags]\n    Start a server.\n\n  cairn --version\n    Show the version.\n\n  \
         cairn -h | --help\n    Show this text.\n\n\
         Every flag can be given as an environment variable (--data-dir is ETCD_DATA_DIR) or as a key of --config-file.\n",
    );
    for group in Group::ALL {
        let shown: Vec<&Flag> = in_group(group).filter(|flag| shows(flag)).collect();
        if shown.is_empty() {
            continue;
        }
        let _ = write!(text, "\n{}:\n", group.title());
        for flag in shown {
            let note = match flag.class {
                Class::Pending(_, why) => format!(" (No effect yet: {why}.)"),
                _ => String::new(),
            };
            let _ = writeln!(text, "  --{} '{}'\n    {}{note}", flag.name, flag.default, flag.text);
        }
    }
    text.push_str("\nAccepted for etcd's sake, without effect (a warning tells why):\n");
    wrap(&mut text, table::flags().filter(|flag| matches!(flag.class, Class::Ignored)));
    text.push_str("\nRefused unless left at their defaults:\n");
    wrap(&mut text, table::flags().filter(|flag| matches!(flag.class, Class::Refused | Class::Dropped)));
    text.push_str("\nOlder names of flags above:\n");
    wrap(&mut text, table::flags().filter(|flag| matches!(flag.class, Class::Alias(_))));
    text
}

fn shows(flag: &Flag) -> bool {
    matches!(flag.class, Class::Effect(_) | Class::Pending(..) | Class::Action)
}

fn in_group(group: Group) -> impl Iterator<Item = &'static Flag> {
    table::flags().filter(move |flag| flag.group == group)
}

/// Names in lines of at most 100 columns.
fn wrap<'a>(text: &mut String, flags: impl Iterator<Item = &'a Flag>) {
    let mut column = 0;
    for flag in flags {
        let width = flag.name.len() + 3;
        if column > 0 && column + width > 100 {
            text.push('\n');
            column = 0;
        }
        text.push_str(if column == 0 { "  --" } else { " --" });
        text.push_str(flag.name);
        column += width;
    }
    text.push('\n');
}

/// The text of `docs/flags.md`.
#[cfg(test)]
pub(crate) fn markdown() -> String {
    let mut text = String::from(
        "# Flags\n\n\
         This page is made from the table of flags in `server/src/config/table/`; a test holds the two together\n\
         (`UPDATE_DOCS=1` in its environment writes the page anew).\n\n\
         A flag is given as `--flag value` or `--flag=value` (one dash will do; a boolean takes its value only after `=`),\n\
         as an environment variable (`--data-dir` is `ETCD_DATA_DIR`), or as a key of the YAML file of `--config-file`,\n\
         where the TLS flags stand under `client-transport-security` as `cert-file`, `key-file`, `client-cert-auth`,\n\
         `trusted-ca-file`, `auto-tls`, `allowed-cn`, `allowed-hostname` and `crl-file`. With a config file, nothing else counts.\n\
         A flag given together with its variable is an error, as in etcd.\n\n\
         URLs begin with `http://` or `https://` and name a host and a port, or with `unix://` or `unixs://` (TLS) and name a socket in the file\n\
         system: `unix:///run/cairn/client.sock`, or a path from the working directory, as in `unix://name:0`. A socket that is left there is\n\
         replaced, a file that is none is not; it is removed when the server ends. An IPv6 address may have a zone: `http://[fe80::1%25eth0]:2380`.\n\n\
         Every flag of etcd 3.5, 3.6 and 3.7 is in one of these classes; any other is an error that names the nearest flag.\n\n\
         | class | meaning |\n|---|---|\n\
         | yes | takes effect |\n\
         | not yet | read and checked; a warning says that what it is about is still missing |\n\
         | ignored | accepted with a warning that gives the reason |\n\
         | refused | an error unless the value is the default: to ignore it could cost data, security or an outage, or etcd ends, too |\n\
         | dropped | no current etcd knows it: refused on the command line, warned about as a variable or a key of the file |\n\
         | older name | does what the flag it stands for does, with a warning |\n",
    );
    for group in Group::ALL {
        let _ = write!(
            text,
            "\n## {}\n\n| flag | default | class | what it does, or why it does nothing |\n|---|---|---|---|\n",
            group.title()
        );
        for flag in in_group(group) {
            let (class, what) = match flag.class {
                Class::Effect(_) | Class::Action => ("yes", flag.text.to_owned()),
                Class::Pending(_, why) => ("not yet", format!("{} {}.", flag.text, sentence(why))),
                Class::Ignored => ("ignored", format!("{}.", sentence(flag.text))),
                Class::Refused => ("refused", format!("{}.", sentence(flag.text))),
                Class::Dropped => ("dropped", format!("{}.", sentence(flag.text))),
                Class::Alias(target) => ("older name", format!("of `--{target}`")),
            };
            let default = if flag.default.is_empty() { String::new() } else { format!("`{}`", flag.default) };
            let what = what.replace('|', "\\|");
            let _ = writeln!(text, "| `--{}` | {default} | {class} | {what} |", flag.name);
        }
    }
    text
}

#[cfg(test)]
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_begins_as_etcds_does() {
        let text = version_text();
        let first = text.lines().next().unwrap();
        assert_eq!(first, "etcd Version: 3.7.1");
        assert!(text.contains(&format!("Cairn Version: {}", env!("CARGO_PKG_VERSION"))));
    }

    #[test]
    fn help_names_every_flag_once() {
        let help = help_text();
        for flag in table::flags() {
            let name = format!("--{}", flag.name);
            let listed = help
                .lines()
                .filter(|line| line.starts_with("  --"))
                .flat_map(str::split_whitespace)
                .filter(|word| **word == name)
                .count();
            assert_eq!(listed, 1, "{name}");
        }
    }

    #[test]
    fn the_page_in_docs_agrees_with_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/flags.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page == markdown(), "docs/flags.md is out of date: run this test with UPDATE_DOCS=1");
    }
}
