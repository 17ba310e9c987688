//! The command line: which commands and flags exist, how their words are read, and how they are explained.
//!
//! etcdctl reads its command line with Go's `cobra` and `pflag`, and scripts rely on their habits: flags before, between and
//! after the arguments, `--flag=value` and `--flag value`, `-w json`, `-w=json` and `-wjson`, booleans with an optional
//! `=false`, values that begin with `-`, repeated flags where the last one counts, commands cut short as long as they stay
//! unique, and their error texts. So the reading is our own, driven by one table ([`tree`]) that help and shell completion
//! are made from as well.
//!
//! | file | holds |
//! |---|---|
//! | [`tree`] | the table of commands, those about users in `auth`, those that are not there yet in `later`, and of flags in `flag_table` |
//! | [`flags`] | reading flags and arguments |
//! | [`resolve`] | finding the command the words name |
//! | [`mod@env`] | `ETCDCTL_*` variables |
//! | [`help`] | `--help`, `help`, `options`, usage behind errors |
//! | `long` | the long texts of the table |
//! | [`completion`] | scripts for the shells |

mod auth;
pub mod completion;
pub mod env;
mod flag_table;
pub mod flags;
pub mod help;
mod later;
mod long;
pub mod resolve;
pub mod tree;

pub use flags::{Flag, FlagError, Flags, Kind};
pub use tree::{Action, Command, ROOT};

/// The name the program calls itself.
pub const PROGRAM: &str = "cairnctl";

/// A command line that was understood: what to do, with which flags and arguments.
#[derive(Debug)]
pub struct Invocation {
    /// The command.
    pub command: &'static Command,
    /// What the command does.
    pub action: Action,
    /// Flags by name, defaults included.
    pub flags: Flags,
    /// The arguments, as bytes: keys and values need not be text.
    pub args: Vec<Vec<u8>>,
    /// Flags and arguments as they were given.
    pub words: Vec<Vec<u8>>,
    /// The variables the program was started with.
    pub environment: env::Environment,
}
