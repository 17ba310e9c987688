//! Rows read ahead of the pieces that they go out in.
//!
//! ```text
//! read in the order of history  ─▶  one buffer: row 5 | row 0 | row 3 | row 1 | …  ─▶  copied out in the order of keys
//! ```
//! The buffer is kept for the whole stream, so that what was read and what is on its way to the client are never both in memory in full. Rows stand in it as
//! they do in an answer, tag and length included; those that were written in the order of keys are copied out together.
//!
//! If the rows turn out larger than expected, the half of them that is further off is given up, and again, until the others fit: what remains is always
//! the beginning of what was wanted, one row at least, and to pass over history was not in vain.

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use super::many::Values;

/// Tag of a row in a `RangeResponse`: field 2, delimited.
const ROW: u8 = 2 << 3 | 2;
/// Bytes that a row takes beside its own.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    buffer: Vec<u8>,
    bytes_max: usize,
    /// Where each row is, in the order of keys.
    slots: Vec<Slot>,
    /// Rows that went out.
    gone: usize,
}

/// Where a row is in the buffer, which is smaller than 4 GiB.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    begin: u32,
    len: u32,
}

impl Ahead {
    /// Forgets all rows and expects `rows` new ones, of `bytes_max` bytes together if there are more than one.
    pub(super) fn expect(&mut self, rows: usize, bytes_max: usize) {
        self.buffer.clear();
        if self.buffer.capacity() < bytes_max || self.buffer.capacity() / 2 > bytes_max {
            // The old one is gone before the new one is there.
            self.buffer = Vec::new();
            self.buffer = Vec::with_capacity(bytes_max);
        }
        self.slots.clear();
        self.slots.reserve_exact(rows);
        self.slots.resize(rows, Slot::default());
        (self.bytes_max, self.gone) = (bytes_max, 0);
    }

    /// Appends a row if there is room; there is for the first one.
    pub(super) fn push(&mut self, row: &[u8]) -> bool {
        let room = self.slots.is_empty() || self.buffer.len() + row_len(row) <= self.bytes_max;
        if room {
            self.slots.push(Slot::default());
            self.put(self.slots.len() - 1, row);
        }
        room
    }

    /// Rows that are there, whether they went out or not.
    pub(super) fn rows(&self) -> usize {
        self.slots.len()
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gone == self.slots.len()
    }

    /// The last row.
    pub(super) fn last(&self) -> Option<&[u8]> {
        let mut rest = self.slots.last()?.of(&self.buffer).get(1..)?;
        decode_varint(&mut rest).ok()?;
        Some(rest)
    }

    /// The next rows, of about `bytes_max` bytes and at least one, and how many they are.
    pub(super) fn take(&mut self, bytes_max: usize) -> (Bytes, usize) {
        let left = &self.slots[self.gone..];
        let (mut rows, mut bytes) = (0, 0);
        while rows < left.len() && bytes < bytes_max {
            bytes += left[rows].len as usize;
            rows += 1;
        }
        let mut out = Vec::with_capacity(bytes);
        for run in left[..rows].chunk_by(|a, b| a.begin + a.len == b.begin) {
            let len = run.iter().map(|slot| slot.len).sum();
            out.extend_from_slice(Slot { len, ..run[0] }.of(&self.buffer));
        }
        self.gone += rows;
        (out.into(), rows)
    }

    /// Gives up the half of the rows that is further off.
    fn give_up_half(&mut self) {
        self.slots.truncate((self.slots.len() / 2).max(1));
        let mut kept: Vec<_> = self.slots.iter_mut().filter(|slot| slot.len > 0).collect();
        kept.sort_unstable_by_key(|slot| slot.begin);
        let mut end = 0;
        for slot in kept {
            let begin = slot.begin as usize;
            self.buffer.copy_within(begin..begin + slot.len as usize, end);
            slot.begin = end as u32;
            end += slot.len as usize;
        }
        self.buffer.truncate(end);
    }
}

