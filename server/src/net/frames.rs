//! HTTP/2 frames on their way to a client: where one ends and the next begins.
//!
//! The HTTP/2 library answers pings by itself. etcd's servers disconnect clients that ping too often; the frame that says so has to go between two others.

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;

/// Follows what a server says.
#[derive(Debug, Clone)]
pub struct Frames {
    position: Position,
    header: [u8; HEADER_BYTES],
}

#[derive(Debug, Clone, Copy)]
enum Position {
    /// This many bytes of a header have passed.
    Header(usize),
    /// This many bytes of a payload are to come.
    Payload(usize),
}

impl Frames {
    /// At the beginning of a connection.
    pub const fn new() -> Self {
        Self { position: Position::Header(0), header: [0; HEADER_BYTES] }
    }

    /// Whether the last frame is complete and the next has not begun.
    pub const fn is_between_frames(&self) -> bool {
        matches!(self.position, Position::Header(0))
    }

    /// Follows `bytes`.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Follows some of `bytes`, as many as are returned.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match self.position {
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
                    let [l2, l1, l0, ..] = self.header;
                    let len = u32::from_be_bytes([0, l2, l1, l0]) as usize;
                    self.position = if len == 0 { Position::Header(0) } else { Position::Payload(len) };
                }
                len
            }
        }
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

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_the_bytes_are_cut(
            payloads in prop::collection::vec(0..40u8, 1..9),
            cuts in prop::collection::vec(1..30usize, 1..40),
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for len in payloads {
                bytes.extend([0, 0, len, 0, 0, 0, 0, 0, 1]);
                bytes.resize(bytes.len() + usize::from(len), 6);
                ends.push(bytes.len());
            }
            let (mut frames, mut at, mut cuts) = (Frames::new(), 0, cuts.into_iter().cycle());
            while at < bytes.len() {
                let end = bytes.len().min(at + cuts.next().unwrap_or(1));
                frames.follow(&bytes[at..end]);
                at = end;
                prop_assert_eq!(frames.is_between_frames(), ends.contains(&at));
            }
        }
    }

    #[test]
    fn the_last_frame_is_a_frame() {
        let mut frames = Frames::new();
        frames.follow(&calm_down(7));
        assert!(frames.is_between_frames());
    }
}
