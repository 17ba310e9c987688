//! What a client says on its way to the HTTP/2 library: frames are followed, and some are written over.
//!
//! The library has guards that a healthy client runs into, and no settings for them. It charges each DATA frame below 256 bytes that has not been read yet,
//! however little that is, and ends the connection when there are too many; it counts empty DATA frames over a connection's life and takes 100. A client that
//! renews 10,000 leases on one stream sends 10,000 such frames at once. So
//!
//! - DATA frames of a stream that follow each other are joined into one, up to the bytes of a frame,
//! - those without any data are left out,
//! - a request's name of the server that the library would refuse is written over ([`authority`]).
//!
//! ```text
//!   9 16 9 16 9 16 9 60    three renewals and the head of another call, in one piece of the connection
//!   '────joined──┘ '──┘
//!   9 48 9 60
//! ```
//!
//! Windows are not touched: they count payloads. Frames pass in their order. What begins in one piece of the connection and ends in another is held for the
//! next only where it is looked at as a whole: the nine bytes before a frame, and the head of a request with them. The rest of a piece passes in place,
//! without being copied; a piece of which something is held is copied once.

use std::mem;

use tokio::io::ReadBuf;

use super::authority;

/// Bytes before a frame's payload.
const HEADER_BYTES: usize = 9;
/// Where the flags are.
const FLAGS_AT: usize = 4;
/// What a client says first on an HTTP/2 connection.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's payload at most, as HTTP/2 has it where nothing else is agreed on. The library refuses larger frames.
const FRAME_BYTES_MAX: usize = 16 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;
const PADDED: u8 = 8;

/// What passed by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Frames that the library gets to see.
    pub frames: usize,
    /// Pings, answers to pings left out.
    pub pings: u32,
    /// Streams that were opened.
    pub streams: usize,
}

/// Follows what a client says.
#[derive(Debug)]
pub struct Intake {
    position: Position,
    last_stream: u32,
    /// The beginning of something that is looked at as a whole.
    held: Vec<u8>,
    /// Passed, but not given on: there was no place for it where it came.
    ready: Vec<u8>,
    /// Bytes of it that were given on.
    given: usize,
}

#[derive(Debug, Clone, Copy)]
enum Position {
    /// This many bytes of the preface have passed.
    Preface(usize),
    /// A frame begins.
    Boundary,
    /// This many bytes of a payload are to come.
    Payload(usize),
    /// It is not HTTP/2.
    Foreign,
}

/// How far some bytes were followed.
struct Scan {
    /// From the front, so many are to be passed on.
    kept: usize,
    /// So many were followed; the others are to be held.
    read: usize,
    /// The frame that comes next names the server without a value.
    empty: Option<authority::Empty>,
}

