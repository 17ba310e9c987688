//! `--help`, `help`, `options`, and the usage behind an error, laid out as Go's `cobra` lays them out for etcdctl 3.7.
//!
//! Help ([`help`]) is an answer: it says what a command is for, then its usage, and goes to standard output. Usage ([`usage`])
//! alone stands behind an error about flags, and goes to standard error with it.

use std::fmt::Write as _;

use super::PROGRAM;
use super::flags::{Flag, Kind};
use super::tree::{Action, Command, GLOBAL, ROOT};

/// The commands below the program itself, under the headings of its help.
const HEADINGS: [(&str, &[&str]); 5] = [
    ("Key-value commands", &["compaction", "del", "get", "lease", "put", "txn", "watch"]),
    (
        "Cluster maintenance commands",
        &["alarm", "defrag", "downgrade", "endpoint", "member", "move-leader", "snapshot"],
    ),
    ("Concurrency commands", &["elect", "lock"]),
    ("Authentication commands", &["auth", "role", "user"]),
    ("Utility commands", &["audit", "check", "completion", "help", "make-mirror", "options", "version"]),
];

/// Names of commands are padded to this many columns at least.
const NAME_COLUMNS: usize = 11;

/// Explains the command at the end of `path`, or the whole program for an empty one.
pub fn help(path: &[&'static Command]) -> String {
    let command = path.last().copied().unwrap_or(&ROOT);
    let about = if command.long.is_empty() { command.short } else { command.long };
    format!(
        "{}\n\n{}Use \"{PROGRAM} options\" for a list of global command-line options (applies to all commands).\n",
        about.trim_end(),
        usage(path)
    )
}

/// How the command at the end of `path` is called, and with which flags.
pub fn usage(path: &[&'static Command]) -> String {
    let command = path.last().copied().unwrap_or(&ROOT);
    let mut words = vec![PROGRAM];
    words.extend(path.iter().map(|command| command.name));
    let full_name = words.join(" ");
    let mut text = "Usage:\n".to_owned();
    if command.action != Action::Group {
        words.pop();
        // The one command whose line lists no flags.
        let flags = if command.action == Action::Completion { "" } else { " [flags]" };
        let _ = writeln!(text, "  {} {}{flags}", words.join(" "), command.usage);
    }
    if !command.children.is_empty() {
        let _ = writeln!(text, "  {full_name} [command]");
        commands(&mut text, command, path.is_empty());
    }
    if let Some(above) = path.len().checked_sub(1) {
        let help = Flag { name: "help", short: Some('h'), kind: Kind::Bool, default: "false", usage: "" };
        let mut local: Vec<_> = command.flags.iter().chain(command.inherited).map(row).collect();
        local.push((help.name, row(&help).1, format!("help for {}", command.name)));
        flag_list(&mut text, "Flags", local);
        // The flags that every command has are listed by `options` alone.
        flag_list(
            &mut text,
            "Global Flags",
            path[..above].iter().flat_map(|command| command.inherited).map(row).collect(),
        );
    }
    if !command.children.is_empty() {
        let _ = writeln!(text, "\nUse \"{full_name} [command] --help\" for more information about a command.");
    }
    text
}

/// What `options` prints.
pub fn options() -> String {
    let mut text = "The following options can be passed to any command:\n\n".to_owned();
    rows(&mut text, GLOBAL.iter().map(row).collect());
    text
}

/// The commands below one, each with what it does.
fn commands(text: &mut String, above: &'static Command, is_root: bool) {
    let columns = above.children.iter().map(|child| child.name.len()).fold(NAME_COLUMNS, usize::max);
    let mut children: Vec<_> = above.children.iter().collect();
    children.sort_unstable_by_key(|child| child.name);
    let mut list = |heading: &str, listed: &dyn Fn(&Command) -> bool| {
        let _ = write!(text, "\n{heading}\n");
        for child in children.iter().filter(|child| listed(child)) {
            let name = child.name;
            let more = match (is_root, child.children.is_empty()) {
                (true, false) => format!(". Use `{PROGRAM} {name} --help` to see subcommands"),
                _ => String::new(),
            };
            let later = if is_later(child) { " (not available yet)" } else { "" };
            let _ = writeln!(text, "  {name:columns$} {}{more}{later}", child.short);
        }
    };
    if is_root {
        for (heading, names) in HEADINGS {
            list(heading, &|child| names.contains(&child.name));
        }
    } else {
        list("Available Commands:", &|_| true);
    }
}

/// Whether there is nothing behind a command, or behind any below it.
pub(super) fn is_later(command: &Command) -> bool {
    match command.children {
        [] => command.action == Action::Later,
        children => children.iter().all(is_later),
    }
}

/// A list of flags under its heading; nothing for none.
fn flag_list(text: &mut String, heading: &str, mut list: Vec<Row>) {
    if !list.is_empty() {
        let _ = write!(text, "\n{heading}:\n");
        list.sort_unstable_by_key(|(name, ..)| *name);
        rows(text, list);
    }
}

/// A flag's name, its spelling with the kind of its value, and what it does with its default value.
type Row = (&'static str, String, String);

fn row(flag: &Flag) -> Row {
    let spelling = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    let (kind, default) = match (flag.kind, flag.default) {
        (Kind::Bool, "false") => ("", String::new()),
        (Kind::Bool, other) => ("", format!(" (default {other})")),
        (Kind::Int, "0") => (" int", String::new()),
        (Kind::Int, other) => (" int", format!(" (default {other})")),
        (Kind::Text, "") => (" string", String::new()),
        (Kind::Text, other) => (" string", format!(" (default \"{other}\")")),
        (Kind::Duration, other) => (" duration", format!(" (default {other})")),
        (Kind::List, other) => (" strings", format!(" (default [{other}])")),
    };
    (flag.name, spelling + kind, format!("{}{default}", flag.usage))
}

/// Two columns, three blanks apart at the widest.
fn rows(text: &mut String, rows: Vec<Row>) {
    let columns = rows.iter().map(|(_, spelling, _)| spelling.len()).max().unwrap_or(0);
    for (_, spelling, usage) in rows {
        let _ = writeln!(text, "{spelling:columns$}   {usage}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::resolve::resolve;

    const PROMPT: &str =
        "Use \"cairnctl options\" for a list of global command-line options (applies to all commands).\n";

    fn help(line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        super::help(&resolve(&words).expect("a command").path)
    }

    #[test]
    fn a_command_is_explained_by_what_it_does_how_it_is_called_and_its_flags() {
        let expected = "Prints the KV history hash for each endpoint in --endpoints\n\n\
            Usage:\n  cairnctl endpoint hashkv [flags]\n\n\
            Flags:\n  -h, --help      help for hashkv\n      --rev int   maximum revision to hash (default: all revisions)\n\n\
            Global Flags:\n      --cluster   use all endpoints from the cluster member list\n";
        assert_eq!(help("endpoint hashkv"), format!("{expected}{PROMPT}"));
    }

    #[test]
    fn a_group_lists_what_is_below_it() {
        let expected = "Endpoint related commands\n\n\
            Usage:\n  cairnctl endpoint [command]\n\n\
            Available Commands:\n\
            \x20 hashkv      Prints the KV history hash for each endpoint in --endpoints\n\
            \x20 health      Checks the healthiness of endpoints specified in `--endpoints` flag\n\
            \x20 status      Prints out the status of endpoints specified in `--endpoints` flag\n\n\
            Flags:\n      --cluster   use all endpoints from the cluster member list\n  -h, --help      help for endpoint\n\n\
            Use \"cairnctl endpoint [command] --help\" for more information about a command.\n";
        assert_eq!(help("endpoint"), format!("{expected}{PROMPT}"));
    }

    #[test]
    fn default_values_stand_behind_what_a_flag_does() {
        let lock = help("lock");
        assert!(lock.contains("\n  cairnctl lock <lockname> [exec-command arg1 arg2 ...] [flags]\n"), "{lock}");
        assert!(
            lock.contains("\n  -h, --help      help for lock\n      --ttl int   timeout for session (default 10)\n"),
            "{lock}"
        );
        assert!(help("completion").contains("\n  cairnctl completion [bash|zsh|fish|powershell]\n"));
        let options = options();
        for line in [
            "      --command-timeout duration     timeout for short running command (excluding dial timeout) (default 5s)\n",
            "      --endpoints strings            gRPC endpoints (default [127.0.0.1:2379])\n",
            "      --insecure-transport           disable transport security for client connections (default true)\n",
            "  -w, --write-out string             set the output format (fields, json, protobuf, simple, table) (default \"simple\")\n",
        ] {
            assert!(options.contains(line), "no {line} in\n{options}");
        }
    }

    #[test]
    fn the_program_lists_every_command_under_one_heading_and_no_flags() {
        let text = help("");
        assert!(
            text.contains("\n\nUsage:\n  cairnctl [command]\n\nKey-value commands\n  compaction  Compacts"),
            "{text}"
        );
        for child in ROOT.children {
            assert_eq!(text.matches(&format!("\n  {:11} ", child.name)).count(), 1, "{}", child.name);
        }
        let end = "\n\nUse \"cairnctl [command] --help\" for more information about a command.\n";
        assert!(text.ends_with(&format!("{end}{PROMPT}")) && !text.contains("Flags:"), "{text}");
        assert!(text.contains(
            "  snapshot    Manages etcd node snapshots. Use `cairnctl snapshot --help` to see subcommands (not"
        ));
        assert!(
            text.contains(
                "  member      Membership related commands. Use `cairnctl member --help` to see subcommands\n"
            )
        );
    }
}
