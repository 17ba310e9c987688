//! The server's binary as a process, started with flags as an operator starts it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use cairn_proto::etcdserverpb::{self as pb, kv_client::KvClient, maintenance_client::MaintenanceClient};
use tonic::transport::{Channel, Endpoint};

use super::support::DEADLINE;

const POLL: Duration = Duration::from_millis(10);

/// The binary under test.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") || name == "NOTIFY_SOCKET" {
            command.env_remove(name);
        }
    }
    command
}

/// A running process. Dropping it kills it; the directory belongs to the caller.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Where clients are served, in the order of the configuration: client, HTTP, metrics.
    pub addrs: Vec<SocketAddr>,
}

impl Process {
    /// Starts the server with its data in `dir/data` on a free port, with further flags, and waits until it serves.
    pub fn start(dir: &Path, flags: &[&str]) -> Self {
        Self::try_start(dir, flags).unwrap_or_else(|refused| panic!("it does not start: {refused:?}"))
    }

    /// The same for a server that may refuse to start.
    pub fn try_start(dir: &Path, flags: &[&str]) -> Result<Self, Refused> {
        let mut process = Self::spawn(dir, flags);
        process.serves().map(|()| process)
    }

    /// The same without waiting: a member serves only when there is a leader.
    pub fn spawn(dir: &Path, flags: &[&str]) -> Self {
        Self::spawn_in(dir, flags, &[])
    }

    /// The same with further environment variables.
    pub fn spawn_in(dir: &Path, flags: &[&str], environment: &[(&str, &OsStr)]) -> Self {
        let log = dir.join("server.log");
        let stderr = File::create(&log).expect("a log file");
        let mut command = command();
        let given = |name: &str| flags.iter().any(|flag| flag.split('=').next() == Some(name));
        if !given("--config-file") {
            if !given("--data-dir") {
                command.arg("--data-dir").arg(dir.join("data"));
            }
            if !given("--listen-client-urls") {
                command.args(["--listen-client-urls", "http://127.0.0.1:0"]);
                command.args(["--advertise-client-urls", "http://127.0.0.1:2379"]);
            }
            if !given("--listen-peer-urls") {
                command.args(["--listen-peer-urls", "http://127.0.0.1:0"]);
            }
        }
        command.envs(environment.iter().copied());
        let child = command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        Self { child: child.expect("the binary runs"), log, addrs: Vec::new() }
    }

    /// Waits until it serves.
    pub fn serves(&mut self) -> Result<(), Refused> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.addrs = ready_addrs(&self.log());
            if !self.addrs.is_empty() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().expect("the process's state") {
                return Err(Refused { status, stderr: self.log() });
            }
            assert!(Instant::now() < deadline, "it does not serve in time:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// What it wrote to stderr.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log file")
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has in memory.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says the resident size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// The body of a page.
    pub async fn http(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        super::support::http(self.addrs[0], &request).await.body
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addrs[0])).expect("a valid URL");
        endpoint.connect().await.expect("the server accepts")
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    pub async fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel().await)
    }

    /// Writes one key.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) {
        let request = pb::PutRequest { key: key.to_owned().into(), value: value.into().into(), ..Default::default() };
        self.kv().await.put(request).await.expect("a put");
    }

    /// Reads one key.
    pub async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer = self.kv().await.range(request).await.expect("a get").into_inner();
        answer.kvs.into_iter().next().map(|kv| kv.value.to_vec())
    }

    /// Ends it as an operator does and waits for it: it ends in order, and by the signal.
    #[track_caller]
    pub fn stop(self) {
        self.stop_by(rustix::process::Signal::TERM, |_| ());
    }

    /// The same with a signal of choice, and a look at what it logged.
    #[track_caller]
    pub fn stop_by(mut self, signal: rustix::process::Signal, look: impl FnOnce(&str)) {
        self.signal(signal);
        let (status, log) = (self.wait(), self.log());
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}:\n{log}");
        assert!(log.contains("server stopped"), "{log}");
        look(&log);
    }

    /// Has it do nothing until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// Has it read the level of its log again.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process runs");
    }

    /// Ends it without warning.
    pub fn kill(mut self) {
        self.child.kill().expect("the process runs");
        self.child.wait().expect("the process's state");
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process's state") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end in time:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of the lines that say that it serves, once there are any: they are written together.
fn ready_addrs(log: &str) -> Vec<SocketAddr> {
    let complete = log.rfind('\n').map_or("", |end| &log[..end]);
    let ready = complete.lines().filter(|line| line.contains("ready to serve client requests"));
    let address = |line: &str| -> Option<SocketAddr> {
        let (_, rest) = line.split_once("127.0.0.1:")?;
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(([127, 0, 0, 1], port.parse().ok()?).into())
    };
    ready.filter_map(address).collect()
}

/// How a server ended that did not start.
#[derive(Debug)]
pub struct Refused {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Refused {
    /// It ended in order, with an error of its own that says all of `words`.
    #[track_caller]
    pub fn says(&self, words: &[&str]) {
        self.says_with(1, words);
    }

    /// The same with an exit status of its own.
    #[track_caller]
    pub fn says_with(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(status), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        let message = self.stderr.lines().find(|line| line.starts_with("cairn: ")).unwrap_or_default();
        for word in words {
            assert!(message.contains(word), "{word:?} is not said in: {}", self.stderr);
        }
    }
}

/// Starts a server that must refuse.
#[track_caller]
pub fn refused(dir: &Path, flags: &[&str]) -> Refused {
    match Process::try_start(dir, flags) {
        Ok(process) => panic!("it starts:\n{}", process.log()),
        Err(refused) => refused,
    }
}
