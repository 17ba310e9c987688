//! Reading a segment: record after record, and the search for records after the place where reading ended.

use std::io;

use super::disk::DiskFile;
use super::record::{ALIGNMENT, HEADER_BYTES, Header, Seed};

/// Reads the records of a stretch of a segment in order. The file is read in pieces, larger ones where a record needs
/// it.
pub(crate) struct RecordScanner<'a> {
    file: &'a dyn DiskFile,
    seed: Seed,
    at: u64,
    limit: u64,
    piece_bytes: usize,
    buffer: Vec<u8>,
    buffer_at: u64,
}

/// One step of a scan.
pub(crate) enum Step<'b> {
    /// A record that verifies.
    Record {
        /// Where it begins.
        offset: u64,
        /// Its header.
        header: Header,
        /// Its body without padding.
        body: &'b [u8],
    },
    /// No record begins here that verifies as a whole; its header may.
    Broken {
        /// The header, if it is intact.
        header: Option<Header>,
        /// What does not verify.
        why: &'static str,
    },
    /// The limit was reached exactly at the end of a record, or too close to it for another one.
    End,
}

impl<'a> RecordScanner<'a> {
    /// Scans from `start` (where a record begins) up to `limit`, reading pieces of `piece_bytes`.
    pub(crate) fn new(file: &'a dyn DiskFile, seed: Seed, start: u64, limit: u64, piece_bytes: usize) -> Self {
        Self { file, seed, at: start, limit, piece_bytes, buffer: Vec::new(), buffer_at: start }
    }

    /// Where the next record begins.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        let offset = self.at;
        if self.limit.saturating_sub(offset) < HEADER_BYTES as u64 {
            return Ok(Step::End);
        }
        let seed = self.seed;
        let Some(header) = self.load(HEADER_BYTES)?.and_then(|bytes| Header::read(bytes, seed)) else {
            return Ok(Step::Broken { header: None, why: "no record header that verifies" });
        };
        let len = HEADER_BYTES + header.padded_len();
        if len as u64 > self.limit - offset {
            return Ok(Step::Broken { header: Some(header), why: "a record longer than the rest of the segment" });
        }
        let Some(bytes) = self.load(len)? else {
            return Ok(Step::Broken { header: Some(header), why: "the file ends within a record" });
        };
        if !header.verifies(&bytes[HEADER_BYTES..]) {
            return Ok(Step::Broken { header: Some(header), why: "a record body whose checksum does not match" });
        }
        self.at += len as u64;
        let from = (offset - self.buffer_at) as usize + HEADER_BYTES;
        Ok(Step::Record { offset, header, body: &self.buffer[from..from + header.body_len as usize] })
    }

    /// The next `len` bytes; none if the file ends before. The caller has checked `len` against the limit.
    fn load(&mut self, len: usize) -> io::Result<Option<&[u8]>> {
        let mut from = (self.at - self.buffer_at) as usize;
        if from + len > self.buffer.len() {
            let room = (self.limit - self.at) as usize;
            self.buffer.resize(self.piece_bytes.max(len).min(room), 0);
            let read = self.file.read_at(&mut self.buffer, self.at)?;
            self.buffer.truncate(read);
            self.buffer_at = self.at;
            from = 0;
        }
        Ok(self.buffer.get(from..from + len))
    }
}

/// What lies after the place where the batch `expected` does not verify.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// The first record of a later batch, and where: proof that `expected` had been synced.
    pub(crate) later: Option<(u64, u64)>,
    /// Whether there are records of the batch `expected` itself: it was torn.
    pub(crate) torn: bool,
}

