//! Applying: batches, back-pressure, refusals, restarts, pins and compaction.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Wake, Waker},
};

use semver::Version;

use super::*;
use crate::{
    state::{command::CommandError, mvcc::Inline, record},
    store::Batch,
};

fn put(key: &str, value: &str) -> Request {
    Request::Put(pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() })
}

fn get(key: &str, revision: i64) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), revision, ..Default::default() }
}

fn value(member: &Member, key: &str, revision: i64) -> Option<Bytes> {
    let (_, rows) = member.range(&get(key, revision)).unwrap();
    key_values(&rows.kvs).pop().map(|kv| kv.value)
}

#[test]
fn a_fresh_store_is_at_revision_one_and_needs_a_first_membership() {
    let store = Arc::new(MemStore::new());
    let mut state = State::open(store.clone(), StateOptions::default()).unwrap();
    assert_eq!(state.applied(), (0, 0));
    assert!(matches!(state.apply(&[]), Err(StateError::Empty)));
    let member = Member::on(store.clone());
    assert_eq!((member.state.applied(), member.reader().revision()), ((1, 1), 1));
    assert_eq!((member.reader().compacted(), member.state.conf_state().voters.clone()), (-1, vec![7]));
    store.crash();
    let mut again = State::open(store, StateOptions::default()).unwrap();
    assert_eq!(again.applied(), (1, 1), "the first state is durable");
    assert!(matches!(again.bootstrap(&Membership::default(), 1, 1), Err(StateError::NotEmpty)));
    let members = again.views().members();
    assert_eq!((members.cluster_id, members.members.len()), (9, 1));
}

#[test]
fn a_newer_format_is_a_clear_error() {
    let store = Arc::new(MemStore::new());
    let mut batch = Batch::default();
    batch.put(Table::Meta, record::format::KEY, record::format::encode(record::format::STORAGE_FORMAT + 1));
    store.write(&batch).unwrap();
    let error = State::open(store, StateOptions::default()).unwrap_err();
    assert!(matches!(error, StateError::NewerFormat { found: 2, supported: 1 }));
    assert!(error.to_string().contains("run the version that wrote it"), "{error}");
}

#[test]
fn damaged_records_refuse_to_open() {
    let damages: &[(Table, &[u8], &[u8])] = &[
        (Table::Meta, record::applied::KEY, b"short"),
        (Table::Meta, record::current::KEY, &[0; 8]),
        (Table::Meta, record::scheduled::KEY, b"short"),
        (Table::Meta, record::conf_state::KEY, &[0xff]),
        (Table::Lease, b"x", b""),
        (Table::Member, b"x12345678", b""),
        (Table::Alarm, b"x", b""),
        (Table::Rev, b"no revision", b""),
        (Table::Rev, &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], &[0xff]),
        (Table::Rev, &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0], b"\x0a\x01k"),
    ];
    for (table, key, value) in damages {
        let member = Member::new();
        let mut batch = Batch::default();
        batch.put(*table, Bytes::from_static(key), Bytes::from_static(value));
        member.store.write(&batch).unwrap();
        let error = State::open(member.store.clone(), StateOptions::default()).unwrap_err();
        assert!(!error.is_deterministic(), "{table:?} {key:?}: {error}");
    }
}

#[test]
fn what_was_applied_is_skipped_and_a_gap_is_refused() {
    let mut member = Member::new();
    let entry = member.entry([put("k", "1")]);
    assert_eq!(member.state.apply(std::slice::from_ref(&entry)).unwrap().len(), 1);
    assert_eq!(member.state.apply(std::slice::from_ref(&entry)).unwrap().len(), 0);
    assert_eq!(member.reader().revision(), 2);
    let gap = Committed { index: 4, ..entry };
    assert!(matches!(member.state.apply(&[gap]), Err(StateError::OutOfOrder { expected: 3, found: 4 })));
    assert!(matches!(member.state.apply(&[]), Err(StateError::Unusable { .. })));
}

