//! The `cairnctl` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cairnctl::run(std::env::args_os().skip(1), std::env::vars_os()))
}
