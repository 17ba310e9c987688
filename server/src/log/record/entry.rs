//! Record kind 1: one raft entry.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | index |
//! | 8 | 8 | term |
//! | 16 | 4 | length of the context |
//! | 20 | 1 | entry type: 0 normal, 1 configuration change, 2 configuration change of the second form |
//! | 21 | 3 | zero |
//! | 24 | | context, then the data up to the end of the body |
//!
//! raft's deprecated `sync_log` field is not kept: nothing sets or reads it.

use raft::eraftpb::{Entry, EntryType};

use super::{le_u32, le_u64};
use crate::log::terms::EntryId;

/// Bytes of an entry's body that are neither context nor data.
const FIXED_BYTES: usize = 24;

/// An entry whose context and data still lie in the buffer it was read into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EntryBody<'a> {
    pub(crate) id: EntryId,
    entry_type: EntryType,
    context: &'a [u8],
    data: &'a [u8],
}

impl EntryBody<'_> {
    /// The entry, its bytes copied out of the buffer.
    pub(crate) fn to_entry(self) -> Entry {
        let mut entry = Entry {
            index: self.id.index,
            term: self.id.term,
            data: self.data.to_vec(),
            context: self.context.to_vec(),
            ..Entry::default()
        };
        entry.set_entry_type(self.entry_type);
        entry
    }
}

pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    out.reserve(FIXED_BYTES + entry.context.len() + entry.data.len());
    out.extend_from_slice(&entry.index.to_le_bytes());
    out.extend_from_slice(&entry.term.to_le_bytes());
    out.extend_from_slice(&(entry.context.len() as u32).to_le_bytes());
    out.extend_from_slice(&[entry.entry_type as u8, 0, 0, 0]);
    out.extend_from_slice(&entry.context);
    out.extend_from_slice(&entry.data);
}

pub(super) fn decode(body: &[u8]) -> Result<EntryBody<'_>, String> {
    if body.len() < FIXED_BYTES {
        return Err(format!("an entry of {} bytes is too short", body.len()));
    }
    let (fixed, rest) = body.split_at(FIXED_BYTES);
    let context_len = le_u32(fixed, 16) as usize;
    if context_len > rest.len() {
        return Err(format!("an entry with {} bytes has a context of {context_len}", body.len()));
    }
    let entry_type = match fixed[20..] {
        [0, 0, 0, 0] => EntryType::EntryNormal,
        [1, 0, 0, 0] => EntryType::EntryConfChange,
        [2, 0, 0, 0] => EntryType::EntryConfChangeV2,
        [other, ..] => return Err(format!("unknown entry type {other}, probably from a newer version of the program")),
        [] => return Err("an entry without a type".to_owned()),
    };
    let (context, data) = rest.split_at(context_len);
    Ok(EntryBody { id: EntryId { index: le_u64(fixed, 0), term: le_u64(fixed, 8) }, entry_type, context, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_as_documented() {
        let mut entry =
            Entry { index: 0x0102, term: 3, data: vec![0xd1, 0xd2], context: vec![0xc1], ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        let mut out = Vec::new();
        encode(&entry, &mut out);
        assert_eq!(
            out,
            [
                2, 1, 0, 0, 0, 0, 0, 0, // index
                3, 0, 0, 0, 0, 0, 0, 0, // term
                1, 0, 0, 0, // length of the context
                2, 0, 0, 0,    // type
                0xc1, // context
                0xd1, 0xd2, // data
            ]
        );
    }

    #[test]
    fn an_unknown_entry_type_is_refused() {
        let mut out = Vec::new();
        encode(&Entry { index: 1, term: 1, entry_type: 7, ..Entry::default() }, &mut out);
        assert!(decode(&out).unwrap_err().contains("unknown entry type 7"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            index: u64,
            term: u64,
            kind in 0..3i32,
            data in prop::collection::vec(any::<u8>(), 0..300),
            context in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let entry = Entry { entry_type: kind, index, term, data, context, ..Entry::default() };
            let mut out = Vec::new();
            encode(&entry, &mut out);
            prop_assert_eq!(decode(&out).unwrap().to_entry(), entry);
        }

        #[test]
        fn any_bytes_give_an_entry_or_an_error(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&body);
        }
    }
}
