//! What a genuine etcd serves, and what ended the connection with all calls on it: small frames that are not read at once, and calls that are given up
//! before they are accepted.

use std::net::SocketAddr;

use cairn_proto::etcdserverpb as pb;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::{
        process::Process,
        support::{TestServer, certs},
        trio::Places,
    },
    raw::{
        DATA, END_HEADERS, END_STREAM, HEADERS, KEEP_ALIVE, RANGE, Raw, WATCH, field, frame, open, range, renewal,
        reset, unary, watch,
    },
};

/// What a client does at once, before it reads anything: on streams from 3 on. Gives the streams and how many messages each of them is answered with.
type Schedule = fn() -> (Vec<u8>, Vec<(u32, usize)>);

/// Odd numbers from 3 on.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (1..=count).map(|n| 2 * n + 1)
}

fn ten_thousand_renewals() -> (Vec<u8>, Vec<(u32, usize)>) {
    let renewals = (0..10_000).flat_map(|id| renewal(3, 1 + id % 100));
    ([open(3, KEEP_ALIVE), renewals.collect()].concat(), vec![(3, 10_000)])
}

fn renewals_with_empty_frames() -> (Vec<u8>, Vec<(u32, usize)>) {
    let mut bytes = open(3, KEEP_ALIVE);
    for id in 0..500 {
        bytes.extend(frame(DATA, 0, 3, &[]));
        bytes.extend(renewal(3, 1 + id));
    }
    bytes.extend(frame(DATA, END_STREAM, 3, &[]));
    (bytes, vec![(3, 500)])
}

/// As a proxy has it that merges a thousand clients into one connection.
fn renewals_of_a_thousand_clients() -> (Vec<u8>, Vec<(u32, usize)>) {
    let mut bytes: Vec<u8> = streams(1000).flat_map(|stream| open(stream, KEEP_ALIVE)).collect();
    for id in 0..20 {
        bytes.extend(streams(1000).flat_map(|stream| renewal(stream, 1 + id)));
    }
    (bytes, streams(1000).map(|stream| (stream, 20)).collect())
}

fn watches_created() -> (Vec<u8>, Vec<(u32, usize)>) {
    let mut bytes = open(3, WATCH);
    for n in 0..4000 {
        bytes.extend(watch(3, &format!("other{n}")));
    }
    (bytes, vec![(3, 4000)])
}

fn watches_given_up() -> (Vec<u8>, Vec<(u32, usize)>) {
    let bytes = streams(500).flat_map(|stream| [open(stream, WATCH), watch(stream, "other"), reset(stream)].concat());
    (bytes.collect(), vec![])
}

fn reads_given_up_at_once() -> (Vec<u8>, Vec<(u32, usize)>) {
    let read = |stream| [unary(stream, RANGE, &range("other"), &[]), reset(stream)].concat();
    (streams(50).flat_map(read).collect(), vec![])
}

fn a_thousand_reads_given_up_at_once() -> (Vec<u8>, Vec<(u32, usize)>) {
    let mut bytes: Vec<u8> = streams(1000)
        .flat_map(|stream| unary(stream, RANGE, &range("other"), &field("grpc-timeout", "300m")))
        .collect();
    bytes.extend(streams(1000).flat_map(reset));
    (bytes, vec![])
}

/// Many more than the library takes over a connection's life: each is refused for itself.
fn calls_without_a_method() -> (Vec<u8>, Vec<(u32, usize)>) {
    let call = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x86, 0x84]);
    (streams(3000).flat_map(call).collect(), vec![])
}

fn renewals_in_small_pieces() -> (Vec<u8>, Vec<(u32, usize)>) {
    let (renewals, expected) = ten_thousand_renewals();
    let (open, mut renewals) = renewals.split_at(open(3, KEEP_ALIVE).len());
    let mut bytes = open.to_vec();
    // A message in frames of seven bytes.
    while !renewals.is_empty() {
        let (renewal, rest) = renewals.split_at(9 + usize::from(renewals[2]));
        bytes.extend(renewal[9..].chunks(7).flat_map(|piece| frame(DATA, 0, 3, piece)));
        renewals = rest;
    }
    (bytes, expected)
}

/// Renewals, watches, reads with deadlines and puts, one after another.
fn all_of_it() -> (Vec<u8>, Vec<(u32, usize)>) {
    let mut bytes = [open(3, KEEP_ALIVE), open(5, WATCH)].concat();
    for n in 0..2500 {
        bytes.extend(renewal(3, 1 + i64::from(n)));
        bytes.extend(watch(5, "other"));
        let stream = 7 + 2 * n;
        bytes.extend(unary(stream, RANGE, &range("other"), &[]));
        bytes.extend(reset(stream));
    }
    (bytes, vec![(3, 2500), (5, 2500)])
}

const SCHEDULES: [(&str, Schedule); 10] = [
    ("ten thousand renewals", ten_thousand_renewals),
    ("renewals in small pieces", renewals_in_small_pieces),
    ("renewals with empty frames", renewals_with_empty_frames),
    ("renewals of a thousand clients", renewals_of_a_thousand_clients),
    ("watches created", watches_created),
    ("watches given up", watches_given_up),
    ("reads given up at once", reads_given_up_at_once),
    ("a thousand reads given up at once", a_thousand_reads_given_up_at_once),
    ("calls without a method", calls_without_a_method),
    ("all of it", all_of_it),
];

/// What a client's bytes may have to wait for.
trait Pause {
    fn pause(&self);
    fn resume(&self);
}

impl Pause for Process {
    fn pause(&self) {
        Self::pause(self);
    }

    fn resume(&self) {
        Self::resume(self);
    }
}

