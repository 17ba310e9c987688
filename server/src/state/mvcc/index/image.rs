//! The index image: the index as it was at some revision, in a file, so that a start need not read every value.
//!
//! ```text
//! header    "CAIRNIDX" | format u32 | 0 u32 | cluster u64 | base i64 | finished i64 | CRC-32C of all that u32
//! block     bytes of the body u32 | entries u32 | CRC-32C u32 | body
//! ...
//! trailer   a block with 0xffffffff entries: needs i64 | applied u64 | keys u64
//! ```
//! Little-endian. A block's checksum begins with the header's and the block's number, so that a block counts only in its place in its file. An entry (all
//! numbers varints) is
//! ```text
//! bytes shared with the key before in the block | bytes of the rest | the rest | lease | events
//! { main, less that of the event before | sub | version, 0 for a tombstone | of a put: main less create revision }   for each event, oldest first
//! ```
//! in key order, with the events up to main revision `base`. A key with many events has several entries that follow each other.
//!
//! The index is written page by page while it changes. Events up to `base` are there already and stay, but the lease of a value is known only until the
//! next one comes: if that came meanwhile, the entry says 0, and it takes the store at `needs` or later to put it right.

use std::io::{self, Read};

use bytes::{Buf, BufMut};
use prost::encoding::{decode_varint, encode_varint};

use super::{
    Index, Revision,
    builder::Builder,
    history::{Event, History, Kind},
    keys::common,
};

const MAGIC: &[u8; 8] = b"CAIRNIDX";
/// The format this code writes and reads.
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 44;
const FRAME_BYTES: usize = 12;
/// What a trailer has for a number of entries.
const TRAILER: u32 = u32::MAX;
/// Keys, events and bytes after which a block is full: it is made while the index is locked.
const BLOCK_KEYS: usize = 512;
const BLOCK_EVENTS: usize = 2048;
const BLOCK_BYTES: usize = 64 << 10;

/// What an image begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// The cluster whose keys these are.
    pub cluster: u64,
    /// The main revision up to which events are in it.
    pub base: i64,
    /// The revision to which compaction had been carried out, -1 for none.
    pub finished: i64,
}

/// What an image ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageTrailer {
    /// The store must have reached this main revision.
    pub needs: i64,
    /// The applied index of the store then.
    pub applied: u64,
    /// Keys in it.
    pub keys: u64,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Its format is another one.
    #[error("it has format {0}, this version reads {FORMAT}")]
    Format(u32),
    /// It is not whole.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// An image being written. Bytes come out to be appended to the file in order.
#[derive(Debug)]
pub struct ImageWriter {
    base: i64,
    seed: u32,
    blocks: u32,
    keys: u64,
    /// Where the next block begins; `None` after the last key.
    next: Option<Cursor>,
}

/// A key, and its last event that was written.
#[derive(Debug, Default)]
struct Cursor {
    key: Vec<u8>,
    after: Option<Revision>,
}

impl ImageWriter {
    /// Begins an image; its first bytes.
    pub fn new(header: &ImageHeader) -> (Self, Vec<u8>) {
        let bytes = header.encode();
        let seed = seed(&bytes);
        (Self { base: header.base, seed, blocks: 0, keys: 0, next: Some(Cursor::default()) }, bytes)
    }

    /// The next block of keys, which may be empty; `None` when there are no more. The index is to be locked meanwhile, not between two blocks; nothing may be compacted until
    /// the last.
    pub fn block(&mut self, index: &Index) -> Option<Vec<u8>> {
        let cursor = self.next.take()?;
        let mut block = Block::default();
        let (base, after) = (self.base, cursor.after);
        let (mut begun, mut next) = (0, None);
        index.tree.walk(&cursor.key, false, &mut |key, history| {
            let after = after.filter(|_| key == cursor.key);
            if block.is_full() {
                next = Some(Cursor { key: key.to_vec(), after });
                return false;
            }
            begun += u64::from(block.push(key, history, after, base) && after.is_none());
            if let Some(last) = block.cut {
                next = Some(Cursor { key: key.to_vec(), after: Some(last) });
                return false;
            }
            true
        });
        self.next = next;
        self.keys += begun;
        if block.entries == 0 {
            // Nothing but younger keys.
            return self.next.is_some().then(Vec::new);
        }
        Some(self.frame(block.entries, &block.body))
    }

