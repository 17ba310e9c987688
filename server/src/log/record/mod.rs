//! The framing of everything that follows a segment's header.
//!
//! A record is a header of 32 bytes and a body, padded with zeros to a multiple of 8 so that every record begins at a
//! multiple of 8. Little-endian:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of bytes 4..32, continued from the segment's seed |
//! | 4 | 4 | CRC-32C of the body with its padding |
//! | 8 | 8 | number of the batch the record belongs to |
//! | 16 | 4 | length of the body without padding |
//! | 20 | 4 | chain: the header checksum of the record before in the same batch; 0 in the first |
//! | 24 | 1 | kind: 1 entry, 2 hard state, 3 purge, 4 reset |
//! | 25 | 1 | flags: 1 first record of its batch, 2 last record of its batch |
//! | 26 | 6 | zero |
//! | 32 | | body and padding |
//!
//! The seed is made of the segment's number and a random number drawn when the segment was begun (see [`Seed`]), so
//! bytes which an earlier use of a recycled file left behind do not verify, and no client can put a record into a
//! value. The header's checksum covers the body's, and thereby the whole record. That the header verifies on its own is
//! what the search after a torn batch needs: a header alone proves that its batch was begun, thus that the one before
//! it had been synced.
//!
//! The chain keeps a batch together: after a torn batch another one of the same number is written in its place, and if
//! that is torn too, records of the first may follow records of the second. They do not chain, so the mixture is not
//! taken for a batch.

mod entry;
mod entry_id;
mod hard_state;

use std::ops::Range;

use raft::eraftpb::{Entry, HardState};

use super::terms::EntryId;
pub(crate) use entry::EntryBody;

/// Size of a record's header.
pub(crate) const HEADER_BYTES: usize = 32;
/// Every record begins at a multiple of this.
pub(crate) const ALIGNMENT: usize = 8;
/// The largest body: an entry of this size is refused when it is staged.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 30;

const FLAG_FIRST: u8 = 1;
const FLAG_LAST: u8 = 2;

/// What the checksums of one segment's records start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    /// The seed of segment `number`, begun with `nonce`.
    pub(crate) fn new(number: u64, nonce: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..].copy_from_slice(&nonce.to_le_bytes());
        Self(crc32c::crc32c(&bytes))
    }
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// One raft entry.
    Entry = 1,
    /// Term, vote and commit index; the last one wins.
    HardState = 2,
    /// Entries up to this one are no longer needed.
    Purge = 3,
    /// A snapshot was installed: all entries are gone, the log goes on after this one.
    Reset = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Entry),
            2 => Some(Self::HardState),
            3 => Some(Self::Purge),
            4 => Some(Self::Reset),
            _ => None,
        }
    }
}

/// A verified record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) batch: u64,
    pub(crate) body_len: u32,
    pub(crate) kind: u8,
    /// The header's own checksum, by which the next record of the batch refers to it.
    pub(crate) crc: u32,
    /// The checksum of the header before it in the batch.
    pub(crate) chain: u32,
    body_crc: u32,
    flags: u8,
}

impl Header {
    /// The header in the first 32 bytes of `bytes`, if it was written in the segment with this seed.
    pub(crate) fn read(bytes: &[u8], seed: Seed) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let (kind, flags) = (bytes[24], bytes[25]);
        // The cheap tests first: the search for later batches tries every eighth byte. A kind of a later version is no
        // reason to say no here.
        if kind == 0 || flags & !(FLAG_FIRST | FLAG_LAST) != 0 || bytes[26..] != [0; 6] {
            return None;
        }
        let crc = le_u32(bytes, 0);
        if crc32c::crc32c_append(seed.0, &bytes[4..]) != crc {
            return None;
        }
        Some(Self {
            batch: le_u64(bytes, 8),
            body_len: le_u32(bytes, 16),
            kind,
            crc,
            chain: le_u32(bytes, 20),
            body_crc: le_u32(bytes, 4),
            flags,
        })
    }

    /// Whether `body`, with its padding, is what this header was written for.
    pub(crate) fn verifies(&self, body: &[u8]) -> bool {
        crc32c::crc32c(body) == self.body_crc
    }

    pub(crate) fn is_first(&self) -> bool {
        self.flags & FLAG_FIRST != 0
    }

    pub(crate) fn is_last(&self) -> bool {
        self.flags & FLAG_LAST != 0
    }

    /// Length of the body with its padding.
    pub(crate) fn padded_len(&self) -> usize {
        (self.body_len as usize).next_multiple_of(ALIGNMENT)
    }
}

