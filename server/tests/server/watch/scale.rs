//! Thousands of clients that do not read, and watches that come and go by the hundred thousand: the server's process does not grow by it.

use std::time::Instant;

use cairn_proto::etcdserverpb::{
    self as pb, WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use super::client::{Watching, Writer, create, revision_of};
use crate::{process::Process, support::eventually};

/// Streams of one connection.
const STREAMS: usize = 500;
/// Connections with stuck streams.
const CONNECTIONS: usize = 20;
/// Bytes that a stuck stream's client takes, less than one event.
const STREAM_WINDOW_BYTES: u32 = 1024;
/// Bytes of a value.
const VALUE_BYTES: usize = 4 << 10;
/// What a stuck watcher may take: what its stream and its place in the hub are, and the answer that is being sent to it.
const STUCK_BYTES_MAX: u64 = 32 << 10;
/// What the process may grow by for other reasons: memtables, the window, caches.
const OTHER_BYTES_MAX: u64 = 160 << 20;

/// Streams that get stuck while they catch up, and as many before them that fill the caches.
const BEHIND: usize = 400;
/// Values that they have to catch up on, more than the window has.
const HISTORY: i64 = 5_000;
/// What may be made ready for a watcher that is stuck while it catches up: a piece that is being sent, and the next one.
const BEHIND_EVENTS_BYTES_MAX: u64 = 160 << 10;
/// What such a watcher may take in memory, its stream included.
const BEHIND_BYTES_MAX: u64 = 256 << 10;
/// What the process may grow by beside them.
const BESIDE_BYTES_MAX: u64 = 32 << 20;

/// A stream with one watcher whose created answer was read, and whatever keeps it open.
async fn watch(
    channel: &Channel,
    create: WatchCreateRequest,
) -> (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>) {
    let (requests, incoming) = mpsc::channel(1);
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(create).await.expect("the stream is open");
    let mut client = WatchClient::new(channel.clone());
    let mut answers = client.watch(ReceiverStream::new(incoming)).await.expect("the stream opens").into_inner();
    assert!(answers.message().await.expect("an answer").expect("an answer").created);
    (requests, answers)
}

/// A connection whose streams take less than one event while nobody reads them.
async fn narrow(server: &Process) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.addrs[0])).expect("a valid URL");
    let endpoint = endpoint.initial_stream_window_size(STREAM_WINDOW_BYTES);
    endpoint.initial_connection_window_size(64 << 20).connect().await.expect("the server accepts")
}

/// The value of a metric without labels.
async fn metric(server: &Process, name: &str) -> i64 {
    let page = server.http("/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing")).parse().expect("a number")
}

#[tokio::test]
async fn ten_thousand_stuck_watchers_take_bounded_memory_and_hold_nobody_up() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Process::start(dir.path(), &[]);
    let mut stuck = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = narrow(&server).await;
        for _ in 0..STREAMS {
            stuck.push(watch(&channel, create("k", "l")).await);
        }
    }
    let watchers = (STREAMS * CONNECTIONS) as i64;
    assert_eq!(metric(&server, "etcd_debugging_mvcc_watcher_total").await, watchers);
    let before = server.resident_bytes();

    let mut writer = Writer::on(server.channel().await);
    let mut reader = Watching::on(server.channel().await).await;
    reader.create(create("k", "l")).await;
    let mut write = async |numbers: std::ops::Range<i64>| {
        for number in numbers {
            writer.put(&format!("k{}", number % 10), vec![7; VALUE_BYTES]).await;
            let events = reader.events(1).await;
            assert_eq!(revision_of(&events[0]), number + 2, "whoever reads gets everything, at once");
        }
    };
    write(0..600).await;
    eventually("all that are stuck fall behind", async || {
        (metric(&server, "etcd_debugging_mvcc_slow_watcher_total").await == watchers).then_some(())
    })
    .await;
    // From now on they take no part in anything, however much is written. All of it would be 80 GB for all of them.
    let fallen = metric(&server, "cairn_watch_fallen_behind_total").await;
    write(600..2_000).await;
    assert_eq!(metric(&server, "cairn_watch_fallen_behind_total").await, fallen);
    let grown = server.resident_bytes().saturating_sub(before);
    println!("{watchers} stuck watchers: the process grew by {} KiB", grown >> 10);
    let allowed = watchers as u64 * STUCK_BYTES_MAX + OTHER_BYTES_MAX;
    assert!(grown < allowed, "the process grew by {grown} bytes");

    drop(stuck);
    eventually("they are gone", async || {
        (metric(&server, "etcd_debugging_mvcc_watcher_total").await == 1).then_some(())
    })
    .await;
    write_after(&server).await;
}

