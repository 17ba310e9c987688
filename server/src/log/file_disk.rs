//! The real disk: a directory of the file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::disk::{Disk, DiskFile};
use super::sync_record::SyncRecord;

/// New files are filled with zeros in pieces of this size.
const FILL_BYTES: usize = 1 << 20;

/// The log's directory in the file system.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    record: Option<Arc<SyncRecord>>,
}

impl FileDisk {
    /// Opens the directory `dir`, creating it (and syncing its parent) if it is not there.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_directory(parent)?;
            }
        }
        Ok(Self { dir, record: None })
    }

    /// As [`FileDisk::open`], and writes down beside the segments what each completed sync has covered, for
    /// [`cut_back`](super::cut_back). For crash tests.
    pub fn open_recording_syncs(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let mut disk = Self::open(dir)?;
        disk.record = Some(Arc::new(SyncRecord::open(&disk.dir)?));
        Ok(disk)
    }

    fn file(&self, file: File) -> io::Result<OpenFile> {
        let inode = file.metadata()?.ino();
        Ok(OpenFile { file, inode, record: self.record.clone() })
    }

    fn create_filled(&self, path: &Path, len: u64) -> io::Result<OpenFile> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let file = self.file(file)?;
        if let Some(record) = &file.record {
            record.created(file.inode)?;
        }
        // One piece on the disk, and a full disk is noticed before the work is done. Not every file system can.
        match rustix::fs::fallocate(&file.file, FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Allocated blocks that were never written cost a journal commit at their first sync; written ones do not.
        let zeros = vec![0; FILL_BYTES.min(len as usize)];
        let mut at = 0;
        while at < len {
            let piece = &zeros[..zeros.len().min((len - at) as usize)];
            file.write_at(piece, at)?;
            at += piece.len() as u64;
        }
        file.synced(|| file.file.sync_all())?;
        Ok(file)
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for found in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = found?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(name);
        match self.create_filled(&path, len) {
            Ok(file) => Ok(Arc::new(file)),
            Err(error) => {
                if error.kind() != io::ErrorKind::AlreadyExists {
                    // The first error is the one to tell; a file left behind is removed at the next start.
                    let _ = fs::remove_file(&path);
                }
                Err(error)
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(Arc::new(self.file(file)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        let inode = fs::metadata(&path)?.ino();
        fs::remove_file(path)?;
        self.record.as_ref().map_or(Ok(()), |record| record.removed(inode))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let Some(record) = &self.record else {
            return sync_directory(&self.dir);
        };
        let names = record.names()?;
        let outcome = sync_directory(&self.dir);
        record.names_synced(&names, outcome)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    inode: u64,
    record: Option<Arc<SyncRecord>>,
}

impl OpenFile {
    /// Runs `sync` and hands its outcome to the record: what the record says rests on the sync having been done.
    fn synced(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Some(record) = &self.record else {
            return sync();
        };
        let covered = record.written(self.inode);
        let outcome = sync();
        record.synced(self.inode, covered, outcome)
    }
}

impl DiskFile for OpenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(record) = &self.record {
            record.writing(&self.file, self.inode, bytes, offset)?;
        }
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> io::Result<()> {
        self.synced(|| self.file.sync_data())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_file_is_full_of_written_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(dir.path().join("log")).unwrap();
        let len = (FILL_BYTES + 4096) as u64;
        let file = disk.create("a", len).unwrap();
        assert_eq!(file.size().unwrap(), len);
        let mut bytes = vec![1; len as usize + 10];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), len as usize);
        assert!(bytes[..len as usize].iter().all(|&b| b == 0));
        assert!(fs::metadata(disk.path("a")).unwrap().blocks() * 512 >= len);
    }

    #[test]
    fn an_existing_file_is_not_created_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(dir.path()).unwrap();
        disk.create("a", 4096).unwrap().write_at(b"kept", 0).unwrap();
        assert_eq!(disk.create("a", 4096).map(|_| ()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut bytes = [0; 4];
        disk.open("a").unwrap().read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"kept");
    }

    #[test]
    fn an_open_file_survives_rename_and_remove() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(dir.path()).unwrap();
        let file = disk.create("a", 4096).unwrap();
        disk.rename("a", "b").unwrap();
        file.write_at(b"still", 0).unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        disk.remove("b").unwrap();
        file.sync().unwrap();
        assert!(disk.list().unwrap().is_empty());
    }
}