/// A way to a server, on which nothing moves in either direction while it is paused; what comes meanwhile arrives at once.
struct Network {
    addr: SocketAddr,
    runs: sync::watch::Sender<bool>,
    _carrying: AbortOnDropHandle<()>,
}

impl Network {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (runs, seen) = sync::watch::channel(true);
        let carrying = tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a client");
            let server = TcpStream::connect(server).await.expect("the server accepts");
            let ((client_reads, client_writes), (server_reads, server_writes)) =
                (client.into_split(), server.into_split());
            tokio::join!(carry(client_reads, server_writes, seen.clone()), carry(server_reads, client_writes, seen));
        });
        Self { addr, runs, _carrying: AbortOnDropHandle::new(carrying) }
    }
}

impl Pause for Network {
    fn pause(&self) {
        self.runs.send_replace(false);
    }

    fn resume(&self) {
        self.runs.send_replace(true);
    }
}

/// Everything that comes is taken, so that the writer is not held up, and goes on when the network runs.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut runs: sync::watch::Receiver<bool>) {
    let mut held = Vec::new();
    loop {
        tokio::select! {
            biased;
            read = from.read_buf(&mut held) => if !matches!(read, Ok(1..)) { return },
            running = async { runs.wait_for(|runs| *runs).await.is_ok() }, if !held.is_empty() => {
                if !running || to.write_all(&held).await.is_err() {
                    return;
                }
                held.clear();
            }
        }
    }
}

/// Beside a watch and later calls on the same connection. `paused` does nothing until all of the schedule is written.
async fn survives(name: &str, mut raw: Raw, schedule: Schedule, paused: Option<&dyn Pause>) {
    raw.watch(1, "mine").await;
    if let Some(paused) = paused {
        paused.pause();
    }
    let (bytes, expected) = schedule();
    // The kernel takes it all while nobody reads.
    raw.write(&bytes).await;
    if let Some(paused) = paused {
        paused.resume();
    }
    raw.read_until(name, |seen| expected.iter().all(|(stream, count)| seen.of(*stream) == *count)).await;
    raw.goes_on(100_001, 1, "mine").await;
}

#[tokio::test]
async fn what_is_sent_at_once_and_read_later_ends_no_connection() {
    let server = TestServer::start().await;
    for (name, schedule) in SCHEDULES {
        survives(name, Raw::connect(server.addr()).await, schedule, None).await;
    }
}

#[tokio::test]
async fn nor_does_it_over_tls() {
    let server = TestServer::with_tls(certs()).await;
    for (name, schedule) in SCHEDULES {
        survives(name, Raw::connect_tls(server.addr(), certs()).await, schedule, None).await;
    }
}

#[tokio::test]
async fn a_server_that_was_paused_goes_on_with_every_connection() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Process::start(dir.path(), &[]);
    for (name, schedule) in SCHEDULES {
        survives(name, Raw::connect(server.addrs[0]).await, schedule, Some(&server)).await;
    }
}

#[tokio::test]
async fn a_network_that_was_paused_goes_on_with_every_connection() {
    let server = TestServer::start().await;
    for (name, schedule) in SCHEDULES {
        let network = Network::to(server.addr()).await;
        survives(name, Raw::connect(network.addr).await, schedule, Some(&network)).await;
    }
}

#[tokio::test]
async fn nor_does_a_paused_network_end_it_over_tls() {
    let server = TestServer::with_tls(certs()).await;
    for (name, schedule) in SCHEDULES {
        let network = Network::to(server.addr()).await;
        survives(name, Raw::connect_tls(network.addr, certs()).await, schedule, Some(&network)).await;
    }
}

#[tokio::test]
async fn renewals_at_a_follower_wait_for_members_that_were_paused() {
    let members = Places::new("http").start(&[]);
    let mut leader = None;
    for (at, member) in members.iter().enumerate() {
        let status = member.maintenance().await.status(pb::StatusRequest {}).await;
        let status = status.expect("a status").into_inner();
        if status.leader == status.header.expect("a header").member_id {
            leader = Some(at);
        }
    }
    let leader = leader.expect("one leads");
    let follower = (leader + 1) % 3;
    let mut raw = Raw::connect(members[follower].addrs[0]).await;
    raw.watch(1, "mine").await;
    let others: Vec<_> = (0..3).filter(|at| *at != follower).map(|at| &members[at]).collect();
    for member in &others {
        member.pause();
    }
    let calls =
        streams(500).skip(1).flat_map(|stream| unary(stream, RANGE, &range("mine"), &field("grpc-timeout", "300m")));
    raw.write(&[open(3, KEEP_ALIVE), (0..4000).flat_map(|id| renewal(3, 1 + id)).collect(), calls.collect()].concat())
        .await;
    raw.read_until("reads end by their deadlines", |seen| seen.resets + seen.ended >= 499).await;
    for member in &others {
        member.resume();
    }
    raw.read_until("all are answered", |seen| seen.of(3) == 4000).await;
    raw.goes_on(100_001, 1, "mine").await;
}

/// A call whose answers are not read holds up neither the others nor the connection.
#[tokio::test]
async fn a_call_that_is_full_waits_by_its_window() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(server.addr()).await;
    raw.watch(1, "mine").await;
    raw.write(&open(3, KEEP_ALIVE)).await;
    // As many bytes as a call may send: what is more than the queue stays in the library.
    let renewal = renewal(3, i64::MAX);
    let renewals = (1 << 20) / renewal[9..].len();
    raw.write(&renewal.repeat(renewals)).await;
    raw.goes_on(5, 1, "mine").await;
    raw.read_until("all are answered", |seen| seen.of(3) == renewals).await;
}
