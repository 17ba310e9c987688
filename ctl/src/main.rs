//! The `cairnctl` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1).collect();
    let environment = std::env::vars_os().collect();
    ExitCode::from(cairnctl::run(args, environment))
}
