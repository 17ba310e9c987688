//! What the log needs of a disk: one directory of flat files. [`FileDisk`](super::FileDisk) is the real one,
//! [`SimDisk`](super::SimDisk) one that crashes.
//!
//! Nothing here is durable before it is synced: bytes not before [`DiskFile::sync`] of their file, names not before
//! [`Disk::sync_dir`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The directory of one log.
pub trait Disk: Send + Sync {
    /// The names of the files in the directory, in no special order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file of `len` zero bytes whose blocks are allocated and written, so that overwriting them changes no
    /// metadata. The content is durable when this returns, the name is not. An existing file of that name is an error.
    /// If it fails, no file is left.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name. Open files stay usable.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable: creations, renames and removals.
    fn sync_dir(&self) -> io::Result<()>;

    /// Where the file is, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads at `offset` as much as there is, at most `buffer`; returns how much, which is less only at the end of the
    /// file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn size(&self) -> io::Result<u64>;
}
