//! What many keys cost: memory, disk, pages of a list, the whole list, a restart after `kill -9`.
//!
//! ```text
//! cairn-load keyspace --key-space 1000000 --key-size 64 --connections 4 --clients 256 --server-pid PID \
//!     --data-dir DIR --restart 'cairn --data-dir DIR --log-level error'
//! ```
//! Each figure is one line: what, and how much. CPU is that of the server's process, read from `/proc` before and after, pages repeated to get above
//! the clock's 10 ms. Loaded values are random bytes, another one for each key, so that compression does not flatter the disk. Keys are written in random
//! order, or in key order with `--sequential`.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use clap::Args;
use rand::{RngCore, SeedableRng, rngs::SmallRng};

use super::{
    connection::{Connection, Connector},
    options::Options,
    report::CpuTime,
    work::Keys,
};

/// How long a restarted server may take.
const RESTART_MAX: Duration = Duration::from_mins(10);
/// Between two attempts to reach it.
const RESTART_PAUSE: Duration = Duration::from_millis(5);
/// Keys of a page.
const PAGE: i64 = 500;
/// What a list may be.
const ANSWER_BYTES_MAX: usize = usize::MAX;

/// What to measure beside the lists.
#[derive(Args, Clone)]
pub struct Keyspace {
    /// Data directory of the server, to measure its size
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The server is there already and holds the keys
    #[arg(long)]
    no_fill: bool,
    /// Repetitions of a page
    #[arg(long, default_value_t = 50)]
    pages: u32,
    /// Also kill the server (-9), start it with this shell command, and measure the time until it answers a linearizable read
    #[arg(long)]
    restart: Option<String>,
}

type Client = KvClient<Connection>;

struct Bench<'a> {
    options: &'a Options,
    settings: &'a Keyspace,
    connector: Connector,
    pid: u32,
}

/// Measures and prints.
pub async fn run(options: &Options, settings: &Keyspace) -> Result<()> {
    let [pid] = options.server_pid[..] else { bail!("give one --server-pid") };
    let bench = Bench { options, settings, connector: Connector::new(&options.target)?, pid };
    if !settings.no_fill {
        bench.fill().await?;
    }
    bench.sizes()?;
    let mut client = bench.client(0).await?;
    bench.pages(&mut client).await?;
    // Before the whole list, which leaves much memory behind.
    bench.stream(&mut client).await?;
    bench.whole_list(&mut client).await?;
    bench.sizes()?;
    if let Some(command) = &settings.restart {
        bench.restart(command).await?;
    }
    Ok(())
}