/// A frame's header.
struct Header {
    len: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Header {
    /// The one that `bytes` begin with, if it is whole.
    fn of(bytes: &[u8]) -> Option<Self> {
        let [l2, l1, l0, kind, flags, stream @ ..] = *bytes.first_chunk::<HEADER_BYTES>()?;
        let len = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        Some(Self { len, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff })
    }
}

/// Writes how many bytes the payload of the frame has that begins at `at`.
fn set_len(bytes: &mut [u8], at: usize, len: usize) {
    bytes[at..at + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
}

impl Intake {
    /// At the beginning of a connection.
    pub const fn new() -> Self {
        Self { position: Position::Preface(0), last_stream: 0, held: Vec::new(), ready: Vec::new(), given: 0 }
    }

    /// Whether frames are what passes.
    pub const fn is_http2(&self) -> bool {
        matches!(self.position, Position::Boundary | Position::Payload(_))
    }

    /// The last stream that was opened, 0 for none.
    pub const fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Follows `bytes`; so many of them, from the front, are to be passed on now.
    pub fn take(&mut self, bytes: &mut [u8]) -> (usize, Passed) {
        debug_assert!(self.held.is_empty() && self.ready.is_empty(), "bytes pass in their order");
        let mut passed = Passed::default();
        let scan = self.scan(bytes, &mut passed);
        self.held.extend_from_slice(&bytes[scan.read..]);
        if scan.empty.is_some() {
            self.pass_held(&mut passed);
        }
        (scan.kept, passed)
    }

    /// Where what follows is to be appended, if something is held.
    pub fn held(&mut self) -> Option<&mut Vec<u8>> {
        (!self.held.is_empty()).then_some(&mut self.held)
    }

    /// Follows what is held, after something was appended to it.
    pub fn take_held(&mut self) -> Passed {
        let mut passed = Passed::default();
        self.pass_held(&mut passed);
        passed
    }

    /// Nothing follows: what is held passes as it is.
    pub fn end(&mut self) {
        self.ready.append(&mut self.held);
    }

    /// Gives on what has passed and was not given on; false if there is nothing.
    pub fn give(&mut self, to: &mut ReadBuf<'_>) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let waiting = &self.ready[self.given..];
        let len = waiting.len().min(to.remaining());
        to.put_slice(&waiting[..len]);
        self.given += len;
        if self.given == self.ready.len() {
            self.given = 0;
            self.ready = Vec::new();
        }
        true
    }

    fn pass_held(&mut self, passed: &mut Passed) {
        let (mut held, mut at) = (mem::take(&mut self.held), 0);
        loop {
            let scan = self.scan(&mut held[at..], passed);
            self.ready.extend_from_slice(&held[at..at + scan.kept]);
            at += scan.read;
            let (Some(empty), Some(header)) = (scan.empty, Header::of(&held[at..])) else { break };
            let more = empty.fill(&mut held, at + HEADER_BYTES);
            set_len(&mut held, at, header.len + more);
        }
        self.held = held.split_off(at);
    }

    fn scan(&mut self, bytes: &mut [u8], passed: &mut Passed) -> Scan {
        let mut scan = Scan { kept: 0, read: 0, empty: None };
        // The DATA frame that may take more: where its header is, its stream and its length.
        let mut open: Option<(usize, u32, usize)> = None;
        while scan.read < bytes.len() {
            let left = bytes.len() - scan.read;
            match self.position {
                Position::Foreign => scan.keep(bytes, left),
                Position::Preface(seen) => {
                    let expected = &PREFACE[seen..];
                    let len = expected.len().min(left);
                    self.position = if bytes[scan.read..scan.read + len] != expected[..len] {
                        Position::Foreign
                    } else if seen + len == PREFACE.len() {
                        Position::Boundary
                    } else {
                        Position::Preface(seen + len)
                    };
                    scan.keep(bytes, len);
                }
                Position::Payload(to_come) => {
                    let len = to_come.min(left);
                    self.position = payload(to_come - len);
                    scan.keep(bytes, len);
                }
                Position::Boundary => {
                    let Some(header) = Header::of(&bytes[scan.read..]) else { break };
                    let Header { len, kind, flags, stream } = header;
                    // Streams are numbered upwards; headers of an older one are its trailers.
                    let opens = kind == HEADERS && stream > self.last_stream;
                    if opens && len <= FRAME_BYTES_MAX {
                        let payload = scan.read + HEADER_BYTES..scan.read + HEADER_BYTES + len;
                        let Some(payload) = bytes.get_mut(payload) else { break };
                        scan.empty = authority::mend(flags, payload);
                        // Without room in the frame it is taken apart from the others.
                        if scan.empty.is_some() && len + 2 <= FRAME_BYTES_MAX {
                            break;
                        }
                        scan.empty = None;
                    }
                    self.position = payload(len);
                    if kind == DATA && len == 0 && flags == 0 && stream != 0 {
                        scan.read += HEADER_BYTES;
                        continue;
                    }
                    if let Some((at, its_stream, its_len)) = open
                        && (kind, stream) == (DATA, its_stream)
                        && flags & PADDED == 0
                        && its_len + len <= FRAME_BYTES_MAX
                    {
                        set_len(bytes, at, its_len + len);
                        bytes[at + FLAGS_AT] = flags;
                        scan.read += HEADER_BYTES;
                        open = (flags == 0).then_some((at, stream, its_len + len));
                        continue;
                    }
                    open = (kind == DATA && flags == 0).then_some((scan.kept, stream, len));
                    passed.frames += 1;
                    passed.pings += u32::from(kind == PING && flags & ACK == 0);
                    if opens {
                        self.last_stream = stream;
                        passed.streams += 1;
                    }
                    scan.keep(bytes, HEADER_BYTES);
                }
            }
        }
        scan
    }
}

const fn payload(to_come: usize) -> Position {
    if to_come == 0 { Position::Boundary } else { Position::Payload(to_come) }
}

impl Scan {
    /// Passes the next `len` bytes on.
    fn keep(&mut self, bytes: &mut [u8], len: usize) {
        if self.kept != self.read {
            bytes.copy_within(self.read..self.read + len, self.kept);
        }
        self.kept += len;
        self.read += len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    /// What comes out when the bytes come in pieces, and what passed.
    fn taken(mut bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Passed, Intake) {
        let (mut intake, mut out, mut total) = (Intake::new(), Vec::new(), Passed::default());
        let mut pieces = pieces.iter().cycle();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(pieces.next().map_or(bytes.len(), |len| *len.min(&bytes.len())));
            bytes = later;
            let passed = if let Some(held) = intake.held() {
                held.extend_from_slice(now);
                intake.take_held()
            } else {
                let mut now = now.to_vec();
                let (len, passed) = intake.take(&mut now);
                out.extend_from_slice(&now[..len]);
                passed
            };
            total.frames += passed.frames;
            total.pings += passed.pings;
            total.streams += passed.streams;
            given(&mut intake, &mut out);
        }
        intake.end();
        given(&mut intake, &mut out);
        (out, total, intake)
    }

    fn given(intake: &mut Intake, out: &mut Vec<u8>) {
        let mut space = [0; 7];
        loop {
            let mut to = ReadBuf::new(&mut space);
            if !intake.give(&mut to) {
                return;
            }
            out.extend_from_slice(to.filled());
        }
    }

    /// Kind, flags, stream and payload of a frame.
    type FrameParts = (u8, u8, u32, Vec<u8>);

    /// Frames with their payloads, those of a stream's data put together.
    fn frames(mut bytes: &[u8]) -> (Vec<FrameParts>, usize) {
        let (mut frames, mut count) = (Vec::<FrameParts>::new(), 0);
        while let Some(Header { len, kind, flags, stream }) = Header::of(bytes) {
            let payload = &bytes[HEADER_BYTES..HEADER_BYTES + len];
            bytes = &bytes[HEADER_BYTES + len..];
            count += 1;
            if kind == DATA && flags == 0 && payload.is_empty() {
                continue;
            }
            match frames.last_mut() {
                Some((DATA, its_flags @ 0, its_stream, data))
                    if kind == DATA && flags & PADDED == 0 && *its_stream == stream =>
                {
                    *its_flags = flags;
                    data.extend(payload);
                }
                _ => frames.push((kind, flags, stream, payload.to_vec())),
            }
        }
        assert!(bytes.is_empty(), "{bytes:?}");
        (frames, count)
    }

    #[test]
    fn renewals_of_ten_thousand_leases_are_a_few_frames() {
        let bytes = [PREFACE.to_vec(), frame(DATA, 0, 1, &[7; 16]).repeat(10_000)].concat();
        for piece in [8 << 10, 64 << 10, 1 << 20, 5000] {
            let (out, passed, _) = taken(&bytes, &[piece]);
            let (merged, count) = frames(&out[PREFACE.len()..]);
            assert_eq!((merged.len(), merged[0].3.len()), (1, 160_000));
            assert_eq!(count, passed.frames);
            assert!(count <= 250_000 / piece + 11, "{count} frames of pieces of {piece}");
        }
    }

    #[test]
    fn frames_without_data_are_left_out() {
        let bytes = [PREFACE.to_vec(), frame(DATA, 0, 1, &[]).repeat(1000), frame(DATA, 1, 1, &[])].concat();
        for piece in [1, 8, 9, 10, 1000] {
            let (out, ..) = taken(&bytes, &[piece]);
            assert_eq!(out[PREFACE.len()..], frame(DATA, 1, 1, &[]));
        }
    }

    #[test]
    fn a_frame_does_not_become_larger_than_the_library_takes() {
        let bytes = [PREFACE.to_vec(), frame(DATA, 0, 1, &[7; 10_000]).repeat(10)].concat();
        let (out, ..) = taken(&bytes, &[1 << 20]);
        let (merged, count) = frames(&out[PREFACE.len()..]);
        assert_eq!((merged.len(), count), (1, 10));
    }

    #[test]
    fn a_name_without_a_value_gets_one_however_its_frame_comes() {
        let frames = [frame(HEADERS, 4, 1, &[0x83, 0x81, 0x86]), frame(HEADERS, 5, 3, &[0x41, 0, 0x83])].concat();
        let expected = [frame(HEADERS, 4, 1, &[0x83, 1, 1, b'a', 0x86]), frame(HEADERS, 5, 3, &[0x41, 1, b'a', 0x83])];
        let bytes = [&PREFACE[..], &frames, &frame(PING, 0, 0, &[0; 8])].concat();
        for piece in 1..bytes.len() {
            let (out, passed, intake) = taken(&bytes, &[piece]);
            assert_eq!(out, [&PREFACE[..], &expected.concat(), &frame(PING, 0, 0, &[0; 8])].concat(), "{piece}");
            assert_eq!((passed.streams, passed.pings, intake.last_stream()), (2, 1, 3));
        }
    }

    #[test]
    fn other_protocols_are_left_alone() {
        let bytes = b"PRI x / HTTP/1.1\r\n\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x08\x06\x00\x00\x00\x00\x00";
        let (out, passed, intake) = taken(bytes, &[5]);
        assert_eq!((&out[..], passed, intake.is_http2()), (&bytes[..], Passed::default(), false));
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let kinds = prop_oneof![4 => Just(DATA), 1 => Just(3), 1 => Just(PING), 1 => Just(HEADERS)];
        let flags = prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(PADDED)];
        (kinds, flags, 1..4u32, vec(2..9u8, 0..40))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
    }

    proptest! {
        #[test]
        fn the_same_is_said_however_the_bytes_are_cut(
            said in vec(any_frame(), 0..30),
            pieces in vec(1..80usize, 1..30),
        ) {
            let said = said.concat();
            let (out, passed, _) = taken(&[&PREFACE[..], &said].concat(), &pieces);
            let (got, count) = frames(&out[PREFACE.len()..]);
            prop_assert_eq!(got, frames(&said).0);
            prop_assert_eq!(count, passed.frames);
        }

        #[test]
        fn of_any_bytes_none_is_kept_back(bytes: Vec<u8>, pieces in vec(1..30usize, 1..9)) {
            let (out, ..) = taken(&bytes, &pieces);
            prop_assert!(out.len() >= bytes.len().min(PREFACE.len()));
            let (_, _, mut intake) = taken(&[&PREFACE[..], &bytes].concat(), &pieces);
            prop_assert!(intake.held().is_none());
        }
    }
}