impl Values for Ahead {
    fn wants(&self, place: usize) -> bool {
        place < self.slots.len()
    }

    fn put(&mut self, place: usize, row: &[u8]) {
        let len = row_len(row);
        while self.buffer.len() + len > self.bytes_max && self.slots.len() > 1 {
            self.give_up_half();
        }
        let Some(slot) = self.slots.get_mut(place) else { return };
        *slot = Slot { begin: self.buffer.len() as u32, len: len as u32 };
        self.buffer.reserve_exact(len);
        put_row(&mut self.buffer, row);
    }
}

impl Slot {
    fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.begin as usize..][..self.len as usize]
    }
}

fn row_len(row: &[u8]) -> usize {
    1 + encoded_len_varint(row.len() as u64) + row.len()
}

fn put_row(out: &mut Vec<u8>, row: &[u8]) {
    out.push(ROW);
    encode_varint(row.len() as u64, out);
    out.extend_from_slice(row);
}

/// Rows as they stand in an answer.
pub(super) fn joined(rows: &[Bytes]) -> Bytes {
    let mut out = Vec::with_capacity(rows.iter().map(|row| row_len(row)).sum());
    for row in rows {
        put_row(&mut out, row);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use cairn_proto::{etcdserverpb::RangeResponse, mvccpb::KeyValue};
    use proptest::{collection::vec, prelude::*};
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_out_in_order_and_those_that_do_not_fit_are_the_last(
            sizes in vec(0..400usize, 1..60).prop_flat_map(|sizes| {
                let order: Vec<_> = (0..sizes.len()).collect();
                (Just(sizes), prop_oneof![Just(order.clone()), Just(order).prop_shuffle()])
            }),
            bytes_max in 1..20_000usize, piece_max in 1..3000usize, before in 0..30usize,
        ) {
            let (sizes, order) = sizes;
            let row = |place: usize| KeyValue { key: place.to_string().into(), value: vec![7; sizes[place]].into(), ..Default::default() };
            let mut ahead = Ahead::default();
            // What was there before leaves nothing behind.
            ahead.expect(before, 1000);
            (0..before).for_each(|place| ahead.put(place, b"older"));
            ahead.expect(sizes.len(), bytes_max);
            let mut read = 0;
            for place in order {
                if ahead.wants(place) {
                    ahead.put(place, &row(place).encode_to_vec());
                    read += usize::from(ahead.wants(place));
                    prop_assert!(ahead.bytes() <= bytes_max || ahead.rows() == 1);
                }
            }
            let all: usize = (0..sizes.len()).map(|place| row_len(&row(place).encode_to_vec())).sum();
            let kept = ahead.rows();
            prop_assert!((1..=read).contains(&kept));
            prop_assert_eq!(kept == sizes.len(), all <= bytes_max || sizes.len() == 1);
            prop_assert_eq!(ahead.last(), Some(&row(kept - 1).encode_to_vec()[..]));
            let (mut out, mut rows) = (Vec::new(), 0);
            while !ahead.is_empty() {
                let (piece, some) = ahead.take(piece_max);
                prop_assert!(some > 0 && (some == 1 || piece.len() < piece_max + 420));
                out.extend(piece);
                rows += some;
            }
            let kvs: Vec<_> = (0..kept).map(row).collect();
            prop_assert_eq!(rows, kept);
            prop_assert_eq!(RangeResponse::decode(&out[..]).unwrap().kvs, kvs);
        }
    }

    #[test]
    fn rows_are_appended_while_there_is_room() {
        let mut ahead = Ahead::default();
        ahead.expect(0, 25);
        assert!(ahead.push(&[1; 10]) && !ahead.push(&[2; 12]) && ahead.push(&[3; 11]));
        let (rows, _) = ahead.take(usize::MAX);
        assert_eq!(rows, joined(&[Bytes::from(vec![1; 10]), Bytes::from(vec![3; 11])]));
        ahead.expect(0, 25);
        assert!(ahead.push(&[4; 100]) && !ahead.push(&[5]));
    }
}
