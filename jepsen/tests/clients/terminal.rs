//! A program with lines going in and coming out, as somebody at a terminal has it.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a line or an end is waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running program. Dropping it kills it.
pub struct Terminal {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
    what: String,
    interrupted: bool,
}

impl Terminal {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self> {
        let what = format!("{command:?}");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {what}"))?;
        // Bounded by what the program writes: the sessions are short.
        let lines = lines_of(child.stdout.take().context("no output")?);
        let complaints = lines_of(child.stderr.take().context("no error output")?);
        Ok(Self { child, lines, complaints, what, interrupted: false })
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("its input is closed")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// The next lines of its output.
    pub fn lines(&mut self, count: usize) -> Result<Vec<String>> {
        let deadline = Instant::now() + DEADLINE;
        let mut got = Vec::new();
        while got.len() < count {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => got.push(line),
                Err(why) => bail!("{} wrote {got:?} and then {why} instead of {count} lines", self.what),
            }
        }
        Ok(got)
    }

    /// That it has not written anything.
    pub fn expect_silence(&mut self) -> Result<()> {
        let line = self.lines.try_recv();
        ensure!(line.is_err(), "{} wrote {line:?}", self.what);
        Ok(())
    }

    /// Interrupts it as a `Ctrl-C` does.
    pub fn interrupt(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process id")?;
        self.interrupted = true;
        kill_process(pid, Signal::INT).context("interrupt")
    }

    /// Waits for its end: the exit code, the lines of output that were left, and the lines of error output behind them.
    pub fn end(mut self) -> Result<(Option<i32>, Vec<String>)> {
        // Who interrupts a command does not end its input: the command would race to complain about that.
        let _input = self.child.stdin.take().filter(|_| self.interrupted);
        let deadline = Instant::now() + DEADLINE;
        let mut rest = Vec::new();
        for source in [&self.lines, &self.complaints] {
            loop {
                match source.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) => rest.push(line),
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => bail!("{} did not end; it wrote {rest:?}", self.what),
                }
            }
        }
        Ok((self.child.wait()?.code(), rest))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines until the source or the receiver ends.
fn lines_of(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
