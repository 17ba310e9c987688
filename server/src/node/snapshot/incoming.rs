//! A snapshot on its way in.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use super::{FILES_MAX, Held, Piece, SnapshotError, SnapshotFile, failed, is_file_name, open::Open};
use crate::{node::ReceivedMetrics, raft::Offer};

const PREFIX: &str = "incoming-";
/// What the name of a file ends with that is not whole, or whose checksum is not known to be right.
pub(super) const PART: &str = ".part";
/// How many bytes of a file may wait to be synced. A whole file at once would hold up every other sync of the disk, such as the log's.
const UNSYNCED_BYTES_MAX: u64 = 4 << 20;

/// Receives a snapshot piece by piece.
#[derive(Debug)]
pub struct Incoming {
    dir: PathBuf,
    offer: Offer,
    files: Vec<SnapshotFile>,
    open: Option<Open>,
    /// Files that are whole.
    complete: usize,
    began: Instant,
    metrics: ReceivedMetrics,
}

fn nonsense(reason: impl Into<String>) -> SnapshotError {
    SnapshotError::Nonsense(reason.into())
}

impl Incoming {
    /// Goes on with what is in `root` of the offered snapshot, or begins; what there is of others is removed.
    pub(super) fn begin(root: &Path, offer: Offer, metrics: ReceivedMetrics) -> Result<Self, SnapshotError> {
        let dir = root.join(format!("{PREFIX}{:016x}", offer.id));
        for entry in fs::read_dir(root).map_err(failed(root, "listing"))? {
            let path = entry.map_err(failed(root, "listing"))?.path();
            let is_incoming =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
            if is_incoming && path != dir {
                fs::remove_dir_all(&path).map_err(failed(&path, "removing"))?;
            }
        }
        fs::create_dir_all(&dir).map_err(failed(&dir, "creating"))?;
        Ok(Self { dir, offer, files: Vec::new(), open: None, complete: 0, began: Instant::now(), metrics })
    }

    /// What is being received.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// What is there already.
    pub fn held(&self) -> Result<Vec<Held>, SnapshotError> {
        let mut held = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed(&self.dir, "listing"))? {
            let entry = entry.map_err(failed(&self.dir, "listing"))?;
            let bytes = entry.metadata().map_err(failed(&entry.path(), "looking at"))?.len();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let part = name.strip_suffix(PART).map(str::to_owned);
            let complete = part.is_none();
            held.push(Held { file: SnapshotFile { name: part.unwrap_or(name), bytes }, complete });
        }
        Ok(held)
    }

    /// Takes the list of all files. What is there and does not belong to them is removed.
    pub fn expect(&mut self, files: Vec<SnapshotFile>) -> Result<(), SnapshotError> {
        if files.is_empty() || files.len() > FILES_MAX {
            return Err(nonsense(format!("a snapshot of {} files", files.len())));
        }
        if let Some(file) = files.iter().find(|file| !is_file_name(&file.name)) {
            return Err(nonsense(format!("a snapshot with a file named {:?}", file.name)));
        }
        if files.windows(2).any(|pair| pair[0].name >= pair[1].name) {
            return Err(nonsense("a snapshot whose files are not in order"));
        }
        self.complete = 0;
        for Held { file, complete } in self.held()? {
            let known = files.iter().find(|known| known.name == file.name);
            let fits =
                known.is_some_and(|known| if complete { known.bytes == file.bytes } else { known.bytes >= file.bytes });
            if !fits {
                let path = self.dir.join(if complete { file.name } else { file.name + PART });
                fs::remove_file(&path).map_err(failed(&path, "removing"))?;
            } else if complete {
                self.complete += 1;
            }
        }
        (self.files, self.open) = (files, None);
        Ok(())
    }

    /// Takes a piece, which must be the next one of its file.
    pub fn take(&mut self, piece: &Piece) -> Result<(), SnapshotError> {
        let info = self.files.get(piece.file).ok_or_else(|| nonsense("a piece of a file that is not in the list"))?;
        let mut open = match self.open.take() {
            Some(open) if open.number == piece.file => open,
            Some(_) => return Err(nonsense("a piece of another file before the last one is whole")),
            None => self.open(piece.file, piece.offset)?,
        };
        let path = self.part(piece.file);
        let end = piece.offset + piece.data.len() as u64;
        if piece.offset != open.offset || end > info.bytes || piece.crc.is_some() != (end == info.bytes) {
            return Err(nonsense(format!("a piece of {} that does not follow the one before", info.name)));
        }
        open.file.write_all(&piece.data).map_err(failed(&path, "writing"))?;
        open.passed(&piece.data);
        let Some(crc) = piece.crc else {
            if piece.offset / UNSYNCED_BYTES_MAX != end / UNSYNCED_BYTES_MAX {
                self.synced(&path, || open.file.sync_data())?;
            }
            self.open = Some(open);
            return Ok(());
        };
        if open.crc != crc {
            fs::remove_file(&path).map_err(failed(&path, "removing"))?;
            return Err(nonsense(format!("{} arrived with another checksum than it was sent with", info.name)));
        }
        self.synced(&path, || open.file.sync_all())?;
        let whole = self.dir.join(&info.name);
        fs::rename(&path, &whole).map_err(failed(&path, "renaming"))?;
        self.complete += 1;
        Ok(())
    }

    /// Syncs a file, and measures it.
    fn synced(&self, path: &Path, sync: impl FnOnce() -> io::Result<()>) -> Result<(), SnapshotError> {
        let began = Instant::now();
        sync().map_err(failed(path, "syncing"))?;
        self.metrics.file_sync.observe(began.elapsed());
        Ok(())
    }

    fn part(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{}{PART}", self.files[number].name))
    }

    fn open(&self, number: usize, offset: u64) -> Result<Open, SnapshotError> {
        let path = self.part(number);
        if self.dir.join(&self.files[number].name).exists() {
            return Err(nonsense(format!("a piece of {}, which is whole", self.files[number].name)));
        }
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed(&path, "opening"))?;
        let bytes = file.metadata().map_err(failed(&path, "looking at"))?.len();
        if offset > bytes {
            return Err(nonsense(format!(
                "{} goes on at {offset}, but {bytes} bytes of it are there",
                self.files[number].name
            )));
        }
        file.set_len(offset).map_err(failed(&path, "cutting"))?;
        Open::at(file, number, offset).map_err(failed(&path, "reading"))
    }

    /// Whether all files are whole.
    pub fn is_complete(&self) -> bool {
        !self.files.is_empty() && self.complete == self.files.len()
    }

    /// Moves the whole snapshot to `path`, which must not exist.
    pub(super) fn move_to(self, path: &Path) -> Result<(), SnapshotError> {
        if !self.is_complete() {
            return Err(nonsense(format!("{} of {} files of a snapshot arrived", self.complete, self.files.len())));
        }
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed(&self.dir, "syncing"))?;
        fs::rename(&self.dir, path).map_err(failed(&self.dir, "renaming"))?;
        self.metrics.save.observe(self.began.elapsed());
        Ok(())
    }
}
