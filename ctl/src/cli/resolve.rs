//! Finding the command a line of words names, as Go's `cobra` does.
//!
//! Words are commands as long as the command found so far has one of that name, or exactly one whose name begins with the
//! word; everything else is left for the command to read. Flags may stand before the command: to step over them it must be
//! known which take a value, and a flag unknown so far counts as one that does.

use super::flags::{Flag, Kind};
use super::tree::{Command, ROOT};

/// The command the words name, and what is left for it.
#[derive(Debug)]
pub struct Resolved {
    /// The command.
    pub command: &'static Command,
    /// The commands from below the root down to it.
    pub path: Vec<&'static Command>,
    /// Every flag it knows.
    pub flags: Vec<&'static Flag>,
    /// The words without those that named the command.
    pub words: Vec<Vec<u8>>,
}

/// A word where a command should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCommand {
    /// The word.
    pub word: String,
    /// What may have been meant.
    pub suggestions: Vec<&'static str>,
}

/// Finds the command.
pub fn resolve(words: &[Vec<u8>]) -> Result<Resolved, UnknownCommand> {
    let mut command = &ROOT;
    let mut path = Vec::new();
    let mut words = words.to_vec();
    let mut inherited: Vec<&'static Flag> = ROOT.inherited.iter().collect();
    while let Some(at) = first_plain_word(&words, &inherited, command) {
        let Some(child) = child_named(command, &String::from_utf8_lossy(&words[at])) else {
            if path.is_empty() {
                return Err(unknown(&String::from_utf8_lossy(&words[at])));
            }
            break;
        };
        words.remove(at);
        command = child;
        path.push(child);
        inherited.extend(child.inherited);
    }
    let mut flags = inherited;
    flags.extend(command.flags);
    Ok(Resolved { command, path, flags, words })
}

/// Where the first word is that is neither a flag nor a flag's value.
fn first_plain_word(words: &[Vec<u8>], inherited: &[&'static Flag], command: &'static Command) -> Option<usize> {
    let takes_value = |matches: &dyn Fn(&Flag) -> bool| {
        let known = inherited.iter().copied().chain(command.flags).find(|flag| matches(flag));
        known.is_none_or(|flag| flag.kind != Kind::Bool)
    };
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_slice();
        let has_value = word.contains(&b'=');
        match word {
            b"--" => return None,
            b"--help" | b"-h" => {}
            [b'-', b'-', name @ ..] if !has_value && takes_value(&|flag| flag.name.as_bytes() == name) => at += 1,
            [b'-', letter] if takes_value(&|flag| flag.short == Some(char::from(*letter))) => at += 1,
            [b'-', ..] | [] => {}
            _ => return Some(at),
        }
        at += 1;
    }
    None
}

fn child_named(command: &'static Command, word: &str) -> Option<&'static Command> {
    if let Some(exact) = command.children.iter().find(|child| child.name == word) {
        return Some(exact);
    }
    let mut beginning = command.children.iter().filter(|child| child.name.starts_with(word));
    beginning.next().filter(|_| beginning.next().is_none())
}

fn unknown(word: &str) -> UnknownCommand {
    let lower = word.to_lowercase();
    let close = |child: &&Command| strsim::levenshtein(&lower, child.name) <= 2 || child.name.starts_with(&lower);
    UnknownCommand {
        word: word.to_owned(),
        suggestions: ROOT.children.iter().filter(close).map(|child| child.name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(line: &str) -> (Vec<&'static str>, Vec<String>) {
        let words: Vec<_> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let resolved = resolve(&words).expect("a command");
        let path = resolved.path.iter().map(|command| command.name).collect();
        (path, resolved.words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    #[test]
    fn flags_before_the_command_are_stepped_over() {
        let (path, words) = resolved("--endpoints get --hex -w json get get --prefix");
        assert_eq!(path, ["get"]);
        assert_eq!(words.join(" "), "--endpoints get --hex -w json get --prefix");
    }

    #[test]
    fn groups_lead_to_the_commands_below_them() {
        let (path, words) = resolved("endpoint --cluster status x");
        assert_eq!(path, ["endpoint", "status"]);
        assert_eq!(words.join(" "), "--cluster x");
        assert_eq!(resolved("endpoint bogus").0, ["endpoint"]);
    }

    #[test]
    fn unique_beginnings_are_enough() {
        assert_eq!(resolved("mem li").0, ["member", "list"]);
        assert_eq!(resolved("g a").0, ["get"]);
    }

    #[test]
    fn unknown_words_come_with_suggestions() {
        let unknown = resolve(&[b"compation".to_vec()]).expect_err("no such command");
        assert_eq!(unknown.suggestions, ["compaction", "completion"]);
        let ambiguous = resolve(&[b"c".to_vec()]).expect_err("three commands begin so");
        assert_eq!(ambiguous.suggestions, ["compaction", "check", "completion"]);
        assert!(resolve(&[b"xyzzy".to_vec()]).expect_err("no such command").suggestions.is_empty());
    }
}
