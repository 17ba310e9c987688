//! Programs that run until they are told to end: started, listened to line by line, signalled.

use std::io::{BufRead as _, BufReader, ErrorKind, PipeReader, PipeWriter, Write as _, pipe};
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
        Self::start_given(side, line, &[])
    }

    /// The same with these variables.
    pub fn start_given(side: &Side, line: &str, env: &[(&str, &str)]) -> Self {
        let mut child = prepared(&side.program, &side.words(line), env).spawn().expect("start the program");
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

/// A program whose output is not read.
pub struct Stalled(Child);

impl Stalled {
    /// Starts the program of a side with a line of arguments.
    pub fn start(side: &Side, line: &str) -> Self {
        Self(prepared(&side.program, &side.words(line), &[]).spawn().expect("start the program"))
    }

    /// Waits until something holds of its process.
    #[track_caller]
    pub fn wait_for(&self, holds: impl Fn(u32) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self.0.id()) {
            assert!(Instant::now() < deadline, "it never came to that");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Reads its output at last, up to that line.
    #[track_caller]
    pub fn read_until(&mut self, wanted: &str) -> Vec<String> {
        let output = listen(self.0.stdout.take().expect("a pipe"));
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| line != wanted) {
            match output.recv_timeout(DEADLINE) {
                Ok(line) => lines.push(line.trim_end_matches('\n').to_owned()),
                Err(error) => panic!("no more ({error}) after {} lines", lines.len()),
            }
        }
        lines
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pipe that takes nothing more.
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let (reader, mut writer) = pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("its flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("set its flags");
    loop {
        match writer.write(&[b'x'; 512]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    fcntl_setfl(&writer, flags).expect("set its flags");
    (reader, writer)
}
