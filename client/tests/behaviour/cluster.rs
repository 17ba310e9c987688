//! Members of Cairn as processes on loopback ports.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cairn_client::{Client, Endpoint};
use tempfile::TempDir;
use tokio::time::sleep;

const START_DEADLINE: Duration = Duration::from_mins(1);
const START_ATTEMPTS: usize = 5;
const POLL: Duration = Duration::from_millis(20);

/// Members of one cluster. Dropping it kills them.
pub struct Cluster {
    members: Vec<Process>,
    directory: TempDir,
}

struct Process {
    child: Child,
    port: u16,
}

/// The server that is built beside this test.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found = test.ancestors().skip(1).take(2).map(|directory| directory.join("cairn")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no `cairn` beside {}: build the whole workspace", test.display()))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    /// Starts so many members and waits until each of them answers.
    pub async fn of(count: usize) -> Self {
        for _ in 0..START_ATTEMPTS {
            // Another process may take a port between looking for it and listening on it; then there is a next attempt.
            if let Some(cluster) = Self::attempt(count).await {
                return cluster;
            }
        }
        panic!("no {count} members started");
    }

    async fn attempt(count: usize) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let listed: Vec<_> =
            (1..).zip(&ports).map(|(at, (_, peer))| format!("n{at}=http://127.0.0.1:{peer}")).collect();
        let members = (1..).zip(&ports).map(|(at, (client, peer))| {
            let child = start(directory.path(), &format!("n{at}"), *client, *peer, &listed.join(","));
            Process { child, port: *client }
        });
        let mut cluster = Self { members: members.collect(), directory };
        for at in 0..count {
            if !cluster.serves(at).await {
                return None;
            }
        }
        Some(cluster)
    }

    /// Waits until a member answers; `false` if it ended instead.
    async fn serves(&mut self, at: usize) -> bool {
        let client = Client::new([&self.endpoint(at)]).unwrap().with_timeout(Duration::from_secs(1));
        let deadline = Instant::now() + START_DEADLINE;
        while client.get("probe").await.is_err() {
            if self.members[at].child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "a member does not serve:\n{}", self.logs());
            sleep(POLL).await;
        }
        true
    }

    /// Where clients reach a member: its client URL.
    pub fn endpoint(&self, at: usize) -> Endpoint {
        format!("http://127.0.0.1:{}", self.members[at].port).parse().unwrap()
    }

    pub fn endpoints(&self) -> Vec<Endpoint> {
        (0..self.members.len()).map(|at| self.endpoint(at)).collect()
    }

    pub fn client(&self) -> Client {
        Client::builder(&self.endpoints()).command_timeout(Duration::from_secs(30)).build().unwrap()
    }

    /// The number of the member that leads.
    pub async fn leader(&self) -> usize {
        let client = self.client();
        loop {
            for (at, one) in client.each().enumerate() {
                let status = one.status().await.unwrap();
                if status.leader != 0 && status.leader == status.header.unwrap().member_id {
                    return at;
                }
            }
            sleep(POLL).await;
        }
    }

    /// Ends a member without warning.
    pub fn kill(&mut self, at: usize) {
        self.members[at].child.kill().unwrap();
        self.members[at].child.wait().unwrap();
    }

    /// Sends a member a signal: `STOP` suspends it, `CONT` lets it go on.
    pub fn signal(&self, at: usize, name: &str) {
        let id = self.members[at].child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    fn logs(&self) -> String {
        let logs = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }
}

fn start(directory: &Path, name: &str, client: u16, peer: u16, listed: &str) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let log = File::create(directory.join(format!("{name}.log"))).unwrap();
    Command::new(binary())
        .args(["--name", name, "--data-dir"])
        .arg(directory.join(name))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", listed])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