    /// The last bytes.
    pub fn finish(&mut self, needs: i64, applied: u64) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_i64_le(needs);
        body.put_u64_le(applied);
        body.put_u64_le(self.keys);
        self.frame(TRAILER, &body)
    }

    fn frame(&mut self, entries: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FRAME_BYTES + body.len());
        bytes.put_u32_le(body.len() as u32);
        bytes.put_u32_le(entries);
        bytes.put_u32_le(checksum(self.seed, self.blocks, entries, body));
        bytes.extend_from_slice(body);
        self.blocks += 1;
        bytes
    }
}

/// Tells images apart. (The checksum of all of the header, its own included, would be the same for all.)
fn seed(header: &[u8]) -> u32 {
    crc32c::crc32c(&header[..HEADER_BYTES - 4])
}

fn checksum(seed: u32, number: u32, entries: u32, body: &[u8]) -> u32 {
    let mut place = Vec::with_capacity(16);
    place.put_u32_le(seed);
    place.put_u32_le(number);
    place.put_u32_le(body.len() as u32);
    place.put_u32_le(entries);
    crc32c::crc32c_append(crc32c::crc32c(&place), body)
}

/// A block being filled.
#[derive(Debug, Default)]
struct Block {
    body: Vec<u8>,
    entries: u32,
    events: usize,
    seen: usize,
    last_key: Vec<u8>,
    /// The last event of a key that is not all in.
    cut: Option<Revision>,
}

impl Block {
    fn is_full(&self) -> bool {
        self.seen >= BLOCK_KEYS || self.events >= BLOCK_EVENTS || self.body.len() >= BLOCK_BYTES
    }

    /// Adds what a key has after `after` and up to `base`; `false` if that is nothing.
    fn push(&mut self, key: &[u8], history: &History, after: Option<Revision>, base: i64) -> bool {
        self.seen += 1;
        let room = BLOCK_EVENTS - self.events.min(BLOCK_EVENTS - 1);
        let mut events = history.events_after(after).take_while(|event| event.at.main <= base).peekable();
        if events.peek().is_none() {
            return false;
        }
        let shared = common(&self.last_key, key);
        encode_varint(shared as u64, &mut self.body);
        encode_varint((key.len() - shared) as u64, &mut self.body);
        self.body.extend_from_slice(&key[shared..]);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        let lease = if history.newest_at().main <= base { history.lease() } else { 0 };
        encode_varint(lease as u64, &mut self.body);
        let events_here: Vec<_> = events.by_ref().take(room).collect();
        self.cut = events.peek().and(events_here.last()).map(|event| event.at);
        encode_varint(events_here.len() as u64, &mut self.body);
        let mut before = 0;
        for Event { at, kind } in &events_here {
            encode_varint(at.main.wrapping_sub(before) as u64, &mut self.body);
            before = at.main;
            encode_varint(u64::from(at.sub), &mut self.body);
            match kind {
                Kind::Tombstone => encode_varint(0, &mut self.body),
                Kind::Put { created, version } => {
                    encode_varint(*version as u64, &mut self.body);
                    encode_varint(at.main.wrapping_sub(*created) as u64, &mut self.body);
                }
            }
        }
        self.events += events_here.len();
        self.entries += 1;
        true
    }
}

impl ImageHeader {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(FORMAT);
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.cluster);
        bytes.put_i64_le(self.base);
        bytes.put_i64_le(self.finished);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ImageError> {
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
            return Err(ImageError::Damaged("it does not begin as an image does"));
        };
        let format = rest.get_u32_le();
        if format != FORMAT {
            return Err(ImageError::Format(format));
        }
        rest.advance(4);
        let header = Self { cluster: rest.get_u64_le(), base: rest.get_i64_le(), finished: rest.get_i64_le() };
        if rest.get_u32_le() != crc32c::crc32c(&bytes[..HEADER_BYTES - 4]) {
            return Err(ImageError::Damaged("the header's checksum is wrong"));
        }
        Ok(header)
    }
}

