//! The rules of the wire contract's part about watches, one by one.

use std::time::Duration;

use cairn_proto::{
    cancel_reason,
    etcdserverpb::{WatchCreateRequest, WatchResponse, watch_create_request::FilterType},
    mvccpb,
};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{Watching, Writer, all, create, header_revision, revision_of, texts};
use crate::support::{TestServer, eventually};

#[tokio::test]
async fn created_comes_before_every_event() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    for _ in 0..5 {
        writer.put("k", "v").await;
    }
    let mut watching = Watching::open(&server).await;
    let created = watching.create(all(1)).await;
    assert!(created.created && created.events.is_empty());
    assert_eq!(header_revision(&created), 6);
    assert_eq!(watching.events(5).await.len(), 5);
}

#[tokio::test]
async fn a_watch_without_a_start_revision_begins_after_the_created_answer() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    writer.put("k", "before").await;
    let mut watching = Watching::open(&server).await;
    let created = watching.create(create("k", "")).await;
    assert_eq!(header_revision(&created), 2);
    writer.put("k", "after").await;
    assert_eq!(texts(&watching.events(1).await), ["put k 3"]);
}

#[tokio::test]
async fn a_future_start_revision_never_gets_an_older_event() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, all(5)).await;
    for _ in 0..6 {
        writer.put("k", "v").await;
    }
    assert_eq!(watching.events(3).await.iter().map(revision_of).collect::<Vec<_>>(), [5, 6, 7]);
}

#[tokio::test]
async fn starting_at_the_compacted_revision_delivers_its_events_tombstones_included() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    writer.put("a", "1").await;
    writer.put("b", "1").await;
    let deleted = writer.delete("a", "").await;
    writer.compact(deleted).await;
    let mut watching = Watching::with(&server, all(deleted)).await;
    assert_eq!(texts(&watching.until_progress().await.0), [format!("delete a {deleted}")]);
}

#[tokio::test]
async fn a_progress_answer_is_for_all_watches_of_the_stream() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, create("k", "")).await;
    watching.create(create("other", "")).await;
    assert_eq!(watching.until_progress().await, (vec![], 1));
    writer.put("else", "v").await;
    assert_eq!(watching.until_progress().await, (vec![], 2));
}

#[tokio::test]
async fn a_progress_request_is_not_answered_without_watches_or_before_their_start() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::open(&server).await;
    watching.ask_progress().await;
    watching.is_silent().await;
    watching.create(all(4)).await;
    watching.ask_progress().await;
    watching.is_silent().await;
    writer.put("k", "v").await;
    writer.put("k", "v").await;
    watching.ask_progress().await;
    watching.is_silent().await;
    writer.put("k", "v").await;
    let (events, revision) = watching.until_progress().await;
    assert_eq!((texts(&events), revision), (vec!["put k 4".to_owned()], 4));
}

#[tokio::test]
async fn periodic_progress_uses_the_watchs_own_id_and_comes_when_there_are_no_events() {
    let interval = Duration::from_millis(100);
    let server = TestServer::with(|config| config.watch_progress_notify_interval = interval).await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::open(&server).await;
    watching.create(WatchCreateRequest { watch_id: 7, progress_notify: true, ..create("k", "") }).await;
    watching.create(WatchCreateRequest { watch_id: 8, ..create("k", "") }).await;
    let revision = writer.put("elsewhere", "v").await;
    loop {
        let progress = watching.next().await;
        assert_eq!((progress.watch_id, progress.events.len(), progress.created), (7, 0, false));
        if header_revision(&progress) == revision {
            break;
        }
    }
}

