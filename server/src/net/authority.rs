//! Names of servers that clients send and our HTTP library refuses.
//!
//! A client calls a server by what its target says. Go's makes of `http://host:2379/` the `:authority` `host:2379/`, of an empty endpoint an empty one;
//! gRPC core makes of `ipv4:1.2.3.4:1,5.6.7.8:2` all addresses with commas, spells other characters with percent signs, writes the field's name in full and
//! puts it before `:method`. None of these is an authority, so h2 resets the stream as malformed before the service is asked. h2 has no setting for it, and
//! its reading of a request is no public interface. A genuine etcd does not look at the value, and gRPC does not use it here.
//!
//! The value of such a field is therefore written over in the request's head, before h2 reads it. The field stays where it is and stays as long as it is:
//!
//! ```text
//!   0x41 len value                    name 1 of the static table, to be indexed          0x01, 0x11: not to be indexed
//!   0x40 10 ":authority" len value    the name in full, or in Huffman's code
//!   0x81, 0x41 0                      without a value: one character is put in, and the frame becomes longer
//! ```
//!
//! Where the field goes into the dynamic table, later requests name the server by that entry, and find the new value there. The entry is no larger than the
//! client believes, as encoders use Huffman's code only where it is shorter, so that the table never drops an entry that the client still counts on. An
//! empty value to be indexed makes an exception of one byte; no known client sends one.
//!
//! Left alone, and so refused by the library: a field that goes on in a CONTINUATION frame, and one whose name is an entry of the dynamic table.

use http::uri::Authority;

/// The index of the field in HPACK's static table, without a value.
const AUTHORITY: usize = 1;
const AUTHORITY_NAME: &[u8] = b":authority";
/// The name in Huffman's code.
const AUTHORITY_CODED: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// All of a field that is in the static table.
const EMPTY_AUTHORITY: u8 = 0x81;
/// The same, spelled out with a value, not to be indexed.
const SPELLED_AUTHORITY: [u8; 3] = [0x01, 1, FILLING];
/// What values are written over with.
const FILLING: u8 = b'a';
/// Flags of a HEADERS frame: its payload begins with how many bytes of padding it ends with, and with a priority.
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// Set in the length of a string that is coded by Huffman's method.
const HUFFMAN: u8 = 0x80;

/// How a request names the server without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// By the entry of the static table, at this place of the payload.
    Indexed(usize),
    /// With a value of length 0, which is at this place.
    Spelled(usize),
}

impl Empty {
    /// Puts a value in; the payload begins at `start` of `bytes`. By how many bytes it becomes longer.
    pub fn fill(self, bytes: &mut Vec<u8>, start: usize) -> usize {
        let (at, new) = match self {
            Self::Indexed(at) => (start + at, &SPELLED_AUTHORITY[..]),
            Self::Spelled(at) => (start + at, &[1, FILLING][..]),
        };
        bytes.splice(at..=at, new.iter().copied());
        new.len() - 1
    }
}

/// Writes over an `:authority` that is none, in the payload of a HEADERS frame. An empty one has no room: it is returned.
pub fn mend(flags: u8, payload: &mut [u8]) -> Option<Empty> {
    let padding = usize::from(flags & PADDED != 0);
    let mut fields =
        Fields { bytes: payload, at: if flags & PRIORITY == 0 { padding } else { padding + PRIORITY_BYTES } };
    let value = loop {
        let at = fields.at;
        match fields.next()? {
            Field::Indexed(EMPTY_AUTHORITY) => return Some(Empty::Indexed(at)),
            Field::Authority(value) if value.bytes.is_empty() => return Some(Empty::Spelled(value.at)),
            Field::Authority(value) if value.is_authority() => return None,
            Field::Authority(value) => break value,
            Field::Indexed(_) | Field::Other => {}
        }
    };
    let (at, len, end) = (value.at, value.bytes.len(), fields.at);
    payload[at] &= !HUFFMAN;
    payload[end - len..end].fill(FILLING);
    None
}

/// Goes from field to field of a header block.
struct Fields<'p> {
    bytes: &'p [u8],
    at: usize,
}

/// A field of a header block.
enum Field<'p> {
    /// It is an entry of a table, or changes the table; its first byte.
    Indexed(u8),
    /// The name of the server, with a value that is spelled out.
    Authority(Coded<'p>),
    /// Any other that is spelled out.
    Other,
}

