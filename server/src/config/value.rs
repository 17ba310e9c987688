//! The syntax of flag values: what the Go programs around etcd accept, and nothing more.
//!
//! Every source (command line, environment, config file) hands over text, and the same parser reads it.
//! An error is the reason alone; the caller knows which flag and which source it came from.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::Url;

/// Something a flag can be set to.
pub(crate) trait Value: Sized {
    /// Reads the value, or says why it cannot.
    fn parse(text: &str) -> Result<Self, String>;
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for Option<PathBuf> {
    fn parse(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| {
                    format!("expected a whole number from {} to {}", <$type>::MIN, <$type>::MAX)
                })
            }
        }
    )*};
}
integers!(u16, u32, u64, usize, i64);

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }
}

impl Value for Vec<Url> {
    /// A comma-separated list; sorted and without doubles, as etcd keeps it.
    fn parse(text: &str) -> Result<Self, String> {
        let mut urls = comma_list(text).map(Url::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }
}

impl Value for Vec<String> {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(comma_list(text).map(str::to_owned).collect())
    }
}

/// The non-empty, trimmed parts of a comma-separated list.
pub(crate) fn comma_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// A whole number of milliseconds, as `--heartbeat-interval` and `--election-timeout` take.
pub(crate) fn millis(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_millis)
        .map_err(|_| "expected a whole number of milliseconds, without a unit".to_owned())
}

/// Go's duration syntax: numbers with units, largest first by custom, such as `5m`, `1h30m`, `1.5s`, `100ms`; `0` alone needs no unit.
/// A negative duration counts as zero.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "expected a duration such as 100ms, 5s, 10m or 1h30m";
    let hint = || HINT.to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if let Some(positive) = text.strip_prefix('-') {
        return if positive.starts_with(['-', '+']) {
            Err(hint())
        } else {
            parse_duration(positive).map(|_| Duration::ZERO)
        };
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(hint());
    }
    let mut total_nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end =
            rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| format!("missing unit; {HINT}"))?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit_nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("unknown unit {unit:?}; {HINT}")),
        };
        total_nanos = total_nanos.checked_add(scaled(number, unit_nanos).ok_or_else(hint)?).ok_or_else(hint)?;
        rest = next;
    }
    let nanos = i64::try_from(total_nanos).map_err(|_| "the duration is longer than 292 years".to_owned())?;
    Ok(Duration::from_nanos(nanos.unsigned_abs()))
}

/// `number` (digits with at most one point) times `unit`, the fraction cut off below one nanosecond.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| -> Option<u128> { if text.is_empty() { Some(0) } else { text.parse().ok() } };
    // Nineteen decimal places are finer than a nanosecond of an hour.
    let fraction = &fraction[..fraction.len().min(19)];
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = digits(fraction)?.checked_mul(unit)? / scale;
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::join;
    use proptest::prelude::*;

    #[test]
    fn urls_are_sorted_and_without_doubles() {
        let urls = Vec::<Url>::parse("http://b:1,http://a:2,http://b:1").unwrap();
        assert_eq!(join(&urls), "http://a:2,http://b:1");
    }

    #[test]
    fn durations_follow_go() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("5m", 300_000_000_000),
            ("100ms", 100_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("+2us", 2_000),
            ("3µs", 3_000),
            ("1h0m0s", 3_600_000_000_000),
            ("-5s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn durations_that_go_refuses_are_refused() {
        for text in
            ["", "5", "5 m", "m", ".s", "1..5s", "1d", "5minutes", "--5s", "-5", "1h-2m", "9999999999h", "٣s", "+"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn booleans_follow_go() {
        assert_eq!(bool::parse("T"), Ok(true));
        assert_eq!(bool::parse("0"), Ok(false));
        assert!(bool::parse("yes").is_err());
        assert!(bool::parse("").is_err());
    }

    #[test]
    fn milliseconds_take_no_unit() {
        assert_eq!(millis("100"), Ok(Duration::from_millis(100)));
        assert!(millis("100ms").is_err());
    }

    #[test]
    fn lists_drop_empty_parts() {
        assert_eq!(Vec::<String>::parse(" a, b,,c "), Ok(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
        assert_eq!(Vec::<String>::parse(""), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_duration_parser_panic(text in "[-+0-9.a-zµ]{0,24}") {
            let _ = parse_duration(&text);
        }
    }
}
