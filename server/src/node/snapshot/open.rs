//! A file of a snapshot while it is read or written: from its beginning to its end, without a gap, and summed up on the way.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

/// Bytes of what is there already that are read at once, for their checksum.
const SKIP_BYTES: usize = 256 << 10;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) file: File,
    /// Which file of the snapshot it is.
    pub(super) number: usize,
    /// Bytes before the next piece.
    pub(super) offset: u64,
    /// The checksum of these.
    pub(super) crc: u32,
}

impl Open {
    /// A file of which `offset` bytes are behind, after which it stands then.
    pub(super) fn at(mut file: File, number: usize, offset: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let (mut crc, mut left) = (0, offset);
        let mut buffer = vec![0; SKIP_BYTES];
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(SKIP_BYTES);
            file.read_exact(&mut buffer[..now])?;
            crc = crc32c::crc32c_append(crc, &buffer[..now]);
            left -= now as u64;
        }
        Ok(Self { file, number, offset, crc })
    }

    /// A piece was read or written.
    pub(super) fn passed(&mut self, data: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.offset += data.len() as u64;
    }
}