/// Reads the header of an image, judges it, then reads the rest. `None`: `usable` says no.
pub fn read_image(
    file: &mut dyn Read,
    usable: &mut dyn FnMut(&ImageHeader) -> bool,
) -> Result<Option<(Index, ImageHeader, ImageTrailer)>, ImageError> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact(&mut bytes)?;
    let header = ImageHeader::decode(&bytes)?;
    if !usable(&header) {
        return Ok(None);
    }
    let seed = seed(&bytes);
    let mut loading = Loading::new(&header);
    let mut body = Vec::new();
    for number in 0.. {
        let mut frame = [0; FRAME_BYTES];
        file.read_exact(&mut frame)?;
        let mut rest = &frame[..];
        let (length, entries, crc) = (rest.get_u32_le(), rest.get_u32_le(), rest.get_u32_le());
        body.clear();
        // Never more memory than there are bytes.
        file.take(u64::from(length)).read_to_end(&mut body)?;
        if body.len() != length as usize || checksum(seed, number, entries, &body) != crc {
            return Err(ImageError::Damaged("a block's checksum is wrong"));
        }
        let mut rest = &body[..];
        if entries == TRAILER {
            if rest.len() != 24 || file.read(&mut [0])? != 0 {
                return Err(ImageError::Damaged("it does not end as an image does"));
            }
            let trailer =
                ImageTrailer { needs: rest.get_i64_le(), applied: rest.get_u64_le(), keys: rest.get_u64_le() };
            let index = loading.finish(trailer.keys)?;
            return Ok(Some((index, header, trailer)));
        }
        loading.block(entries, rest).ok_or(ImageError::Damaged("a block says what cannot be"))?;
    }
    Err(ImageError::Damaged("it has too many blocks"))
}

/// An index being read.
struct Loading {
    base: i64,
    finished: i64,
    builder: Builder,
    /// The key whose events may go on in the next entry.
    key: Vec<u8>,
    history: Option<History>,
    newest: Revision,
}

impl Loading {
    fn new(header: &ImageHeader) -> Self {
        Self {
            base: header.base,
            finished: header.finished.max(0),
            builder: Builder::default(),
            key: Vec::new(),
            history: None,
            newest: Revision::new(0, 0),
        }
    }

    fn block(&mut self, entries: u32, mut body: &[u8]) -> Option<()> {
        let mut key = Vec::new();
        for _ in 0..entries {
            let shared = usize::try_from(decode_varint(&mut body).ok()?).ok().filter(|shared| *shared <= key.len())?;
            let rest = usize::try_from(decode_varint(&mut body).ok()?).ok()?;
            let (rest, behind) = body.split_at_checked(rest)?;
            body = behind;
            key.truncate(shared);
            key.extend_from_slice(rest);
            self.entry(&key, &mut body)?;
        }
        body.is_empty().then_some(())
    }

    fn entry(&mut self, key: &[u8], body: &mut &[u8]) -> Option<()> {
        if self.history.is_none() || key != self.key {
            self.finish_key()?;
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        let lease = decode_varint(body).ok()? as i64;
        let events = decode_varint(body).ok()?;
        let mut main = 0_i64;
        for left in (0..events).rev() {
            main = main.checked_add(i64::try_from(decode_varint(body).ok()?).ok()?)?;
            let at = Revision::new(main, u32::try_from(decode_varint(body).ok()?).ok()?);
            let version = i64::try_from(decode_varint(body).ok()?).ok()?;
            let kind = match version {
                0 => Kind::Tombstone,
                version => Kind::Put { created: main.wrapping_sub(decode_varint(body).ok()? as i64), version },
            };
            if main > self.base {
                return None;
            }
            let lease = if left == 0 && kind != Kind::Tombstone { lease } else { 0 };
            let event = Event { at, kind };
            match &mut self.history {
                Some(history) if at > history.newest_at() => history.push(event, lease),
                Some(_) => return None,
                None => self.history = Some(History::new(event, lease)),
            }
            self.newest = self.newest.max(at);
        }
        self.history.is_some().then_some(())
    }

    fn finish_key(&mut self) -> Option<()> {
        match self.history.take() {
            Some(history) => self.builder.push(&self.key, history).then_some(()),
            None => Some(()),
        }
    }

    fn finish(mut self, keys: u64) -> Result<Index, ImageError> {
        self.finish_key().ok_or(ImageError::Damaged("its keys are not in order"))?;
        let tree = self.builder.finish(self.finished);
        if tree.len() as u64 != keys {
            return Err(ImageError::Damaged("it has another number of keys than it says"));
        }
        Ok(Index { tree, newest: self.newest })
    }
}

#[cfg(test)]
mod tests;