/// A string as HPACK has it.
struct Coded<'p> {
    /// Where its length begins.
    at: usize,
    huffman: bool,
    bytes: &'p [u8],
}

impl<'p> Fields<'p> {
    /// Passes a field. None at the end of what is there.
    fn next(&mut self) -> Option<Field<'p>> {
        let first = *self.bytes.get(self.at)?;
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = self.integer(prefix)?;
        if !literal {
            return Some(Field::Indexed(first));
        }
        let is_authority = match name {
            0 => self.string()?.is_authority_name(),
            name => name == AUTHORITY,
        };
        let value = self.string()?;
        Some(if is_authority { Field::Authority(value) } else { Field::Other })
    }

    /// An integer whose first bits are the last of a byte (RFC 7541, 5.1).
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let max = (1 << prefix) - 1;
        let mut value = usize::from(self.byte()?) & max;
        if value < max {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn string(&mut self) -> Option<Coded<'p>> {
        let at = self.at;
        let huffman = *self.bytes.get(at)? & HUFFMAN != 0;
        let len = self.integer(7)?;
        let bytes = self.bytes.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(Coded { at, huffman, bytes })
    }
}

impl Coded<'_> {
    fn is_authority_name(&self) -> bool {
        self.bytes == if self.huffman { AUTHORITY_CODED } else { AUTHORITY_NAME }
    }

    fn is_authority(&self) -> bool {
        if self.huffman {
            decoded(self.bytes).is_some_and(|text| Authority::try_from(text).is_ok())
        } else {
            Authority::try_from(self.bytes).is_ok()
        }
    }
}

/// The characters whose codes in HPACK's Huffman code have so many bits, in the order of the codes, which follow each other (RFC 7541, appendix B). What has
/// longer codes is in no name of a server.
const CODES: [(u32, &[u8]); 8] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
];
/// A string ends with fewer bits than these, all set, up to the next byte.
const PADDING_BITS: u32 = 8;

