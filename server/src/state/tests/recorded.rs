//! Replays conversations with a genuine etcd 3.7.1 (testdata/recorded) and compares every answer, hashes included.
//!
//! A line is a step: method, request, status code, and the answer (headers reduced to their revision, streams merged)
//! or the status text; messages in base64, `-` for an empty one. Steps refused for the shape of the request never reach
//! the state and are passed over here.

use std::{fmt::Debug, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use pb::request_op;

use super::*;
use crate::store::{RocksOptions, RocksStore};

struct Step<'a> {
    method: &'a str,
    request: Bytes,
    code: i32,
    /// The answer, or the status text.
    expected: Bytes,
}

impl<'a> Step<'a> {
    fn parse(line: &'a str) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        let bytes =
            |word: &str| Bytes::from(if word == "-" { Vec::new() } else { BASE64_STANDARD.decode(word).unwrap() });
        Self { method: word(), request: bytes(word()), code: word().parse().unwrap(), expected: bytes(word()) }
    }

    fn request<M: Message + Default>(&self) -> M {
        M::decode(self.request.clone()).unwrap()
    }

    fn expected<M: Message + Default>(&self) -> Result<M, String> {
        match self.code {
            0 => Ok(M::decode(self.expected.clone()).unwrap()),
            _ => Err(self.error().to_owned()),
        }
    }

    fn error(&self) -> &str {
        std::str::from_utf8(&self.expected).unwrap()
    }

    /// Whether the step ended before it could reach the state.
    fn is_refused_for_its_shape(&self) -> bool {
        const SHAPE: &[&str] = &[
            "key is not provided",
            "value is provided",
            "lease is provided",
            "too many operations in txn request",
            "duplicate key given in txn request",
            "invalid sort option",
            "too large lease TTL",
        ];
        let unset_op =
            || self.error() == "etcdserver: key not found" && self.method == "Txn" && has_unset_op(&self.request());
        let stream = || self.method == "RangeStream" && self.code == 12;
        self.code != 0
            && (SHAPE.iter().any(|text| self.error() == format!("etcdserver: {text}")) || unset_op() || stream())
    }
}

fn has_unset_op(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        None => true,
        Some(request_op::Request::RequestTxn(nested)) => has_unset_op(nested),
        Some(_) => false,
    })
}

fn is_read(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| matches!(op.request, Some(request_op::Request::RequestRange(_))))
}

fn same<M: Debug + PartialEq>(got: Result<M, ApiError>, expected: Result<M, String>) -> Result<(), String> {
    match (got, expected) {
        (Ok(got), Ok(expected)) if got == expected => Ok(()),
        (Err(got), Err(expected)) if got.text() == expected => Ok(()),
        (got, expected) => Err(format!("expected {expected:?}\n     got {got:?}")),
    }
}

impl Member {
    fn play(&mut self, step: &Step<'_>) -> Result<(), String> {
        match step.method {
            "Range" => {
                let request = step.request();
                same(self.range(&request).map(|(revision, rows)| range_response(revision, &rows)), step.expected())
            }
            "RangeStream" => same(self.stream(&step.request()), step.expected()),
            "Put" => {
                let put = self.kv(Request::Put(step.request()));
                let got = put.map(|(revision, rows)| {
                    if let OpRows::Put { previous, .. } = rows {
                        put_response(revision, previous.as_ref())
                    } else {
                        unreachable!()
                    }
                });
                same(got, step.expected())
            }
            "DeleteRange" => {
                let delete = self.kv(Request::DeleteRange(step.request()));
                let got = delete.map(|(revision, rows)| match rows {
                    OpRows::DeleteRange { deleted, previous, .. } => delete_response(revision, deleted, &previous),
                    _ => unreachable!(),
                });
                same(got, step.expected())
            }
            "Txn" => {
                let txn: pb::TxnRequest = step.request();
                let done = if is_read(&txn) { self.read_txn(&txn) } else { self.kv(Request::Txn(txn)) };
                let got = done.map(|(revision, rows)| {
                    if let OpRows::Txn { succeeded, ops } = rows {
                        txn_response(header(revision), succeeded, &ops)
                    } else {
                        unreachable!()
                    }
                });
                same(got, step.expected())
            }
            "Compact" => {
                let outcome = self.outcome(Request::Compact(step.request()));
                let got = outcome.map(|reply| {
                    if let Reply::Compact { revision, .. } = reply {
                        pb::CompactionResponse { header: header(revision) }
                    } else {
                        unreachable!()
                    }
                });
                same(got, step.expected())
            }
            "HashKV" => {
                let request: pb::HashKvRequest = step.request();
                let got = self.reader().hash_kv(request.revision).unwrap();
                let header = header(got.header_revision);
                let got = pb::HashKvResponse {
                    header,
                    hash: got.hash,
                    compact_revision: got.compact_revision,
                    hash_revision: got.hash_revision,
                };
                same(Ok(got), step.expected())
            }
            _ => self.play_lease(step),
        }
    }

