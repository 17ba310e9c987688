//! The log thread.

use std::io::ErrorKind;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::*;
use crate::log::{
    Batch, Change, Disk, DiskFile, EntryId, EntryReader, Fault, LogEvent, LogStopped, LogThread, LogThreadOptions,
    SyncReport, SyncTimes, Terms,
};

const DEADLINE: Duration = Duration::from_secs(30);

struct Started {
    thread: LogThread,
    events: Receiver<LogEvent>,
    syncs: Receiver<SyncReport>,
}

fn start(log: Box<dyn LogStore>) -> Started {
    let (event_sender, events) = crossbeam_channel::unbounded();
    let (sync_sender, syncs) = crossbeam_channel::unbounded();
    let thread = LogThread::start(
        log,
        LogThreadOptions::default(),
        Box::new(move |event| event_sender.send(event).unwrap()),
        Box::new(move |report| sync_sender.send(report).unwrap()),
    )
    .unwrap();
    Started { thread, events, syncs }
}

impl Started {
    /// The numbers reported as synced, up to `last`.
    fn synced_up_to(&self, last: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.last() != Some(&last) {
            match self.events.recv_timeout(DEADLINE).unwrap() {
                LogEvent::Synced { number } => numbers.push(number),
                other => panic!("{other:?}"),
            }
        }
        numbers
    }
}

fn batch(number: u64, index: u64) -> Batch {
    Batch {
        number,
        entries: Arc::new([kib_entry(index, 1)]),
        hard_state: Some(hard_state(1, 1, index - 1)),
        must_sync: true,
        reset: None,
    }
}

#[test]
fn batches_are_reported_in_order_and_are_durable_by_then() {
    let disk = SimDisk::new(1);
    let started = start(Box::new(open(&disk, 0).unwrap().0));
    let sender = started.thread.sender();
    for index in 1..=100 {
        sender.append(batch(index, index)).unwrap();
    }
    let numbers = started.synced_up_to(100);
    assert!(numbers.is_sorted());
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.terms.last().index, 100);
    let reports: Vec<SyncReport> = started.syncs.try_iter().collect();
    assert_eq!(reports.len(), numbers.len());
    assert_eq!(reports.iter().map(|report| report.batches).sum::<u64>(), 100);
    assert!(reports.iter().all(|report| report.bytes > 0));
}

#[test]
fn a_batch_in_which_only_the_commit_index_moved_is_done_without_a_sync() {
    let disk = SimDisk::new(1);
    let started = start(Box::new(open(&disk, 0).unwrap().0));
    let sender = started.thread.sender();
    sender.append(batch(1, 1)).unwrap();
    started.synced_up_to(1);
    let operations = disk.operations();
    sender.append(Batch { number: 2, hard_state: Some(hard_state(1, 1, 1)), ..Batch::default() }).unwrap();
    assert_eq!(started.synced_up_to(2), [2]);
    assert_eq!(disk.operations(), operations);
    // A clean stop writes it.
    started.thread.stop();
    assert_eq!(open(&disk.kill(), 0).unwrap().1.hard_state.commit, 1);
}

#[test]
fn a_purge_is_done_between_batches_and_reported() {
    let disk = SimDisk::new(1);
    let started = start(Box::new(open(&disk, 0).unwrap().0));
    let sender = started.thread.sender();
    for index in 1..=40 {
        sender.append(batch(index, index)).unwrap();
        started.synced_up_to(index);
    }
    sender.purge(30).unwrap();
    match started.events.recv_timeout(DEADLINE).unwrap() {
        LogEvent::Purged { to, size_bytes } => assert!(to.index > 20 && to.index <= 30 && size_bytes < 40 << 10),
        other => panic!("{other:?}"),
    }
    sender.append(batch(41, 41)).unwrap();
    started.synced_up_to(41);
}

#[test]
fn a_failed_sync_is_reported_once_and_ends_the_thread() {
    let disk = SimDisk::new(1);
    let started = start(Box::new(open(&disk, 0).unwrap().0));
    let sender = started.thread.sender();
    sender.append(batch(1, 1)).unwrap();
    started.synced_up_to(1);
    disk.fault_at(disk.operations() + 2, Fault::Error(ErrorKind::Other));
    sender.append(batch(2, 2)).unwrap();
    match started.events.recv_timeout(DEADLINE).unwrap() {
        LogEvent::Failed(error) => assert!(error.to_string().contains("fdatasync"), "{error}"),
        other => panic!("{other:?}"),
    }
    started.thread.stop();
    assert_eq!(sender.append(batch(3, 3)), Err(LogStopped));
    assert_eq!(sender.purge(1), Err(LogStopped));
    assert!(started.events.try_recv().is_err(), "nothing is said after the failure");
}

