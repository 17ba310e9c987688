//! `--help`, `help` and `options`, laid out as etcdctl lays them out.

use std::fmt::Write as _;

use super::PROGRAM;
use super::flags::{Flag, Kind};
use super::tree::{Action, Command, GLOBAL, ROOT};
use crate::{API_LEVEL, API_VERSION};

/// Explains the command at the end of `path`, or the whole program for an empty one.
pub fn usage(path: &[&'static Command]) -> String {
    let mut text = String::new();
    let words: Vec<_> = path.iter().map(|command| command.name).collect();
    let command = path.last().copied().unwrap_or(&ROOT);
    let name = if path.is_empty() { PROGRAM.to_owned() } else { words.join(" ") };
    let _ = writeln!(text, "NAME:\n\t{name} - {}\n", command.short);

    let mut line = vec![PROGRAM];
    line.extend(words.iter().take(words.len().saturating_sub(1)));
    if !path.is_empty() {
        line.push(command.usage);
    }
    let _ = writeln!(text, "USAGE:\n\t{} [flags]\n", line.join(" "));
    if path.is_empty() {
        let _ = writeln!(text, "VERSION:\n\t{API_LEVEL} ({PROGRAM} {})\n", env!("CARGO_PKG_VERSION"));
    }
    if !command.children.is_empty() {
        let _ = writeln!(text, "API VERSION:\n\t{API_VERSION}\n");
        commands(&mut text, command);
    }
    if !command.long.is_empty() {
        text.push_str("DESCRIPTION:\n");
        for line in command.long.lines() {
            let _ = writeln!(text, "\t{line}");
        }
        text.push('\n');
    }

    let local_inherited = if path.is_empty() { &[][..] } else { command.inherited };
    let mut local: Vec<&Flag> = command.flags.iter().chain(local_inherited).collect();
    let help_text = format!("help for {}", command.name);
    let mut rows: Vec<_> = local.drain(..).map(|flag| (flag.name, flag_row(flag))).collect();
    rows.push(("help", ("  -h, --help[=false]".to_owned(), help_text)));
    rows.sort_by_key(|(name, _)| *name);
    text.push_str("OPTIONS:\n");
    table(&mut text, &rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>());

    let above = path.iter().rev().skip(1).flat_map(|command| command.inherited);
    let mut inherited: Vec<&Flag> = above.chain(GLOBAL).collect();
    inherited.sort_by_key(|flag| flag.name);
    text.push_str("\nGLOBAL OPTIONS:\n");
    table(&mut text, &inherited.into_iter().map(flag_row).collect::<Vec<_>>());
    text.push('\n');
    text
}

/// What `options` prints.
pub fn options() -> String {
    let mut text = "The following options can be passed to any command:\n\n".to_owned();
    table(&mut text, &GLOBAL.iter().map(flag_row).collect::<Vec<_>>());
    text
}

/// The commands below one, those that are not there yet apart from the others.
fn commands(text: &mut String, above: &'static Command) {
    let mut leaves = Vec::new();
    collect(above, "", &mut leaves);
    leaves.sort_by(|a, b| a.0.cmp(&b.0));
    let (later, there): (Vec<_>, Vec<_>) = leaves.into_iter().partition(|(_, command)| command.action == Action::Later);
    let rows = |commands: Vec<(String, &'static Command)>| -> Vec<_> {
        commands.into_iter().map(|(name, command)| (format!("\t{name}"), command.short.to_owned())).collect()
    };
    text.push_str("COMMANDS:\n");
    table(text, &rows(there));
    text.push('\n');
    if !later.is_empty() {
        text.push_str("NOT AVAILABLE YET:\n");
        table(text, &rows(later));
        text.push('\n');
    }
}

fn collect(above: &'static Command, prefix: &str, leaves: &mut Vec<(String, &'static Command)>) {
    for child in above.children {
        let name = format!("{prefix}{}", child.name);
        if child.children.is_empty() {
            leaves.push((name, child));
        } else {
            collect(child, &format!("{name} "), leaves);
        }
    }
}

/// How help writes a flag, its default value included.
fn flag_row(flag: &Flag) -> (String, String) {
    let mut left = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    let _ = match flag.kind {
        Kind::Bool => write!(left, "[={}]", flag.default),
        Kind::Text => write!(left, "=\"{}\"", flag.default),
        Kind::List => write!(left, "=[{}]", flag.default),
        Kind::Int | Kind::Duration => write!(left, "={}", flag.default),
    };
    (left, flag.usage.to_owned())
}

/// Two columns, the second one beginning at a tab stop behind the longest entry of the first.
fn table(text: &mut String, rows: &[(String, String)]) {
    const TAB: usize = 8;
    let columns = |entry: &str| {
        let plain = entry.trim_start_matches('\t');
        (entry.len() - plain.len()) * TAB + plain.chars().count()
    };
    let widest = rows.iter().map(|(left, _)| columns(left)).max().unwrap_or(0);
    let stop = (widest + 1).next_multiple_of(TAB);
    for (left, right) in rows {
        let tabs = (stop - columns(left)).div_ceil(TAB);
        let _ = writeln!(text, "{left}{}{right}", "\t".repeat(tabs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::resolve::resolve;

    fn help(line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        usage(&resolve(&words).expect("a command").path)
    }

    #[test]
    fn a_command_is_explained_in_etcdctls_layout() {
        let text = help("endpoint hashkv");
        let expected = "NAME:\n\tendpoint hashkv - Prints the KV history hash for each endpoint in --endpoints\n\n\
            USAGE:\n\tcairnctl endpoint hashkv [flags]\n\n\
            OPTIONS:\n  -h, --help[=false]\thelp for hashkv\n      --rev=0\t\tmaximum revision to hash (default: all revisions)\n\n\
            GLOBAL OPTIONS:\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("      --cluster[=false]\t\t\t\tuse all endpoints"), "{text}");
        assert!(text.contains("  -w, --write-out=\"simple\"\t\t\tset the output format"), "{text}");
    }

    #[test]
    fn the_program_lists_what_is_there_apart_from_what_is_not() {
        let text = help("");
        let there = text.find("\nCOMMANDS:\n").expect("commands");
        let later = text.find("\nNOT AVAILABLE YET:\n").expect("later commands");
        let options = text.find("\nOPTIONS:\n").expect("options");
        assert!(text[there..later].contains("\n\tmember list\t"));
        assert!(text[later..options].contains("\n\tsnapshot\t"));
        assert!(text[there..later].contains("\n\tmember add\t"));
    }
}
