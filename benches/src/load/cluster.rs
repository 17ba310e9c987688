//! Servers that are started to be measured: a cluster on empty directories, on this machine.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cairn_proto::etcdserverpb::{StatusRequest, maintenance_client::MaintenanceClient};
use tempfile::TempDir;

use super::{connection::Connector, options::Target};

/// How long a cluster may take until all members know their leader.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// How often is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A cluster; it ends with this.
pub struct Cluster {
    members: Vec<Member>,
    _directory: TempDir,
}

struct Member {
    child: Child,
    client: String,
    log: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Starts so many members of `binary` with directories in `below`, and waits until all of them know the leader.
    pub async fn start(binary: &Path, below: &Path, members: usize) -> Result<Self> {
        let directory = TempDir::new_in(below).context("make a directory for a cluster")?;
        let peers: Vec<_> = (0..members).map(|_| free_url()).collect::<Result<_>>()?;
        let all: Vec<_> = peers.iter().enumerate().map(|(nth, peer)| format!("n{nth}={peer}")).collect();
        let members = peers.iter().enumerate().map(|(nth, peer)| {
            Member::start(binary, &directory.path().join(format!("n{nth}")), &format!("n{nth}"), peer, &all.join(","))
        });
        let mut cluster = Self { members: members.collect::<Result<_>>()?, _directory: directory };
        cluster.wait_for_a_leader().await?;
        Ok(cluster)
    }

    /// Where clients are served, by the leader first.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// The members' processes.
    pub fn processes(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.child.id()).collect()
    }

    async fn wait_for_a_leader(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        let mut leader = 0;
        for nth in 0..self.members.len() {
            let member = &mut self.members[nth];
            while !member.knows_its_leader(&mut |leads| leader = if leads { nth } else { leader }).await {
                let log = || fs::read_to_string(&member.log).unwrap_or_default();
                if let Some(status) = member.child.try_wait()? {
                    bail!("a server ended with {status} instead of serving:\n{}", log());
                }
                ensure!(Instant::now() < deadline, "a server does not serve:\n{}", log());
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
        self.members.swap(0, leader);
        Ok(())
    }
}

impl Member {
    fn start(binary: &Path, directory: &Path, name: &str, peer: &str, all: &str) -> Result<Self> {
        fs::create_dir(directory).context("make a member's directory")?;
        let client = free_url()?;
        let log = directory.join("log");
        let stderr = File::create(&log).context("make a log file")?;
        let child = Command::new(binary)
            .args(["--name", name, "--log-level", "warn", "--data-dir"])
            .arg(directory.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", all])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        Ok(Self { child, client, log })
    }

    /// Whether it serves and knows a leader; `leads` hears if that is itself.
    async fn knows_its_leader(&self, leads: &mut (dyn FnMut(bool) + Send)) -> bool {
        let target = Target { endpoints: vec![self.client.clone()], cacert: None, cert: None, key: None, user: None };
        let Ok(connector) = Connector::new(&target) else { return false };
        let Ok(connection) = connector.connect(0).await else { return false };
        let asked = MaintenanceClient::new(connection).status(StatusRequest::default()).await;
        let Ok(status) = asked.map(tonic::Response::into_inner) else { return false };
        leads(status.header.is_some_and(|header| header.member_id == status.leader));
        status.leader != 0
    }
}

fn free_url() -> Result<String> {
    Ok(format!("http://{}", TcpListener::bind("127.0.0.1:0").context("find a free port")?.local_addr()?))
}