/// A disk whose files take their time.
struct SlowDisk {
    disk: SimDisk,
    write: Duration,
    sync: Duration,
}

struct SlowFile {
    file: Arc<dyn DiskFile>,
    write: Duration,
    sync: Duration,
}

impl SlowDisk {
    fn slow(&self, file: std::io::Result<Arc<dyn DiskFile>>) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile { file: file?, write: self.write, sync: self.sync }))
    }
}

impl Disk for SlowDisk {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str, len: u64) -> std::io::Result<Arc<dyn DiskFile>> {
        self.slow(self.disk.create(name, len))
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        self.slow(self.disk.open(name))
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.disk.sync_dir()
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.disk.path(name)
    }
}

impl DiskFile for SlowFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        std::thread::sleep(self.write);
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn sync(&self) -> std::io::Result<()> {
        std::thread::sleep(self.sync);
        self.file.sync()
    }
    fn size(&self) -> std::io::Result<u64> {
        self.file.size()
    }
}

#[test]
fn the_write_of_a_batch_is_measured_apart_from_its_sync() {
    for times in [(20, 0), (0, 20)] {
        let (write, sync) = (Duration::from_millis(times.0), Duration::from_millis(times.1));
        let disk = SlowDisk { disk: SimDisk::new(1), write, sync };
        let log = Log::open(Arc::new(disk), &options(), 0).unwrap().0;
        assert_eq!(log.last_sync(), None);
        let started = start(Box::new(log));
        started.thread.sender().append(batch(1, 1)).unwrap();
        started.synced_up_to(1);
        let report = started.syncs.recv_timeout(DEADLINE).unwrap();
        assert!(report.times.write >= write && report.times.fdatasync >= sync, "{report:?}");
    }
}

#[test]
fn a_batch_that_changes_nothing_is_no_sync() {
    let started = start(Box::new(open(&SimDisk::new(1), 0).unwrap().0));
    let sender = started.thread.sender();
    sender.append(batch(1, 1)).unwrap();
    sender.append(Batch { number: 2, must_sync: true, ..Batch::default() }).unwrap();
    started.synced_up_to(2);
    assert_eq!(started.syncs.try_iter().count(), 1);
}

/// A log that panics when it is written to.
struct Panicking(Log);

impl LogStore for Panicking {
    fn stage(&mut self, _: &Change<'_>) -> Result<(), LogError> {
        panic!("on purpose");
    }
    fn needs_sync(&self) -> bool {
        self.0.needs_sync()
    }
    fn staged_bytes(&self) -> usize {
        self.0.staged_bytes()
    }
    fn sync(&mut self) -> Result<u64, LogError> {
        self.0.sync()
    }
    fn last_sync(&self) -> Option<SyncTimes> {
        self.0.last_sync()
    }
    fn purge(&mut self, index: u64) -> Result<EntryId, LogError> {
        self.0.purge(index)
    }
    fn terms(&self) -> &Terms {
        self.0.terms()
    }
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
    fn reader(&self) -> Arc<dyn EntryReader> {
        self.0.reader()
    }
}

#[test]
fn a_panic_of_the_thread_is_reported_as_a_failure() {
    let started = start(Box::new(Panicking(open(&SimDisk::new(1), 0).unwrap().0)));
    started.thread.sender().append(batch(1, 1)).unwrap();
    match started.events.recv_timeout(DEADLINE).unwrap() {
        LogEvent::Failed(error) => assert!(error.to_string().contains("panicked"), "{error}"),
        other => panic!("{other:?}"),
    }
    started.thread.stop();
}

#[test]
fn segments_are_prepared_beside_the_writing() {
    let dir = tempfile::tempdir().unwrap();
    let started = start(Box::new(Log::open_dir(dir.path(), &options(), 0).unwrap().0));
    let sender = started.thread.sender();
    for index in 1..=200 {
        sender.append(batch(index, index)).unwrap();
    }
    started.synced_up_to(200);
    started.thread.stop();
    let (_, recovered) = Log::open_dir(dir.path(), &options(), 0).unwrap();
    assert_eq!(recovered.terms.last().index, 200);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|found| found.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_str().unwrap().starts_with("tmp-")), "{names:?}");
}
