//! What a `watch` is to watch and to run: from the command line, from a line of the interactive mode, from variables.

use cairn_client::KeyRange;

use super::range;
use crate::cli::tree::WATCH;
use crate::cli::{Flag, FlagError, Flags};
use crate::exit::Failure;

const BAD_NUMBER: &str = "bad number of arguments";

/// One watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// A key, and perhaps the end of a range.
    keys: Vec<Vec<u8>>,
    prefix: bool,
    /// The revision to begin with; 0 for now.
    pub revision: i64,
    /// Whether to tell what was before.
    pub prev_kv: bool,
    /// Whether to tell progress.
    pub progress_notify: bool,
    /// The command to run for each event; may be empty.
    pub command: Vec<Vec<u8>>,
}

/// What a line of the interactive mode says.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A watch.
    Watch(Wanted),
    /// A request for help, which there is none for.
    Help,
}

impl Wanted {
    /// A watch as the command line describes it: `args` without flags, `words` with them; `preset` is what variables name.
    pub fn read(flags: &Flags, args: &[Vec<u8>], words: &[Vec<u8>], preset: &[Vec<u8>]) -> Result<Self, Failure> {
        let separator = words.iter().position(|word| word == b"--");
        if separator.is_some_and(|at| at + 1 == words.len()) {
            return Err(no_command());
        }
        if separator.is_none() && words.is_empty() && preset.is_empty() {
            return Err(Failure::bad_args(BAD_NUMBER));
        }
        let command = separator.map(|at| words[at + 1..].to_vec()).unwrap_or_default();
        let keys = args[..args.len().saturating_sub(command.len())].to_vec();
        Self::of(flags, keys, command, preset)
    }

    /// A watch as a line describes it, `words` being what follows the word `watch`.
    pub fn of_line(words: &[Vec<u8>], preset: &[Vec<u8>]) -> Result<Line, Failure> {
        let separator = words.iter().position(|word| word == b"--");
        if separator.is_some_and(|at| at + 1 == words.len()) {
            return Err(no_command());
        }
        let known: Vec<&'static Flag> = WATCH.iter().collect();
        let (own, command) = separator.map_or((words, &[][..]), |at| (&words[..at], &words[at + 1..]));
        let (flags, keys) = match Flags::read(&known, own) {
            Ok(read) => read,
            Err(FlagError::Help) => return Ok(Line::Help),
            Err(error) => return Err(Failure::bad_args(error.to_string())),
        };
        if separator.is_none() && keys.is_empty() && preset.is_empty() {
            return Err(Failure::bad_args(BAD_NUMBER));
        }
        Self::of(&flags, keys, command.to_vec(), preset).map(Line::Watch)
    }

    fn of(flags: &Flags, mut keys: Vec<Vec<u8>>, command: Vec<Vec<u8>>, preset: &[Vec<u8>]) -> Result<Self, Failure> {
        if !preset.is_empty() {
            if !keys.is_empty() {
                return Err(Failure::bad_args(format!("{BAD_NUMBER} (found conflicting environment key)")));
            }
            keys = preset.to_vec();
        }
        Ok(Self {
            keys,
            prefix: flags.bool("prefix"),
            revision: flags.int("rev"),
            prev_kv: flags.bool("prev-kv"),
            progress_notify: flags.bool("progress-notify"),
            command,
        })
    }

    /// The keys to watch. What follows a third one is passed over, as in etcdctl.
    pub fn range(&self) -> Result<KeyRange, String> {
        match self.keys.as_slice() {
            [] => Err(BAD_NUMBER.to_owned()),
            [_, _] if self.prefix => Err("`range_end` and `--prefix` are mutually exclusive".to_owned()),
            [key, end] => Ok(range(key, Some(end), false)),
            [key, ..] => Ok(range(key, None, self.prefix)),
        }
    }
}

fn no_command() -> Failure {
    Failure::bad_args(format!("{BAD_NUMBER} (found separator --, but no commands)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn read(line: &str, preset: &str) -> Result<Wanted, Failure> {
        let known: Vec<&'static Flag> = WATCH.iter().collect();
        let (flags, args) = Flags::read(&known, &words(line)).expect("flags");
        Wanted::read(&flags, &args, &words(line), &words(preset))
    }

    fn refused(line: &str, preset: &str) -> String {
        read(line, preset).expect_err("must be refused").text.expect("a text")
    }

    #[test]
    fn keys_come_before_the_separator_and_the_command_behind_it() {
        let wanted = read("a --rev 3 b -- echo b b", "").unwrap();
        assert_eq!((wanted.keys.clone(), wanted.command.clone()), (words("a b"), words("echo b b")));
        assert_eq!((wanted.revision, wanted.prefix), (3, false));
        assert_eq!(read("--prefix -- echo hi", "k").unwrap().keys, words("k"));
        assert_eq!(read("", "k e").unwrap().keys, words("k e"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(refused("", ""), BAD_NUMBER);
        assert!(refused("a --", "").ends_with("(found separator --, but no commands)"));
        assert!(refused("a", "k").ends_with("(found conflicting environment key)"));
        assert!(refused("a -- echo", "k").ends_with("(found conflicting environment key)"));
        assert_eq!(read("--prefix", "").unwrap().range(), Err(BAD_NUMBER.to_owned()));
        assert!(read("a b --prefix", "").unwrap().range().is_err());
    }

    #[test]
    fn a_line_has_flags_of_its_own() {
        let Line::Watch(wanted) = Wanted::of_line(&words("a --rev=7 --prev-kv -- cat --rev"), &[]).unwrap() else {
            panic!("a watch");
        };
        assert_eq!((wanted.revision, wanted.prev_kv, wanted.command), (7, true, words("cat --rev")));
        assert_eq!(Wanted::of_line(&words("a --help"), &[]), Ok(Line::Help));
        assert_eq!(Wanted::of_line(&words("a --bogus"), &[]), Err(Failure::bad_args("unknown flag: --bogus")));
    }
}
