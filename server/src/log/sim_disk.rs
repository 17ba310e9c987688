//! A disk in memory that crashes as real ones do, seeded and repeatable.
//!
//! Every file has two contents: what is durable, and what a reader sees (the page cache). A write changes the second
//! and is remembered as pending until the file is synced; names work alike, for the directory as a whole.
//! [`SimDisk::power_failure`] throws the cache away; of the pending writes nothing survives, or everything, or a
//! beginning that ends at any byte, or any set of 512-byte sectors, as the seed has it. Of pending changes of names a
//! beginning survives. [`SimDisk::kill`] ends the process only: the cache stays, and stays unsynced.
//!
//! Faults are put on the n-th operation that changes something, see [`SimDisk::fault_at`]. Not modelled: bytes that rot
//! (tests change them with [`SimDisk::patch`]), sectors that cannot be read, and a power failure that damages a sector
//! which was not being written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, DiskFile};

const SECTOR_BYTES: u64 = 512;

/// What goes wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error and does nothing.
    Error(io::ErrorKind),
    /// A write does its first half and fails; anything else just fails.
    HalfDone,
    /// A sync fails, and the kernel forgets that the pages were dirty: readers go on seeing what will never be on the
    /// disk. Anything else just fails.
    SyncLost,
    /// The power goes while it runs: it may or may not have taken effect, and all later operations fail until
    /// [`SimDisk::power_failure`] is called.
    PowerCut,
}

/// The simulated disk. Clones are the same disk; files opened before a crash fail after it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The run of the program this handle belongs to.
    generation: u64,
}

struct State {
    random: StdRng,
    generation: u64,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// The names after each change since the last sync of the directory.
    pending_names: Vec<BTreeMap<String, u64>>,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    power_is_off: bool,
    space: u64,
}

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    cached: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: u64) {
        overwrite(&mut self.cached, bytes, offset);
        self.pending.push((offset, bytes.to_vec()));
    }

    fn sync(&mut self) {
        for (offset, bytes) in self.pending.drain(..) {
            overwrite(&mut self.durable, &bytes, offset);
        }
    }

    /// What is left of the pending writes is as `random` has it.
    fn lose_power(&mut self, random: &mut StdRng) {
        let total: usize = self.pending.iter().map(|(_, bytes)| bytes.len()).sum();
        if total > 0 {
            match random.random_range(0..4) {
                0 => {}
                1 => self.sync(),
                2 => self.keep_beginning(random.random_range(0..=total)),
                _ => self.keep_sectors(random),
            }
        }
        self.pending.clear();
        self.cached.clone_from(&self.durable);
    }

    fn keep_beginning(&mut self, mut keep: usize) {
        for (offset, bytes) in self.pending.drain(..) {
            let kept = keep.min(bytes.len());
            overwrite(&mut self.durable, &bytes[..kept], offset);
            keep -= kept;
        }
    }

    fn keep_sectors(&mut self, random: &mut StdRng) {
        let share = random.random_range(0.1..0.9);
        for (offset, bytes) in self.pending.drain(..) {
            let mut at = 0;
            while at < bytes.len() {
                let sector_end = (offset + at as u64 + 1).next_multiple_of(SECTOR_BYTES) - offset;
                let end = bytes.len().min(sector_end as usize);
                if random.random_bool(share) {
                    overwrite(&mut self.durable, &bytes[at..end], offset + at as u64);
                }
                at = end;
            }
        }
    }
}

fn overwrite(content: &mut Vec<u8>, bytes: &[u8], offset: u64) {
    let end = offset as usize + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(bytes);
}

/// How an operation goes on after its fault, if any, was looked up.
enum Course {
    Normal,
    HalfDone(io::Error),
    SyncLost(io::Error),
    PowerCut(io::Error),
}

impl State {
    fn begin(&mut self, generation: u64) -> io::Result<Course> {
        self.check(generation)?;
        self.operations += 1;
        match self.faults.remove(&self.operations) {
            None => Ok(Course::Normal),
            Some(Fault::Error(kind)) => Err(io::Error::new(kind, "simulated")),
            Some(Fault::HalfDone) => Ok(Course::HalfDone(io::Error::other("simulated: half done"))),
            Some(Fault::SyncLost) => Ok(Course::SyncLost(io::Error::other("simulated: sync failed"))),
            Some(Fault::PowerCut) => {
                self.power_is_off = true;
                Ok(Course::PowerCut(power_is_off()))
            }
        }
    }

