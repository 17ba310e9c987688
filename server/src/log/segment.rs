//! A segment file: its name and its header.
//!
//! Names: `log-<number>` is a segment in use, `spare-<n>` a file ready to become one, `tmp-<n>` a file that is still
//! being filled with zeros; numbers are 16 hexadecimal digits. Anything else in the directory is left alone.
//!
//! The header takes the first 4096 bytes, of which 512 (one disk sector) are used. Little-endian:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | `CAIRNLOG` |
//! | 8 | 4 | format version: 1 |
//! | 12 | 4 | zero |
//! | 16 | 8 | cluster id |
//! | 24 | 8 | member id |
//! | 32 | 8 | segment number; the first segment of a log has number 1, each following one the next |
//! | 40 | 8 | nonce: a random number, drawn each time a log is opened, part of the records' seed |
//! | 48 | 8 | length of the file |
//! | 56 | 8 | number of the first batch in this segment |
//! | 64 | 8 | where the segment before ended; 0 in the very first one |
//! | 72 | 16 | index and term of the purge point (the entry before the first one kept) when the segment was begun |
//! | 88 | 16 | index and term of the last entry then |
//! | 104 | 24 | hard state then: term, vote, commit |
//! | 128 | 380 | zero |
//! | 508 | 4 | CRC-32C of bytes 0..508 |
//!
//! A header is written and synced before the file gets its `log-` name, so a segment without a valid header is never
//! the trace of a crash.

use raft::eraftpb::HardState;

use super::record::{Seed, le_u32, le_u64};
use super::terms::EntryId;

/// Where a segment's records begin.
pub(crate) const DATA_START: u64 = 4096;
/// The bytes of the header that carry something.
pub(crate) const HEADER_BYTES: usize = 512;
/// The version written by this program, and the newest one it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"CAIRNLOG";
const CRC_AT: usize = HEADER_BYTES - 4;

/// Whose log it is. Written in each segment, so that a directory in the wrong place is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
}

/// What a file in the log's directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A segment in use.
    Log(u64),
    /// A file ready to be one.
    Spare(u64),
    /// A file that was being prepared.
    Tmp(u64),
}

impl FileName {
    /// What `name` is; none if it is nothing of the log's.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (kind, digits) = name.rsplit_once('-')?;
        if digits.len() != 16 || digits.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let number = u64::from_str_radix(digits, 16).ok()?;
        match kind {
            "log" => Some(Self::Log(number)),
            "spare" => Some(Self::Spare(number)),
            "tmp" => Some(Self::Tmp(number)),
            _ => None,
        }
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log(number) => write!(f, "log-{number:016x}"),
            Self::Spare(number) => write!(f, "spare-{number:016x}"),
            Self::Tmp(number) => write!(f, "tmp-{number:016x}"),
        }
    }
}

/// A segment's header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) number: u64,
    pub(crate) nonce: u64,
    pub(crate) file_len: u64,
    pub(crate) first_batch: u64,
    pub(crate) previous_end: u64,
    pub(crate) base: EntryId,
    pub(crate) last: EntryId,
    pub(crate) hard_state: HardState,
}

/// Why bytes are no header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Damaged, or not ours at all.
    Invalid(&'static str),
    /// Written by a newer version of the program.
    Newer(u32),
}

impl SegmentHeader {
    /// Where the checksums of this segment's records start from.
    pub(crate) fn seed(&self) -> Seed {
        Seed::new(self.number, self.nonce)
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let numbers = [
            self.identity.cluster_id,
            self.identity.member_id,
            self.number,
            self.nonce,
            self.file_len,
            self.first_batch,
            self.previous_end,
            self.base.index,
            self.base.term,
            self.last.index,
            self.last.term,
            self.hard_state.term,
            self.hard_state.vote,
            self.hard_state.commit,
        ];
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        for (nth, number) in numbers.into_iter().enumerate() {
            let at = 16 + 8 * nth;
            out[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The version is looked at before the checksum: a newer version may have put that elsewhere.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() < HEADER_BYTES {
            return Err(HeaderError::Invalid("the file is too short"));
        }
        if &bytes[..8] != MAGIC {
            return Err(HeaderError::Invalid("it does not begin with CAIRNLOG"));
        }
        let version = le_u32(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(HeaderError::Newer(version));
        }
        if le_u32(bytes, CRC_AT) != crc32c::crc32c(&bytes[..CRC_AT]) {
            return Err(HeaderError::Invalid("its checksum does not match"));
        }
        if version != FORMAT_VERSION {
            return Err(HeaderError::Invalid("its format version is unknown"));
        }
        let number = |nth: usize| le_u64(bytes, 16 + 8 * nth);
        Ok(Self {
            identity: Identity { cluster_id: number(0), member_id: number(1) },
            number: number(2),
            nonce: number(3),
            file_len: number(4),
            first_batch: number(5),
            previous_end: number(6),
            base: EntryId { index: number(7), term: number(8) },
            last: EntryId { index: number(9), term: number(10) },
            hard_state: HardState { term: number(11), vote: number(12), commit: number(13) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: Identity { cluster_id: 0xc1, member_id: 0x3e },
            number: 2,
            nonce: 77,
            file_len: 65536,
            first_batch: 9,
            previous_end: 65000,
            base: EntryId::new(10, 1),
            last: EntryId::new(20, 2),
            hard_state: HardState { term: 3, vote: 4, commit: 19 },
        }
    }

    #[test]
    fn file_names_are_read_as_they_are_written() {
        for name in [FileName::Log(1), FileName::Spare(u64::MAX), FileName::Tmp(0x1f)] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        assert_eq!(FileName::Log(31).to_string(), "log-000000000000001f");
        for other in [
            "",
            "log",
            "log-1",
            "log-000000000000001F",
            "LOCK",
            "log-000000000000001f.bak",
            "old-000000000000001f",
            "log-+00000000000001f",
        ] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Newer(2)));
        assert!(matches!(SegmentHeader::decode(&bytes[..100]), Err(HeaderError::Invalid(_))));
        assert!(matches!(SegmentHeader::decode(&[0; HEADER_BYTES]), Err(HeaderError::Invalid(_))));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(numbers: [u64; 14]) {
            let header = SegmentHeader {
                identity: Identity { cluster_id: numbers[0], member_id: numbers[1] },
                number: numbers[2],
                nonce: numbers[3],
                file_len: numbers[4],
                first_batch: numbers[5],
                previous_end: numbers[6],
                base: EntryId::new(numbers[7], numbers[8]),
                last: EntryId::new(numbers[9], numbers[10]),
                hard_state: HardState { term: numbers[11], vote: numbers[12], commit: numbers[13] },
            };
            prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn a_changed_byte_makes_a_header_invalid(at in 0..HEADER_BYTES, mask in 1u8..) {
            let mut bytes = header().encode();
            bytes[at] ^= mask;
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }
    }
}
