//! A network between members made of network namespaces: each member runs in one of its own, and links are taken down, plugged
//! elsewhere, or made to lead nowhere.
//!
//! ```text
//!   namespace of member 0         namespace of the switches                    the harness's thread, once it has entered
//!     peer   10.77.1.1 ───────────── peer0 ──┬── bridge "left"
//!     client 10.77.2.1 ───────────── client0 │   bridge "right"  (nothing is plugged in at first)
//!   namespace of member 1            peer1 ──┘
//!     peer   10.77.1.2 ─────────────         ┌── bridge "clients", 10.77.2.254
//!     client 10.77.2.2 ───────────── client1 ┴── (client0 as well)
//! ```
//! Here packets get lost as they do in a machine room, and not bytes of a stream: connections stay, retransmit, and back off. Only
//! what is between members is disturbed; clients reach every member all the time.
//!
//! Nothing is left behind, whatever the harness ends of, and nothing of the system's own links, routes or neighbours is touched:
//! a namespace has no name, it is that of a process which ends with its standard input; without it and without the member that
//! runs in it the kernel removes the namespace with all its links.
//!
//! This takes the rights of root, `unshare` and `nsenter` of util-linux, and `ip` of iproute2.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::Ipv4Addr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Members that there are addresses for.
const MEMBERS_MAX: usize = 200;
/// An address that no link has: what is sent there arrives nowhere.
const NOBODY: &str = "02:00:00:00:00:fe";

/// How a member is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplugged {
    /// The link stays up, but leads to no bridge.
    FromBridge,
    /// The far end of the link is down: there is no carrier.
    WithoutCarrier,
    /// The member's own interface is down, and with it its routes.
    InterfaceDown,
}

/// See the module's text. Dropping it ends everything, once no member runs any more.
#[derive(Debug)]
pub struct Namespaces {
    switches: Namespace,
    members: Vec<Namespace>,
}

impl Namespaces {
    /// Namespaces for so many members, all of which reach each other.
    ///
    /// # Errors
    /// Where namespaces are not available, why.
    pub fn start(members: usize) -> Result<Self> {
        ensure!(members <= MEMBERS_MAX, "there are addresses for {MEMBERS_MAX} members only");
        let made = || -> Result<Self> {
            let spaces = (0..members).map(|_| Namespace::new()).collect::<Result<_>>()?;
            let namespaces = Self { switches: Namespace::new()?, members: spaces };
            namespaces.wire()?;
            Ok(namespaces)
        };
        made().context("network namespaces are not available here")
    }

    /// Makes all links.
    fn wire(&self) -> Result<()> {
        let mut lines = vec!["link set lo up".to_owned()];
        for bridge in ["left", "right", "clients"] {
            lines.push(format!("link add {bridge} type bridge stp_state 0 forward_delay 0"));
            lines.push(format!("link set {bridge} up"));
        }
        lines.push("address add 10.77.2.254/24 dev clients".to_owned());
        for (number, member) in self.members.iter().enumerate() {
            let pid = member.holder.id();
            for (kind, bridge) in [("peer", "left"), ("client", "clients")] {
                lines.push(format!("link add {kind}{number} type veth peer name {kind} netns {pid}"));
                lines.push(format!("link set {kind}{number} master {bridge} up"));
            }
        }
        self.switches.ip(&lines)?;
        for (number, member) in self.members.iter().enumerate() {
            let mut lines = vec!["link set lo up".to_owned()];
            for (kind, address) in [("peer", peer_host(number)), ("client", client_host(number))] {
                lines.push(format!("address add {address}/24 dev {kind}"));
                lines.push(format!("link set {kind} up"));
            }
            member.ip(&lines)?;
        }
        Ok(())
    }

    /// How many members there are namespaces for.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Moves the calling thread to where it reaches all members' addresses for clients, and nothing else.
    pub fn enter(&self) -> Result<()> {
        self.switches.enter()
    }

