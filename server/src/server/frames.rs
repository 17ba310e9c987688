//! HTTP/2 frames as they pass by.
//!
//! The HTTP/2 library answers pings by itself and tells nobody. etcd's servers disconnect clients that ping too often, and so that this can be done here
//! too, the bytes of a connection are followed from frame header to frame header; payloads are skipped.

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;
/// Where its flags are.
const FLAGS_AT: usize = 4;
/// What a client says first on an HTTP/2 connection.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;

/// What passed by in some bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Pings, answers to pings left out.
    pub pings: u32,
    /// Streams that were opened.
    pub streams: usize,
    /// The last of them, 0 for none.
    pub last_stream: u32,
}

/// Follows one direction of a connection.
#[derive(Debug, Clone)]
pub struct Frames {
    position: Position,
    header: [u8; HEADER_BYTES],
    /// The last stream that was opened.
    last_stream: u32,
}

#[derive(Debug, Clone, Copy)]
enum Position {
    /// This many bytes of the preface have passed.
    Preface(usize),
    /// This many bytes of a header have passed.
    Header(usize),
    /// This many bytes of a payload are to come.
    Payload(usize),
    /// It is not HTTP/2.
    Foreign,
}

impl Frames {
    /// Of a client: a preface, then frames.
    pub const fn of_client() -> Self {
        Self { position: Position::Preface(0), header: [0; HEADER_BYTES], last_stream: 0 }
    }

    /// Of a server: frames.
    pub const fn of_server() -> Self {
        Self { position: Position::Header(0), header: [0; HEADER_BYTES], last_stream: 0 }
    }

    /// Whether the last frame is complete and the next has not begun.
    pub const fn is_between_frames(&self) -> bool {
        matches!(self.position, Position::Header(0))
    }

    /// Whether frames are what passes.
    pub const fn is_http2(&self) -> bool {
        matches!(self.position, Position::Header(_) | Position::Payload(_))
    }

    /// Follows `bytes`.
    pub fn follow(&mut self, mut bytes: &[u8]) -> Passed {
        let mut passed = Passed::default();
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes, &mut passed)..];
        }
        passed
    }

    /// Follows `bytes`, and gives `mend` the flags of each request's head and what is there of it.
    pub fn follow_heads(&mut self, mut bytes: &mut [u8], mut mend: impl FnMut(u8, &mut [u8])) -> Passed {
        let mut passed = Passed::default();
        while !bytes.is_empty() {
            let (opened, len) = (passed.streams, self.step(bytes, &mut passed));
            bytes = &mut bytes[len..];
            if let Position::Payload(left) = self.position
                && passed.streams > opened
            {
                let len = left.min(bytes.len());
                mend(self.header[FLAGS_AT], &mut bytes[..len]);
            }
        }
        passed
    }

    /// Follows some of `bytes`, as many as are returned.
    fn step(&mut self, bytes: &[u8], passed: &mut Passed) -> usize {
        match self.position {
            Position::Foreign => bytes.len(),
            Position::Preface(seen) => {
                let expected = &PREFACE[seen..];
                let len = expected.len().min(bytes.len());
                self.position = if bytes[..len] != expected[..len] {
                    Position::Foreign
                } else if seen + len == PREFACE.len() {
                    Position::Header(0)
                } else {
                    Position::Preface(seen + len)
                };
                len
            }
            Position::Payload(left) => {
                let len = left.min(bytes.len());
                self.position = if len == left { Position::Header(0) } else { Position::Payload(left - len) };
                len
            }
            Position::Header(seen) => {
                let len = (HEADER_BYTES - seen).min(bytes.len());
                self.header[seen..seen + len].copy_from_slice(&bytes[..len]);
                self.position = Position::Header(seen + len);
                if seen + len == HEADER_BYTES {
                    self.begin_payload(passed);
                }
                len
            }
        }
    }

    /// Streams are numbered upwards; headers of an older one are its trailers.
    fn headers(&mut self, stream: u32, passed: &mut Passed) {
        if stream > self.last_stream {
            self.last_stream = stream;
            passed.streams += 1;
            passed.last_stream = stream;
        }
    }

    fn begin_payload(&mut self, passed: &mut Passed) {
        let [l2, l1, l0, kind, flags, stream @ ..] = self.header;
        match kind {
            PING if flags & ACK == 0 => passed.pings += 1,
            HEADERS => self.headers(u32::from_be_bytes(stream) & 0x7fff_ffff, passed),
            _ => {}
        }
        let len = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        self.position = if len == 0 { Position::Header(0) } else { Position::Payload(len) };
    }
}

/// The frame that ends a connection because of too many pings.
pub fn calm_down(last_stream: u32) -> Vec<u8> {
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let reason = b"too_many_pings";
    let mut frame = vec![0, 0, 8 + reason.len() as u8, GOAWAY, 0, 0, 0, 0, 0];
    frame.extend(last_stream.to_be_bytes());
    frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend(reason);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    proptest! {
        #[test]
        fn pings_are_counted_however_the_bytes_are_cut(cuts in prop::collection::vec(1..30usize, 1..40)) {
            let mut bytes = PREFACE.to_vec();
            bytes.extend(frame(4, 0, 0, &[]));
            bytes.extend(frame(HEADERS, 4, 1, &[6; 20]));
            bytes.extend(frame(PING, 0, 0, &[0; 8]));
            bytes.extend(frame(0, 1, 1, &[6; 100]));
            bytes.extend(frame(PING, ACK, 0, &[0; 8]));
            bytes.extend(frame(HEADERS, 4, 5, &[1; 3]));
            bytes.extend(frame(HEADERS, 5, 1, &[1; 3]));
            bytes.extend(frame(PING, 0, 0, &[0; 8]));
            let (mut frames, mut total, mut rest) = (Frames::of_client(), Passed::default(), &bytes[..]);
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().map_or(1, |cut| cut.min(rest.len())));
                let mut heads = Vec::new();
                let passed = frames.follow_heads(&mut now.to_vec(), |flags, head| heads.push((flags, head.to_vec())));
                // Trailers are no head, and of a head that is cut only the beginning is seen.
                prop_assert!(heads.len() <= passed.streams);
                prop_assert!(heads.iter().all(|(flags, head)| *flags == 4 && head.iter().all(|byte| matches!(byte, 6 | 1))));
                total.pings += passed.pings;
                total.streams += passed.streams;
                total.last_stream = total.last_stream.max(passed.last_stream);
                rest = later;
            }
            prop_assert_eq!(total, Passed { pings: 2, streams: 2, last_stream: 5 });
            prop_assert!(frames.is_between_frames());
        }

        #[test]
        fn any_bytes_are_followed(bytes: Vec<u8>) {
            Frames::of_client().follow(&bytes);
            Frames::of_server().follow(&bytes);
        }
    }

    #[test]
    fn other_protocols_are_left_alone() {
        let mut frames = Frames::of_client();
        assert_eq!(frames.follow(b"PRI x / HTTP/1.1\r\n\r\n\x00\x00\x08\x06\x00\x00\x00\x00\x00"), Passed::default());
        assert!(!frames.is_http2());
    }

    #[test]
    fn the_last_frame_is_a_frame() {
        let mut frames = Frames::of_server();
        frames.follow(&calm_down(7));
        assert!(frames.is_between_frames());
    }
}
