//! The data directory: where log and store are, and whose they are.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    log::{DataDirLock, FileDisk, LogError},
    node::NodeError,
};

/// A locked data directory.
pub(super) struct Directory {
    pub(super) lock: DataDirLock,
    pub(super) member: PathBuf,
    pub(super) wal: PathBuf,
}

impl Directory {
    /// Creates the directory if it is missing, and locks it.
    pub(super) fn open(data_dir: &Path) -> Result<Self, NodeError> {
        create(data_dir)?;
        let lock = DataDirLock::acquire(data_dir).map_err(|error| bad(data_dir, error.to_string()))?;
        let member = data_dir.join("member");
        let wal = member.join("wal");
        create(&member)?;
        create(&wal)?;
        Ok(Self { lock, member, wal })
    }

    /// The files of the log.
    pub(super) fn log_disk(&self, record_syncs: bool) -> Result<FileDisk, NodeError> {
        let open = if record_syncs { FileDisk::open_recording_syncs } else { FileDisk::open };
        open(self.wal.clone())
            .map_err(|source| NodeError::Log(LogError::Io { action: "open", path: self.wal.clone(), source }))
    }
}

/// Creates a directory, if it is missing, so that it survives a crash.
fn create(dir: &Path) -> Result<(), NodeError> {
    match fs::create_dir(dir) {
        Ok(()) => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| bad(dir, format!("cannot be made durable: {error}")))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = dir.parent().ok_or_else(|| bad(dir, error.to_string()))?;
            create(parent)?;
            create(dir)
        }
        Err(error) => Err(bad(dir, format!("cannot be created: {error}"))),
    }
}

fn bad(path: &Path, reason: String) -> NodeError {
    NodeError::Directory { path: path.to_owned(), reason }
}