    /// The namespace of a member, as a path.
    pub fn path(&self, member: usize) -> &Path {
        &self.members[member].path
    }

    /// Cuts a member off from all others.
    pub fn unplug(&self, member: usize, how: Unplugged) -> Result<()> {
        match how {
            Unplugged::FromBridge => self.switches.ip(&[format!("link set peer{member} nomaster")]),
            Unplugged::WithoutCarrier => self.switches.ip(&[format!("link set peer{member} down")]),
            Unplugged::InterfaceDown => self.members[member].ip(&["link set peer down".to_owned()]),
        }
    }

    /// Plugs members into the other bridge: they reach each other, but nobody else.
    pub fn set_apart(&self, members: &[usize]) -> Result<()> {
        let plugged = |member| format!("link set peer{member} master right");
        self.switches.ip(&members.iter().map(plugged).collect::<Vec<_>>())
    }

    /// Has everything that one member sends to another one arrive nowhere. What the other one sends does arrive.
    pub fn lose(&self, from: usize, to: usize) -> Result<()> {
        let host = peer_host(to);
        self.members[from].ip(&[format!("neighbour replace {host} lladdr {NOBODY} dev peer nud permanent")])
    }

    /// Takes all members' links down, and up again.
    pub fn blink(&self) -> Result<()> {
        let all = |state| (0..self.members.len()).map(move |member| format!("link set peer{member} {state}"));
        self.switches.ip(&all("down").chain(all("up")).collect::<Vec<_>>())
    }

    /// Undoes whatever was done to the links.
    pub fn heal(&self) -> Result<()> {
        for member in &self.members {
            member.ip(&["link set peer up".to_owned(), "neighbour flush dev peer nud permanent".to_owned()])?;
        }
        let plugged = |member| format!("link set peer{member} master left up");
        self.switches.ip(&(0..self.members.len()).map(plugged).collect::<Vec<_>>())
    }
}

/// A member's address for other members.
pub fn peer_host(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, member as u8 + 1)
}

/// A member's address for clients.
pub fn client_host(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 2, member as u8 + 1)
}

/// A command that runs in a network namespace. The process it starts becomes that of the program.
pub fn command_in(namespace: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    let mut net = std::ffi::OsString::from("--net=");
    net.push(namespace);
    command.arg(net).arg("--").arg(program);
    command
}

/// A network namespace, and the process that it is there for.
#[derive(Debug)]
struct Namespace {
    holder: Child,
    path: PathBuf,
}

impl Namespace {
    fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run `unshare --net`")?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        // It answers from inside. If it has ended, its own words tell more than this.
        let _ = holder.stdin.as_mut().context("it has an input")?.write_all(b"inside\n");
        let mut answer = String::new();
        let output = holder.stdout.as_mut().context("it has an output")?;
        BufReader::new(output).read_line(&mut answer).context("hear from `unshare --net`")?;
        let mut namespace = Self { holder, path };
        if answer.is_empty() {
            let mut said = String::new();
            namespace.holder.stderr.take().context("it has an output for errors")?.read_to_string(&mut said)?;
            bail!("{}", said.trim());
        }
        Ok(namespace)
    }

    /// Moves the calling thread into it.
    fn enter(&self) -> Result<()> {
        let file = File::open(&self.path).context("open a network namespace")?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("enter a network namespace")
    }

    /// Has `ip` carry out commands in it, one a line.
    fn ip(&self, lines: &[String]) -> Result<()> {
        let mut ip = command_in(&self.path, "ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run `nsenter --net ip`")?;
        // Closed afterwards, which is the end of the commands.
        let written = ip.stdin.take().context("it has an input")?.write_all(lines.join("\n").as_bytes());
        let output = ip.wait_with_output().context("wait for `ip`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && written.is_ok(), "`ip` could not do {lines:?}: {}", said.trim());
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here; it also ends with its input.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests;
