//! Programs that run until they are told to end: started, listened to line by line, signalled.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::referee::{Output, Side, essential, prepared};

/// How long to wait for a line, or for the end.
const DEADLINE: Duration = Duration::from_secs(30);

/// A program that runs.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
    seen: String,
}

fn listen(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match stream.read_until(b'\n', &mut line) {
                Ok(read) if read > 0 => {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    });
    receiver
}

impl Running {
    /// Starts the program of a side with a line of arguments.
    pub fn start(side: &Side, line: &str) -> Self {
        let mut child = prepared(&side.program, &side.words(line), &[]).spawn().expect("start the program");
        let lines = listen(child.stdout.take().expect("a pipe"));
        let errors = listen(child.stderr.take().expect("a pipe"));
        Self { stdin: child.stdin.take(), child, lines, errors, seen: String::new() }
    }

    /// Waits until so many more lines were printed.
    #[track_caller]
    pub fn lines(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => self.seen.push_str(&line),
                Err(error) => panic!("no line ({error}) after:\n{}\nerrors: {:?}", self.seen, self.errors.try_recv()),
            }
        }
        self
    }

    /// Writes to its standard input.
    pub fn write(&mut self, text: &str) -> &mut Self {
        self.stdin.as_mut().expect("its standard input").write_all(text.as_bytes()).expect("write");
        self
    }

    /// Sends it a signal.
    pub fn signal(&mut self, name: &str) -> &mut Self {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).stdin(Stdio::null()).status();
        assert!(sent.expect("run kill").success());
        self
    }

    /// Waits for that line; everything before it is kept.
    pub fn line_is_soon(&mut self, wanted: &str) -> bool {
        let deadline = Instant::now() + DEADLINE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push_str(&line);
            if line == wanted {
                return true;
            }
        }
        false
    }

    /// Sends it a signal and waits until it has ended.
    #[track_caller]
    pub fn signal_and_end(mut self, name: &str) -> Output {
        self.signal(name);
        self.end()
    }

    /// Waits until it has ended, and tells all it printed.
    #[track_caller]
    pub fn end(mut self) -> Output {
        self.stdin = None;
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; so far:\n{}", self.seen),
            }
        }
        let stderr: String = self.errors.iter().collect();
        let code = self.child.wait().expect("wait for the program").code().unwrap_or(-1);
        Output { code, stdout: std::mem::take(&mut self.seen), stderr: essential(&stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
