//! Names of servers that Go's clients send and our HTTP library refuses.
//!
//! A client in Go calls a server by what its endpoint says: `http://host:2379/` makes the `:authority` of its requests `host:2379/`, an empty endpoint in
//! a list an empty one, and `etcdctl defrag --cluster` of etcd 3.4 the whole URL. None of them is an authority, so h2 resets the stream as malformed
//! before anyone is asked; a genuine etcd does not look. There is no setting for it. But HTTP/2 lets a request name its server by `host` in place of
//! `:authority`, and to say the one for the other is to change one byte: the index of the name in HPACK's static table.
//!
//! ```text
//!   0x41 len value     literal with incremental indexing, name 1:  :authority
//!   0x66 len value     the same with name 38:                      host
//!   0x81, 0xa6         both without a value, as the static table has them
//! ```
//!
//! Where the field goes into the dynamic table, later requests name the server by that entry, and find `host` there. That the entry is six bytes
//! smaller than the client believes does no harm: entries are counted from the newest, and one that is kept for longer is never asked for.
//!
//! What is left alone, and so refused by the library: a field that does not come whole with the head of its frame in one piece of the connection, one that
//! is not to be indexed (Go's are), and one before other pseudo-headers (Go's is the last).

use http::uri::Authority;

/// The first byte of a field with name 1 of the static table, to be indexed.
const AUTHORITY: u8 = 0x41;
/// The same with name 38.
const HOST: u8 = 0x66;
/// All of a field that is in the static table at 1, and at 38: without a value, both.
const EMPTY_AUTHORITY: u8 = 0x81;
const EMPTY_HOST: u8 = 0xa6;
/// Flags of a HEADERS frame: its payload begins with how many bytes of padding it ends with, and with a priority.
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// Set in the length of a string that is coded by Huffman's method.
const HUFFMAN: u8 = 0x80;

/// Says `host` for an `:authority` that is none, in the payload of a HEADERS frame or as much of it as is there.
pub fn mend(flags: u8, payload: &mut [u8]) {
    let padding = usize::from(flags & PADDED != 0);
    let mut fields =
        Fields { bytes: payload, at: if flags & PRIORITY == 0 { padding } else { padding + PRIORITY_BYTES } };
    let (at, host) = loop {
        let at = fields.at;
        match fields.next() {
            Some((EMPTY_AUTHORITY, _)) => break (at, EMPTY_HOST),
            Some((AUTHORITY, Some(value))) if value.is_authority() => return,
            Some((AUTHORITY, _)) => break (at, HOST),
            Some(_) => {}
            None => return,
        }
    };
    payload[at] = host;
}

/// Goes from field to field of a header block.
struct Fields<'p> {
    bytes: &'p [u8],
    at: usize,
}

/// A string as HPACK has it.
struct Coded<'p> {
    huffman: bool,
    bytes: &'p [u8],
}

impl<'p> Fields<'p> {
    /// Passes a field; its first byte, and its value if that is spelled out. None at the end of what is there.
    fn next(&mut self) -> Option<(u8, Option<Coded<'p>>)> {
        let first = *self.bytes.get(self.at)?;
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = self.integer(prefix)?;
        if !literal {
            return Some((first, None));
        }
        if name == 0 {
            self.string()?;
        }
        Some((first, Some(self.string()?)))
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
        let huffman = *self.bytes.get(self.at)? & HUFFMAN != 0;
        let len = self.integer(7)?;
        let bytes = self.bytes.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(Coded { huffman, bytes })
    }
}

impl Coded<'_> {
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
        head.extend([AUTHORITY, bytes.len() as u8 | if huffman { HUFFMAN } else { 0 }]);
        head.extend(bytes);
        head.extend([0x40, 1, b'x', 1, b'y', 0x0f, 0x2b, 1, b'z']);
        head
    }

    fn mended(mut payload: Vec<u8>, flags: u8) -> Vec<u8> {
        mend(flags, &mut payload);
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
    fn what_is_no_authority_becomes_a_host_and_what_is_one_stays() {
        for huffman in [false, true] {
            for (value, is_one) in [
                (&b"127.0.0.1:2379"[..], true),
                (b"[::1]:2379", true),
                (b"etcd-0.etcd.svc", true),
                (b"127.0.0.1:2379/", false),
                (b"etcd.example/some/path", false),
                (b"http://127.0.0.1:2379", false),
                (b"#initially=[127.0.0.1:2379]", false),
                (b"", false),
            ] {
                let head = head(value, huffman);
                let mut expected = head.clone();
                expected[7] = if is_one { AUTHORITY } else { HOST };
                assert_eq!(mended(head.clone(), 4), expected, "{value:?}");
                // Behind a length of padding and a priority.
                let behind = |bytes: &[u8]| [&[2, 0, 0, 0, 0, 16], bytes, &[0, 0]].concat();
                assert_eq!(mended(behind(&head), 4 | PADDED | PRIORITY), behind(&expected), "{value:?}");
            }
        }
    }

    #[test]
    fn an_authority_without_a_name_becomes_a_host_without_one() {
        assert_eq!(mended(vec![0x83, 0x86, EMPTY_AUTHORITY, 0x90], 4), [0x83, 0x86, EMPTY_HOST, 0x90]);
    }

    proptest! {
        #[test]
        fn coding_and_decoding_are_each_others_reverse(text in "[-a-zA-Z0-9:./#?@&|~\\[\\]]{0,40}") {
            prop_assert_eq!(decoded(&coded(text.as_bytes())), Some(text.into_bytes()));
        }

        #[test]
        fn a_head_in_two_pieces_is_left_alone_or_mended(text in "[a-z/:0-9]{0,30}", cut in 0..60usize) {
            let head = head(text.as_bytes(), true);
            let (before, after) = head.split_at(cut.min(head.len()));
            let whole = mended(head.clone(), 4);
            let cut = [&mended(before.to_vec(), 4), after].concat();
            prop_assert!(cut == whole || cut == head);
        }

        #[test]
        fn of_any_bytes_one_is_changed_at_most(bytes: Vec<u8>, flags: u8) {
            let changed = mended(bytes.clone(), flags);
            let differ: Vec<_> = bytes.iter().zip(&changed).filter(|(before, after)| before != after).collect();
            prop_assert!(differ.is_empty() || differ == [(&AUTHORITY, &HOST)] || differ == [(&EMPTY_AUTHORITY, &EMPTY_HOST)]);
        }
    }
}