#[test]
fn an_unknown_command_is_fatal_and_nothing_of_its_batch_is_applied() {
    let mut member = Member::new();
    let good = member.entry([put("k", "1")]);
    let mut bytes = encode(
        &Command { id: RequestId { member: 7, nonce: 1, counter: 1 }, actor: Actor::Anonymous, request: put("k", "2") },
        COMMAND_LEVEL,
    )
    .to_vec();
    bytes[1] = 99;
    let mut entry = EntryBuilder::new();
    assert!(entry.push(&bytes));
    let bad = Committed { index: 3, term: 1, data: CommittedData::Commands(entry.finish().into()) };
    let error = member.state.apply(&[good, bad]).unwrap_err();
    assert!(matches!(error, StateError::Command { index: 3, source: CommandError::UnknownKind { found: 99 } }));
    assert!(!error.is_deterministic());
    assert!(matches!(member.state.apply(&[]), Err(StateError::Unusable { .. })));
    assert_eq!((member.reader().revision(), value(&member, "k", 0)), (1, None));
}

#[test]
fn a_key_of_no_bytes_is_refused_and_nothing_is_stored_that_would_be_taken_for_damage() {
    let mut member = Member::new();
    member.put("k", "1");
    let op = |request| pb::RequestOp { request: Some(request) };
    let nameless = pb::PutRequest { value: "v".into(), ..Default::default() };
    let nested = |inner| pb::TxnRequest { success: vec![op(inner)], ..Default::default() };
    let alone = nested(pb::request_op::Request::RequestPut(nameless.clone()));
    let named = op(pb::request_op::Request::RequestPut(pb::PutRequest { key: "k".into(), ..Default::default() }));
    let deep = pb::TxnRequest {
        success: vec![named, op(pb::request_op::Request::RequestTxn(alone.clone()))],
        ..Default::default()
    };
    for request in [Request::Put(nameless), Request::Txn(alone), Request::Txn(deep)] {
        let entry = member.entry([request]);
        let answers = member.state.apply(&[entry]).unwrap();
        assert!(matches!(answers[..], [Answer { outcome: Err(ApiError::EmptyKey), .. }]), "{answers:?}");
    }
    assert_eq!((member.reader().revision(), value(&member, "k", 0)), (2, Some("1".into())));
    assert!(member.reader().hash_kv(0).is_ok());
    member.store.flush().unwrap();
    State::open(member.store.clone(), StateOptions::default()).unwrap();
}

#[test]
fn an_entry_without_commands_moves_the_applied_index() {
    let mut member = Member::new();
    let empty = Committed { index: 2, term: 3, data: CommittedData::Empty };
    assert!(member.state.apply(&[empty]).unwrap().is_empty());
    assert_eq!(member.state.applied(), (2, 3));
}

#[test]
fn back_pressure_keeps_the_batch_and_shows_it_to_nobody() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    store.set_stalled(true);
    let entry = member.entry([put("k", "1"), put("k", "2")]);
    assert!(matches!(member.state.apply(&[entry]), Err(StateError::Stalled)));
    assert!(member.state.is_stalled());
    assert_eq!((member.reader().revision(), value(&member, "k", 0), member.state.applied()), (1, None, (1, 1)));
    assert!(matches!(member.state.retry(), Err(StateError::Stalled)));
    assert!(matches!(member.state.apply(&[]), Err(StateError::Unusable { .. })));
    store.set_stalled(false);
    assert_eq!(member.state.retry().unwrap().len(), 2);
    assert_eq!(
        (member.reader().revision(), value(&member, "k", 0), member.state.applied()),
        (3, Some("2".into()), (2, 1))
    );
    assert!(member.state.retry().unwrap().is_empty());
    member.put("k", "3");
}

#[test]
fn a_broken_disk_makes_the_state_unusable() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    store.break_disk();
    let entry = member.entry([put("k", "1")]);
    assert!(matches!(member.state.apply(&[entry]), Err(StateError::Store(_))));
    assert!(matches!(member.state.retry(), Err(StateError::Unusable { .. })));
}

#[test]
fn answers_go_only_to_the_run_that_asked() {
    let mut member = Member::new();
    member.state.answer_only(7, 2);
    let entry = member.entry([put("k", "1")]);
    assert!(member.state.apply(&[entry]).unwrap().is_empty());
    assert_eq!((member.reader().revision(), member.state.commands()), (2, 1));
}

