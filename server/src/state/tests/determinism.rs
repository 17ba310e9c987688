//! The same log gives the same answers and the same stores, however it is cut into entries and batches.

use proptest::{collection::vec, prelude::*};
use semver::Version;

use super::*;
use crate::state::command::{COMMAND_LEVEL, RequestId, any_command};

/// What a member that was fed a log has to show for it.
#[derive(Debug, PartialEq)]
struct Shown {
    answers: Vec<(RequestId, Outcome)>,
    rows: Vec<Option<OpRows>>,
    contents: Vec<(Table, Bytes, Bytes)>,
}

fn lease_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (1..4i64).prop_map(|id| Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 })),
        (1..4i64).prop_map(|id| Request::LeaseRevoke { id, expired_in_term: None }),
        (1..4i64, 0..2u64).prop_map(|(id, term)| Request::LeaseRevoke { id, expired_in_term: Some(term) }),
        (1..4i64, 0..9i64).prop_map(|(id, remaining_ttl)| Request::LeaseCheckpoint(pb::LeaseCheckpointRequest {
            checkpoints: vec![pb::LeaseCheckpoint { id, remaining_ttl }],
        })),
        (0..3i32, 0..3i32, 7..9u64).prop_map(|(action, alarm, member_id)| {
            Request::Alarm(pb::AlarmRequest { action, alarm: if action == 2 { alarm } else { alarm % 2 }, member_id })
        }),
        (7..9u64).prop_map(|member| Request::PublishMember {
            member,
            name: "a".into(),
            client_urls: vec!["http://a".into()]
        }),
        Just(Request::ClusterVersion(Version::new(3, 7, 0))),
        (1..=COMMAND_LEVEL).prop_map(Request::CommandLevel),
        (-1..30i64).prop_map(|revision| Request::Compact(pb::CompactionRequest { revision, physical: false })),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let with_lease = (super::sequence::change(), 0..4i64).prop_map(|(mut op, lease)| {
        super::sequence::resolve(&mut op, 8);
        if let pb::request_op::Request::RequestPut(put) = &mut op
            && !put.ignore_lease
        {
            put.lease = lease;
        }
        super::sequence::request_of(op)
    });
    prop_oneof![3 => with_lease, 1 => lease_request()]
}

/// Feeds `requests` to a new member: `entries` tells how many go into each entry, `batches` how many entries into each call.
fn feed(requests: &[Request], entries: &[usize], batches: &[usize]) -> Shown {
    let mut member = Member::new();
    let mut log = Vec::new();
    let mut rest = requests;
    for size in entries.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (entry, after) = rest.split_at((*size).min(rest.len()));
        log.push(member.entry(entry.iter().cloned()));
        rest = after;
    }
    let (mut answers, mut rows) = (Vec::new(), Vec::new());
    let mut rest = &log[..];
    for size in batches.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (batch, after) = rest.split_at((*size).min(rest.len()));
        for answer in member.state.apply(batch).unwrap() {
            rows.push(match &answer.outcome {
                Ok(Reply::Kv { done, .. }) => Some(member.rows(done, answer.pin.as_ref())),
                _ => None,
            });
            answers.push((answer.id, answer.outcome));
        }
        rest = after;
        member.compaction_step(Duration::ZERO).unwrap();
    }
    // How far each entry reached is not the same; what it did is.
    member.compact_physically();
    let mut contents = contents(member.store.as_ref());
    contents.retain(|(table, key, _)| (*table, &key[..]) != (Table::Meta, b"applied"));
    Shown { answers, rows, contents }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn batching_changes_neither_answers_nor_stores(
        requests in vec(request(), 1..60),
        entries in vec(1..9usize, 1..5),
        batches in vec(1..9usize, 1..5),
    ) {
        let one_by_one = feed(&requests, &[1], &[1]);
        prop_assert_eq!(&feed(&requests, &entries, &batches), &one_by_one);
        prop_assert_eq!(&feed(&requests, &[requests.len()], &[1]), &one_by_one);
    }

    #[test]
    fn whatever_command_can_be_read_has_an_answer(commands in vec(any_command(), 1..20)) {
        let mut member = Member::new();
        let entry = member.entry(commands.into_iter().map(|command| command.request));
        member.state.apply(&[entry]).unwrap();
    }
}
