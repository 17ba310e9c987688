//! The data directory: where log and store are, and whose they are.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    log::{DataDirLock, FileDisk, LogError},
    node::NodeError,
};

/// Who may look into directories of ours: what is in the store is nobody else's.
const OWN_MODE: u32 = 0o700;

/// A locked data directory.
pub(super) struct Directory {
    pub(super) lock: DataDirLock,
    pub(super) member: PathBuf,
    pub(super) wal: PathBuf,
}

impl Directory {
    /// Creates the directory if it is missing, and locks it; the same with `wal_dir` if the log is to be there.
    pub(super) fn open(data_dir: &Path, wal_dir: Option<&Path>) -> Result<Self, NodeError> {
        create(data_dir)?;
        let mut lock = lock_directory(data_dir)?;
        let member = data_dir.join("member");
        create(&member)?;
        let wal = wal_dir.map_or_else(|| member.join("wal"), Path::to_owned);
        create(&wal)?;
        warn_if_others_may_look(data_dir);
        if wal_dir.is_some() {
            lock = lock.with(lock_directory(&wal)?);
            warn_if_others_may_look(&wal);
        }
        Ok(Self { lock, member, wal })
    }

    /// The files of the log.
    pub(super) fn log_disk(&self, record_syncs: bool) -> Result<FileDisk, NodeError> {
        let open = if record_syncs { FileDisk::open_recording_syncs } else { FileDisk::open };
        open(self.wal.clone())
            .map_err(|source| NodeError::Log(LogError::Io { action: "open", path: self.wal.clone(), source }))
    }
}

/// A directory that was there before keeps its mode: it may be looser on purpose.
fn warn_if_others_may_look(dir: &Path) {
    let mode = fs::metadata(dir).map_or(OWN_MODE, |found| found.permissions().mode() & 0o777);
    if mode & !OWN_MODE != 0 {
        tracing::warn!(dir = %dir.display(), mode = format_args!("{mode:o}"), "other users may look into this directory; {OWN_MODE:o} is recommended");
    }
}

fn lock_directory(dir: &Path) -> Result<DataDirLock, NodeError> {
    DataDirLock::acquire(dir).map_err(|error| bad(dir, error.to_string()))
}

/// Creates a directory, if it is missing, for this user alone and so that it survives a crash.
fn create(dir: &Path) -> Result<(), NodeError> {
    match fs::DirBuilder::new().mode(OWN_MODE).create(dir) {
        Ok(()) => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| bad(dir, format!("cannot be made durable: {error}")))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match dir.parent() {
            Some(parent) if !parent.exists() => {
                create(parent)?;
                create(dir)
            }
            // Some file systems (`/proc`) say so where nothing can be created.
            _ => Err(bad(dir, format!("cannot be created: {error}"))),
        },
        Err(error) => Err(bad(dir, format!("cannot be created: {error}"))),
    }
}

fn bad(path: &Path, reason: String) -> NodeError {
    NodeError::Directory { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_created_is_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (data, log) = (dir.path().join("above/data"), dir.path().join("log"));
        drop(Directory::open(&data, Some(&log)).unwrap());
        for made in [dir.path().join("above"), data.clone(), data.join("member"), log] {
            assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700, "{}", made.display());
        }
    }

    #[test]
    fn missing_parents_are_created_and_what_cannot_be_created_is_named() {
        let dir = tempfile::tempdir().unwrap();
        create(&dir.path().join("a/b/c")).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        let refused = create(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(refused.contains("/proc/nowhere"), "{refused}");
    }
}
