//! Flags, read the way Go's `pflag` reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::golang::{self, ParseError};

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// True by its presence; `=false` takes it back.
    Bool,
    /// A signed 64-bit number.
    Int,
    /// Text.
    Text,
    /// A duration such as `5s`.
    Duration,
    /// Comma-separated values; repeating the flag adds to them.
    List,
}

/// A flag as the tables declare it.
#[derive(Debug)]
pub struct Flag {
    /// The name after `--`.
    pub name: &'static str,
    /// The letter after `-`, where there is one.
    pub short: Option<char>,
    /// What its value is.
    pub kind: Kind,
    /// The value when the flag is not given, in the notation of its kind.
    pub default: &'static str,
    /// What help says.
    pub usage: &'static str,
}

impl Flag {
    /// How error texts name the flag.
    fn display_name(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }

    fn parse(&self, value: &[u8]) -> Result<Value, ParseError> {
        let text = || String::from_utf8_lossy(value);
        Ok(match self.kind {
            Kind::Bool => Value::Bool(golang::parse_bool(&text())?),
            Kind::Int => Value::Int(golang::parse_int(&text(), 0)?),
            Kind::Text => Value::Text(value.to_vec()),
            Kind::Duration => Value::Duration(golang::parse_duration(&text())?),
            Kind::List => Value::List(split_list(&text())),
        })
    }
}

/// A flag's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Int`].
    Int(i64),
    /// Of [`Kind::Text`].
    Text(Vec<u8>),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of [`Kind::List`].
    List(Vec<String>),
}

/// Why the words after a command cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No such flag.
    #[error("unknown flag: --{0}")]
    Unknown(String),
    /// No such letter.
    #[error("unknown shorthand flag: '{letter}' in -{word}")]
    UnknownShorthand {
        /// The letter.
        letter: char,
        /// The word it stands in.
        word: String,
    },
    /// The last word is a flag that wants a value.
    #[error("flag needs an argument: --{0}")]
    MissingValue(String),
    /// The last word is a letter that wants a value.
    #[error("flag needs an argument: '{letter}' in -{word}")]
    MissingShorthandValue {
        /// The letter.
        letter: char,
        /// The word it stands in.
        word: String,
    },
    /// Dashes without a name.
    #[error("bad flag syntax: {0}")]
    BadSyntax(String),
    /// A value that is not of the flag's kind.
    #[error("invalid argument {} for \"{flag}\" flag: {error}", golang::quote(.value.as_bytes()))]
    BadValue {
        /// The value.
        value: String,
        /// The flag's names.
        flag: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// `--help` was among the words.
    #[error("help requested")]
    Help,
}

/// The flags of one invocation: a value for every flag the command knows.
#[derive(Debug, Default)]
pub struct Flags {
    values: BTreeMap<&'static str, Value>,
    given: Vec<&'static str>,
}