    fn play_lease(&mut self, step: &Step<'_>) -> Result<(), String> {
        let revision = self.reader().revision();
        match step.method {
            "LeaseGrant" => {
                let mut request: pb::LeaseGrantRequest = step.request();
                let expected = step.expected::<pb::LeaseGrantResponse>();
                if let Ok(expected) = &expected {
                    // What the member that accepts the request chooses.
                    (request.id, request.ttl) = (expected.id, expected.ttl);
                }
                let got = self.outcome(Request::LeaseGrant(request)).map(|reply| match reply {
                    Reply::Lease { revision, id, ttl } => {
                        pb::LeaseGrantResponse { header: header(revision), id, ttl, ..Default::default() }
                    }
                    _ => unreachable!(),
                });
                same(got, expected)
            }
            "LeaseRevoke" => {
                let request: pb::LeaseRevokeRequest = step.request();
                let got =
                    self.outcome(Request::LeaseRevoke { id: request.id, expired_in_term: None }).map(
                        |reply| match reply {
                            Reply::Lease { revision, .. } => pb::LeaseRevokeResponse { header: header(revision) },
                            _ => unreachable!(),
                        },
                    );
                same(got, step.expected())
            }
            "LeaseTimeToLive" => {
                let request: pb::LeaseTimeToLiveRequest = step.request();
                let leases = self.state.views().leases;
                let mut expected: pb::LeaseTimeToLiveResponse = step.expected().unwrap();
                expected.keys.sort();
                let got = match leases.get(request.id) {
                    None => pb::LeaseTimeToLiveResponse {
                        header: header(revision),
                        id: request.id,
                        ttl: -1,
                        ..Default::default()
                    },
                    Some(lease) => pb::LeaseTimeToLiveResponse {
                        header: header(revision),
                        id: request.id,
                        ttl: expected.ttl,
                        granted_ttl: lease.ttl,
                        keys: if request.keys { leases.keys(request.id) } else { Vec::new() },
                    },
                };
                same(Ok(got), Ok(expected))
            }
            "LeaseLeases" => {
                let expected: pb::LeaseLeasesResponse = step.expected().unwrap();
                let mut ids: Vec<_> = expected.leases.iter().map(|lease| lease.id).collect();
                ids.sort_unstable();
                let own: Vec<_> = self.state.views().leases.all().iter().map(|lease| lease.id).collect();
                same(Ok((header(revision), own)), Ok((expected.header, ids)))
            }
            // Renewing is the leader's clock's business.
            "LeaseKeepAlive" => Ok(()),
            other => panic!("unknown method {other}"),
        }
    }

    fn stream(&mut self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, ApiError> {
        let pin = self.reader().pin(&Authorizer::default().own(), request.revision)?;
        let mut merged = Rows::default();
        let mut pieces = self.reader().range_pieces(&pin, request).unwrap();
        while let Some(piece) =
            self.reader().next_piece(&pin, &mut pieces, if request.sort_target == 0 { 64 } else { 1 << 20 }).unwrap()
        {
            assert!(merged.count == 0, "nothing follows the last piece");
            merged.kvs.extend(streamed_rows(piece.rows));
            (merged.count, merged.more) = piece.last.unwrap_or_default();
        }
        Ok(range_response(pin.header_revision(), &merged))
    }

    fn read_txn(&self, txn: &pb::TxnRequest) -> Result<(i64, OpRows), ApiError> {
        let pin = self.reader().pin(&Authorizer::default().own(), 0)?;
        match self.reader().read_txn(&pin, txn) {
            Err(ReadError::Api(error)) => Err(error),
            rows => Ok((pin.header_revision(), rows.unwrap())),
        }
    }
}

/// Plays a recording; `drive` is called after every step.
fn replay_on(store: Arc<dyn Store>, path: &Path, drive: &mut dyn FnMut(usize, &mut Member)) -> usize {
    let text = std::fs::read_to_string(path).unwrap();
    let mut member = Member::on(store);
    let mut hashes = 0;
    for (number, line) in text.lines().enumerate() {
        let step = Step::parse(line);
        if !step.is_refused_for_its_shape() {
            if let Err(difference) = member.play(&step) {
                panic!("{} step {}, {} {:?}:\n{difference}", path.display(), number + 1, step.method, step.request);
            }
            hashes += usize::from(step.method == "HashKV");
        }
        drive(number, &mut member);
    }
    hashes
}

fn replay(path: &Path, drive: &mut dyn FnMut(usize, &mut Member)) -> usize {
    replay_on(Arc::new(MemStore::new()), path, drive)
}

fn recordings() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/state/testdata/recorded");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

#[test]
fn recorded_conversations_replay_with_compaction_at_once() {
    let hashes: usize =
        recordings().iter().map(|path| replay(path, &mut |_, member| member.compact_physically())).sum();
    assert!(hashes > 0);
}

#[test]
fn recorded_conversations_replay_without_compaction_ever_running() {
    for path in recordings() {
        replay(&path, &mut |_, _| {});
    }
}

#[test]
fn recorded_conversations_replay_with_compaction_lagging_behind() {
    for path in recordings() {
        replay(&path, &mut |number, member| {
            if number % 3 == 0 {
                member.compaction_step(Duration::ZERO).unwrap();
            }
        });
    }
}

#[test]
fn recorded_conversations_replay_over_crashes() {
    for path in recordings() {
        let store = Arc::new(MemStore::with_flushes(7, 20));
        replay_on(store.clone(), &path, &mut |number, member| {
            if number % 17 == 0 {
                member.compact_physically();
            }
            if number % 29 == 0 {
                store.crash();
                let before = std::mem::replace(member, Member::new());
                *member = before.restart(store.clone());
            }
        });
    }
}

#[test]
fn recorded_conversations_replay_on_disk_over_restarts() {
    let options = RocksOptions::default();
    for (number, path) in recordings().iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let path_of = |name: &str| dir.path().join(name);
        let store = Arc::new(RocksStore::create(&path_of("state"), &options).unwrap());
        replay_on(store, path, &mut |step, member| {
            if (step + number) % 50 == 0 {
                member.compact_physically();
            }
            if (step + number) % 150 == 149 {
                // One process has a store open at a time.
                let before = std::mem::replace(member, Member::new());
                let before = before.close();
                let store = RocksStore::open(&path_of("state"), &options).unwrap();
                *member = before.open(Arc::new(store));
            }
        });
    }
}