impl Bench<'_> {
    async fn client(&self, number: usize) -> Result<Client> {
        let connection = self.connector.connect(number).await?;
        Ok(KvClient::new(connection)
            .max_decoding_message_size(ANSWER_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX))
    }

    fn cpu(&self) -> Result<CpuTime> {
        CpuTime::of(&[self.pid])
    }

    fn used(&self, before: &CpuTime) -> Result<f64> {
        self.cpu()?.since(before).context("the server's CPU time is not known")
    }

    /// A figure of `/proc/<pid>/status` in MB.
    fn memory(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context("read the server's memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line in /proc")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Forgets the highest memory so far.
    fn forget_peak(&self) -> Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").context("reset the server's peak memory")
    }

    async fn fill(&self) -> Result<()> {
        let space = self.options.key_space;
        let (clients, connections) = (self.options.clients as u64, self.options.connections.max(1));
        // A step that shares no factor with the number of keys visits each once.
        let step = if self.options.sequential { 1 } else { coprime(space) };
        let mut lines = Vec::new();
        for number in 0..connections {
            lines.push(self.client(number).await?);
        }
        let began = (Instant::now(), self.cpu()?);
        let mut tasks = Vec::new();
        for number in 0..clients {
            let mut client = lines[number as usize % connections].clone();
            let keys = Keys::new(self.options, number, clients)?;
            let mut random = SmallRng::seed_from_u64(self.options.seed ^ number.rotate_left(32));
            let mut value = vec![0; self.options.value_size];
            tasks.push(tokio::spawn(async move {
                for index in (number..space).step_by(clients as usize) {
                    random.fill_bytes(&mut value);
                    let key = keys.key((u128::from(index) * u128::from(step) % u128::from(space)) as u64);
                    let value = Bytes::copy_from_slice(&value);
                    client.put(PutRequest { key, value, ..Default::default() }).await?;
                }
                Ok::<_, tonic::Status>(())
            }));
        }
        for task in tasks {
            task.await?.context("write the keys")?;
        }
        let seconds = began.0.elapsed().as_secs_f64();
        let cpu = self.used(&began.1)?;
        say("load", format!("{space} keys, {seconds:.1} s, {:.1} us CPU a key", cpu * 1e6 / space as f64));
        Ok(())
    }

    fn sizes(&self) -> Result<()> {
        say("resident memory", format!("{:.0} MB", self.memory("VmRSS")?));
        if let Some(dir) = &self.settings.data_dir {
            say("disk", format!("{:.0} MB", disk(dir)? as f64 / 1e6));
        }
        Ok(())
    }

    fn list(&self, limit: i64, revision: i64) -> Result<RangeRequest> {
        let keys = Keys::new(self.options, 0, 1)?;
        let key = Bytes::from(self.options.prefix.clone());
        Ok(RangeRequest { key, range_end: keys.end(), limit, revision, ..Default::default() })
    }

    async fn pages(&self, client: &mut Client) -> Result<()> {
        let newest = client.range(self.list(1, 0)?).await?.into_inner();
        ensure!(newest.count > 0, "there are no keys");
        let newest = newest.header.map_or(0, |header| header.revision);
        let half = self.options.key_space as i64 / 2;
        let revisions = [("newest", 0), ("10 before", newest - 10), ("half of the keys before", newest - half)];
        for (name, revision) in revisions {
            let request = self.list(PAGE, revision.max(0))?;
            let mut count = client.range(request.clone()).await?.into_inner().count;
            let (began, cpu) = (Instant::now(), self.cpu()?);
            for _ in 0..self.settings.pages {
                count = client.range(request.clone()).await?.into_inner().count;
            }
            let (each, cpu) = (began.elapsed() / self.settings.pages, self.used(&cpu)?);
            let cpu_ms = cpu * 1e3 / f64::from(self.settings.pages);
            say(&format!("first {PAGE}, {name}"), format!("{cpu_ms:.2} ms CPU, {each:.2?}, count {count}"));
        }
        Ok(())
    }

    async fn whole_list(&self, client: &mut Client) -> Result<()> {
        self.forget_peak()?;
        let before = self.memory("VmRSS")?;
        let (began, cpu) = (Instant::now(), self.cpu()?);
        let answer = client.range(self.list(0, 0)?).await?.into_inner();
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), self.used(&cpu)?);
        let more = self.memory("VmHWM")? - before;
        say(
            "whole list",
            format!("{cpu:.2} s CPU, {seconds:.2} s, {} keys, {more:.0} MB more memory", answer.kvs.len()),
        );
        Ok(())
    }

    async fn stream(&self, client: &mut Client) -> Result<()> {
        self.forget_peak()?;
        let before = self.memory("VmRSS")?;
        let (began, cpu) = (Instant::now(), self.cpu()?);
        let mut answers = match client.range_stream(self.list(0, 0)?).await {
            Ok(answers) => answers.into_inner(),
            Err(status) if status.code() == tonic::Code::Unimplemented => return Ok(()),
            Err(status) => return Err(status).context("stream the keys"),
        };
        let mut keys = 0;
        loop {
            match answers.message().await {
                Ok(Some(piece)) => keys += piece.range_response.map_or(0, |answer| answer.kvs.len()),
                Ok(None) => break,
                Err(status) if status.code() == tonic::Code::Unimplemented => return Ok(()),
                Err(status) => return Err(status).context("stream the keys"),
            }
        }
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), self.used(&cpu)?);
        let more = self.memory("VmHWM")? - before;
        say("whole list, streamed", format!("{cpu:.2} s CPU, {seconds:.2} s, {keys} keys, {more:.0} MB more memory"));
        Ok(())
    }

    async fn restart(&self, command: &str) -> Result<()> {
        let killed = Command::new("kill").args(["-9", &self.pid.to_string()]).status()?;
        ensure!(killed.success(), "process {} could not be killed", self.pid);
        // Its threads may go on closing sockets when it already counts as ended.
        while self.connector.connect(0).await.is_ok() {
            tokio::time::sleep(RESTART_PAUSE).await;
        }
        let began = Instant::now();
        let mut server =
            Command::new("sh").arg("-c").arg(format!("exec {command}")).spawn().context("start the server")?;
        let request = RangeRequest { limit: 1, ..self.list(1, 0)? };
        let seconds = loop {
            ensure!(began.elapsed() < RESTART_MAX, "no answer from the restarted server");
            ensure!(server.try_wait()?.is_none(), "the restarted server ended");
            if let Ok(mut client) = self.client(0).await
                && client.range(request.clone()).await.is_ok()
            {
                break began.elapsed().as_secs_f64();
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        };
        let cpu = CpuTime::of(&[server.id()])?.since(&CpuTime::NONE).unwrap_or_default();
        say(
            "kill -9, restart",
            format!("{seconds:.2} s to the first linearizable read, {cpu:.2} s CPU, process {}", server.id()),
        );
        // The new server is left running; whoever started this may stop it by that id.
        Ok(())
    }
}

fn say(what: &str, how_much: impl fmt::Display) {
    println!("{what:<34} {how_much}");
}

/// A number near the golden section of `space` that shares no factor with it.
fn coprime(space: u64) -> u64 {
    let from = (space as f64 * 0.618) as u64 | 1;
    (from..=from + space).find(|step| gcd(*step, space) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Bytes allocated below a directory.
fn disk(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { disk(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(bytes)
}