impl Flags {
    /// The defaults of all `known` flags.
    fn defaults(known: &[&'static Flag]) -> Self {
        let value =
            |flag: &Flag| flag.parse(flag.default.as_bytes()).expect("a test reads every default of the tables");
        Self { values: known.iter().map(|flag| (flag.name, value(flag))).collect(), given: Vec::new() }
    }

    /// Reads the words after a command into flags and arguments.
    pub fn read(known: &[&'static Flag], words: &[Vec<u8>]) -> Result<(Self, Vec<Vec<u8>>), FlagError> {
        let mut flags = Self::defaults(known);
        let mut args = Vec::new();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match word.as_slice() {
                b"--" => {
                    args.extend(rest.by_ref().cloned());
                }
                [b'-', b'-', long @ ..] => flags.read_long(known, long, &mut rest)?,
                [b'-', letters @ ..] if !letters.is_empty() => flags.read_letters(known, letters, &mut rest)?,
                _ => args.push(word.clone()),
            }
        }
        Ok((flags, args))
    }

    fn read_long<'w>(
        &mut self,
        known: &[&'static Flag],
        word: &[u8],
        rest: &mut impl Iterator<Item = &'w Vec<u8>>,
    ) -> Result<(), FlagError> {
        let (name, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        if name.is_empty() || name.starts_with('-') {
            return Err(FlagError::BadSyntax(format!("--{}", String::from_utf8_lossy(word))));
        }
        let Some(flag) = known.iter().find(|flag| flag.name == name) else {
            return Err(if name == "help" { FlagError::Help } else { FlagError::Unknown(name) });
        };
        match (value, flag.kind) {
            (Some(value), _) => self.set(flag, value),
            (None, Kind::Bool) => self.set(flag, b"true"),
            (None, _) => match rest.next() {
                Some(value) => self.set(flag, value),
                None => Err(FlagError::MissingValue(name)),
            },
        }
    }

    fn read_letters<'w>(
        &mut self,
        known: &[&'static Flag],
        word: &[u8],
        rest: &mut impl Iterator<Item = &'w Vec<u8>>,
    ) -> Result<(), FlagError> {
        let mut letters = word;
        while let [letter, tail @ ..] = letters {
            let letter = char::from(*letter);
            let text = String::from_utf8_lossy(letters).into_owned();
            let Some(flag) = known.iter().find(|flag| flag.short == Some(letter)) else {
                return Err(if letter == 'h' {
                    FlagError::Help
                } else {
                    FlagError::UnknownShorthand { letter, word: text }
                });
            };
            match (tail, flag.kind) {
                ([b'=', value @ ..], _) => return self.set(flag, value),
                (_, Kind::Bool) => self.set(flag, b"true")?,
                ([], _) => {
                    let missing = FlagError::MissingShorthandValue { letter, word: text };
                    return self.set(flag, rest.next().ok_or(missing)?);
                }
                (value, _) => return self.set(flag, value),
            }
            letters = tail;
        }
        Ok(())
    }

    /// Sets a flag from its text, as if it had been given.
    pub(crate) fn set(&mut self, flag: &'static Flag, text: &[u8]) -> Result<(), FlagError> {
        let value = flag.parse(text).map_err(|error| FlagError::BadValue {
            value: String::from_utf8_lossy(text).into_owned(),
            flag: flag.display_name(),
            error,
        })?;
        let repeated = self.given.contains(&flag.name);
        match (self.values.get_mut(flag.name), value) {
            (Some(Value::List(known)), Value::List(more)) if repeated => known.extend(more),
            (_, value) => {
                self.values.insert(flag.name, value);
            }
        }
        self.given.push(flag.name);
        Ok(())
    }

    /// Whether the flag was given, on the command line or by its variable.
    pub fn given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    /// A flag's value, in the notation `--debug` prints it.
    pub fn display(&self, name: &str) -> String {
        match self.values.get(name) {
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Int(value)) => value.to_string(),
            Some(Value::Text(value)) => String::from_utf8_lossy(value).into_owned(),
            Some(Value::Duration(value)) => golang::format_duration(*value),
            Some(Value::List(values)) => format!("[{}]", values.join(",")),
            None => String::new(),
        }
    }

    /// A boolean flag; false where the command does not have it.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.values.get(name), Some(Value::Bool(true)))
    }

    /// A numeric flag; 0 where the command does not have it.
    pub fn int(&self, name: &str) -> i64 {
        if let Some(Value::Int(value)) = self.values.get(name) { *value } else { 0 }
    }

    /// A flag's bytes; empty where the command does not have it.
    pub fn bytes(&self, name: &str) -> &[u8] {
        if let Some(Value::Text(value)) = self.values.get(name) { value } else { &[] }
    }

    /// A flag's text, made readable where it is not UTF-8.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name)).into_owned()
    }

    /// A duration; zero where the command does not have it.
    pub fn duration(&self, name: &str) -> Duration {
        if let Some(Value::Duration(value)) = self.values.get(name) { *value } else { Duration::ZERO }
    }

    /// A list; empty where the command does not have it.
    pub fn list(&self, name: &str) -> &[String] {
        if let Some(Value::List(values)) = self.values.get(name) { values } else { &[] }
    }
}