    fn check(&self, generation: u64) -> io::Result<()> {
        if self.power_is_off {
            return Err(power_is_off());
        }
        if generation != self.generation {
            return Err(io::Error::other("simulated: opened before the crash"));
        }
        Ok(())
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
    }

    fn names_changed(&mut self) {
        self.pending_names.push(self.names.clone());
    }

    fn forget_unnamed(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        self.files.retain(|id, _| named.contains(id));
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("simulated: the power is off")
}

impl SimDisk {
    /// An empty disk; what crashes leave follows from `seed` and the operations done.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            generation: 0,
            files: BTreeMap::new(),
            next_file: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            operations: 0,
            faults: BTreeMap::new(),
            power_is_off: false,
            space: u64::MAX,
        };
        Self { state: Arc::new(Mutex::new(state)), generation: 0 }
    }

    /// The power fails and comes back: what was not synced is lost or torn. Returns the disk for the next run; this
    /// handle and its files fail from now on.
    #[must_use]
    pub fn power_failure(&self) -> Self {
        let mut state = self.state.lock();
        let State { random, files, pending_names, durable_names, .. } = &mut *state;
        for content in files.values_mut() {
            content.lose_power(random);
        }
        let survives = random.random_range(0..=pending_names.len());
        pending_names.truncate(survives);
        if let Some(names) = pending_names.pop() {
            *durable_names = names;
        }
        pending_names.clear();
        state.names = state.durable_names.clone();
        state.forget_unnamed();
        state.power_is_off = false;
        self.next_generation(&mut state)
    }

    /// The process ends, the machine does not: the next run sees everything written, synced or not.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.state.lock();
        self.next_generation(&mut state)
    }

    fn next_generation(&self, state: &mut State) -> Self {
        state.generation += 1;
        state.faults.clear();
        Self { state: Arc::clone(&self.state), generation: state.generation }
    }

    /// How many changing operations (create, write, sync, rename, remove, directory sync) have been begun.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Lets the changing operation number `operation` (the first one ever is 1) go wrong. Faults still to come are
    /// dropped at a crash.
    pub fn fault_at(&self, operation: u64, fault: Fault) {
        self.state.lock().faults.insert(operation, fault);
    }

    /// Files of more than `bytes` together do not fit.
    pub fn limit_space(&self, bytes: u64) {
        self.state.lock().space = bytes;
    }

    /// Changes bytes on the disk behind everybody's back, as rot does, or a test that prepares a state.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn patch(&self, name: &str, offset: u64, bytes: &[u8]) {
        let mut state = self.state.lock();
        let id = state.names[name];
        if let Some(content) = state.files.get_mut(&id) {
            overwrite(&mut content.durable, bytes, offset);
            overwrite(&mut content.cached, bytes, offset);
        }
    }

    /// What a reader sees in a file.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state.lock();
        state.files[&state.names[name]].cached.clone()
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.check(self.generation)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let course = state.begin(self.generation)?;
        if state.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, name.to_owned()));
        }
        let used: u64 = state.names.values().map(|id| state.files[id].cached.len() as u64).sum();
        if used.saturating_add(len) > state.space {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated"));
        }
        if let Course::HalfDone(error) | Course::SyncLost(error) = course {
            return Err(error);
        }
        let zeros = vec![0; len as usize];
        let id = state.next_file;
        state.next_file += 1;
        let mut content = Content { durable: zeros.clone(), cached: zeros, pending: Vec::new() };
        if let Course::PowerCut(_) = course {
            let cut = state.random.random_range(0..=len as usize);
            content.durable.truncate(cut);
        }
        state.files.insert(id, content);
        state.names.insert(name.to_owned(), id);
        state.names_changed();
        if let Course::PowerCut(error) = course {
            return Err(error);
        }
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), generation: self.generation, id }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        state.check(self.generation)?;
        let id = state.id(name)?;
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), generation: self.generation, id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let course = state.begin(self.generation)?;
        if let Course::HalfDone(error) | Course::SyncLost(error) = course {
            return Err(error);
        }
        let id = state.id(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), id);
        state.names_changed();
        course.end()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let course = state.begin(self.generation)?;
        if let Course::HalfDone(error) | Course::SyncLost(error) = course {
            return Err(error);
        }
        state.id(name)?;
        state.names.remove(name);
        state.names_changed();
        course.end()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(self.generation)?.end()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("simulated").join(name)
    }
}