/// A record's decoded body.
#[derive(Debug, PartialEq)]
pub(crate) enum Record<'a> {
    Entry(EntryBody<'a>),
    HardState(HardState),
    Purge(EntryId),
    Reset(EntryId),
}

impl<'a> Record<'a> {
    /// Decodes a body (without its padding) that has been verified; says what is wrong with it otherwise.
    pub(crate) fn decode(kind: u8, body: &'a [u8]) -> Result<Self, String> {
        match Kind::from_byte(kind) {
            Some(Kind::Entry) => entry::decode(body).map(Self::Entry),
            Some(Kind::HardState) => hard_state::decode(body).map(Self::HardState),
            Some(Kind::Purge) => entry_id::decode(body).map(Self::Purge),
            Some(Kind::Reset) => entry_id::decode(body).map(Self::Reset),
            None => Err(format!("unknown record kind {kind}, probably from a newer version of the program")),
        }
    }
}

/// A batch being put together: its records in one contiguous buffer, complete but for what depends on where it goes
/// (batch number, flags, header checksum).
#[derive(Debug, Default)]
pub(crate) struct BatchBuffer {
    bytes: Vec<u8>,
    records: Vec<usize>,
}

impl BatchBuffer {
    /// A buffer that grew beyond this for one large batch is given back.
    const KEEP_BYTES_MAX: usize = 4 << 20;

    /// Adds an entry; returns where in the batch its record begins.
    pub(crate) fn push_entry(&mut self, entry: &Entry) -> usize {
        self.push(Kind::Entry, |out| entry::encode(entry, out))
    }

    pub(crate) fn push_hard_state(&mut self, hard_state: &HardState) -> usize {
        self.push(Kind::HardState, |out| hard_state::encode(hard_state, out))
    }

    pub(crate) fn push_purge(&mut self, to: EntryId) -> usize {
        self.push(Kind::Purge, |out| entry_id::encode(to, out))
    }

    pub(crate) fn push_reset(&mut self, to: EntryId) -> usize {
        self.push(Kind::Reset, |out| entry_id::encode(to, out))
    }

    fn push(&mut self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        self.bytes.resize(start + HEADER_BYTES, 0);
        encode(&mut self.bytes);
        let body_start = start + HEADER_BYTES;
        let body_len = self.bytes.len() - body_start;
        debug_assert!(body_len <= BODY_BYTES_MAX, "callers check sizes before they stage");
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let body_crc = crc32c::crc32c(&self.bytes[body_start..]);
        put(&mut self.bytes, start + 4..start + 8, &body_crc.to_le_bytes());
        put(&mut self.bytes, start + 16..start + 20, &(body_len as u32).to_le_bytes());
        self.bytes[start + 24] = kind as u8;
        self.records.push(start);
        start
    }

    /// Fills in what was left open and returns the bytes to write.
    pub(crate) fn finish(&mut self, batch: u64, seed: Seed) -> &mut Vec<u8> {
        let count = self.records.len();
        let mut chain: u32 = 0;
        for (nth, &start) in self.records.iter().enumerate() {
            let mut flags = 0;
            if nth == 0 {
                flags |= FLAG_FIRST;
            }
            if nth + 1 == count {
                flags |= FLAG_LAST;
            }
            put(&mut self.bytes, start + 8..start + 16, &batch.to_le_bytes());
            put(&mut self.bytes, start + 20..start + 24, &chain.to_le_bytes());
            self.bytes[start + 25] = flags;
            chain = crc32c::crc32c_append(seed.0, &self.bytes[start + 4..start + HEADER_BYTES]);
            put(&mut self.bytes, start..start + 4, &chain.to_le_bytes());
        }
        &mut self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Size of the batch so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Empties the buffer for the next batch.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(Self::KEEP_BYTES_MAX);
        self.records.clear();
    }
}

