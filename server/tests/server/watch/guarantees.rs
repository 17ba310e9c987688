//! The nine guarantees, each shown on watchers that follow, catch up and change from one to the other under load.

use cairn_proto::{
    etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType},
    mvccpb::{Event, event::EventType},
};

use super::client::{Watching, Writer, all, create, header_revision, revision_of, text, texts};
use crate::support::TestServer;

/// Writes of the load.
const WRITES: i64 = 300;

/// Watches everything from the first revision while somebody writes: begins in the past, ends live. Gives the answers'
/// events, and the last revision.
async fn watch_under_load(server: &TestServer) -> (Vec<Vec<Event>>, i64) {
    let mut writer = Writer::of(server).await;
    for number in 0..WRITES {
        writer.put(&format!("a/{}", number % 7), number.to_string()).await;
    }
    let mut second = writer.clone();
    let writing = tokio::spawn(async move {
        for number in 0..WRITES {
            match number % 3 {
                0 => second.txn(&[("b/1", Some(vec![1])), ("b/2", Some(vec![2])), ("a/0", None)]).await,
                1 => second.delete("a/1", "").await.max(second.put("a/1", "x").await),
                _ => second.put(&format!("a/{}", number % 5), "y").await,
            };
        }
        second.put("end", "").await
    });
    let mut watching = Watching::with(server, all(1)).await;
    let mut answers = Vec::new();
    let ended = |events: &Vec<Event>| events.last().is_some_and(|event| text(event).starts_with("put end "));
    while !answers.last().is_some_and(ended) {
        answers.push(watching.next().await.events);
    }
    (answers, writing.await.expect("the writer ends"))
}

#[tokio::test]
async fn filter_only_wanted_keys_and_kinds_are_delivered() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut range = Watching::with(&server, create("b", "d")).await;
    let filters = vec![FilterType::Noput.into()];
    let mut deletes = Watching::with(&server, WatchCreateRequest { filters, ..create("b", "") }).await;
    let filters = vec![FilterType::Nodelete.into()];
    let mut puts = Watching::with(&server, WatchCreateRequest { filters, ..create("b", "") }).await;
    for key in ["a", "b", "c", "d", "b\0"] {
        writer.put(key, "1").await;
    }
    writer.delete("a", "e").await;
    let expected = ["put b 3", "put c 4", "put b\0 6", "delete b 7", "delete b\0 7", "delete c 7"];
    assert_eq!(texts(&range.events(6).await), expected);
    assert_eq!(texts(&deletes.until_progress().await.0), ["delete b 7"]);
    assert_eq!(texts(&puts.until_progress().await.0), ["put b 3"]);
    // The same for those who come later.
    let mut late = Watching::with(&server, WatchCreateRequest { start_revision: 2, ..create("b", "d") }).await;
    assert_eq!(texts(&late.until_progress().await.0), expected);
    let past = WatchCreateRequest { start_revision: 2, filters: vec![FilterType::Noput.into()], ..create("b", "") };
    let mut late = Watching::with(&server, past).await;
    assert_eq!(texts(&late.until_progress().await.0), ["delete b 7"]);
}

#[tokio::test]
async fn ordered_revisions_only_rise() {
    let server = TestServer::start().await;
    let (answers, _) = watch_under_load(&server).await;
    let revisions: Vec<_> = answers.iter().flatten().map(revision_of).collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
}

#[tokio::test]
async fn unique_no_event_comes_twice() {
    let server = TestServer::start().await;
    let (answers, _) = watch_under_load(&server).await;
    let mut seen: Vec<_> = answers.iter().flatten().map(text).collect();
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all);
}

#[tokio::test]
async fn atomic_a_revision_is_in_one_answer() {
    let server = TestServer::start().await;
    let (answers, _) = watch_under_load(&server).await;
    for pair in answers.windows(2) {
        let (before, after) = (pair[0].last().map_or(0, revision_of), pair[1].first().map_or(i64::MAX, revision_of));
        assert!(before < after, "revision {before} is split");
    }
}

#[tokio::test]
async fn bookmarkable_nothing_up_to_a_progress_answer_follows_it() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, create("k", "l")).await;
    let writing = tokio::spawn(async move {
        for number in 0..WRITES {
            writer.put(&format!("k{}", number % 3), "v").await;
        }
    });
    let (mut bookmark, mut delivered) = (0, 0);
    while delivered < WRITES {
        let (events, revision) = watching.until_progress().await;
        for event in &events {
            let at = revision_of(event);
            assert!(bookmark < at && at <= revision, "{at} is outside of {bookmark}..={revision}");
        }
        delivered += events.len() as i64;
        // All keys are watched, so everything up to the bookmark is here.
        assert_eq!(revision, delivered + 1);
        bookmark = revision;
    }
    writing.await.expect("the writer ends");
}