impl Course {
    /// For operations that have done all they will do.
    fn end(self) -> io::Result<()> {
        match self {
            Self::Normal => Ok(()),
            Self::HalfDone(error) | Self::SyncLost(error) | Self::PowerCut(error) => Err(error),
        }
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    generation: u64,
    id: u64,
}

impl SimFile {
    fn content<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Content> {
        state.files.get_mut(&self.id).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "simulated"))
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let course = state.begin(self.generation)?;
        let content = self.content(&mut state)?;
        match course {
            Course::Normal | Course::PowerCut(_) => content.write(bytes, offset),
            Course::HalfDone(_) => content.write(&bytes[..bytes.len() / 2], offset),
            Course::SyncLost(_) => {}
        }
        course.end()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.check(self.generation)?;
        let content = self.content(&mut state)?;
        let from = content.cached.len().min(offset as usize);
        let read = buffer.len().min(content.cached.len() - from);
        buffer[..read].copy_from_slice(&content.cached[from..from + read]);
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let course = state.begin(self.generation)?;
        let content = self.content(&mut state)?;
        match course {
            Course::Normal => content.sync(),
            Course::SyncLost(_) => content.pending.clear(),
            Course::HalfDone(_) | Course::PowerCut(_) => {}
        }
        course.end()
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.check(self.generation)?;
        Ok(self.content(&mut state)?.cached.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
        let file = disk.create(name, 4096).unwrap();
        disk.sync_dir().unwrap();
        file
    }

    #[test]
    fn what_was_synced_survives_and_old_handles_do_not() {
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            let file = file_with(&disk, "a");
            file.write_at(b"synced", 0).unwrap();
            file.sync().unwrap();
            let after = disk.power_failure();
            assert_eq!(&after.content("a")[..6], b"synced");
            assert!(file.write_at(b"x", 0).is_err());
            assert!(disk.list().is_err());
            assert_eq!(after.list().unwrap(), ["a"]);
        }
    }

    #[test]
    fn unsynced_bytes_are_lost_kept_or_torn() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let file = file_with(&disk, "a");
            file.write_at(&[1; 2000], 100).unwrap();
            let after = disk.power_failure().content("a");
            assert!(after[..100].iter().chain(&after[2100..]).all(|&b| b == 0), "nothing else changes");
            match after.iter().map(|&byte| u32::from(byte)).sum() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 10 && kept > 10 && torn > 10, "{lost} {kept} {torn}");
    }

    #[test]
    fn a_killed_process_leaves_unsynced_bytes_to_be_seen_and_to_be_lost_later() {
        let mut seen_and_lost = false;
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            file_with(&disk, "a").write_at(b"x", 0).unwrap();
            let next = disk.kill();
            assert_eq!(next.content("a")[0], b'x');
            seen_and_lost |= next.power_failure().content("a")[0] == 0;
        }
        assert!(seen_and_lost);
    }

    #[test]
    fn unsynced_names_can_be_lost() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            file_with(&disk, "a");
            disk.rename("a", "b").unwrap();
            disk.create("c", 512).unwrap();
            outcomes.insert(disk.power_failure().list().unwrap().join(" "));
        }
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["a", "b", "b c"]);
    }

    #[test]
    fn a_lost_sync_leaves_bytes_that_are_seen_but_never_durable() {
        let disk = SimDisk::new(1);
        let file = file_with(&disk, "a");
        file.write_at(b"x", 0).unwrap();
        disk.fault_at(disk.operations() + 1, Fault::SyncLost);
        file.sync().unwrap_err();
        let next = disk.kill();
        assert_eq!(next.content("a")[0], b'x');
        next.open("a").unwrap().sync().unwrap();
        assert_eq!(next.power_failure().content("a")[0], 0);
    }

    #[test]
    fn after_a_power_cut_nothing_works_until_the_power_is_back() {
        let disk = SimDisk::new(1);
        let file = file_with(&disk, "a");
        disk.fault_at(disk.operations() + 1, Fault::PowerCut);
        file.write_at(b"x", 0).unwrap_err();
        file.sync().unwrap_err();
        disk.list().unwrap_err();
        assert_eq!(disk.power_failure().list().unwrap(), ["a"]);
    }

    #[test]
    fn the_same_seed_gives_the_same_crash() {
        let run = || {
            let disk = SimDisk::new(42);
            let file = file_with(&disk, "a");
            for n in 0..20u8 {
                file.write_at(&[n; 700], u64::from(n) * 100).unwrap();
            }
            disk.power_failure().content("a")
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn a_full_disk_says_so() {
        let disk = SimDisk::new(1);
        disk.limit_space(6000);
        disk.create("a", 4096).unwrap();
        assert_eq!(disk.create("b", 4096).map(|_| ()).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
