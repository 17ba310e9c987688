//! Notations that etcdctl takes from Go and that scripts read or write: durations, quoted strings, numbers, sizes.
//!
//! Each function here follows one function of Go's standard library (or of a package etcdctl prints with) to the byte,
//! because its output or its error text ends up on the user's terminal.

use std::fmt::Write as _;
use std::time::Duration;

/// Why a number or another value could not be read; the text is Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not of the form at all.
    #[error("{function}: parsing {}: invalid syntax", quote(.input.as_bytes()))]
    Syntax {
        /// The Go function whose error this is.
        function: &'static str,
        /// What was to be read.
        input: String,
    },
    /// Of the form, but too large.
    #[error("{function}: parsing {}: value out of range", quote(.input.as_bytes()))]
    Range {
        /// The Go function whose error this is.
        function: &'static str,
        /// What was to be read.
        input: String,
    },
    /// Not a duration.
    #[error("time: invalid duration {}", quote(.0.as_bytes()))]
    Duration(String),
    /// A duration without a unit.
    #[error("time: missing unit in duration {}", quote(.0.as_bytes()))]
    MissingUnit(String),
    /// A duration with a unit that does not exist.
    #[error("time: unknown unit {} in duration {}", quote(.unit.as_bytes()), quote(.input.as_bytes()))]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole duration.
        input: String,
    },
}

/// Reads a boolean as `strconv.ParseBool` does.
pub fn parse_bool(input: &str) -> Result<bool, ParseError> {
    match input {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ParseError::Syntax { function: "strconv.ParseBool", input: input.to_owned() }),
    }
}

/// Reads a signed number as `strconv.ParseInt(input, base, 64)` does. Base 0 takes the base from the prefix (`0x`, `0o`,
/// `0b`, `0`) and allows underscores between digits.
pub fn parse_int(input: &str, base: u32) -> Result<i64, ParseError> {
    const FUNCTION: &str = "strconv.ParseInt";
    let syntax = || ParseError::Syntax { function: FUNCTION, input: input.to_owned() };
    let range = || ParseError::Range { function: FUNCTION, input: input.to_owned() };
    let (negative, unsigned) = match input.as_bytes().first() {
        Some(b'-') => (true, &input[1..]),
        Some(b'+') => (false, &input[1..]),
        _ => (false, input),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (digits, radix) = match base {
        0 if lower.starts_with("0x") => (&lower[2..], 16),
        0 if lower.starts_with("0o") => (&lower[2..], 8),
        0 if lower.starts_with("0b") => (&lower[2..], 2),
        0 if lower.len() > 1 && lower.starts_with('0') => (&lower[1..], 8),
        0 => (lower.as_str(), 10),
        base => (lower.as_str(), base),
    };
    // Underscores may stand between digits and after a prefix, and only where the prefix decides the base.
    let prefixed = digits.len() < lower.len();
    let misplaced = (digits.starts_with('_') && !prefixed) || digits.ends_with('_') || digits.contains("__");
    let plain = if base == 0 && !misplaced { digits.replace('_', "") } else { digits.to_owned() };
    if plain.is_empty() || !plain.chars().all(|digit| digit.is_digit(radix)) {
        return Err(syntax());
    }
    let magnitude = u64::from_str_radix(&plain, radix).map_err(|_| range())?;
    let limit = 1_u64 << 63;
    match negative {
        true if magnitude > limit => Err(range()),
        true => Ok((magnitude as i64).wrapping_neg()),
        false if magnitude >= limit => Err(range()),
        false => Ok(magnitude as i64),
    }
}

/// Reads a number without a sign as `strconv.ParseUint` does with a base other than 0.
pub fn parse_uint(input: &str, base: u32) -> Result<u64, ParseError> {
    const FUNCTION: &str = "strconv.ParseUint";
    if input.is_empty() || !input.chars().all(|digit| digit.is_digit(base)) {
        return Err(ParseError::Syntax { function: FUNCTION, input: input.to_owned() });
    }
    u64::from_str_radix(input, base).map_err(|_| ParseError::Range { function: FUNCTION, input: input.to_owned() })
}

/// Reads a duration as `time.ParseDuration` does: `300ms`, `1.5h`, `1m30s`, `-2s`, `0`. A negative one is taken as no time.
pub fn parse_duration(input: &str) -> Result<Duration, ParseError> {
    let invalid = || ParseError::Duration(input.to_owned());
    let (negative, mut rest) = match input.as_bytes().first() {
        Some(b'-') => (true, &input[1..]),
        Some(b'+') => (false, &input[1..]),
        _ => (false, input),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds = 0_f64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..number_end].parse().map_err(|_| invalid())?;
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..unit_end];
        rest = &rest[unit_end..];
        nanoseconds += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                "" => return Err(ParseError::MissingUnit(input.to_owned())),
                unit => return Err(ParseError::UnknownUnit { unit: unit.to_owned(), input: input.to_owned() }),
            };
    }
    if nanoseconds > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { Duration::ZERO } else { Duration::from_nanos(nanoseconds.round() as u64) })
}

