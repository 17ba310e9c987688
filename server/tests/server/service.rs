//! The binary as what starts and stops it sees it: a shell, an init daemon, a supervisor.

use std::{
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    time::Instant,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    process::{Process, refused},
    support::DEADLINE,
};

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// Starts a server that is told where to say how far it is, without waiting for it.
fn spawn_notifying(dir: &Path, socket: &OsStr) -> Process {
    Process::spawn_in(dir, &[], &[("NOTIFY_SOCKET", socket)])
}

/// What a server says next.
fn told(socket: &UnixDatagram) -> String {
    let mut message = [0; 100];
    let len = socket.recv(&mut message).expect("a message in time");
    String::from_utf8_lossy(&message[..len]).into_owned()
}

/// Starts a server that is told the name of `socket`, and stops it.
fn starts_and_stops(socket: &UnixDatagram, name: &OsStr) {
    let dir = temporary();
    socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let mut server = spawn_notifying(dir.path(), name);
    assert_eq!(told(socket), "READY=1");
    assert!(server.log().contains("ready to serve client requests"), "{}", server.log());
    server.serves().expect("it serves");
    server.stop();
    assert_eq!(told(socket), "STOPPING=1");
}

#[test]
fn an_init_daemon_is_told_that_the_server_is_ready_and_that_it_stops() {
    let dir = temporary();
    let path = dir.path().join("notify");
    starts_and_stops(&UnixDatagram::bind(&path).expect("a socket"), path.as_os_str());
}

#[test]
fn an_init_daemon_may_have_a_name_of_the_kernel_s() {
    let name = format!("cairn-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    starts_and_stops(&UnixDatagram::bind_addr(&address).expect("a socket"), OsStr::new(&format!("@{name}")));
}

#[test]
fn an_init_daemon_that_cannot_be_told_is_warned_about_and_nothing_else() {
    let too_long = "/".repeat(200);
    for socket in ["/nowhere/notify", "@nobody-is-there", "notify", &too_long] {
        let dir = temporary();
        let mut server = spawn_notifying(dir.path(), OsStr::new(socket));
        server.serves().expect("it serves");
        server.stop_by(Signal::TERM, |log| assert!(log.contains("cannot tell the init daemon"), "{socket}: {log}"));
    }
}

#[test]
fn nobody_is_told_if_nobody_asks() {
    let dir = temporary();
    let mut server = spawn_notifying(dir.path(), OsStr::new(""));
    server.serves().expect("it serves");
    server.stop_by(Signal::TERM, |log| assert!(!log.contains("init daemon"), "{log}"));
}

#[test]
fn a_server_that_a_signal_ends_is_seen_to_end_by_it() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = temporary();
        Process::start(dir.path(), &[]).stop_by(signal, |_| ());
    }
}

#[test]
fn a_signal_that_comes_while_the_server_starts_ends_it_in_order_too() {
    for _ in 0..10 {
        let dir = temporary();
        let process = Process::spawn_in(dir.path(), &[], &[]);
        let deadline = Instant::now() + DEADLINE;
        // From then on the signal is waited for.
        while !process.log().contains("\"starting\"") {
            assert!(Instant::now() < deadline, "it does not start: {}", process.log());
            std::thread::yield_now();
        }
        process.stop_by(Signal::TERM, |log| assert!(log.contains("stopping on a signal"), "{log}"));
    }
}

#[test]
fn a_command_line_that_cannot_be_parsed_has_an_exit_status_of_its_own() {
    let dir = temporary();
    // As a genuine etcd ends.
    let cases: [(i32, &[&str], &str); 12] = [
        (2, &["--nonsense"], "--nonsense"),
        (2, &["--name"], "--name"),
        (2, &["--quota-backend-bytes=abc"], "--quota-backend-bytes"),
        (2, &["--max-request-bytes=-1"], "--max-request-bytes"),
        (2, &["--pre-vote=xx"], "--pre-vote"),
        (2, &["--initial-cluster-state=weird"], "--initial-cluster-state"),
        (2, &["--listen-client-urls=foo"], "--listen-client-urls"),
        (1, &["extra"], "extra"),
        (1, &["--heartbeat-interval=0"], "--heartbeat-interval"),
        (1, &["--auto-compaction-mode=foo"], "--auto-compaction-mode"),
        (1, &["--cipher-suites=foo"], "foo"),
        (1, &["--config-file=/nonexistent"], "/nonexistent"),
    ];
    for (status, flags, named) in cases {
        refused(dir.path(), flags).says_with(status, &[named]);
    }
    let quota = [("ETCD_QUOTA_BACKEND_BYTES", OsStr::new("abc"))];
    let variable = Process::spawn_in(dir.path(), &[], &quota).serves().expect_err("it is refused");
    variable.says_with(1, &["ETCD_QUOTA_BACKEND_BYTES"]);
}