#[test]
fn values_written_earlier_in_the_same_batch_are_seen() {
    let mut member = Member::new();
    let keep = pb::PutRequest { key: "k".into(), ignore_value: true, ..Default::default() };
    let entry = member.entry([put("k", "1"), Request::Put(keep)]);
    member.state.apply(&[entry]).unwrap();
    let (_, rows) = member.range(&get("k", 0)).unwrap();
    let kv = key_values(&rows.kvs).remove(0);
    assert_eq!((kv.value, kv.version, kv.mod_revision), ("1".into(), 2, 3));
}

#[test]
fn the_persisted_index_is_behind_until_the_store_flushes() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    member.put("k", "1");
    assert_eq!((member.state.applied().0, member.state.persisted_applied().unwrap()), (2, 1));
    store.flush().unwrap();
    assert_eq!(crate::state::persisted_applied(store.as_ref()).unwrap(), 2);
}

#[test]
fn a_pinned_read_holds_physical_compaction_up_until_it_ends() {
    let mut member = Member::new();
    member.put("k", "1");
    member.put("k", "2");
    let pin = member.reader().pin(&Authorizer::default().own(), 2).unwrap();
    member.compact(3).unwrap();
    assert_eq!(member.reader().pin(&Authorizer::default().own(), 2).unwrap_err(), ApiError::Compacted);
    for _ in 0..3 {
        member.compaction_step(Duration::ZERO).unwrap();
    }
    assert_eq!(member.compaction_step(Duration::ZERO).unwrap(), CompactionStep::Held { by: Some(2) });
    let rows = member.reader().range(&pin, &get("k", 0)).unwrap();
    assert_eq!(key_values(&rows.kvs)[0].value, "1");
    drop(pin);
    member.compact_physically();
    let revisions = contents(member.store.as_ref()).into_iter().filter(|(table, ..)| *table == Table::Rev).count();
    assert_eq!(revisions, 1);
}

#[test]
fn a_pin_held_too_long_is_expired_and_its_reads_end_in_compacted() {
    let mut member = Member::new();
    member.put("k", "1");
    member.put("k", "2");
    let pin = member.reader().pin(&Authorizer::default().own(), 2).unwrap();
    let newest = member.reader().pin(&Authorizer::default().own(), 0).unwrap();
    member.compact(3).unwrap();
    let late = crate::state::PIN_HOLD_MAX;
    while !matches!(member.compaction_step(Duration::ZERO).unwrap(), CompactionStep::Held { .. }) {}
    while member.compaction_step(late).unwrap() != CompactionStep::Idle {}
    assert!(matches!(member.reader().range(&pin, &get("k", 0)), Err(ReadError::Api(ApiError::Compacted))));
    let Inline::Ready(inline) = member.reader().range_inline(&pin, &get("k", 0)) else {
        panic!("an expired pin is known at once")
    };
    assert!(matches!(inline, Err(ReadError::Api(ApiError::Compacted))));
    assert_eq!(member.reader().range(&newest, &get("k", 0)).unwrap().count, 1);
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn waiting_for_physical_compaction_ends_when_it_is_done() {
    let mut member = Member::new();
    member.put("k", "1");
    member.compact(2).unwrap();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);
    let mut waiting = pin!(member.reader().wait_compacted(2));
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
    while member.compaction_step(Duration::ZERO).unwrap() != CompactionStep::Idle {}
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(waiting.poll(&mut context), Poll::Ready(()));
}

#[test]
fn compaction_goes_on_after_a_crash_in_the_middle_of_it() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    for round in 0..1500 {
        member.put(&format!("k{}", round % 700), "v");
    }
    member.compact(1400).unwrap();
    store.flush().unwrap();
    let mut removed = 0;
    while removed == 0 {
        if let CompactionStep::Worked { removed: now } = member.compaction_step(Duration::ZERO).unwrap() {
            removed = now;
        }
    }
    store.crash();
    let mut member = member.restart(store);
    assert_eq!(member.reader().compacted(), 1400);
    let before = member.reader().hash_kv(1450).unwrap();
    member.compact_physically();
    let left = contents(member.store.as_ref()).into_iter().filter(|(table, ..)| *table == Table::Rev).count();
    // 700 keys live at 1400, and 101 revisions came after.
    assert_eq!(left, 700 + 101);
    assert_eq!(member.reader().hash_kv(1450).unwrap(), before);
}

