//! Readers, writer and compaction at the same time: every read sees one whole revision, whatever is removed meanwhile.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;

/// Every txn writes all of these with the same value.
const KEYS: usize = 40;
const ROUNDS: usize = 400;

fn whole_revision(round: usize) -> Request {
    let put = |key: usize| pb::PutRequest {
        key: format!("k{key:02}").into(),
        value: round.to_string().into(),
        ..Default::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let success = (0..KEYS).map(|key| op(pb::request_op::Request::RequestPut(put(key)))).collect();
    Request::Txn(pb::TxnRequest { success, ..Default::default() })
}

/// What a reader checks at a pinned revision; `false` if the pin was expired under it.
fn one_whole_revision(reader: &Reader, pin: &super::super::mvcc::Pin) -> bool {
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let rows = match reader.range(pin, &all) {
        Err(ReadError::Api(ApiError::Compacted)) => return false,
        rows => rows.unwrap(),
    };
    assert_eq!((rows.count, rows.kvs.len()), (KEYS as i64, KEYS));
    let kvs = key_values(&rows.kvs);
    let expected = (pin.revision() - 2).to_string();
    assert!(kvs.iter().all(|kv| kv.value == expected && kv.mod_revision == pin.revision()), "at {}", pin.revision());
    let last = pb::RangeRequest { sort_order: 2, limit: 1, ..all.clone() };
    assert_eq!(reader.range(pin, &last).unwrap().kvs.last(), rows.kvs.last());
    let mut pieces = reader.range_pieces(pin, &all).unwrap();
    let mut streamed = Vec::new();
    while let Some(piece) = reader.next_piece(pin, &mut pieces, 300).unwrap() {
        streamed.extend(streamed_rows(piece.rows));
    }
    assert_eq!(streamed, rows.kvs);
    true
}

#[test]
fn reads_see_whole_revisions_while_others_write_and_compact() {
    let mut member = Member::new();
    member.kv(whole_revision(0)).unwrap();
    let (reader, done) = (member.reader().clone(), AtomicBool::new(false));
    let mut compactor = member.state.compactor();
    thread::scope(|scope| {
        for step in 0..3 {
            let (reader, done) = (reader.clone(), &done);
            scope.spawn(move || {
                let (mut reads, mut refused) = (0, 0);
                while !done.load(Ordering::Relaxed) || reads == 0 {
                    let back = step * (reads % 7);
                    match reader.pin(&Authorizer::default().own(), (reader.revision() - back).max(2)) {
                        Ok(pin) => assert!(one_whole_revision(&reader, &pin), "no pin is held long enough to expire"),
                        Err(error) => {
                            assert_eq!(error, ApiError::Compacted);
                            refused += 1;
                        }
                    }
                    reads += 1;
                }
                assert!(reads > refused);
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                compactor.step(Duration::ZERO).unwrap();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match reader.hash_kv(0) {
                    Ok(hash) => assert_eq!(hash.hash_revision, hash.header_revision),
                    Err(error) => assert!(matches!(error, ReadError::Api(ApiError::Compacted)), "{error}"),
                }
            }
        });
        for round in 1..ROUNDS {
            let (revision, _) = member.kv(whole_revision(round)).unwrap();
            assert_eq!(revision, round as i64 + 2);
            if round % 5 == 0 {
                member.compact(revision - 3).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let hash = member.reader().hash_kv(0).unwrap();
    while compactor.step(Duration::ZERO).unwrap() != CompactionStep::Idle {}
    assert_eq!(member.reader().hash_kv(0).unwrap(), hash);
}

#[test]
fn a_hash_is_the_same_whenever_compaction_runs_beside_it() {
    let mut member = Member::new();
    for round in 0..30 {
        member.kv(whole_revision(round)).unwrap();
    }
    member.compact(25).unwrap();
    let expected: Vec<_> = (25..31).map(|revision| member.reader().hash_kv(revision).unwrap()).collect();
    let (reader, done) = (member.reader().clone(), AtomicBool::new(false));
    let mut compactor = member.state.compactor();
    thread::scope(|scope| {
        scope.spawn(|| {
            while compactor.step(Duration::ZERO).unwrap() != CompactionStep::Idle {}
            done.store(true, Ordering::Relaxed);
        });
        let mut rounds = 0;
        while !done.load(Ordering::Relaxed) || rounds == 0 {
            for (revision, expected) in (25..31).zip(&expected) {
                assert_eq!(reader.hash_kv(revision).unwrap(), *expected);
            }
            rounds += 1;
        }
    });
}

#[test]
fn a_hash_ends_however_many_revisions_it_covers() {
    let mut member = Member::new();
    let mut hashes = std::collections::BTreeSet::new();
    for round in 0..600 {
        let put = pb::PutRequest { key: "k".into(), value: round.to_string().into(), ..Default::default() };
        member.kv(Request::Put(put)).unwrap();
        hashes.insert(member.reader().hash_kv(0).unwrap().hash);
    }
    assert_eq!(hashes.len(), 600);
}
