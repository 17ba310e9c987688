//! The lock on a data directory: two processes writing one directory would destroy it.
//!
//! The lock is the operating system's (`flock`) on the file `LOCK`, so it goes with the process that held it, however
//! that ended. The file itself stays; it holds the process id of the last holder, for the message to the one who comes
//! second.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "LOCK";

/// Why the data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process (or another server in this one) uses the directory.
    #[error(
        "the data directory {} is in use by {holder}; stop that process, or give this one another --data-dir",
        dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// Who uses it, as far as known: `process 4711`.
        holder: String,
    },
    /// The lock file could not be opened or written.
    #[error("cannot lock the data directory {}: {source}", dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Exclusive use of a data directory, or of several, until dropped.
#[derive(Debug)]
pub struct DataDirLock {
    files: Vec<File>,
}

impl DataDirLock {
    /// Locks `dir`, which must exist. Does not wait.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { dir: dir.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(FILE_NAME))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut content = String::new();
                let holder =
                    match file.read_to_string(&mut content).ok().and_then(|_| content.trim().parse::<u32>().ok()) {
                        Some(pid) => format!("process {pid}"),
                        None => "another process".to_owned(),
                    };
                return Err(LockError::InUse { dir: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { files: vec![file] })
    }

    /// Both locks in one.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.files.extend(other.files);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    const DIR_OF_CHILD: &str = "CAIRN_TEST_LOCK_DIR";

    #[test]
    fn a_directory_is_free_again_when_the_lock_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DataDirLock::acquire(dir.path()).unwrap();
        let refused = DataDirLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
        drop(lock);
        DataDirLock::acquire(dir.path()).unwrap();
    }

    /// The other process of the test below, which runs this test binary again.
    #[test]
    fn child_that_holds_the_lock() {
        let Some(dir) = std::env::var_os(DIR_OF_CHILD) else { return };
        let _lock = DataDirLock::acquire(Path::new(&dir)).unwrap();
        println!("locked");
        let _ = io::stdin().read_line(&mut String::new());
    }

    #[test]
    fn a_second_process_is_refused_until_the_first_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::lock::tests::child_that_holds_the_lock", "--nocapture"])
            .env(DIR_OF_CHILD, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("locked")), "the child must get the lock");
        let refused = DataDirLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {}", child.id())), "{refused}");
        child.kill().unwrap();
        child.wait().unwrap();
        DataDirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_a_clear_error() {
        let error = DataDirLock::acquire(Path::new("/nonexistent/cairn")).unwrap_err().to_string();
        assert!(error.contains("cannot lock the data directory /nonexistent/cairn"), "{error}");
    }
}
