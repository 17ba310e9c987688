//! Requests that make no sense, and clients that behave badly.

use std::time::Duration;

use cairn_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};

use super::client::{Watching, Writer, all, create, header_revision, revision_of, texts};
use crate::support::{TestServer, eventually};

fn is_refused(answer: &WatchResponse, reason: &str) {
    assert!(answer.created && answer.canceled, "{answer:?}");
    assert_eq!((answer.watch_id, answer.cancel_reason.as_str(), answer.compact_revision), (-1, reason, 0));
    assert_eq!(header_revision(answer), 1);
}

#[tokio::test]
async fn a_negative_start_revision_is_refused_as_compacted() {
    let server = TestServer::start().await;
    let mut watching = Watching::open(&server).await;
    is_refused(&watching.create(all(-1)).await, "etcdserver: mvcc: required revision has been compacted");
    is_refused(&watching.create(all(i64::MIN)).await, "etcdserver: mvcc: required revision has been compacted");
}

#[tokio::test]
async fn a_range_that_ends_before_it_begins_is_refused() {
    let server = TestServer::start().await;
    let mut watching = Watching::open(&server).await;
    for (key, end) in [("b", "a"), ("b", "b")] {
        is_refused(&watching.create(create(key, end)).await, "mvcc: watcher range is empty");
    }
}

#[tokio::test]
async fn a_taken_watch_id_is_refused() {
    let server = TestServer::start().await;
    let mut watching = Watching::open(&server).await;
    let wanted = WatchCreateRequest { watch_id: 5, ..create("k", "") };
    assert!(!watching.create(wanted.clone()).await.canceled);
    is_refused(&watching.create(wanted).await, "mvcc: duplicate watch ID provided on the WatchStream");
}

#[tokio::test]
async fn a_cancel_of_an_unknown_watch_and_a_request_of_no_kind_get_no_answer() {
    let server = TestServer::start().await;
    let mut watching = Watching::with(&server, create("k", "")).await;
    watching.cancel(17).await;
    watching.cancel(-1).await;
    watching.send_raw(WatchRequest::default()).await;
    watching.is_silent().await;
}

#[tokio::test]
async fn a_start_revision_far_ahead_waits() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, all(i64::MAX)).await;
    writer.put("k", "v").await;
    watching.ask_progress().await;
    watching.is_silent().await;
}

#[tokio::test]
async fn clients_that_never_read_delay_nobody_and_miss_nothing() {
    let server = TestServer::with(|config| config.watch_window_bytes = 256 << 10).await;
    let mut writer = Writer::of(&server).await;
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut watching = Watching::open(&server).await;
        watching.create(create("k", "l")).await;
        stuck.push(watching);
    }
    let mut reader = Watching::with(&server, create("k", "l")).await;
    // Far more than the windows of connection and server hold.
    let writes = 600;
    for number in 0..writes {
        writer.put(&format!("k{}", number % 10), vec![7; 8 << 10]).await;
        assert_eq!(reader.events(1).await.iter().map(revision_of).collect::<Vec<_>>(), [number + 2]);
    }
    for watching in &mut stuck {
        let revisions: Vec<_> = watching.events(writes as usize).await.iter().map(revision_of).collect();
        assert_eq!(revisions, (2..writes + 2).collect::<Vec<_>>());
    }
    let page = server.http("GET", "/metrics").await.body;
    let fallen = page.lines().find_map(|line| line.strip_prefix("cairn_watch_fallen_behind_total "));
    assert_ne!(fallen, Some("0"), "they had fallen behind");
}

#[tokio::test]
async fn a_stuck_watcher_whose_past_is_compacted_is_told() {
    let server = TestServer::with(|config| config.watch_window_bytes = 1).await;
    let mut writer = Writer::of(&server).await;
    let mut stuck = Watching::with(&server, create("k", "l")).await;
    let mut last = 0;
    for number in 0..800 {
        last = writer.put(&format!("k{}", number % 10), vec![7; 8 << 10]).await;
    }
    writer.compact(last).await;
    let mut newest = 1;
    loop {
        let answer = stuck.next().await;
        if answer.canceled {
            assert_eq!(answer.compact_revision, last);
            break;
        }
        for event in &answer.events {
            assert_eq!(revision_of(event), newest + 1);
            newest += 1;
        }
    }
}

#[tokio::test]
async fn canceled_watches_leave_nothing_behind() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::open(&server).await;
    for number in 0..3000 {
        let created =
            watching.create(create(&format!("k{}", number % 50), if number % 2 == 0 { "" } else { "l" })).await;
        watching.cancel(created.watch_id).await;
        assert_eq!(watching.next().await.watch_id, created.watch_id);
    }
    writer.put("k1", "v").await;
    watching.is_silent().await;
    eventually("no watcher is left", async || {
        let page = server.http("GET", "/metrics").await.body;
        page.lines().any(|line| line == "etcd_debugging_mvcc_watcher_total 0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn watchers_that_come_and_go_do_not_disturb_others() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut steady = Watching::with(&server, create("k", "")).await;
    for _ in 0..50 {
        let channel = server.channel().await;
        let mut passing = Watching::on(channel).await;
        passing.create(all(1)).await;
        writer.put("k", "v").await;
        drop(passing);
    }
    let expected: Vec<_> = (2..52).map(|revision| format!("put k {revision}")).collect();
    assert_eq!(texts(&steady.events(50).await), expected);
    let waited = tokio::time::timeout(Duration::from_secs(30), steady.until_progress()).await;
    assert_eq!(waited.expect("a progress answer"), (vec![], 51));
}