#[tokio::test]
async fn a_compacted_start_is_created_and_canceled_with_the_compact_revision() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    for _ in 0..5 {
        writer.put("k", "v").await;
    }
    writer.compact(4).await;
    let mut watching = Watching::open(&server).await;
    let created = watching.create(WatchCreateRequest { watch_id: 3, ..all(2) }).await;
    assert!(created.created && !created.canceled && created.watch_id == 3);
    let canceled = watching.next().await;
    assert!(canceled.canceled && !canceled.created);
    assert_eq!((canceled.watch_id, canceled.compact_revision), (3, 4));
    assert_eq!((canceled.cancel_reason.as_str(), header_revision(&canceled)), ("", 0));
    // Its number is in use until the client gives it up, which is answered as for any watch.
    let again = WatchCreateRequest { watch_id: 3, ..create("k", "") };
    let refused = watching.create(again.clone()).await;
    assert!(refused.created && refused.canceled && refused.watch_id == -1, "{refused:?}");
    assert_eq!(refused.cancel_reason, cancel_reason::DUPLICATE_WATCH_ID);
    watching.cancel(3).await;
    let canceled = watching.next().await;
    assert!(canceled.canceled && canceled.watch_id == 3 && canceled.compact_revision == 0, "{canceled:?}");
    assert!(!watching.create(again).await.canceled);
}

#[tokio::test]
async fn an_unset_watch_id_is_chosen_from_0_passing_over_taken_ones() {
    let server = TestServer::start().await;
    let mut watching = Watching::open(&server).await;
    let mut ids = Vec::new();
    for watch_id in [0, 1, 3, 0, 0, -9] {
        ids.push(watching.create(WatchCreateRequest { watch_id, ..create("k", "") }).await.watch_id);
    }
    assert_eq!(ids, [0, 1, 3, 2, 4, -9]);
}

#[tokio::test]
async fn a_cancel_is_answered_and_the_watch_is_silent_afterwards() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, create("k", "")).await;
    watching.cancel(0).await;
    let canceled = watching.next().await;
    assert!(canceled.canceled && !canceled.created);
    assert_eq!((canceled.watch_id, canceled.compact_revision, canceled.cancel_reason.as_str()), (0, 0, ""));
    writer.put("k", "v").await;
    watching.is_silent().await;
}

#[tokio::test]
async fn an_empty_key_is_the_smallest_key() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut one = Watching::with(&server, create("", "")).await;
    let mut everything = Watching::with(&server, create("", "\0")).await;
    writer.put("a", "v").await;
    writer.put("\0", "v").await;
    assert_eq!(texts(&one.until_progress().await.0), ["put \0 3"]);
    assert_eq!(texts(&everything.until_progress().await.0), ["put a 2", "put \0 3"]);
}

#[tokio::test]
async fn a_revision_is_split_only_for_those_who_asked_for_fragments() {
    let server = TestServer::with(|config| config.max_request_bytes = 600 << 10).await;
    let mut writer = Writer::of(&server).await;
    let ops = |byte| ["a", "b", "c", "d"].map(|key| (key, Some(vec![byte; 140 << 10])));
    let wanted = WatchCreateRequest { prev_kv: true, ..create("a", "z") };
    let mut whole = Watching::with(&server, wanted.clone()).await;
    let mut split = Watching::with(&server, WatchCreateRequest { fragment: true, ..wanted }).await;
    writer.txn(&ops(1)).await;
    // With previous values, 4 times 280 KiB: just above 600 + 512 KiB.
    writer.txn(&ops(2)).await;
    let shape = |answers: Vec<WatchResponse>| {
        answers.iter().map(|answer| (answer.events.len(), answer.fragment)).collect::<Vec<_>>()
    };
    assert_eq!(shape(whole.batches(8).await), [(4, false), (4, false)]);
    assert_eq!(shape(split.batches(8).await), [(4, false), (3, true), (1, false)]);
}

#[tokio::test]
async fn a_delete_carries_only_the_key_and_its_revision() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, create("k", "")).await;
    writer.put("k", "v").await;
    let mod_revision = writer.delete("k", "").await;
    let deleted = watching.events(2).await.remove(1);
    assert_eq!(deleted.kv, Some(mvccpb::KeyValue { key: "k".into(), mod_revision, ..Default::default() }));
    assert_eq!(deleted.prev_kv, None);
}

