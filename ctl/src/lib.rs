//! The command line of Cairn: etcdctl's commands, flags, output and exit codes, for Cairn and any etcd of version 3.
//!
//! People have scripts around etcdctl, so what it prints and how it ends is an interface. Where a byte could differ, it is
//! etcdctl's byte; where something had to differ, docs/etcdctl-differences.md says what and why. A test runs a table of
//! command lines through a genuine etcdctl and through this program and compares.
//!
//! ```text
//!  words ──► cli::resolve ──► cli::flags ──► commands::* ──► connection ──► member
//!              which command    its flags      its request     TLS, retry      │
//!                                              output::*  ◄─────────────────────┘
//!                                              its answer as simple, fields, json, protobuf or table
//! ```
//!
//! | folder | holds |
//! |---|---|
//! | [`cli`] | commands and flags: the table, reading, help, completion, environment |
//! | [`commands`] | one file for each command |
//! | [`output`] | the five output formats |
//! | [`connection`] | from flags to a client: endpoints, certificates, users |
//! | [`session`] | what the global flags mean for a command |
//! | [`golang`] | notations etcdctl inherits from its language |
//! | [`exit`] | exit codes |
//!
//! The program is a library with a main of three lines so that tests can reach its parts; nobody else should use it.

pub mod cli;
pub mod commands;
pub mod connection;
pub mod exit;
pub mod golang;
pub mod output;
mod password;
pub mod session;

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;

use cli::env::{self, Environment};
use cli::flags::FlagError;
use cli::resolve::{UnknownCommand, resolve};
use cli::{Action, Flags, Invocation, PROGRAM, completion, help};
use exit::{Failure, code};

/// The version of etcdctl whose behaviour this is.
pub const API_LEVEL: &str = "3.7.1";
/// The version of the API it speaks.
pub const API_VERSION: &str = "3.7";

/// Runs a command line. Returns the exit code.
pub fn run(args: impl Iterator<Item = OsString>, environment: impl Iterator<Item = (OsString, OsString)>) -> u8 {
    let words: Vec<_> = args.map(OsString::into_vec).collect();
    let environment = environment.map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    match execute(&words, &environment) {
        Ok(()) => 0,
        Err(failure) => {
            if let Some(text) = failure.text {
                eprintln!("Error: {text}");
            }
            failure.code
        }
    }
}

fn execute(words: &[Vec<u8>], environment: &Environment) -> Result<(), Failure> {
    env::check_api_version(environment)?;
    let resolved = resolve(words).map_err(unknown_command)?;
    let path = resolved.path;
    let action = resolved.command.action;
    let (mut flags, args) = match Flags::read(&resolved.flags, &resolved.words) {
        Ok(read) => read,
        Err(FlagError::Help) => return output::emit(help::help(&path).as_bytes()),
        Err(error) => return Err(misused(&path, error)),
    };
    match action {
        Action::Group => return output::emit(help::help(&path).as_bytes()),
        Action::Help => return commands::help(&args),
        Action::Completion => {
            let script = completion::script(&args).map_err(|error| misused(&path, error))?;
            return output::emit(&script);
        }
        _ => {}
    }
    for warning in env::apply(&mut flags, environment)? {
        eprintln!("Warning: {warning}");
    }
    let invocation = Invocation {
        command: resolved.command,
        action,
        flags,
        args,
        words: resolved.words,
        environment: environment.clone(),
    };
    if action == Action::Later {
        let names: Vec<_> = path.iter().map(|command| command.name).collect();
        return commands::later(&names, &invocation);
    }
    commands::run(&invocation)
}

/// The failure of a command that was not called as it must be: what is wrong, and how it is called.
fn misused(path: &[&'static cli::Command], error: impl fmt::Display) -> Failure {
    Failure::new(code::ERROR, format!("{error}\n{}", help::usage(path)))
}

fn unknown_command(unknown: UnknownCommand) -> Failure {
    let mut text = format!("unknown command {} for \"{PROGRAM}\"", golang::quote(unknown.word.as_bytes()));
    if !unknown.suggestions.is_empty() {
        text += "\n\nDid you mean this?\n";
        for suggestion in unknown.suggestions {
            let _ = writeln!(text, "\t{suggestion}");
        }
    }
    let _ = write!(text, "\nRun '{PROGRAM} --help' for usage.");
    Failure::new(code::ERROR, text)
}

/// Bytes from the command line as the system's own kind of string.
fn os_string(bytes: Vec<u8>) -> OsString {
    OsString::from_vec(bytes)
}