#[test]
fn back_pressure_on_removal_is_waited_out() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    member.put("k", "1");
    member.put("k", "2");
    member.compact(3).unwrap();
    store.set_stalled(true);
    while member.compaction_step(Duration::ZERO).unwrap() != (CompactionStep::Held { by: None }) {}
    store.set_stalled(false);
    member.compact_physically();
    let left = contents(member.store.as_ref()).into_iter().filter(|(table, ..)| *table == Table::Rev).count();
    assert_eq!(left, 1);
}

#[test]
fn the_hook_is_called_for_every_compaction() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let hook = move || {
        counted.fetch_add(1, Ordering::SeqCst);
    };
    let options = StateOptions { on_compaction: Some(Arc::new(hook)), ..StateOptions::default() };
    let mut member = Member::new();
    member.put("k", "1");
    member.state = State::open(member.store.clone(), options).unwrap();
    member.compact(2).unwrap();
    assert_eq!(member.compact(2), Err(ApiError::Compacted));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_value_missing_from_the_store_is_damage_not_an_empty_answer() {
    let mut member = Member::new();
    member.put("k", "1");
    let pin = member.reader().pin(&Authorizer::default().own(), 0).unwrap();
    let mut batch = Batch::default();
    batch.delete(Table::Rev, crate::state::mvcc::revision::Revision::new(2, 0).key(false));
    member.store.write(&batch).unwrap();
    let error = member.reader().range(&pin, &get("k", 0)).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }) && !error.is_deterministic());
}

#[test]
fn long_ranges_are_deferred_and_read_in_pages_and_pieces() {
    let mut member = Member::new();
    for number in 0..1300 {
        member.put(&format!("k{number:04}"), &"v".repeat(100));
    }
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let pin = member.reader().pin(&Authorizer::default().own(), 0).unwrap();
    assert!(matches!(member.reader().range_inline(&pin, &all), Inline::Defer));
    let counted = pb::RangeRequest { count_only: true, ..all.clone() };
    assert!(matches!(member.reader().range_inline(&pin, &counted), Inline::Ready(Ok(rows)) if rows.count == 1300));
    let few = pb::RangeRequest { limit: 10, ..all.clone() };
    assert!(
        matches!(member.reader().range_inline(&pin, &few), Inline::Ready(Ok(rows)) if rows.kvs.len() == 10 && rows.more)
    );
    let whole = member.reader().range(&pin, &all).unwrap();
    assert_eq!((whole.kvs.len(), whole.count, whole.more), (1300, 1300, false));
    for (request, bytes_max) in [
        (all.clone(), 5000),
        (pb::RangeRequest { limit: 777, ..all.clone() }, 200_000),
        (pb::RangeRequest { keys_only: true, ..all }, 1),
    ] {
        let whole = member.reader().range(&pin, &request).unwrap();
        let mut pieces = member.reader().range_pieces(&pin, &request).unwrap();
        let (mut kvs, mut last) = (Vec::new(), None);
        while let Some(piece) = member.reader().next_piece(&pin, &mut pieces, bytes_max).unwrap() {
            assert!(last.is_none());
            let bytes = piece.rows.len();
            assert!(bytes < bytes_max + 150, "{bytes} bytes in a piece");
            kvs.extend(streamed_rows(piece.rows));
            last = piece.last;
        }
        assert_eq!((kvs, last), (whole.kvs, Some((whole.count, whole.more))));
    }
}

#[test]
fn a_stream_goes_on_where_keys_and_values_become_larger() {
    const KEYS: usize = 500;
    let mut member = Member::new();
    for number in 0..KEYS {
        // Not in the order of keys.
        let place = number * 7 % KEYS;
        let large = usize::from((40..450).contains(&place));
        let (key, value) = (format!("k{place:04}{}", "x".repeat(large * 1500)), "v".repeat(large * (3000 + place)));
        member.put(&key, &value);
    }
    let pin = member.reader().pin(&Authorizer::default().own(), 0).unwrap();
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    for request in [
        pb::RangeRequest { keys_only: true, ..all.clone() },
        pb::RangeRequest { limit: 300, ..all.clone() },
        pb::RangeRequest { limit: 499, ..all.clone() },
        all,
    ] {
        let whole = member.reader().range(&pin, &request).unwrap();
        let mut pieces = member.reader().range_pieces(&pin, &request).unwrap();
        let (mut kvs, mut last) = (Vec::new(), None);
        while let Some(piece) = member.reader().next_piece(&pin, &mut pieces, 100_000).unwrap() {
            kvs.extend(streamed_rows(piece.rows));
            last = piece.last;
        }
        assert_eq!((kvs, last), (whole.kvs, Some((whole.count, whole.more))));
    }
}

