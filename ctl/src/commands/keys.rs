//! Ranges of keys as the flags describe them.

use bytes::Bytes;

/// The range end that means "to the end of the key space"; as a key, the smallest there is.
pub const OPEN: &[u8] = b"\0";

/// Key and range end for all keys that begin with `prefix`.
pub fn prefix(prefix: &[u8]) -> (Bytes, Bytes) {
    if prefix.is_empty() {
        return (Bytes::from_static(OPEN), Bytes::from_static(OPEN));
    }
    let end = match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(at) => {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            Bytes::from(end)
        }
        None => Bytes::from_static(OPEN),
    };
    (Bytes::copy_from_slice(prefix), end)
}

/// Key and range end for `key` and all keys above it.
pub fn from_key(key: &[u8]) -> (Bytes, Bytes) {
    let key = if key.is_empty() { OPEN } else { key };
    (Bytes::copy_from_slice(key), Bytes::from_static(OPEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_last_byte_can_be_raised() {
        for (given, end) in [(&b"a"[..], &b"b"[..]), (b"a\xff", b"b"), (b"ab\xff\xff", b"ac"), (b"\xff\xff", b"\0")] {
            assert_eq!(prefix(given), (Bytes::copy_from_slice(given), Bytes::copy_from_slice(end)));
        }
        assert_eq!(prefix(b""), (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")));
    }
}
