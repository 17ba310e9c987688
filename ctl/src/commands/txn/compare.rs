//! Conditions: `mod("key") > "0"`.
//!
//! The property's name, the key in double quotes or backquotes in parentheses, white space, an operator, white space, the
//! value quoted like the key. What follows the value is passed over, as etcdctl does.

use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use super::invalid;
use super::words::{double_quoted, is_space, unescape};
use crate::exit::Failure;
use crate::golang::{parse_int, quote};

/// Reads one condition.
pub fn parse(line: &[u8]) -> Result<pb::Compare, Failure> {
    let shown = String::from_utf8_lossy(line);
    let Some(at) = line.iter().position(|byte| *byte == b'(') else {
        return Err(invalid(format!("malformed comparison: {shown}")));
    };
    let name = String::from_utf8_lossy(&line[..at]);
    let parts = Parts::read(&line[at + 1..]);
    let Parts { key, operator, value, complete } = &parts;
    let operator_text = String::from_utf8_lossy(operator);
    if !complete {
        let (key, value) = (quote(key), quote(value));
        return Err(invalid(format!("malformed comparison: {shown}; got {name}({key}) {operator_text} {value}")));
    }
    let number = |base| {
        parse_int(&String::from_utf8_lossy(value), base)
            .map_err(|error| invalid(format!("invalid txn compare request: {shown} ({error})")))
    };
    let (target, target_union) = match name.as_ref() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::copy_from_slice(value))),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        _ => return Err(invalid(format!("malformed comparison: {shown} (unknown target {name})"))),
    };
    let result = match operator_text.as_ref() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => return Err(invalid(format!("malformed comparison: {shown} (unknown operator {other})"))),
    };
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key: Bytes::copy_from_slice(key),
        range_end: Bytes::new(),
        target_union: Some(target_union),
    })
}

/// What was read of `"key") operator "value"`, as far as it went.
#[derive(Debug, Default)]
struct Parts {
    key: Vec<u8>,
    operator: Vec<u8>,
    value: Vec<u8>,
    complete: bool,
}

impl Parts {
    fn read(text: &[u8]) -> Self {
        let mut parts = Self::default();
        parts.complete = parts.fill(text).is_some();
        parts
    }

    fn fill(&mut self, text: &[u8]) -> Option<()> {
        let mut rest = text;
        self.key = quoted(&mut rest)?;
        rest = rest.strip_prefix(b")")?;
        spaces(&mut rest)?;
        let end = rest.iter().position(|byte| is_space(*byte)).unwrap_or(rest.len());
        self.operator = rest[..end].to_vec();
        rest = &rest[end..];
        spaces(&mut rest)?;
        self.value = quoted(&mut rest)?;
        Some(())
    }
}

/// Steps over white space, of which there must be some.
fn spaces(rest: &mut &[u8]) -> Option<()> {
    let end = rest.iter().position(|byte| !is_space(*byte))?;
    *rest = &rest[end..];
    (end > 0).then_some(())
}

/// Reads a quoted string behind any white space.
fn quoted(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let start = rest.iter().position(|byte| !is_space(*byte))?;
    let text = &rest[start..];
    let (length, value) = match text[0] {
        b'"' => {
            let length = double_quoted(text)?;
            (length, unescape(&text[1..length - 1]).ok()?)
        }
        b'`' => {
            let length = text[1..].iter().position(|byte| *byte == b'`')? + 2;
            (length, text[1..length - 1].to_vec())
        }
        _ => return None,
    };
    *rest = &text[length..];
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> String {
        parse(line.as_bytes()).expect_err("must be refused").text.expect("a text")
    }

    #[test]
    fn every_target_and_operator_is_understood() {
        for (line, target, result) in [
            (r#"ver("a") < "5""#, CompareTarget::Version, CompareResult::Less),
            (r#"version("a") > "5""#, CompareTarget::Version, CompareResult::Greater),
            (r#"c("a") = "5""#, CompareTarget::Create, CompareResult::Equal),
            (r#"create("a") != "5""#, CompareTarget::Create, CompareResult::NotEqual),
            (r#"m( "a")   >   "-5" junk"#, CompareTarget::Mod, CompareResult::Greater),
            (r"mod(`a`) = `5`", CompareTarget::Mod, CompareResult::Equal),
            (r#"val("a") = """#, CompareTarget::Value, CompareResult::Equal),
            (r#"value("a") = "x""#, CompareTarget::Value, CompareResult::Equal),
            (r#"lease("a") = "ff""#, CompareTarget::Lease, CompareResult::Equal),
        ] {
            let compare = parse(line.as_bytes()).expect(line);
            assert_eq!((compare.target(), compare.result(), &compare.key[..]), (target, result, &b"a"[..]), "{line}");
        }
        let lease = parse(br#"lease("a") = "ff""#).expect("a condition");
        assert_eq!(lease.target_union, Some(TargetUnion::Lease(0xff)));
    }

    #[test]
    fn what_is_malformed_is_shown_as_far_as_it_was_understood() {
        assert_eq!(text("bogus"), "malformed comparison: bogus");
        assert_eq!(text(r#"mod(a) = "1""#), r#"malformed comparison: mod(a) = "1"; got mod("")  """#);
        assert_eq!(text(r#"mod("a") = 1"#), r#"malformed comparison: mod("a") = 1; got mod("a") = """#);
        assert_eq!(text(r#"mod("a")> "0""#), r#"malformed comparison: mod("a")> "0"; got mod("a")  """#);
        assert_eq!(text(r#"mod("a") >"0""#), r#"malformed comparison: mod("a") >"0"; got mod("a") >"0" """#);
        assert_eq!(text(r#"mod(") > "0""#), r#"malformed comparison: mod(") > "0"; got mod(") > ")  """#);
        assert_eq!(text(r#"mod ("a") = "1""#), r#"malformed comparison: mod ("a") = "1" (unknown target mod )"#);
    }

    #[test]
    fn bad_numbers_and_operators_are_refused() {
        assert_eq!(
            text(r#"mod("a") = "x""#),
            r#"invalid txn compare request: mod("a") = "x" (strconv.ParseInt: parsing "x": invalid syntax)"#
        );
        assert_eq!(text(r#"mod("a") == "1""#), r#"malformed comparison: mod("a") == "1" (unknown operator ==)"#);
    }
}