#[test]
fn reads_within_a_read_only_txn_see_one_revision() {
    let mut member = Member::new();
    member.put("k", "1");
    member.put("k", "2");
    let range = |revision| pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(get("k", revision))) };
    let pin = member.reader().pin(&Authorizer::default().own(), 0).unwrap();
    member.put("k", "3");
    let txn = pb::TxnRequest { success: vec![range(0), range(2), range(3)], ..Default::default() };
    let OpRows::Txn { ops, .. } = member.reader().read_txn(&pin, &txn).unwrap() else { panic!("a txn") };
    let values: Vec<_> = ops
        .iter()
        .map(|op| {
            if let OpRows::Range { rows, .. } = op { key_values(&rows.kvs)[0].value.clone() } else { panic!("a range") }
        })
        .collect();
    assert_eq!(values, ["2", "1", "2"]);
    let future = pb::TxnRequest { success: vec![range(4)], ..Default::default() };
    assert!(matches!(member.reader().read_txn(&pin, &future), Err(ReadError::Api(ApiError::FutureRevision))));
    member.compact(4).unwrap();
    let Inline::Ready(Err(ReadError::Api(ApiError::Compacted))) = member.reader().read_txn_inline(&pin, &txn) else {
        panic!("an older revision is compacted")
    };
}

#[test]
fn hashes_at_compactions_are_remembered_over_restarts() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    for round in 0..20 {
        member.put("k", &round.to_string());
        member.put(&format!("k{round}"), "v");
    }
    let mut hashes = Vec::new();
    for revision in [10, 20, 30] {
        let plain = member.reader().hash_kv(revision).unwrap();
        member.compact(revision).unwrap();
        let at_once = member.reader().hash_kv(revision).unwrap();
        assert_eq!(at_once, plain, "a compaction's hash is the one from before it");
        hashes.push(at_once);
    }
    member.compact_physically();
    store.flush().unwrap();
    let member = member.restart(store);
    for hash in hashes {
        assert_eq!(member.reader().hash_kv(hash.hash_revision).unwrap(), hash);
    }
    assert!(matches!(member.reader().hash_kv(29), Err(ReadError::Api(ApiError::Compacted))));
}

#[test]
fn a_hash_for_comparison_is_the_same_before_and_after_what_others_have_compacted() {
    let (mut ahead, mut behind) = (Member::new(), Member::new());
    for member in [&mut ahead, &mut behind] {
        for round in 0..20 {
            member.put(&format!("k{}", round % 3), &round.to_string());
        }
        let range_end = "l".into();
        let delete = pb::DeleteRangeRequest { key: "k".into(), range_end, ..Default::default() };
        assert_eq!(member.kv(Request::DeleteRange(delete)).unwrap().0, 22);
    }
    let hash = |member: &Member, revision, compacted| {
        let mut hashing = member.reader().begin_hash(revision, compacted)?;
        loop {
            if let Some(hash) = hashing.step()? {
                return Ok(hash);
            }
        }
    };
    // Nothing lives at 22, where the tombstones are: what HashKV says there depends on whether it was compacted.
    for revision in [9, 22] {
        ahead.compact(revision).unwrap();
        let before = hash(&behind, revision, Some(revision)).unwrap();
        assert_eq!(hash(&ahead, revision, None).unwrap(), before);
        ahead.compact_physically();
        assert_eq!(hash(&ahead, revision, None).unwrap(), before);
    }
    let refused = |member: &Member, revision, compacted| match hash(member, revision, compacted) {
        Err(ReadError::Api(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&ahead, 22, Some(9)), ApiError::Compacted);
    assert_eq!(refused(&behind, 9, Some(10)), ApiError::Compacted);
    assert_eq!(refused(&behind, 23, Some(9)), ApiError::FutureRevision);
}

#[test]
fn the_whole_hash_covers_what_is_not_a_key() {
    let mut member = Member::new();
    member.put("k", "1");
    let (before, revision) = member.reader().hash().unwrap();
    assert_eq!(revision, 2);
    member.outcome(Request::LeaseGrant(pb::LeaseGrantRequest { id: 5, ttl: 60 })).unwrap();
    assert_ne!(member.reader().hash().unwrap().0, before);
}

#[test]
fn the_cluster_version_only_rises_and_is_kept() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    assert_eq!(member.state.views().cluster_version(), None);
    for (proposed, then) in [((3, 7), (3, 7)), ((3, 6), (3, 7)), ((3, 10), (3, 10)), ((3, 7), (3, 10))] {
        let version = |(major, minor)| Version::new(major, minor, 0);
        assert_eq!(member.outcome(Request::ClusterVersion(version(proposed))), Ok(Reply::Done));
        assert_eq!(member.state.views().cluster_version().as_deref(), Some(&version(then)), "after {proposed:?}");
    }
    drop(member);
    assert_eq!(Member::on(store).state.views().cluster_version().as_deref(), Some(&Version::new(3, 10, 0)));
}

