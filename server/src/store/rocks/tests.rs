use std::{ops::ControlFlow, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::store::MemStore;

fn open() -> (tempfile::TempDir, RocksStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::create(&dir.path().join("store"), &RocksOptions::default()).unwrap();
    (dir, store)
}

fn batch(ops: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::default();
    ops(&mut batch);
    batch
}

/// A copy of the files as they are at one moment, as a crash of the process would leave them.
fn crash_image(store: &RocksStore, to: &Path) {
    loop {
        fs::create_dir_all(to).unwrap();
        let manifests = || {
            let read = |path: PathBuf| Some((fs::read(&path).ok()?, path));
            files(store.path(), "MANIFEST-", "").into_iter().filter_map(read).collect::<Vec<_>>()
        };
        let before = manifests();
        for path in files(store.path(), "", ".sst") {
            // A file may go away meanwhile: then the manifest changes too.
            let _ = fs::hard_link(&path, to.join(path.file_name().unwrap()));
        }
        fs::copy(store.path().join("CURRENT"), to.join("CURRENT")).unwrap();
        if before == manifests() {
            for (bytes, path) in before {
                fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
            }
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

fn rows(store: &dyn Store, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    store
        .scan(table, b"", None, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn a_crash_leaves_exactly_a_prefix_of_the_batches_in_all_tables() {
    let (dir, _) = open();
    let options = RocksOptions { memtable_bytes: 64 << 10, ..RocksOptions::default() };
    let store = RocksStore::create(&dir.path().join("small"), &options).unwrap();
    let mut images = Vec::new();
    let batches: u64 = 2000;
    for number in 1..=batches {
        let batch = batch(|batch| {
            batch.put(Table::Rev, number.to_be_bytes().to_vec(), vec![7; 200]);
            batch.put(Table::Lease, (number % 5).to_be_bytes().to_vec(), number.to_be_bytes().to_vec());
            batch.put(Table::Meta, &b"applied"[..], number.to_be_bytes().to_vec());
        });
        while let Err(error) = store.write(&batch) {
            assert!(error.is_transient(), "{error}");
            std::thread::yield_now();
        }
        if number % 500 == 0 {
            let image = dir.path().join(format!("image-{number}"));
            crash_image(&store, &image);
            images.push((number, image));
        }
    }
    let mut persisted = Vec::new();
    for (written, image) in images {
        let store = RocksStore::open(&image, &options).unwrap();
        let applied = store
            .get(Table::Meta, b"applied")
            .unwrap()
            .map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
        assert!(applied <= written);
        let revisions: Vec<_> = rows(&store, Table::Rev).into_iter().map(|(key, _)| key).collect();
        assert_eq!(revisions, (1..=applied).map(|number| number.to_be_bytes().to_vec()).collect::<Vec<_>>());
        for (key, value) in rows(&store, Table::Lease) {
            let slot = u64::from_be_bytes(key.try_into().unwrap());
            let newest = (applied.saturating_sub(4)..=applied).find(|number| number % 5 == slot).unwrap();
            assert_eq!(value, newest.to_be_bytes());
        }
        persisted.push(applied);
    }
    assert!(persisted.iter().any(|applied| *applied > 0), "no flush happened: {persisted:?}");
}

#[test]
fn only_flushed_values_count_as_persisted() {
    let (_dir, store) = open();
    store.write(&batch(|batch| batch.put(Table::Meta, &b"applied"[..], &b"1"[..]))).unwrap();
    assert_eq!(store.get_persisted(Table::Meta, b"applied").unwrap(), None);
    assert!(store.unflushed_bytes() > 0);
    store.flush().unwrap();
    store.write(&batch(|batch| batch.put(Table::Meta, &b"applied"[..], &b"2"[..]))).unwrap();
    assert_eq!(store.get_persisted(Table::Meta, b"applied").unwrap().unwrap(), "1");
    assert_eq!(store.get(Table::Meta, b"applied").unwrap().unwrap(), "2");
}

#[test]
fn a_cached_read_answers_from_memory_or_says_that_it_cannot() {
    let (_dir, store) = open();
    let key = 5_u64.to_be_bytes();
    store.write(&batch(|batch| batch.put(Table::Rev, key.to_vec(), &b"value"[..]))).unwrap();
    assert_eq!(store.get_cached(Table::Rev, &key).unwrap(), Cached::Known(Some(Bytes::from_static(b"value"))));
    store.flush().unwrap();
    assert_eq!(store.get_cached(Table::Rev, &key).unwrap(), Cached::OnDisk);
    assert!(store.get(Table::Rev, &key).unwrap().is_some());
    assert_eq!(store.get_cached(Table::Rev, &key).unwrap(), Cached::Known(Some(Bytes::from_static(b"value"))));
}

#[test]
fn a_checkpoint_is_a_whole_store_of_its_own() {
    let (dir, store) = open();
    store.write(&batch(|batch| batch.put(Table::Meta, &b"applied"[..], &b"1"[..]))).unwrap();
    let file = |bytes: &[u8]| {
        let mut file = store.create_file("image").unwrap();
        file.write(bytes).unwrap();
        file.finish().unwrap();
    };
    file(b"of then");
    let (copy, bare) = (dir.path().join("copy"), dir.path().join("bare"));
    store.checkpoint(&copy, &["image", "missing"]).unwrap();
    assert!(store.checkpoint(&copy, &[]).is_err(), "an existing directory was taken");
    store.checkpoint(&bare, &[]).unwrap();
    file(b"of later");
    store.write(&batch(|batch| batch.put(Table::Meta, &b"applied"[..], &b"2"[..]))).unwrap();
    let copy = RocksStore::open(&copy, &RocksOptions::default()).unwrap();
    assert_eq!(copy.get(Table::Meta, b"applied").unwrap().unwrap(), "1");
    let mut bytes = Vec::new();
    copy.open_file("image").unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"of then");
    assert!(copy.open_file("missing").unwrap().is_none());
    assert!(RocksStore::open(&bare, &RocksOptions::default()).unwrap().open_file("image").unwrap().is_none());
}

/// Writes `count` values of 1 KiB from revision `first` on.
fn load(store: &RocksStore, first: u64, count: u64) {
    for start in (first..first + count).step_by(64) {
        let batch = batch(|batch| {
            for revision in start..(start + 64).min(first + count) {
                // No two blocks alike, or compression would hide the sizes.
                let value: Vec<u8> = (0..128)
                    .flat_map(|n: u64| (n ^ revision).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
                    .collect();
                batch.put(Table::Rev, revision.to_be_bytes().to_vec(), value);
            }
        });
        while let Err(error) = store.write(&batch) {
            assert!(error.is_transient(), "{error}");
            std::thread::yield_now();
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "RocksDB's threads run on the real clock")]
fn removed_revisions_give_their_space_back_unasked() {
    let (_dir, store) = open();
    let count = 40_000;
    load(&store, 0, count);
    store.flush().unwrap();
    let before = store.size().unwrap().total;
    assert!(before > 40_000_000, "{before}");
    for start in (0..count).step_by(512) {
        let batch = batch(|batch| {
            for revision in (start..(start + 512).min(count)).filter(|revision| revision % 10 != 0) {
                batch.single_delete(Table::Rev, revision.to_be_bytes().to_vec());
            }
        });
        store.write(&batch).unwrap();
    }
    store.flush().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while store.size().unwrap().total > before / 5 {
        assert!(std::time::Instant::now() < deadline, "{before} bytes became only {:?}", store.size());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(rows(&store, Table::Rev).len() as u64, count / 10);
}

#[test]
fn full_buffers_stall_the_writer_and_take_the_batch_later() {
    let dir = tempfile::tempdir().unwrap();
    let options = RocksOptions { memtable_bytes: 64 << 10, ..RocksOptions::default() };
    let store = Arc::new(RocksStore::create(&dir.path().join("store"), &options).unwrap());
    let mut stalls = 0;
    for number in 0_u64..4_000 {
        let batch = batch(|batch| batch.put(Table::Rev, number.to_be_bytes().to_vec(), vec![1; 1000]));
        while let Err(error) = store.write(&batch) {
            assert!(error.is_transient(), "{error}");
            stalls += 1;
            std::thread::yield_now();
        }
    }
    assert!(stalls > 0, "4 MB went through 64 KiB buffers without a stall");
    assert_eq!(rows(&*store, Table::Rev).len(), 4_000);
}

#[test]
fn a_failed_background_write_is_fatal_to_the_next_write() {
    let (dir, store) = open();
    load(&store, 0, 100);
    // New files have no place to go to any more.
    fs::rename(store.path(), dir.path().join("elsewhere")).unwrap();
    let flushed = store.flush();
    assert!(matches!(flushed, Err(StoreError::Engine { .. })), "{flushed:?}");
    let written = store.write(&batch(|batch| batch.put(Table::Meta, &b"a"[..], &b"1"[..])));
    assert!(matches!(written, Err(StoreError::Engine { .. })), "{written:?}");
}

fn unusable(result: Result<RocksStore, StoreError>) -> String {
    match result {
        Err(error @ StoreError::Unusable { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

fn files(dir: &Path, starts: &str, ends: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(starts) && name.ends_with(ends)
    };
    names.filter(fits).collect()
}

#[test]
fn a_store_that_lost_a_file_is_refused() {
    for (starts, ends) in [("CURRENT", ""), ("MANIFEST-", ""), ("", ".sst")] {
        let (_dir, store) = open();
        load(&store, 0, 1000);
        store.flush().unwrap();
        let path = store.path().to_owned();
        drop(store);
        let lost = files(&path, starts, ends);
        assert!(!lost.is_empty(), "no file {starts}*{ends}");
        fs::remove_file(&lost[0]).unwrap();
        let error = unusable(RocksStore::open(&path, &RocksOptions::default()));
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_damaged_block_is_an_error_not_a_value() {
    let (_dir, store) = open();
    load(&store, 0, 1000);
    store.flush().unwrap();
    let path = store.path().to_owned();
    drop(store);
    for file in files(&path, "", ".sst") {
        let mut bytes = fs::read(&file).unwrap();
        if bytes.len() > 100_000 {
            bytes[50_000] ^= 0x10;
            fs::write(&file, bytes).unwrap();
        }
    }
    let store = RocksStore::open(&path, &RocksOptions::default()).unwrap();
    let read: Result<Vec<_>, _> =
        (0..1000_u64).map(|revision| store.get(Table::Rev, &revision.to_be_bytes())).collect();
    assert!(matches!(read, Err(StoreError::Engine { .. })));
    let scan = store.scan(Table::Rev, b"", None, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(scan, Err(StoreError::Engine { .. })));
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = RocksOptions::default();
    unusable(RocksStore::open(&dir.path().join("missing"), &options));
    fs::write(dir.path().join("diary"), "dear").unwrap();
    unusable(RocksStore::open(dir.path(), &options));
    unusable(RocksStore::create(dir.path(), &options));

    let foreign = dir.path().join("foreign");
    drop(DB::open_default(&foreign).unwrap());
    assert!(unusable(RocksStore::open(&foreign, &options)).contains("another program"));
}

#[test]
fn a_newer_layout_is_refused() {
    let (_dir, store) = open();
    store.db.put_opt(LAYOUT_KEY, (LAYOUT + 1).to_be_bytes(), &store.write).unwrap();
    store.flush().unwrap();
    let path = store.path().to_owned();
    drop(store);
    assert!(unusable(RocksStore::open(&path, &RocksOptions::default())).contains("newer"));
}

#[test]
fn a_second_opener_is_refused() {
    let (_dir, store) = open();
    assert!(unusable(RocksStore::open(store.path(), &RocksOptions::default())).contains("open"));
}

/// One step of the comparison with [`MemStore`].
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, Table, u8, Vec<u8>)>),
    Flush,
    Compact,
    Crash,
    Get(Table, u8),
    Scan(Table, u8, Option<u8>, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let table = || proptest::sample::select(&Table::ALL[..]);
    let op = (0..3_u8, table(), 0..20_u8, proptest::collection::vec(any::<u8>(), 0..40));
    prop_oneof![
        6 => proptest::collection::vec(op, 0..8).prop_map(Step::Write),
        1 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Crash),
        4 => (table(), 0..20_u8).prop_map(|(table, key)| Step::Get(table, key)),
        3 => (table(), 0..20_u8, proptest::option::of(0..22_u8), 1..30_usize).prop_map(|(t, from, to, max)| Step::Scan(t, from, to, max)),
    ]
}

fn scan(store: &dyn Store, table: Table, from: u8, to: Option<u8>, max: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let to = to.map(|to| [to]);
    store
        .scan(table, &[from], to.as_ref().map(|to| &to[..]), &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            if rows.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn both_stores_behave_the_same(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let options = RocksOptions::default();
        let mut rocks = RocksStore::create(&dir.path().join("0"), &options).unwrap();
        let mem = MemStore::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(ops) => {
                    let batch = batch(|batch| {
                        for (kind, table, key, value) in ops {
                            match kind {
                                0 | 1 => batch.put(table, vec![key], value),
                                _ => batch.delete(table, vec![key]),
                            }
                        }
                    });
                    rocks.write(&batch).unwrap();
                    mem.write(&batch).unwrap();
                }
                Step::Flush => {
                    rocks.flush().unwrap();
                    mem.flush().unwrap();
                }
                Step::Compact => {
                    rocks.compact().unwrap();
                    mem.compact().unwrap();
                }
                Step::Crash => {
                    let image = dir.path().join(format!("{}", number + 1));
                    crash_image(&rocks, &image);
                    rocks = RocksStore::open(&image, &options).unwrap();
                    mem.crash();
                }
                Step::Get(table, key) => {
                    let key = &[key][..];
                    let value = mem.get(table, key).unwrap();
                    prop_assert_eq!(&rocks.get(table, key).unwrap(), &value);
                    prop_assert_eq!(rocks.get_persisted(table, key).unwrap(), mem.get_persisted(table, key).unwrap());
                    let expected = [value.clone(), None, value.clone()];
                    prop_assert_eq!(&rocks.multi_get(table, &[key, b"none", key], number % 2 == 0).unwrap(), &expected);
                    prop_assert_eq!(&rocks.multi_get(table, &[key, key], number % 2 == 0).unwrap(), &[value.clone(), value.clone()]);
                    if let Cached::Known(cached) = rocks.get_cached(table, key).unwrap() {
                        prop_assert_eq!(cached, value);
                    }
                }
                Step::Scan(table, from, to, max) => {
                    prop_assert_eq!(scan(&rocks, table, from, to, max), scan(&mem, table, from, to, max));
                }
            }
        }
        for table in Table::ALL {
            prop_assert_eq!(rows(&rocks, table), rows(&mem, table));
        }
    }
}
