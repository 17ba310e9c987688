//! Snapshots from one directory to another, cut anywhere.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use cairn_proto::{
    authpb::User,
    etcdserverpb::{Member, PutRequest},
};
use prost::Message;
use tempfile::TempDir;

use super::*;
use crate::{
    log::EntryId,
    node::ReceivedMetrics,
    raft::Offer,
    state::{
        Committed, CommittedData, Membership, State, StateOptions,
        auth::Actor,
        command::{COMMAND_LEVEL, Command, EntryBuilder, Request, RequestId, encode},
        is_installing,
        mvcc::{ImageOptions, revision::Revision},
        record,
    },
    store::{Batch, RocksOptions, RocksStore, StateDir, Store, Table},
};

const CLUSTER: u64 = 7;

/// A member's directory with a state of some size in it.
struct Bench {
    dir: TempDir,
    store: Arc<dyn Store>,
    state_dir: Option<StateDir>,
}

impl Bench {
    fn new(cluster: u64, keys: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (state_dir, store) = StateDir::open(dir.path(), &RocksOptions::default()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let mut state = State::open(Arc::clone(&store), StateOptions::default()).unwrap();
        let members = vec![Member { id: 1, ..Member::default() }, Member { id: 2, ..Member::default() }];
        state.bootstrap(&Membership { cluster_id: cluster, members }, 1, 1).unwrap();
        for key in 0..keys {
            let mut batch = Batch::default();
            // Nothing that could be compressed.
            let password: Vec<u8> = (0..1000).map(|_| rand::random()).collect();
            let user = User { password: password.into(), ..User::default() };
            batch.put(Table::Auth, record::auth::user_key(&key.to_string()), user.encode_to_vec());
            store.write(&batch).unwrap();
            if key % 100 == 99 {
                store.flush().unwrap();
            }
        }
        Self { dir, store, state_dir: Some(state_dir) }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn outgoing(&self) -> (Outgoing, Offer) {
        let outgoing = Outgoing::new(self.path(), &RocksOptions::default()).unwrap();
        let meta = outgoing.make(self.store.as_ref()).unwrap();
        assert_eq!((meta.last, &meta.conf_state.voters[..]), (EntryId::new(1, 1), &[1, 2][..]));
        (outgoing, Offer { from: 1, id: meta.id, last: meta.last })
    }

    fn installer(&mut self) -> Installer {
        let state_dir = self.state_dir.take().unwrap();
        let (rocks, options) = (RocksOptions::default(), StateOptions::default());
        Installer::new(self.path(), state_dir, CLUSTER, &rocks, &options, ReceivedMetrics::default())
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap())).collect()
}

/// Moves at most so many pieces; whether that was all.
fn transfer(outgoing: &Outgoing, incoming: &mut Incoming, pieces_max: usize) -> bool {
    let mut reading = outgoing.read(incoming.offer().id, &incoming.held().unwrap()).unwrap();
    incoming.expect(reading.files().to_vec()).unwrap();
    for _ in 0..pieces_max {
        match reading.next_piece(10_000).unwrap() {
            Some(piece) => incoming.take(&piece).unwrap(),
            None => return true,
        }
    }
    false
}

#[test]
fn a_transfer_that_is_cut_again_and_again_goes_on_where_it_was() {
    let (sender, receiver) = (Bench::new(CLUSTER, 450), tempfile::tempdir().unwrap());
    let (outgoing, offer) = sender.outgoing();
    let mut cuts = 0;
    // Each time as after the receiver's process was killed.
    while !transfer(&outgoing, &mut Incoming::begin(receiver.path(), offer, ReceivedMetrics::default()).unwrap(), 7) {
        cuts += 1;
        assert!(cuts < 100, "it does not get on");
    }
    assert!(cuts >= 5, "{cuts}");
    let dir = format!("incoming-{:016x}", offer.id);
    let (sent, arrived) =
        (files(&sender.path().join(format!("outgoing-{:016x}", offer.id))), files(&receiver.path().join(dir)));
    let names: Vec<_> = arrived.keys().collect();
    assert!(names.iter().any(|name| name.contains(".sst")) && !names.iter().any(|name| name.contains(".part")));
    assert!(arrived.iter().all(|(name, bytes)| sent[name] == *bytes));
    // Another snapshot has no use for what there is of this one.
    let other =
        Incoming::begin(receiver.path(), Offer { id: offer.id + 1, ..offer }, ReceivedMetrics::default()).unwrap();
    assert_eq!(other.held().unwrap(), []);
    assert_eq!(fs::read_dir(receiver.path()).unwrap().count(), 1);
}

#[test]
fn damage_on_the_way_or_on_the_disk_is_found_and_that_file_comes_again() {
    let (sender, receiver) = (Bench::new(CLUSTER, 450), tempfile::tempdir().unwrap());
    let (outgoing, offer) = sender.outgoing();
    let mut incoming = Incoming::begin(receiver.path(), offer, ReceivedMetrics::default()).unwrap();
    let mut reading = outgoing.read(offer.id, &[]).unwrap();
    incoming.expect(reading.files().to_vec()).unwrap();
    let mut found = 0;
    while let Some(mut piece) = reading.next_piece(10_000).unwrap() {
        let ends = piece.crc.is_some();
        if ends && !piece.data.is_empty() && found == 0 {
            let mut data = piece.data.to_vec();
            data[0] ^= 1;
            piece.data = data.into();
            assert!(incoming.take(&piece).unwrap_err().to_string().contains("another checksum"));
            found += 1;
            break;
        }
        incoming.take(&piece).unwrap();
    }
    assert_eq!(found, 1);
    // Half a file, whose bytes the power failure turned into zeros.
    transfer(&outgoing, &mut incoming, 3);
    drop(incoming);
    let mut incoming = Incoming::begin(receiver.path(), offer, ReceivedMetrics::default()).unwrap();
    while !incoming.held().unwrap().iter().any(|held| !held.complete && held.file.bytes > 0) {
        transfer(&outgoing, &mut incoming, 1);
    }
    let part = files(&receiver.path().join(format!("incoming-{:016x}", offer.id)))
        .into_iter()
        .find(|(name, _)| name.contains(".part"))
        .unwrap();
    let path = receiver.path().join(format!("incoming-{:016x}", offer.id)).join(&part.0);
    fs::write(&path, vec![0; part.1.len()]).unwrap();
    let mut incoming = Incoming::begin(receiver.path(), offer, ReceivedMetrics::default()).unwrap();
    let mut reading = outgoing.read(offer.id, &incoming.held().unwrap()).unwrap();
    incoming.expect(reading.files().to_vec()).unwrap();
    let refused = loop {
        let piece = reading.next_piece(10_000).unwrap().expect("the damage is found before the end");
        if let Err(error) = incoming.take(&piece) {
            break error.to_string();
        }
    };
    assert!(refused.contains("another checksum"), "{refused}");
    assert!(transfer(&outgoing, &mut incoming, usize::MAX) && incoming.is_complete());
}

#[test]
fn nonsense_is_refused_and_touches_nothing_outside() {
    let receiver = tempfile::tempdir().unwrap();
    let offer = Offer { from: 1, id: 5, last: EntryId::new(3, 2) };
    let mut incoming = Incoming::begin(receiver.path(), offer, ReceivedMetrics::default()).unwrap();
    let file = |name: &str, bytes| SnapshotFile { name: name.to_owned(), bytes };
    for name in ["", ".", "..", "../CURRENT", "a/b", "/etc/passwd", "x.part", "a\0b", &"x".repeat(256)] {
        assert!(incoming.expect(vec![file(name, 1)]).is_err(), "{name:?}");
    }
    assert!(incoming.expect(Vec::new()).is_err());
    assert!(incoming.expect(vec![file("b", 1), file("a", 1)]).is_err());
    assert!(incoming.expect(vec![file("a", 1), file("a", 1)]).is_err());
    incoming.expect(vec![file("a", 4), file("b", 1)]).unwrap();
    let piece = |file, offset, data: &'static [u8], crc| Piece { file, offset, data: data.into(), crc };
    for bad in [
        piece(2, 0, b"1", None),
        piece(0, 1, b"1", None),
        piece(0, 0, b"12345", None),
        piece(0, 0, b"1234", None),
        piece(0, 0, b"12", Some(1)),
    ] {
        assert!(incoming.take(&bad).is_err(), "{bad:?}");
    }
    incoming.take(&piece(0, 0, b"12", None)).unwrap();
    assert!(incoming.take(&piece(1, 0, b"1", None)).is_err(), "the first one is not whole");
    assert!(!incoming.is_complete());
    assert!(incoming.move_to(&receiver.path().join("state-2")).is_err());
    assert_eq!(fs::read_dir(receiver.path()).unwrap().count(), 1);
}

#[test]
fn a_whole_snapshot_becomes_the_state_and_the_old_one_goes_when_nobody_reads_it() {
    let (sender, mut receiver) = (Bench::new(CLUSTER, 10), Bench::new(CLUSTER, 0));
    let (outgoing, offer) = sender.outgoing();
    let installer = receiver.installer();
    let mut incoming = installer.begin(offer).unwrap();
    assert!(transfer(&outgoing, &mut incoming, usize::MAX));
    let received = installer.open(incoming).unwrap();
    assert_eq!(received.meta.last, offer.last);
    // Killed here, nothing has happened.
    assert_eq!(fs::read_to_string(receiver.path().join("CURRENT")).unwrap(), "state-1\n");
    installer.switch(&received, &receiver.store).unwrap();
    assert_eq!(fs::read_to_string(receiver.path().join("CURRENT")).unwrap(), "state-2\n");
    let store = Arc::clone(received.state.store());
    assert_eq!(is_installing(store.as_ref()).unwrap(), Some(offer.last));
    assert!(store.get(Table::Auth, &record::auth::user_key("3")).unwrap().unwrap().len() > 1000);
    installer.clean();
    installer.clean();
    let old = receiver.path().join("state-1");
    assert!(old.exists(), "somebody reads it");
    drop(std::mem::replace(&mut receiver.store, store));
    installer.clean();
    assert!(old.exists(), "its store may just be closing");
    installer.clean();
    assert!(!old.exists() && receiver.path().join("state-2").exists());
}

#[test]
fn the_index_image_comes_along_and_spares_reading_what_it_has() {
    const KEYS: u64 = 50;
    let (sender, mut receiver) = (Bench::new(CLUSTER, 0), Bench::new(CLUSTER, 0));
    let image = ImageOptions { revisions_min: 2, ..ImageOptions::default() };
    let options = StateOptions { image, ..StateOptions::default() };
    let mut state = State::open(Arc::clone(&sender.store), options).unwrap();
    let mut entry = EntryBuilder::new();
    for counter in 1..=KEYS {
        let put = PutRequest { key: counter.to_string().into(), value: "value".into(), ..PutRequest::default() };
        let id = RequestId { member: 1, nonce: 1, counter };
        let command = Command { id, actor: Actor::Anonymous, request: Request::Put(put) };
        assert!(entry.push(&encode(&command, COMMAND_LEVEL)));
    }
    let data = CommittedData::Commands(entry.finish().into());
    state.apply(&[Committed { index: 2, term: 1, data }]).unwrap();
    assert!(state.compactor().write_image(Duration::ZERO).unwrap());
    // Without the image, this key would be gone.
    let mut batch = Batch::default();
    batch.delete(Table::Rev, Revision::new(2, 0).key(false));
    sender.store.write(&batch).unwrap();

    let outgoing = Outgoing::new(sender.path(), &RocksOptions::default()).unwrap();
    let meta = outgoing.make(sender.store.as_ref()).unwrap();
    let installer = receiver.installer();
    let mut incoming = installer.begin(Offer { from: 1, id: meta.id, last: meta.last }).unwrap();
    assert!(transfer(&outgoing, &mut incoming, usize::MAX));
    let received = installer.open(incoming).unwrap();
    assert_eq!((received.meta.last, received.state.reader().live_keys()), (EntryId::new(2, 1), KEYS));
}

#[test]
fn a_snapshot_of_another_cluster_or_another_entry_is_not_installed() {
    let (sender, mut receiver) = (Bench::new(CLUSTER + 1, 1), Bench::new(CLUSTER, 0));
    let (outgoing, offer) = sender.outgoing();
    let installer = receiver.installer();
    for offer in [offer, Offer { last: EntryId::new(9, 1), ..offer }] {
        let mut incoming = installer.begin(offer).unwrap();
        assert!(transfer(&outgoing, &mut incoming, usize::MAX));
        let refused = installer.open(incoming).unwrap_err().to_string();
        assert!(refused.contains("was offered"), "{refused}");
    }
    let left: Vec<_> = fs::read_dir(receiver.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "CURRENT and state-1 are left: {left:?}");
}

#[test]
fn a_checkpoint_goes_with_its_last_reader_and_at_the_next_start() {
    let sender = Bench::new(CLUSTER, 10);
    let (outgoing, offer) = sender.outgoing();
    let dir = sender.path().join(format!("outgoing-{:016x}", offer.id));
    let reading = outgoing.read(offer.id, &[]).unwrap();
    outgoing.discard(offer.id);
    assert!(dir.exists() && outgoing.read(offer.id, &[]).is_none());
    drop(reading);
    assert!(!dir.exists());
    fs::create_dir(&dir).unwrap();
    Outgoing::new(sender.path(), &RocksOptions::default()).unwrap();
    assert!(!dir.exists());
    drop(RocksStore::open_read_only(&sender.path().join("state-1"), &RocksOptions::default()).unwrap());
}