/// Writes a duration as Go's `Duration.String` does: `2.319807ms`, `5.000648261s`, `1m0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let fraction = |nanoseconds: u128, unit: u128, name: &str| {
        let mut text = (nanoseconds / unit).to_string();
        let rest = nanoseconds % unit;
        if rest > 0 {
            let width = unit.ilog10() as usize;
            let digits = format!("{rest:0width$}");
            let _ = write!(text, ".{}", digits.trim_end_matches('0'));
        }
        text + name
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(nanoseconds, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanoseconds, 1_000_000, "ms"),
        _ => {
            let seconds = fraction(nanoseconds % 60_000_000_000, 1_000_000_000, "s");
            let minutes = nanoseconds / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// Quotes bytes as Go's `%q` does: printable characters stand for themselves, everything else is escaped.
pub fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_quoted(&mut quoted, character);
        }
        for byte in chunk.invalid() {
            let _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

/// Quotes a list as Go's `%q` does.
pub fn quote_list(words: &[Vec<u8>]) -> String {
    let words: Vec<_> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

fn push_quoted(quoted: &mut String, character: char) {
    match character {
        '"' => quoted.push_str("\\\""),
        '\\' => quoted.push_str("\\\\"),
        '\u{7}' => quoted.push_str("\\a"),
        '\u{8}' => quoted.push_str("\\b"),
        '\u{c}' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\u{b}' => quoted.push_str("\\v"),
        printable if is_printable(printable) => quoted.push(printable),
        ascii if ascii.is_ascii() => {
            let _ = write!(quoted, "\\x{:02x}", ascii as u32);
        }
        short if (short as u32) < 0x1_0000 => {
            let _ = write!(quoted, "\\u{:04x}", short as u32);
        }
        long => {
            let _ = write!(quoted, "\\U{:08x}", long as u32);
        }
    }
}

/// Whether Go would print the character: letters, marks, numbers, punctuation, symbols and the plain space.
fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    // The standard library knows printable characters only through its escaping of strings, where a combining mark is left
    // alone unless it comes first.
    let mut text = String::from("a");
    text.push(character);
    text.escape_debug().nth(1) == Some(character)
}

/// Writes a size as etcdctl does, in powers of 1000 with one decimal below 10: `20 kB`, `2.1 GB`, `0 B`.
pub fn humanize_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let exponent = bytes.ilog10() / 3;
    let value = (bytes as f64 / 1000_f64.powi(exponent as i32) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[exponent as usize];
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_notation_a_flag_accepts() {
        for (text, number) in [("5", 5), ("-1", -1), ("+7", 7), ("0x10", 16), ("0b101", 5), ("0o17", 15), ("017", 15)] {
            assert_eq!(parse_int(text, 0), Ok(number), "{text}");
        }
        assert_eq!(parse_int("1_0", 0), Ok(10));
        assert_eq!(parse_int("0x_f", 0), Ok(15));
        assert_eq!(parse_int("9223372036854775807", 10), Ok(i64::MAX));
        assert_eq!(parse_int("-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(parse_int("-7fff", 16), Ok(-0x7fff));
    }

    #[test]
    fn bad_numbers_give_the_texts_etcdctl_prints() {
        let text = |result: Result<i64, ParseError>| result.expect_err("must be refused").to_string();
        assert_eq!(text(parse_int("x", 10)), r#"strconv.ParseInt: parsing "x": invalid syntax"#);
        assert_eq!(text(parse_int("", 0)), r#"strconv.ParseInt: parsing "": invalid syntax"#);
        assert_eq!(text(parse_int("0x10", 10)), r#"strconv.ParseInt: parsing "0x10": invalid syntax"#);
        assert_eq!(text(parse_int("1__0", 0)), r#"strconv.ParseInt: parsing "1__0": invalid syntax"#);
        assert_eq!(text(parse_int("_10", 0)), r#"strconv.ParseInt: parsing "_10": invalid syntax"#);
        let large = "99999999999999999999";
        assert_eq!(
            text(parse_int(large, 0)),
            r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#
        );
        assert_eq!(
            text(parse_int("9223372036854775808", 10)),
            r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#
        );
    }

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, duration) in [
            ("5s", Duration::from_secs(5)),
            ("1.5h", Duration::from_mins(90)),
            ("1m30s", Duration::from_secs(90)),
            ("100us", Duration::from_micros(100)),
            ("0", Duration::ZERO),
            ("-3s", Duration::ZERO),
            (".5s", Duration::from_millis(500)),
        ] {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
        let text = |input: &str| parse_duration(input).expect_err("must be refused").to_string();
        assert_eq!(text("x"), r#"time: invalid duration "x""#);
        assert_eq!(text("5"), r#"time: missing unit in duration "5""#);
        assert_eq!(text("5y"), r#"time: unknown unit "y" in duration "5y""#);

        for (nanoseconds, text) in [
            (0, "0s"),
            (17, "17ns"),
            (1_500, "1.5µs"),
            (2_319_807, "2.319807ms"),
            (5_000_648_261, "5.000648261s"),
            (5_000_000_000, "5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (5_430_500_000_000, "1h30m30.5s"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(nanoseconds)), text);
        }
    }

    #[test]
    fn quoting_keeps_what_can_be_read_and_escapes_the_rest() {
        assert_eq!(quote(b"plain"), r#""plain""#);
        assert_eq!(quote(b"\xff\xfe\x80\x00abc"), r#""\xff\xfe\x80\x00abc""#);
        assert_eq!(quote("e\u{301}é😀\u{200b}\u{1b}\"\\'".as_bytes()), "\"e\u{301}é😀\\u200b\\x1b\\\"\\\\'\"");
        assert_eq!(quote("\u{a0}\u{2028}\u{e0001}".as_bytes()), r#""\u00a0\u2028\U000e0001""#);
        assert_eq!(quote(b"\x07\x08\x0c\n\r\t\x0b"), r#""\a\b\f\n\r\t\v""#);
    }

    #[test]
    fn sizes_are_written_in_powers_of_a_thousand() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
            (16_039_936, "16 MB"),
            (8_700_000, "8.7 MB"),
        ] {
            assert_eq!(humanize_bytes(bytes), text);
        }
    }
}