#[tokio::test]
async fn resumable_a_start_revision_delivers_everything_from_it_on_or_says_compacted() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    for number in 0..40 {
        writer.put("k", number.to_string()).await;
    }
    for start in [1, 2, 17, 41] {
        let mut watching = Watching::with(&server, all(start)).await;
        let (events, _) = watching.until_progress().await;
        let expected: Vec<_> = (start.max(2)..=41).collect();
        assert_eq!(events.iter().map(revision_of).collect::<Vec<_>>(), expected, "from {start}");
    }
    writer.compact(20).await;
    for start in [1, 19] {
        let mut watching = Watching::with(&server, all(start)).await;
        let canceled = watching.next().await;
        assert_eq!((canceled.canceled, canceled.compact_revision), (true, 20), "from {start}");
    }
    let mut watching = Watching::with(&server, all(20)).await;
    assert_eq!(watching.until_progress().await.0.len(), 22);
}

#[tokio::test]
async fn reliable_no_revision_is_missing() {
    let server = TestServer::start().await;
    let (answers, last) = watch_under_load(&server).await;
    let mut revisions: Vec<_> = answers.iter().flatten().map(revision_of).collect();
    revisions.dedup();
    assert_eq!(revisions, (2..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn reliable_also_when_the_window_holds_next_to_nothing() {
    let server = TestServer::with(|config| config.watch_window_bytes = 1).await;
    let (answers, last) = watch_under_load(&server).await;
    let mut revisions: Vec<_> = answers.iter().flatten().map(revision_of).collect();
    revisions.dedup();
    assert_eq!(revisions, (2..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn prev_kv_is_the_value_before_the_change() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let wanted = WatchCreateRequest { prev_kv: true, ..create("k", "") };
    let mut live = Watching::with(&server, wanted.clone()).await;
    let mut without = Watching::with(&server, create("k", "")).await;
    writer.put("k", "one").await;
    writer.put("k", "two").await;
    writer.delete("k", "").await;
    writer.put("k", "three").await;
    let previous = |events: Vec<Event>| {
        let value = |event: Event| event.prev_kv.map(|kv| (kv.mod_revision, kv.version, kv.value.to_vec()));
        events.into_iter().map(value).collect::<Vec<_>>()
    };
    let expected = vec![None, Some((2, 1, b"one".to_vec())), Some((3, 2, b"two".to_vec())), None];
    assert_eq!(previous(live.events(4).await), expected);
    assert_eq!(previous(without.events(4).await), vec![None; 4]);
    let mut late = Watching::with(&server, WatchCreateRequest { start_revision: 1, ..wanted }).await;
    assert_eq!(previous(late.events(4).await), expected);
}

#[tokio::test]
async fn prev_kv_is_left_out_where_it_is_compacted_away() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    for value in ["one", "two", "three"] {
        writer.put("k", value).await;
    }
    writer.compact(3).await;
    let wanted = WatchCreateRequest { prev_kv: true, ..all(3) };
    let events = Watching::with(&server, wanted).await.events(2).await;
    let previous = events.into_iter().map(|event| event.prev_kv.map(|kv| kv.value));
    assert_eq!(previous.collect::<Vec<_>>(), [None, Some("two".into())]);
}

#[tokio::test]
async fn prev_kv_reaches_a_live_watcher_even_if_it_is_compacted_at_once() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, WatchCreateRequest { prev_kv: true, ..create("k", "") }).await;
    writer.put("k", "0").await;
    for number in 1..100 {
        let revision = writer.put("k", number.to_string()).await;
        writer.compact(revision).await;
    }
    for (number, event) in watching.events(100).await.into_iter().enumerate().skip(1) {
        assert_eq!(event.prev_kv.map(|kv| kv.value), Some((number - 1).to_string().into()));
    }
}

#[tokio::test]
async fn is_create_create_revision_equals_mod_revision_exactly_on_creates() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, create("k", "")).await;
    let creates = [true, false, false, true];
    writer.put("k", "1").await;
    writer.put("k", "2").await;
    writer.delete("k", "").await;
    writer.put("k", "3").await;
    let check = |events: Vec<Event>| {
        let is_create = |event: Event| {
            let put = event.r#type() == EventType::Put;
            let kv = event.kv.expect("an event has its key");
            put && kv.create_revision == kv.mod_revision
        };
        assert_eq!(events.into_iter().map(is_create).collect::<Vec<_>>(), creates);
    };
    check(watching.events(4).await);
    check(Watching::with(&server, all(1)).await.events(4).await);
}

#[tokio::test]
async fn an_event_answer_says_no_more_than_the_store_has() {
    let server = TestServer::start().await;
    let mut writer = Writer::of(&server).await;
    let mut watching = Watching::with(&server, create("k", "")).await;
    let revision = writer.put("k", "1").await;
    let answer = watching.next().await;
    assert_eq!((header_revision(&answer), texts(&answer.events)), (revision, vec![format!("put k {revision}")]));
}
