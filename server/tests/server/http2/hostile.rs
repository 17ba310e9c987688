//! What a client may do to hurt: its own connection may end, the others are served, and the server's memory is bounded.

use tempfile::TempDir;

use super::{
    super::process::Process,
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, KEEP_ALIVE, RANGE, Raw, SETTINGS, WATCH, WINDOW_UPDATE,
        frame, head, open, range, renewal, reset, unary, watch,
    },
};

/// What a server may have in memory beyond what it had before, for one connection: its window, and as much again for what small frames cost.
const MORE_BYTES_MAX: u64 = 128 << 20;

/// The same for each call that is open: its tasks, and what it is being served of.
const CALL_BYTES_MAX: u64 = 96 << 10;

fn server() -> (Process, TempDir) {
    let dir = TempDir::new().expect("a temporary directory");
    (Process::start(dir.path(), &[]), dir)
}

/// Writes and reads nothing, for as long as the server takes it; then another client is served.
async fn withstands(server: &Process, name: &str, attack: impl Iterator<Item = Vec<u8>>) {
    let more = memory_under(server, attack).await;
    assert!(more < MORE_BYTES_MAX, "{name}: {} MiB", more >> 20);
}

/// How many bytes more the server has in memory at most.
async fn memory_under(server: &Process, attack: impl Iterator<Item = Vec<u8>>) -> u64 {
    let mut raw = Raw::connect(server.addrs[0]).await;
    let before = server.resident_bytes();
    let mut most = before;
    for bytes in attack {
        let written = tokio::time::timeout(std::time::Duration::from_secs(1), raw.try_write(&bytes));
        let goes_on = matches!(written.await, Ok(Ok(())));
        most = most.max(server.resident_bytes());
        if !goes_on {
            break;
        }
    }
    server.put("alive", "yes").await;
    most.max(server.resident_bytes()) - before
}

fn odd(from: u32, count: u32) -> impl Iterator<Item = u32> {
    (from..from + count).map(|n| 2 * n + 1)
}

#[tokio::test]
async fn calls_that_are_opened_and_reset_for_ever_are_bounded() {
    let (server, _dir) = server();
    let rounds = (0..40).map(|round| {
        odd(round * 2000, 2000).flat_map(|stream| [open(stream, RANGE), reset(stream)].concat()).collect()
    });
    withstands(&server, "rapid reset", rounds).await;
    let rounds = (0..40).map(|round| {
        odd(round * 2000, 2000)
            .flat_map(|stream| [unary(stream, RANGE, &range("k"), &[]), reset(stream)].concat())
            .collect()
    });
    withstands(&server, "whole requests that are reset", rounds).await;
}

#[tokio::test]
async fn frames_that_break_a_rule_are_bounded() {
    let (server, _dir) = server();
    // Each is answered by a frame, and none of these is read.
    let rounds = (0..100).map(|round| {
        odd(round * 3000, 3000)
            .flat_map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x86, 0x84]))
            .collect()
    });
    withstands(&server, "heads without a method", rounds).await;
    let rounds = (0..100).map(|round| {
        let call = |stream| [open(stream, KEEP_ALIVE), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat();
        odd(round * 2000, 2000).flat_map(call).collect()
    });
    withstands(&server, "windows that grow by nothing", rounds).await;
    let rounds = (0..100).map(|_| frame(SETTINGS, 0, 0, &[]).repeat(10_000));
    withstands(&server, "settings", rounds).await;
}

#[tokio::test]
async fn heads_without_an_end_are_refused() {
    let (server, _dir) = server();
    let mut raw = Raw::connect(server.addrs[0]).await;
    let mut flood = frame(HEADERS, 0, 1, &head(RANGE, &[]));
    flood.extend(frame(CONTINUATION, 0, 1, &[]).repeat(100_000));
    let _writing = raw.write_meanwhile(flood);
    raw.read_until("it is refused", |seen| seen.closed || seen.goaway.is_some()).await;
    let rounds = (0..200).map(|round| {
        let kind = if round == 0 { HEADERS } else { CONTINUATION };
        frame(kind, 0, 1, &[0, 1, b'x', 1, b'y'].repeat(3000))
    });
    withstands(&server, "fields for ever", rounds).await;
}

#[tokio::test]
async fn requests_whose_answers_are_never_read_are_bounded() {
    let (server, _dir) = server();
    let renewals = |stream| renewal(stream, i64::MAX).repeat(1000);
    let rounds = (0..69).map(|round| if round == 0 { open(1, KEEP_ALIVE) } else { renewals(1) });
    withstands(&server, "renewals of one call", rounds).await;
    let opened = std::iter::once(odd(0, 64).flat_map(|stream| open(stream, KEEP_ALIVE)).collect());
    // In turns, so that none of them follows another of its stream.
    let rounds = (0..100).map(|_| {
        let one = odd(0, 64).flat_map(|stream| renewal(stream, i64::MAX)).collect::<Vec<_>>();
        one.repeat(600)
    });
    withstands(&server, "renewals of many calls", opened.chain(rounds)).await;
    let opened = std::iter::once(odd(0, 64).flat_map(|stream| open(stream, WATCH)).collect());
    let rounds =
        (0..100).map(|_| odd(0, 64).flat_map(|stream| frame(DATA, 0, stream, &[0])).collect::<Vec<_>>().repeat(2000));
    withstands(&server, "bytes one by one", opened.chain(rounds)).await;
}

#[tokio::test]
async fn answers_that_may_not_be_sent_wait_without_harm() {
    let (server, _dir) = server();
    server.put("large", vec![7; 1 << 20]).await;
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    // Each of them has its answer in memory, as with a genuine server.
    let calls = odd(0, 50).flat_map(|stream| unary(stream, RANGE, &range("large"), &[]));
    let watches = odd(500, 500).flat_map(|stream| [open(stream, WATCH), watch(stream, "large")].concat());
    withstands(&server, "no window", [no_window, calls.collect(), watches.collect()].into_iter()).await;
}

#[tokio::test]
async fn a_thousand_calls_share_what_is_received_ahead() {
    let (server, _dir) = server();
    let opened = std::iter::once(odd(0, 1000).flat_map(|stream| open(stream, KEEP_ALIVE)).collect());
    // 200 MiB in all.
    let rounds = (0..200).map(|_| {
        let piece: Vec<u8> = renewal(1, i64::MAX)[9..].repeat(64);
        odd(0, 1000).flat_map(|stream| frame(DATA, 0, stream, &piece)).collect()
    });
    let more = memory_under(&server, opened.chain(rounds)).await;
    assert!(more < MORE_BYTES_MAX + 1000 * CALL_BYTES_MAX, "{} MiB", more >> 20);
}