/// Splits a line of comma-separated values; a value in double quotes may hold commas.
fn split_list(line: &str) -> Vec<String> {
    if line.is_empty() {
        return Vec::new();
    }
    let mut values = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let value = values.last_mut().expect("a list being split has a value that is being filled");
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                value.push('"');
            }
            '"' if quoted || value.is_empty() => quoted = !quoted,
            ',' if !quoted => values.push(String::new()),
            other => value.push(other),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: Flag = Flag { name: "prefix", short: None, kind: Kind::Bool, default: "false", usage: "" };
    const LIMIT: Flag = Flag { name: "limit", short: None, kind: Kind::Int, default: "0", usage: "" };
    const WRITE_OUT: Flag =
        Flag { name: "write-out", short: Some('w'), kind: Kind::Text, default: "simple", usage: "" };
    const INTERACTIVE: Flag =
        Flag { name: "interactive", short: Some('i'), kind: Kind::Bool, default: "false", usage: "" };
    const ENDPOINTS: Flag = Flag { name: "endpoints", short: None, kind: Kind::List, default: "a:1", usage: "" };
    const KNOWN: &[&Flag] = &[&PREFIX, &LIMIT, &WRITE_OUT, &INTERACTIVE, &ENDPOINTS];

    fn read(words: &[&str]) -> Result<(Flags, Vec<String>), FlagError> {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let (flags, args) = Flags::read(KNOWN, &words)?;
        Ok((flags, args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()))
    }

    fn refused(words: &[&str]) -> String {
        read(words).expect_err("must be refused").to_string()
    }

    #[test]
    fn flags_may_stand_before_between_and_after_arguments() {
        let (flags, args) = read(&["--prefix", "a", "--limit", "-1", "b", "-w=json"]).unwrap();
        assert!(flags.bool("prefix"));
        assert_eq!(flags.int("limit"), -1);
        assert_eq!(flags.text("write-out"), "json");
        assert_eq!(args, ["a", "b"]);
    }

    #[test]
    fn every_spelling_of_a_letter_with_a_value_is_read() {
        for words in [&["-w", "json"][..], &["-w=json"], &["-wjson"], &["-iw", "json"], &["-iwjson"]] {
            assert_eq!(read(words).unwrap().0.text("write-out"), "json", "{words:?}");
        }
        assert!(read(&["-iwjson"]).unwrap().0.bool("interactive"));
    }

    #[test]
    fn two_dashes_end_the_flags() {
        let (flags, args) = read(&["a", "--", "--prefix", "--"]).unwrap();
        assert!(!flags.bool("prefix"));
        assert_eq!(args, ["a", "--prefix", "--"]);
    }

    #[test]
    fn the_last_of_repeated_flags_counts_but_lists_add_up() {
        let (flags, _) = read(&["--limit=1", "--limit=2", "--prefix", "--prefix=false"]).unwrap();
        assert_eq!(flags.int("limit"), 2);
        assert!(!flags.bool("prefix"));
        let (flags, _) = read(&["--endpoints", "b:1,\"c,d\"", "--endpoints=e"]).unwrap();
        assert_eq!(flags.list("endpoints"), ["b:1", "c,d", "e"]);
        assert_eq!(read(&[]).unwrap().0.list("endpoints"), ["a:1"]);
        assert!(read(&["--endpoints="]).unwrap().0.list("endpoints").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_pflags_words() {
        assert_eq!(refused(&["--bogus"]), "unknown flag: --bogus");
        assert_eq!(refused(&["-x"]), "unknown shorthand flag: 'x' in -x");
        assert_eq!(refused(&["--limit"]), "flag needs an argument: --limit");
        assert_eq!(refused(&["-w"]), "flag needs an argument: 'w' in -w");
        assert_eq!(refused(&["--=x"]), "bad flag syntax: --=x");
        assert_eq!(
            refused(&["--limit", "x"]),
            r#"invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing "x": invalid syntax"#
        );
        assert_eq!(
            refused(&["--prefix=maybe"]),
            r#"invalid argument "maybe" for "--prefix" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#
        );
        assert_eq!(read(&["a", "-h"]).unwrap_err(), FlagError::Help);
        assert_eq!(read(&["--help"]).unwrap_err(), FlagError::Help);
    }
}