#[tokio::test]
async fn the_header_says_the_stores_revision_while_a_watch_catches_up() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    for _ in 0..4 {
        writer.put("k", vec![7; 200 << 10]).await;
    }
    let mut watching = Watching::with(&server, all(1)).await;
    let answers = watching.batches(4).await;
    assert!(answers.len() > 1, "the answers are bounded");
    assert!(answers.iter().all(|answer| header_revision(answer) == 5));
}

#[tokio::test]
async fn the_end_of_the_requests_does_not_end_the_watches() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut client = cairn_proto::etcdserverpb::watch_client::WatchClient::new(server.channel().await);
    let request = cairn_proto::etcdserverpb::WatchRequest {
        request_union: Some(cairn_proto::etcdserverpb::watch_request::RequestUnion::CreateRequest(create("k", ""))),
    };
    let mut answers = client.watch(tokio_stream::iter([request])).await.expect("it opens").into_inner();
    assert!(answers.message().await.expect("an answer").expect("an answer").created);
    writer.put("k", "v").await;
    assert_eq!(texts(&answers.message().await.expect("an answer").expect("an answer").events), ["put k 2"]);
}

#[tokio::test]
async fn many_watches_of_a_stream_each_get_their_events() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::open(&server).await;
    for number in 0..200 {
        watching.create(create(&format!("k{number:03}"), "")).await;
    }
    let mut both = watching.create(create("k", "l")).await;
    both.watch_id = 200;
    for number in 0..200 {
        writer.put(&format!("k{number:03}"), "v").await;
    }
    let mut of_range = Vec::new();
    let mut single = vec![Vec::new(); 200];
    while of_range.len() < 200 || single.iter().any(Vec::is_empty) {
        let answer = watching.next().await;
        match usize::try_from(answer.watch_id).expect("a watcher's number") {
            200 => of_range.extend(texts(&answer.events)),
            one => single[one].extend(texts(&answer.events)),
        }
    }
    let expected: Vec<_> = (0..200).map(|number| format!("put k{number:03} {}", number + 2)).collect();
    assert_eq!(of_range, expected);
    assert_eq!(single.concat(), expected);
}

#[tokio::test]
async fn a_program_that_has_the_server_inside_watches_the_same_way() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let (requests, incoming) = mpsc::channel(4);
    let mut answers = Box::pin(server.server.client().exchange(ReceiverStream::new(incoming)));
    let request = cairn_proto::etcdserverpb::WatchRequest {
        request_union: Some(cairn_proto::etcdserverpb::watch_request::RequestUnion::CreateRequest(create("k", ""))),
    };
    requests.send(request).await.expect("it takes requests");
    let created = answers.next().await.expect("an answer").expect("no error");
    assert!(created.created);
    writer.put("k", "v").await;
    let answer = answers.next().await.expect("an answer").expect("no error");
    assert_eq!(texts(&answer.events), ["put k 2"]);
}

#[tokio::test]
async fn a_stop_of_the_server_ends_streams() {
    let server = TestServer::start().await;
    let mut watching = Watching::with(&server, create("k", "")).await;
    let ended = tokio::spawn(async move { watching.try_next().await });
    server.server.shutdown().await;
    let status = ended.await.expect("it ends").expect_err("with a status");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn metrics_tell_of_streams_and_watchers() {
    let server = TestServer::start().await;
    let mut watching = Watching::with(&server, create("k", "")).await;
    let filters = vec![FilterType::Noput.into()];
    watching.create(WatchCreateRequest { filters, ..create("k", "") }).await;
    Writer::of(&server).await.put("k", "v").await;
    assert_eq!(watching.events(1).await.len(), 1);
    let page = server.http("GET", "/metrics").await.body;
    for line in [
        "etcd_debugging_mvcc_watch_stream_total 1",
        "etcd_debugging_mvcc_watcher_total 2",
        "etcd_debugging_mvcc_slow_watcher_total 0",
        "etcd_debugging_mvcc_pending_events_total 0",
        "etcd_debugging_mvcc_events_total 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }
    drop(watching);
    eventually("the end of the stream", async || {
        let page = server.http("GET", "/metrics").await.body;
        page.lines().any(|line| line == "etcd_debugging_mvcc_watcher_total 0").then_some(())
    })
    .await;
}