/// The text of a string in Huffman's code, if it has none but the characters above.
fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    let mut text = Vec::new();
    'characters: loop {
        let (mut code, mut first, mut len) = (0, 0, 0);
        for (code_len, characters) in CODES {
            while len < code_len {
                let Some(bit) = bits.next() else {
                    return (len < PADDING_BITS && code + 1 == 1 << len).then_some(text);
                };
                (code, first, len) = (code << 1 | bit, first << 1, len + 1);
            }
            if let Some(character) = characters.get((code - first) as usize) {
                text.push(*character);
                continue 'characters;
            }
            first += characters.len() as u32;
        }
        return None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The field's index with a value that is to be indexed.
    const INDEXED_AUTHORITY: u8 = 0x41;

    fn coded(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for character in text {
            let mut first = 0;
            let mut before = 0;
            for (len, characters) in CODES {
                first <<= len - before;
                if let Some(at) = characters.iter().position(|known| known == character) {
                    bits.extend((0..len).rev().map(|bit| (first + at) >> bit & 1));
                    break;
                }
                (first, before) = (first + characters.len(), len);
            }
        }
        bits.resize(bits.len().next_multiple_of(8), 1);
        bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | *bit as u8)).collect()
    }

    /// A request's head as Go writes it: method, scheme, path, the name of the server, what the client is.
    fn head(value: &[u8], huffman: bool) -> Vec<u8> {
        let mut head = vec![0x83, 0x86, 0x45, 3, b'/', b'a', b'b'];
        let bytes = if huffman { coded(value) } else { value.to_vec() };
        head.extend([INDEXED_AUTHORITY, bytes.len() as u8 | if huffman { HUFFMAN } else { 0 }]);
        head.extend(bytes);
        head.extend([0x40, 1, b'x', 1, b'y', 0x0f, 0x2b, 1, b'z']);
        head
    }

    fn mended(mut payload: Vec<u8>, flags: u8) -> Vec<u8> {
        if let Some(empty) = mend(flags, &mut payload) {
            empty.fill(&mut payload, 0);
        }
        payload
    }

    #[test]
    fn huffmans_code_is_that_of_the_standard() {
        // From the examples of RFC 7541, appendix C.
        for (bytes, text) in [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
            (
                &[0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3],
                "https://www.example.com",
            ),
            (&[], ""),
        ] {
            assert_eq!(decoded(bytes).as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(decoded(&[0xff]), None, "a whole byte of padding");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "what ends a string has no place in one");
        assert_eq!(decoded(&[0b0000_0110]), None, "padded with something else");
    }

    #[test]
    fn what_is_no_authority_is_written_over_and_what_is_one_stays() {
        for huffman in [false, true] {
            for (value, is_one) in [
                (&b"127.0.0.1:2379"[..], true),
                (b"[::1]:2379", true),
                (b"etcd-0.etcd.svc", true),
                (b"user:password@host:2379", true),
                (b"127.0.0.1:2379/", false),
                (b"etcd.example/some/path", false),
                (b"http://127.0.0.1:2379", false),
                (b"#initially=[127.0.0.1:2379]", false),
                (b"1.2.3.4:1,5.6.7.8:2/", false),
                (b"100%", false),
            ] {
                let head = head(value, huffman);
                let mut expected = head.clone();
                if !is_one {
                    let len = usize::from(head[8] & !HUFFMAN);
                    expected[8] = len as u8;
                    expected[9..9 + len].fill(FILLING);
                }
                assert_eq!(mended(head.clone(), 4), expected, "{value:?}");
                // Behind a length of padding and a priority.
                let behind = |bytes: &[u8]| [&[2, 0, 0, 0, 0, 16], bytes, &[0, 0]].concat();
                assert_eq!(mended(behind(&head), 4 | PADDED | PRIORITY), behind(&expected), "{value:?}");
            }
        }
    }

    #[test]
    fn the_name_may_be_spelled_in_full_and_come_before_the_others() {
        assert_eq!(coded(AUTHORITY_NAME), AUTHORITY_CODED);
        for form in [0x00, 0x10, 0x40] {
            let in_full = [&[form, 10][..], AUTHORITY_NAME, &[3], b"a,/", &[0x83, 0x86]].concat();
            let expected = [&[form, 10][..], AUTHORITY_NAME, &[3], b"aaa", &[0x83, 0x86]].concat();
            assert_eq!(mended(in_full, 4), expected);
            let in_code = [&[form, 8 | HUFFMAN][..], AUTHORITY_CODED, &[0, 0x83]].concat();
            let expected = [&[form, 8 | HUFFMAN][..], AUTHORITY_CODED, &[1, FILLING, 0x83]].concat();
            assert_eq!(mended(in_code, 4), expected);
            let by_index = [&[0x83, form | 1, 2][..], b"a/", &[0x86]].concat();
            assert_eq!(mended(by_index, 4), [&[0x83, form | 1, 2][..], b"aa", &[0x86]].concat());
        }
        let another = [&[0x00, 10][..], b":authoritx", &[2], b"a/"].concat();
        assert_eq!(mended(another.clone(), 4), another);
    }

    #[test]
    fn an_authority_without_a_value_gets_one() {
        assert_eq!(mended(vec![0x83, 0x86, EMPTY_AUTHORITY, 0x90], 4), [0x83, 0x86, 0x01, 1, FILLING, 0x90]);
        assert_eq!(mended(vec![0x83, 0x41, 0, 0x86], 4), [0x83, 0x41, 1, FILLING, 0x86]);
    }

    proptest! {
        #[test]
        fn coding_and_decoding_are_each_others_reverse(text in "[-a-zA-Z0-9:./#?@&|~\\[\\]]{0,40}") {
            prop_assert_eq!(decoded(&coded(text.as_bytes())), Some(text.into_bytes()));
        }

        #[test]
        fn any_bytes_are_looked_at_and_none_is_lost(bytes: Vec<u8>, flags: u8) {
            let changed = mended(bytes.clone(), flags);
            prop_assert!((bytes.len()..=bytes.len() + 2).contains(&changed.len()));
        }

        #[test]
        fn a_head_that_was_mended_needs_nothing_more(text in "[-a-z0-9:./#?@&|~,%]{0,40}", huffman: bool) {
            let once = mended(head(text.as_bytes(), huffman), 4);
            prop_assert_eq!(mended(once.clone(), 4), once);
        }
    }
}
