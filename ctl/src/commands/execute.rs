//! Running other programs, and telling how they ended in Go's words.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

use crate::exit::{Failure, code};
use crate::golang::quote;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executed {
    /// Well.
    Succeeded,
    /// Badly, or it could not be started.
    Failed {
        /// The exit code to pass on.
        code: u8,
        /// Why, in Go's words.
        reason: String,
    },
}

/// Runs a program with more variables, standard output and error being this program's. It reads nothing.
pub async fn run(words: &[Vec<u8>], variables: Vec<(&'static str, String)>) -> Result<Executed, Failure> {
    let Some((name, args)) = words.split_first() else { return Ok(Executed::Succeeded) };
    let mut command = Command::new(OsStr::from_bytes(name));
    command.args(args.iter().map(|arg| OsStr::from_bytes(arg))).stdin(std::process::Stdio::null());
    command.envs(variables);
    // The rest of the program, which keeps leases alive, goes on meanwhile.
    let ended = tokio::task::spawn_blocking(move || command.status()).await;
    let ended = ended.map_err(|error| Failure::error(format!("running a command: {error}")))?;
    Ok(match ended {
        Ok(status) if status.success() => Executed::Succeeded,
        Ok(status) => Executed::Failed { code: exit_code(status), reason: describe(status) },
        Err(error) => Executed::Failed { code: code::ERROR, reason: not_started(name, &error) },
    })
}

/// Go says -1 of a program that was ended by a signal.
fn exit_code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let dumped = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("signal: {}{dumped}", signal_name(signal))
        }
        (None, None) => status.to_string(),
    }
}

/// The names Go has for the signals that end programs.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

fn not_started(name: &[u8], error: &io::Error) -> String {
    let shown = String::from_utf8_lossy(name);
    let searched = !name.contains(&b'/');
    match error.kind() {
        io::ErrorKind::NotFound if searched => {
            format!("exec: {}: executable file not found in $PATH", quote(name))
        }
        io::ErrorKind::NotFound => format!("fork/exec {shown}: no such file or directory"),
        io::ErrorKind::PermissionDenied => format!("fork/exec {shown}: permission denied"),
        _ => format!("fork/exec {shown}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_program_is_told_in_gos_words() {
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        for (line, code, reason) in [
            (&["sh", "-c", "exit 5"][..], 5, "exit status 5"),
            (&["sh", "-c", "kill -9 $$"], 255, "signal: killed"),
            (&["/nonexistent", "a"], 1, "fork/exec /nonexistent: no such file or directory"),
            (&["nonexistent"], 1, "exec: \"nonexistent\": executable file not found in $PATH"),
        ] {
            let expected = Executed::Failed { code, reason: reason.to_owned() };
            assert_eq!(run(&words(line), Vec::new()).await, Ok(expected));
        }
        let given = vec![("CAIRN_TEST", "5".to_owned())];
        assert_eq!(run(&words(&["sh", "-c", "test $CAIRN_TEST = 5"]), given).await, Ok(Executed::Succeeded));
    }
}
