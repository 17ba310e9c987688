//! Asking for a password without showing it.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Asks with `prompt` on standard error and reads a line from standard input, which a terminal does not show meanwhile.
pub fn ask(prompt: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let hidden = if stdin.is_terminal() { Some(Hidden::start()?) } else { None };
    let mut stderr = io::stderr();
    stderr.write_all(prompt.as_bytes())?;
    stderr.flush()?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if hidden.is_some() {
        writeln!(stderr)?;
    }
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Reads the first word of a line from standard input, without asking for it.
pub fn read_word() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing better can be done than to leave the terminal as it is.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
