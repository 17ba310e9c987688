//! How the program ends: etcdctl's exit codes, and the failure that carries one.

use std::fmt;

/// Exit codes, as scripts around etcdctl test for them.
pub mod code {
    /// A request failed, an endpoint is not healthy, or the command line could not be read.
    pub const ERROR: u8 = 1;
    /// The client could not be set up: no endpoints, or the user was refused.
    pub const BAD_CONNECTION: u8 = 2;
    /// What came on standard input makes no sense.
    pub const INVALID_INPUT: u8 = 3;
    /// A known flag with a value that is not supported.
    pub const BAD_FEATURE: u8 = 4;
    /// A watch was ended by the server.
    pub const INTERRUPTED: u8 = 5;
    /// Wrong number of arguments, or arguments that exclude each other.
    pub const BAD_ARGS: u8 = 128;
}

/// Ends the program with `code`, after `Error: <text>` on standard error unless everything was said already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of [`code`].
    pub code: u8,
    /// What to print after `Error: `.
    pub text: Option<String>,
}

impl Failure {
    /// A failure with a text.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: Some(text.into()) }
    }

    /// A failed request, or anything without a code of its own.
    pub fn error(text: impl fmt::Display) -> Self {
        Self::new(code::ERROR, text.to_string())
    }

    /// Arguments that cannot be used.
    pub fn bad_args(text: impl Into<String>) -> Self {
        Self::new(code::BAD_ARGS, text)
    }

    /// A flag's value that is not supported.
    pub fn bad_feature(text: impl Into<String>) -> Self {
        Self::new(code::BAD_FEATURE, text)
    }

    /// The reason has been printed; only the code is left to give.
    pub fn silent(code: u8) -> Self {
        Self { code, text: None }
    }
}