/// Looks at every place from `from` to `limit` where a record could begin.
pub(crate) fn search_remains(
    file: &dyn DiskFile,
    seed: Seed,
    from: u64,
    limit: u64,
    expected: u64,
) -> io::Result<Remains> {
    const PIECE_BYTES: usize = 1 << 20;
    let mut remains = Remains::default();
    let mut buffer = vec![0; PIECE_BYTES.min(limit.saturating_sub(from) as usize)];
    let mut at = from.next_multiple_of(ALIGNMENT as u64);
    while at + HEADER_BYTES as u64 <= limit {
        let want = buffer.len().min((limit - at) as usize);
        let read = file.read_at(&mut buffer[..want], at)?;
        if read < HEADER_BYTES {
            break;
        }
        let last_start = (read - HEADER_BYTES) / ALIGNMENT * ALIGNMENT;
        for start in (0..=last_start).step_by(ALIGNMENT) {
            let Some(header) = Header::read(&buffer[start..read], seed) else { continue };
            let offset = at + start as u64;
            if header.batch > expected {
                remains.later = Some((header.batch, offset));
                return Ok(remains);
            }
            remains.torn |= header.batch == expected;
        }
        at += (last_start + ALIGNMENT) as u64;
    }
    Ok(remains)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::Disk;
    use crate::log::record::BatchBuffer;
    use crate::log::sim_disk::SimDisk;
    use raft::eraftpb::Entry;

    const SEED_NUMBERS: (u64, u64) = (4, 44);

    fn seed() -> Seed {
        Seed::new(SEED_NUMBERS.0, SEED_NUMBERS.1)
    }

    fn batch(number: u64, data: &[u8]) -> Vec<u8> {
        let mut buffer = BatchBuffer::default();
        buffer.push_entry(&Entry { index: number, term: 1, data: data.to_vec(), ..Entry::default() });
        buffer.push_purge(crate::log::EntryId::new(number, 1));
        buffer.finish(number, seed()).clone()
    }

    #[test]
    fn records_are_read_whatever_the_size_of_the_pieces() {
        let disk = SimDisk::new(1);
        let file = disk.create("a", 64 << 10).unwrap();
        let mut end = 0;
        for number in 1..=40 {
            let bytes = batch(number, &vec![number as u8; number as usize * 31]);
            file.write_at(&bytes, end).unwrap();
            end += bytes.len() as u64;
        }
        for piece_bytes in [1, 24, 100, 4096, 1 << 20] {
            let mut scanner = RecordScanner::new(file.as_ref(), seed(), 0, 64 << 10, piece_bytes);
            let mut lens = Vec::new();
            loop {
                match scanner.next().unwrap() {
                    Step::Record { header, body, .. } if header.kind == 1 => lens.push(body.len()),
                    Step::Record { .. } => {}
                    Step::Broken { header, .. } => {
                        assert!(header.is_none());
                        break;
                    }
                    Step::End => panic!("zeros follow"),
                }
            }
            assert_eq!(lens, (1..=40).map(|n| 24 + n * 31).collect::<Vec<_>>());
            assert_eq!(scanner.position(), end);
        }
    }

    #[test]
    fn remains_of_the_expected_batch_and_of_later_ones_are_told_apart() {
        let disk = SimDisk::new(1);
        let file = disk.create("a", 3 << 20).unwrap();
        let limit = 3 << 20;
        assert_eq!(search_remains(file.as_ref(), seed(), 0, limit, 7).unwrap(), Remains::default());
        let bytes = batch(7, b"x");
        file.write_at(&bytes, (1 << 20) - 8).unwrap();
        assert_eq!(search_remains(file.as_ref(), seed(), 0, limit, 7).unwrap(), Remains { later: None, torn: true });
        // An older batch proves nothing.
        assert_eq!(search_remains(file.as_ref(), seed(), 0, limit, 8).unwrap(), Remains::default());
        let at = limit - batch(9, b"").len() as u64;
        file.write_at(&batch(9, b""), at).unwrap();
        assert_eq!(search_remains(file.as_ref(), seed(), 0, limit, 7).unwrap().later, Some((9, at)));
        assert_eq!(search_remains(file.as_ref(), Seed::new(4, 45), 0, limit, 7).unwrap(), Remains::default());
    }
}