fn put(bytes: &mut [u8], at: Range<usize>, value: &[u8]) {
    bytes[at].copy_from_slice(value);
}

/// The little-endian number at `at`; the caller knows that it is there.
pub(crate) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

/// The little-endian number at `at`; the caller knows that it is there.
pub(crate) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch_of_two() -> BatchBuffer {
        let mut buffer = BatchBuffer::default();
        buffer.push_entry(&Entry { index: 5, term: 2, data: b"value".to_vec(), ..Entry::default() });
        buffer.push_hard_state(&HardState { term: 2, vote: 1, commit: 4 });
        buffer
    }

    #[test]
    fn records_of_a_batch_verify_one_after_the_other() {
        let seed = Seed::new(3, 99);
        let mut buffer = batch_of_two();
        let bytes = buffer.finish(17, seed).clone();
        let first = Header::read(&bytes, seed).unwrap();
        assert_eq!((first.batch, first.kind, first.is_first(), first.is_last()), (17, Kind::Entry as u8, true, false));
        let body = &bytes[HEADER_BYTES..HEADER_BYTES + first.padded_len()];
        assert!(first.verifies(body));
        let at = HEADER_BYTES + first.padded_len();
        assert_eq!(at % ALIGNMENT, 0);
        let second = Header::read(&bytes[at..], seed).unwrap();
        assert_eq!(
            (second.batch, second.kind, second.is_first(), second.is_last()),
            (17, Kind::HardState as u8, false, true)
        );
        assert_eq!((first.chain, second.chain), (0, first.crc));
        assert_eq!(at + HEADER_BYTES + second.padded_len(), bytes.len());
    }

    #[test]
    fn a_record_does_not_verify_in_another_segment_or_in_another_use_of_its_segment() {
        let bytes = batch_of_two().finish(17, Seed::new(3, 99)).clone();
        assert!(Header::read(&bytes, Seed::new(3, 99)).is_some());
        assert!(Header::read(&bytes, Seed::new(4, 99)).is_none());
        assert!(Header::read(&bytes, Seed::new(3, 100)).is_none());
    }

    #[test]
    fn the_same_buffer_can_be_finished_again_for_another_place() {
        let mut buffer = batch_of_two();
        let first = buffer.finish(1, Seed::new(1, 1)).clone();
        buffer.finish(2, Seed::new(2, 2));
        assert_eq!(&first, buffer.finish(1, Seed::new(1, 1)));
    }

    #[test]
    fn zeros_are_no_record() {
        for number in 0..1000 {
            assert_eq!(Header::read(&[0; 64], Seed::new(number, 0)), None);
        }
        assert_eq!(Header::read(&[0; 8], Seed::new(1, 0)), None);
    }

    #[test]
    fn an_unknown_kind_is_named() {
        assert!(Record::decode(9, &[]).unwrap_err().contains("unknown record kind 9"));
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0usize..128, mask in 1u8..) {
            let seed = Seed::new(3, 99);
            let mut bytes = batch_of_two().finish(17, seed).clone();
            let at = at % bytes.len();
            bytes[at] ^= mask;
            let mut rest = &bytes[..];
            let mut intact = true;
            while !rest.is_empty() {
                let Some(header) = Header::read(rest, seed) else { intact = false; break };
                let Some(body) = rest.get(HEADER_BYTES..HEADER_BYTES + header.padded_len()) else {
                    intact = false;
                    break;
                };
                if !header.verifies(body) { intact = false; break }
                rest = &rest[HEADER_BYTES + header.padded_len()..];
            }
            prop_assert!(!intact);
        }
    }
}
