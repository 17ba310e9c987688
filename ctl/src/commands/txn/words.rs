//! Words and quoted strings, as etcdctl reads them in a transaction.
//!
//! | in the line | the word |
//! |---|---|
//! | `"a\tb"` | what is between the quotes, escapes replaced as in Go |
//! | `'a b'` | what is between the quotes, as it is |
//! | anything else up to white space | itself, quotes inside included |
//!
//! A quote that is never closed is passed over.

/// An escape that does not exist; the text is etcdctl's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid syntax")]
pub struct BadEscape;

/// Splits a line into words.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, BadEscape> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some((&first, after)) = rest.split_first() {
        let length = match first {
            b'"' => double_quoted(rest),
            b'\'' => after.iter().position(|byte| *byte == b'\'').map(|at| at + 2),
            space if is_space(space) => None,
            _ => Some(rest.iter().position(|byte| is_space(*byte)).unwrap_or(rest.len())),
        };
        let Some(length) = length else {
            rest = after;
            continue;
        };
        let (word, tail) = rest.split_at(length);
        words.push(match first {
            b'"' => unescape(&word[1..length - 1])?,
            b'\'' => word[1..length - 1].to_vec(),
            _ => word.to_vec(),
        });
        rest = tail;
    }
    Ok(words)
}

/// What counts as white space here.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

/// The length of the double-quoted string that `text` begins with, quotes included; none if it is not closed.
pub fn double_quoted(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Replaces the escapes of a double-quoted string.
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, BadEscape> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let (&kind, after) = rest.split_first().ok_or(BadEscape)?;
        rest = after;
        match kind {
            b'a' => plain.push(7),
            b'b' => plain.push(8),
            b'f' => plain.push(0x0c),
            b'n' => plain.push(b'\n'),
            b'r' => plain.push(b'\r'),
            b't' => plain.push(b'\t'),
            b'v' => plain.push(0x0b),
            b'\\' | b'"' => plain.push(kind),
            b'x' => plain.push(number(&mut rest, 2, 16)?.try_into().map_err(|_| BadEscape)?),
            b'0'..=b'7' => {
                let low = number(&mut rest, 2, 8)?;
                plain.push((u32::from(kind - b'0') * 64 + low).try_into().map_err(|_| BadEscape)?);
            }
            b'u' | b'U' => {
                let digits = if kind == b'u' { 4 } else { 8 };
                let character = char::from_u32(number(&mut rest, digits, 16)?).ok_or(BadEscape)?;
                plain.extend(character.to_string().bytes());
            }
            _ => return Err(BadEscape),
        }
    }
    Ok(plain)
}

fn number(rest: &mut &[u8], digits: usize, base: u32) -> Result<u32, BadEscape> {
    let (text, after) = rest.split_at_checked(digits).ok_or(BadEscape)?;
    *rest = after;
    text.iter().try_fold(0, |sum: u32, byte| {
        let digit = char::from(*byte).to_digit(base).ok_or(BadEscape)?;
        sum.checked_mul(base).and_then(|sum| sum.checked_add(digit)).ok_or(BadEscape)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words = split(line.as_bytes()).expect("words");
        words.into_iter().map(|word| String::from_utf8_lossy(&word).into_owned()).collect()
    }

    #[test]
    fn quotes_keep_a_word_together_only_at_its_beginning() {
        assert_eq!(words("put  a\t\"b c\""), ["put", "a", "b c"]);
        assert_eq!(words("put k2 'single quoted'"), ["put", "k2", "single quoted"]);
        assert_eq!(words("put x\"y\" it's"), ["put", "x\"y\"", "it's"]);
        assert_eq!(words("\"a\"b z"), ["a", "b", "z"]);
        assert_eq!(words("put a \"unterminated"), ["put", "a", "unterminated"]);
        assert_eq!(words("put a \"\" ''"), ["put", "a", "", ""]);
    }

    #[test]
    fn escapes_are_those_of_go() {
        assert_eq!(
            unescape(br#"a\x41\u00e9\101\U0001F600\\\"\n\xff"#),
            Ok("aAéA😀\\\"\n".bytes().chain([0xff]).collect())
        );
        for bad in [&br"\q"[..], br"\'", br"\x4", br"\400", br"\ud800", br"\u12", br"\"] {
            assert_eq!(unescape(bad), Err(BadEscape), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(split(br#"put a "bad \q""#), Err(BadEscape));
    }
}
