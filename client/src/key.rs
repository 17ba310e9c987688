//! Keys, values and ranges of keys.

use bytes::Bytes;

/// What can be given as a key or a value: text or bytes, borrowed (then copied) or owned (then not).
pub trait IntoBytes {
    /// The bytes.
    fn into_bytes(self) -> Bytes;
}

macro_rules! into_bytes {
    ($($type:ty => $convert:expr;)+) => {
        $(
            impl IntoBytes for $type {
                fn into_bytes(self) -> Bytes {
                    let convert: fn($type) -> Bytes = $convert;
                    convert(self)
                }
            }

            impl From<$type> for KeyRange {
                fn from(key: $type) -> Self {
                    Self::key(key)
                }
            }
        )+
    };
}

into_bytes! {
    Bytes => |bytes| bytes;
    &Bytes => Bytes::clone;
    String => Bytes::from;
    Vec<u8> => Bytes::from;
    &str => |text| Bytes::copy_from_slice(text.as_bytes());
    &String => |text| Bytes::copy_from_slice(text.as_bytes());
    &[u8] => Bytes::copy_from_slice;
    &Vec<u8> => |bytes| Bytes::copy_from_slice(bytes);
}

impl<const N: usize> IntoBytes for &[u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

impl<const N: usize> From<&[u8; N]> for KeyRange {
    fn from(key: &[u8; N]) -> Self {
        Self::key(key)
    }
}

/// The end of a range that goes to the end of the key space, and the first key of the range of all keys.
pub(crate) const ZERO: Bytes = Bytes::from_static(b"\0");

/// One key, or all keys from one to another.
///
/// Whatever is a key is also the range of that one key: `client.get("k")` and `client.get(KeyRange::prefix("k"))` both work.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: Bytes,
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl IntoBytes) -> Self {
        Self { start: key.into_bytes(), end: Bytes::new() }
    }

    /// The keys from `start` up to but not including `end`.
    ///
    /// If `end` is empty it is the one key `start`; if it is a single zero byte, [`from`](Self::from_key) `start`.
    pub fn between(start: impl IntoBytes, end: impl IntoBytes) -> Self {
        Self { start: start.into_bytes(), end: end.into_bytes() }
    }

    /// The keys that begin with `prefix`; with an empty one, all keys.
    pub fn prefix(prefix: impl IntoBytes) -> Self {
        let start = prefix.into_bytes();
        if start.is_empty() {
            return Self::all();
        }
        let end = end_of_prefix(&start);
        Self { start, end }
    }

    /// `key` and all keys after it; from an empty one, all keys.
    pub fn from_key(key: impl IntoBytes) -> Self {
        let start = key.into_bytes();
        if start.is_empty() {
            return Self::all();
        }
        Self { start, end: ZERO }
    }

    /// All keys.
    pub fn all() -> Self {
        Self { start: ZERO, end: ZERO }
    }

    /// The first key, or the only one.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The end as it goes into a request: empty for a single key, a zero byte for "to the end of the key space".
    pub fn end(&self) -> &Bytes {
        &self.end
    }

    /// First key and end as they go into a request.
    pub fn into_parts(self) -> (Bytes, Bytes) {
        (self.start, self.end)
    }
}

/// The first key after all that begin with `prefix`: its last byte below 0xff plus one, the rest dropped.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        None => ZERO,
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(range: &KeyRange) -> (&[u8], &[u8]) {
        (range.start(), range.end())
    }

    #[test]
    fn a_key_of_any_type_is_the_range_of_that_key() {
        let text = String::from("k");
        let ranges: [KeyRange; 7] = [
            "k".into(),
            (&text).into(),
            text.into(),
            b"k".into(),
            b"k"[..].into(),
            vec![b'k'].into(),
            Bytes::from_static(b"k").into(),
        ];
        for range in ranges {
            assert_eq!(parts(&range), (&b"k"[..], &b""[..]));
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_after_it() {
        assert_eq!(parts(&KeyRange::prefix("/registry/")), (&b"/registry/"[..], &b"/registry0"[..]));
        assert_eq!(parts(&KeyRange::prefix(b"a\xff\xff")), (&b"a\xff\xff"[..], &b"b"[..]));
    }

    #[test]
    fn a_prefix_without_an_end_goes_to_the_end_of_the_key_space() {
        assert_eq!(parts(&KeyRange::prefix(b"\xff\xff")), (&b"\xff\xff"[..], &b"\0"[..]));
        assert_eq!(parts(&KeyRange::from_key("k")), (&b"k"[..], &b"\0"[..]));
    }

    #[test]
    fn nothing_as_prefix_or_first_key_means_everything() {
        for range in [KeyRange::prefix(""), KeyRange::from_key(""), KeyRange::all()] {
            assert_eq!(parts(&range), (&b"\0"[..], &b"\0"[..]));
        }
    }
}
