//! Checkpoints of the store that other members fetch.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Held, Piece, SnapshotError, SnapshotFile, failed, open::Open};
use crate::{
    raft::SnapshotMeta,
    state,
    store::{RocksOptions, RocksStore, Store},
};

const PREFIX: &str = "outgoing-";

/// The checkpoints there are.
#[derive(Debug)]
pub struct Outgoing {
    root: PathBuf,
    options: RocksOptions,
    made: Mutex<BTreeMap<u64, Arc<Checkpoint>>>,
}

/// A checkpoint. Its directory goes when nobody reads it any more.
#[derive(Debug)]
struct Checkpoint {
    dir: PathBuf,
    files: Vec<SnapshotFile>,
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(%error, dir = %dir.display(), "what is left of a snapshot could not be removed; the next start tries again");
    }
}

impl Outgoing {
    /// None yet; those to come lie in `root`. What an earlier process left there is removed.
    pub fn new(root: &Path, options: &RocksOptions) -> Result<Self, SnapshotError> {
        for entry in fs::read_dir(root).map_err(failed(root, "listing"))? {
            let path = entry.map_err(failed(root, "listing"))?.path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX)) {
                fs::remove_dir_all(&path).map_err(failed(&path, "removing"))?;
            }
        }
        // A checkpoint is opened to see what is in it, and closed again.
        let options = RocksOptions { block_cache_bytes: 1 << 20, ..options.clone() };
        Ok(Self { root: root.to_owned(), options, made: Mutex::default() })
    }

    /// Makes a checkpoint of `store`, with the image of its key index, and reads in it what is in it. Flushes the store; nobody else is held up.
    pub fn make(&self, store: &dyn Store) -> Result<SnapshotMeta, SnapshotError> {
        let id: u64 = rand::random();
        let dir = self.root.join(format!("{PREFIX}{id:016x}"));
        store.checkpoint(&dir, &[state::INDEX_IMAGE])?;
        // From now on, it is removed in any case.
        let mut checkpoint = Checkpoint { files: Vec::new(), dir };
        let dir = &checkpoint.dir;
        for entry in fs::read_dir(dir).map_err(failed(dir, "listing"))? {
            let entry = entry.map_err(failed(dir, "listing"))?;
            let metadata = entry.metadata().map_err(failed(&entry.path(), "looking at"))?;
            if let Some(name) = entry.file_name().to_str().filter(|_| metadata.is_file()) {
                checkpoint.files.push(SnapshotFile { name: name.to_owned(), bytes: metadata.len() });
            }
        }
        checkpoint.files.sort_by(|a, b| a.name.cmp(&b.name));
        let (last, conf_state, _) = state::identify(&RocksStore::open_read_only(dir, &self.options)?)?;
        self.made.lock().insert(id, Arc::new(checkpoint));
        Ok(SnapshotMeta { id, last, conf_state })
    }

    /// Lets a checkpoint go. Whoever reads it reads on.
    pub fn discard(&self, id: u64) {
        let gone = self.made.lock().remove(&id);
        // Removing files takes time, which the lock has not.
        drop(gone);
    }

    /// Begins to read a checkpoint for somebody who has some of it already; `None` if there is none of this number.
    pub fn read(&self, id: u64, held: &[Held]) -> Option<Reading> {
        let checkpoint = self.made.lock().get(&id).cloned()?;
        let is_complete = |file: &SnapshotFile| held.iter().any(|held| held.complete && held.file == *file);
        let there = |file: &SnapshotFile| {
            let part = held.iter().find(|held| !held.complete && held.file.name == file.name);
            part.map(|part| part.file.bytes).filter(|bytes| *bytes <= file.bytes).unwrap_or(0)
        };
        let rest = checkpoint.files.iter().enumerate().filter(|(_, file)| !is_complete(file));
        let mut rest: Vec<(usize, u64)> = rest.map(|(number, file)| (number, there(file))).collect();
        rest.reverse();
        Some(Reading { checkpoint, rest, open: None })
    }
}

/// Reads a checkpoint piece by piece.
#[derive(Debug)]
pub struct Reading {
    checkpoint: Arc<Checkpoint>,
    /// Files to read and where to begin, the next one last.
    rest: Vec<(usize, u64)>,
    open: Option<Open>,
}

impl Reading {
    /// All files of the checkpoint.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.checkpoint.files
    }

    /// The next piece; `None` after the last one.
    pub fn next_piece(&mut self, bytes_max: usize) -> Result<Option<Piece>, SnapshotError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match self.rest.pop() {
                Some((number, offset)) => self.open(number, offset)?,
                None => return Ok(None),
            },
        };
        let info = &self.checkpoint.files[open.number];
        let left = usize::try_from(info.bytes - open.offset).unwrap_or(usize::MAX);
        let mut data = vec![0; left.min(bytes_max)];
        open.file.read_exact(&mut data).map_err(failed(&self.checkpoint.dir.join(&info.name), "reading"))?;
        let offset = open.offset;
        open.passed(&data);
        let crc = (open.offset == info.bytes).then_some(open.crc);
        let piece = Piece { file: open.number, offset, data: data.into(), crc };
        self.open = Some(open).filter(|_| crc.is_none());
        Ok(Some(piece))
    }

    fn open(&self, number: usize, offset: u64) -> Result<Open, SnapshotError> {
        let path = self.checkpoint.dir.join(&self.checkpoint.files[number].name);
        let file = File::open(&path).map_err(failed(&path, "opening"))?;
        Open::at(file, number, offset).map_err(failed(&path, "reading"))
    }
}