#[tokio::test]
async fn watchers_that_are_stuck_while_they_catch_up_take_bounded_memory_and_hold_nobody_up() {
    const EVENTS: &str = "etcd_debugging_mvcc_events_total";
    let dir = TempDir::new().expect("a temporary directory");
    let server = Process::start(dir.path(), &["--watch-window-bytes=1048576"]);
    let mut writer = Writer::on(server.channel().await);
    futures::stream::iter(0..HISTORY)
        .for_each_concurrent(64, |number| {
            let mut writer = writer.clone();
            async move {
                writer.put(&format!("k{}", number % 10), vec![7; VALUE_BYTES]).await;
            }
        })
        .await;

    let (mut stuck, mut before) = (Vec::new(), 0);
    for round in 1..=2 {
        let channel = narrow(&server).await;
        for _ in 0..BEHIND {
            stuck.push(watch(&channel, WatchCreateRequest { start_revision: 1, ..create("k", "l") }).await);
        }
        eventually("all have something to send", async || {
            (metric(&server, EVENTS).await >= (round * BEHIND * 8) as i64).then_some(())
        })
        .await;
        if round == 1 {
            before = server.resident_bytes();
        }
    }
    let watchers = stuck.len() as i64;
    assert_eq!(metric(&server, "etcd_debugging_mvcc_slow_watcher_total").await, watchers);

    // Who reads is told everything, from the past as well as at once, and keys are read beside it.
    let mut late = Watching::on(server.channel().await).await;
    late.create(WatchCreateRequest { start_revision: 1, ..create("k", "l") }).await;
    let caught_up = late.events(HISTORY as usize).await;
    assert!(caught_up.iter().map(revision_of).eq(2..HISTORY + 2), "everything, in order");
    let mut kv = server.kv().await;
    for number in 0..200 {
        let revision = writer.put(&format!("k{}", number % 10), vec![8; VALUE_BYTES]).await;
        assert_eq!(revision_of(&late.events(1).await[0]), revision);
        let range = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
        assert_eq!(kv.range(range).await.expect("a range").into_inner().count, 10);
    }
    let sent = (metric(&server, EVENTS).await - HISTORY - 200) as u64 * VALUE_BYTES as u64 / watchers as u64;
    let grown = server.resident_bytes().saturating_sub(before);
    println!(
        "{BEHIND} watchers stuck while they catch up: the process grew by {} KiB, each was sent {} KiB",
        grown >> 10,
        sent >> 10
    );
    assert!(sent <= BEHIND_EVENTS_BYTES_MAX, "{sent} bytes were made ready for each");
    assert!(grown < BEHIND as u64 * BEHIND_BYTES_MAX + BESIDE_BYTES_MAX, "the process grew by {grown} bytes");
    assert_eq!(metric(&server, "etcd_debugging_mvcc_slow_watcher_total").await, watchers);

    drop(stuck);
    eventually("they are gone", async || {
        (metric(&server, "etcd_debugging_mvcc_watcher_total").await == 1).then_some(())
    })
    .await;
    write_after(&server).await;
}

/// The server goes on.
async fn write_after(server: &Process) {
    let mut writer = Writer::on(server.channel().await);
    let mut watching = Watching::on(server.channel().await).await;
    watching.create(create("after", "")).await;
    writer.put("after", "v").await;
    assert_eq!(watching.events(1).await.len(), 1);
}

/// How many watches come and go: 20,000, or `CAIRN_CANCELED_WATCHES`.
fn canceled_watches() -> i64 {
    std::env::var("CAIRN_CANCELED_WATCHES").map_or(20_000, |count| count.parse().expect("a number of watches"))
}

#[tokio::test]
async fn watches_that_come_and_go_leave_no_memory_behind() {
    let count = canceled_watches();
    let dir = TempDir::new().expect("a temporary directory");
    let server = Process::start(dir.path(), &[]);
    let (requests, incoming) = mpsc::channel(64);
    let mut client = WatchClient::new(server.channel().await);
    let mut answers = client.watch(ReceiverStream::new(incoming)).await.expect("the stream opens").into_inner();
    let asking = tokio::spawn(async move {
        for watch_id in 0..count {
            let range_end = if watch_id % 2 == 0 { "" } else { "l" };
            let create = create(&format!("k{}", watch_id % 1000), range_end);
            let cancel = RequestUnion::CancelRequest(WatchCancelRequest { watch_id });
            for union in [RequestUnion::CreateRequest(create), cancel] {
                requests.send(WatchRequest { request_union: Some(union) }).await.expect("the stream is open");
            }
        }
        requests
    });
    let (begun, mut early) = (Instant::now(), 0);
    for watch_id in 0..count {
        for canceled in [false, true] {
            let answer = answers.message().await.expect("the stream goes on").expect("the stream does not end");
            assert_eq!((answer.watch_id, answer.created, answer.canceled), (watch_id, !canceled, canceled));
        }
        if watch_id == count / 4 {
            early = server.resident_bytes();
        }
    }
    let requests = asking.await.expect("it goes on");
    let grown = server.resident_bytes().saturating_sub(early);
    println!(
        "{count} watches in {:?}: the last three quarters grew the process by {} KiB",
        begun.elapsed(),
        grown >> 10
    );
    assert!(grown < 16 << 20, "the process grew by {grown} bytes");
    assert_eq!(metric(&server, "etcd_debugging_mvcc_watcher_total").await, 0);
    drop(requests);
    write_after(&server).await;
}

#[tokio::test]
async fn streams_that_come_and_go_leave_no_memory_behind() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Process::start(dir.path(), &[]);
    let channel = server.channel().await;
    let mut early = 0;
    for round in 0..40 {
        let mut open = Vec::new();
        for number in 0..100 {
            open.push(watch(&channel, create(&format!("k{number}"), "l")).await);
        }
        drop(open);
        if round == 9 {
            early = server.resident_bytes();
        }
    }
    eventually("all are gone", async || {
        let streams = metric(&server, "etcd_debugging_mvcc_watch_stream_total").await;
        (streams == 0).then_some(())
    })
    .await;
    let grown = server.resident_bytes().saturating_sub(early);
    assert!(grown < 16 << 20, "the process grew by {grown} bytes");
    assert_eq!(metric(&server, "etcd_debugging_mvcc_watcher_total").await, 0);
}
