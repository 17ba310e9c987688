//! A leader whose disk stalls: its log is on a file system of its own, which is frozen while it writes.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cairn_jepsen::{cluster::Members, process};
use cairn_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const DEADLINE: Duration = Duration::from_mins(1);
/// Room for a log and the segment that is prepared ahead.
const IMAGE_BYTES: u64 = 128 << 20;

fn run(program: &str, arguments: &[&Path]) -> Result<()> {
    let done = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    ensure!(
        done.status.success(),
        "{program} {arguments:?} (this test makes and freezes file systems on loop devices, which takes the rights of root): {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// A file system in a file.
struct FileSystem {
    path: PathBuf,
}

impl FileSystem {
    fn mount(directory: &Path, name: &str) -> Result<Self> {
        let (image, path) = (directory.join(format!("{name}.img")), directory.join(name));
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        std::fs::create_dir(&path)?;
        run("mkfs.ext4", &[Path::new("-q"), &image])?;
        run("mount", &[Path::new("-o"), Path::new("loop"), &image, &path])?;
        Ok(Self { path })
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // What still uses it is killed by its own drop; the mount goes when that is done.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// Whoever writes to the file system waits until this is dropped; nobody can be killed meanwhile.
struct Frozen<'a>(&'a FileSystem);

impl<'a> Frozen<'a> {
    fn new(system: &'a FileSystem) -> Result<Self> {
        run("fsfreeze", &[Path::new("--freeze"), &system.path])?;
        Ok(Self(system))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0.path).status();
    }
}

async fn put(members: &mut Members, at: usize) -> Result<()> {
    let mut kv = KvClient::new(members.member(at).connect().await?);
    kv.put(PutRequest { key: "key".into(), value: "value".into(), ..Default::default() }).await?;
    Ok(())
}

/// The value of a metric of a member.
async fn metric(url: &str, name: &str) -> Result<f64> {
    let address = url.strip_prefix("http://").context("a plain URL")?;
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in {text}"))?;
    Ok(line.trim().parse()?)
}

#[tokio::test]
async fn a_leader_whose_disk_stalls_is_succeeded_and_acknowledges_nothing_until_it_goes_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let systems: Vec<_> =
        (0..3).map(|at| FileSystem::mount(directory.path(), &format!("log{at}"))).collect::<Result<_>>()?;
    let mut members = Members::with_arguments(&process::cairn_binary()?, 3, &["--log-level", "info"])?;
    for (at, system) in systems.iter().enumerate() {
        let wal_dir = system.path.join("wal");
        members.member(at).add_arguments(&["--wal-dir", wal_dir.to_str().context("a path in UTF-8")?]);
    }
    members.start_all().await?;
    let stalled = members.leader().await?;
    put(&mut members, stalled).await?;

    let frozen = Frozen::new(&systems[stalled])?;
    let began = Instant::now();
    // What makes the disk's standstill known; nobody waits for it.
    let mut kv = KvClient::new(members.member(stalled).connect().await?);
    let unanswered =
        tokio::spawn(async move { kv.put(PutRequest { key: "stalled".into(), ..Default::default() }).await.map(drop) });
    let next = members.leader_among(|member| member != stalled).await?;
    println!("another one leads after {:?}", began.elapsed());
    for member in (0..3).filter(|&member| member != stalled) {
        put(&mut members, member).await.with_context(|| format!("through member {member}"))?;
    }
    members.expect_no_acknowledgement(stalled).await?;
    ensure!(!unanswered.is_finished() || unanswered.await?.is_err(), "a write was acknowledged that is not durable");
    let url = members.urls()[stalled].clone();
    ensure!(metric(&url, "cairn_node_disk_stalls_total").await? >= 1.0, "it is not counted");
    let log = members.member(stalled).log_tail();
    ensure!(log.contains("the disk does not finish a write to the raft log"), "it is not logged:\n{log}");
    drop(frozen);

    members.wait_until_equal().await?;
    let deadline = Instant::now() + DEADLINE;
    while put(&mut members, stalled).await.is_err() {
        ensure!(Instant::now() < deadline, "it does not come back");
    }
    ensure!(next != stalled, "the leader succeeded itself");
    Ok(())
}