#[test]
fn the_command_level_only_rises_and_is_kept() {
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    assert_eq!(member.state.views().command_level(), 1);
    for (proposed, then) in [(1, 1), (2, 2), (1, 2)] {
        assert_eq!(member.outcome(Request::CommandLevel(proposed)), Ok(Reply::Done));
        assert_eq!(member.state.views().command_level(), then, "after {proposed}");
    }
    drop(member);
    assert_eq!(Member::on(store).state.views().command_level(), 2);
}

#[test]
fn membership_changes_are_applied_answered_and_kept() {
    use crate::state::MemberChange;
    let store = Arc::new(MemStore::new());
    let mut member = Member::on(store.clone());
    let id = RequestId { member: 7, nonce: 1, counter: 1 };
    let learner = pb::Member { id: 8, is_learner: true, ..Default::default() };
    let changes = [
        (MemberChange::Add(learner), ([7].as_slice(), [8].as_slice())),
        (MemberChange::Update { id: 8, peer_urls: vec!["http://b".into()] }, (&[7], &[8])),
        (MemberChange::Promote(8), (&[7, 8], &[])),
        (MemberChange::Remove(7), (&[8], &[])),
    ];
    for (index, (change, (voters, learners))) in (2..).zip(changes) {
        let conf_state =
            raft::eraftpb::ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..Default::default() };
        let data =
            CommittedData::ConfChange(raft::eraftpb::ConfChangeV2::default(), conf_state.clone(), change.encode(id));
        let answers = member.state.apply(&[Committed { index, term: 1, data }]).unwrap();
        assert_eq!((answers.len(), answers[0].id, &answers[0].outcome), (1, id, &Ok(Reply::Done)));
        assert_eq!(*member.state.conf_state(), conf_state);
    }
    member.outcome_at(6, Request::PublishMember { member: 8, name: "b".into(), client_urls: vec!["http://c".into()] });
    member.outcome_at(7, Request::PublishMember { member: 7, name: "gone".into(), client_urls: Vec::new() });
    store.flush().unwrap();
    let state = State::open(store, StateOptions::default()).unwrap();
    let members = state.views().members();
    assert_eq!(*members, *member.state.views().members());
    let left: Vec<_> = members.members.values().cloned().collect();
    let expected = pb::Member {
        id: 8,
        name: "b".into(),
        peer_urls: vec!["http://b".into()],
        client_urls: vec!["http://c".into()],
        is_learner: false,
    };
    assert_eq!((left, members.removed.iter().copied().collect::<Vec<_>>()), (vec![expected], vec![7]));
    assert_eq!(*state.conf_state(), *member.state.conf_state());
}

impl Member {
    fn outcome_at(&mut self, index: u64, request: Request) {
        let entry = Committed { index, ..self.entry([request]) };
        self.state.apply(&[entry]).unwrap();
    }
}

#[test]
fn a_hash_of_any_number_of_revisions_comes_to_its_end() {
    let mut member = Member::new();
    for revision in 2..=600 {
        assert_eq!(member.put("k", "v"), revision);
        let hash = member.reader().hash_kv(0).unwrap();
        assert_eq!(hash.hash_revision, revision);
    }
}
