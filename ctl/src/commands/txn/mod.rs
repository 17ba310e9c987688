//! `txn`: conditions and operations from standard input, an empty line behind each of the three lists.

mod compare;
pub mod words;

use std::io::{self, BufRead};

use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::request_op::Request;

use super::{del, get, put};
use crate::cli::tree::{DEL, GET, PUT};
use crate::cli::{Flag, Flags, Invocation};
use crate::exit::{Failure, code};
use crate::output::emit;
use crate::session::Session;

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    if !invocation.args.is_empty() {
        return Err(Failure::bad_args("txn command does not accept argument"));
    }
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let interactive = invocation.flags.bool("interactive");
    let prompt = |text: &str| if interactive { emit(format!("{text}\n").as_bytes()) } else { Ok(()) };
    let mut input = io::stdin().lock();
    prompt("compares:")?;
    let compare = read_list(&mut input, compare::parse)?;
    prompt("success requests (get, put, del):")?;
    let success = read_list(&mut input, operation)?;
    prompt("failure requests (get, put, del):")?;
    let failure = read_list(&mut input, operation)?;
    let request = pb::TxnRequest { compare, success, failure };
    session.printer.txn(&session.request(request).await?)
}

/// Input that makes no sense.
fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(code::INVALID_INPUT, text)
}

/// Reads lines up to an empty one. A line that ends with the input instead of a line break was not finished.
fn read_list<T>(input: &mut impl BufRead, parse: impl Fn(&[u8]) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let mut list = Vec::new();
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).map_err(|error| invalid(error.to_string()))?;
        if line.last() != Some(&b'\n') {
            return Err(invalid("EOF"));
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(list);
        }
        list.push(parse(line)?);
    }
}

/// Reads one operation: a `put`, `get` or `del` with the flags it has as a command.
fn operation(line: &[u8]) -> Result<pb::RequestOp, Failure> {
    let shown = || String::from_utf8_lossy(line);
    let words = words::split(line).map_err(|error| invalid(error.to_string()))?;
    if words.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {}", shown())));
    }
    let name = String::from_utf8_lossy(&words[0]);
    let read = |table: &'static [Flag]| {
        let known: Vec<_> = table.iter().collect();
        Flags::read(&known, &words[1..]).map_err(|error| invalid(format!("invalid txn request: {} ({error})", shown())))
    };
    let request = if name.is_empty() {
        None
    } else if "put".starts_with(name.as_ref()) {
        let (flags, args) = read(PUT)?;
        // Standard input holds the transaction, so a value has to stand in the line.
        Some(Request::RequestPut(put::request(&flags, &args, || None)?))
    } else if "get".starts_with(name.as_ref()) {
        let (flags, args) = read(GET)?;
        Some(Request::RequestRange(get::request(&flags, &args)?))
    } else if "del".starts_with(name.as_ref()) {
        let (flags, args) = read(DEL)?;
        Some(Request::RequestDeleteRange(del::request(&flags, &args)?))
    } else {
        None
    };
    match request {
        Some(request) => Ok(pb::RequestOp { request: Some(request) }),
        None => Err(invalid(format!("invalid txn request: {}", shown()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_with_an_empty_line_and_never_with_the_input() {
        let mut input = &b"  get a \r\nput b c\n \t\nrest"[..];
        assert_eq!(read_list(&mut input, operation).expect("two operations").len(), 2);
        assert_eq!(input, b"rest");
        for mut unfinished in [&b""[..], b"get a", b"get a\n"] {
            let failure = read_list(&mut unfinished, operation).expect_err("unfinished");
            assert_eq!(failure, invalid("EOF"));
        }
    }

    #[test]
    fn operations_take_the_flags_of_their_commands() {
        let Some(Request::RequestRange(get)) = operation(b"ge a --prefix --limit=3").expect("a get").request else {
            panic!("not a get");
        };
        assert_eq!((&get.key[..], &get.range_end[..], get.limit), (&b"a"[..], &b"b"[..], 3));
        let Some(Request::RequestPut(put)) = operation(b"put 'a b' \"c\\n\" --lease=ff").expect("a put").request else {
            panic!("not a put");
        };
        assert_eq!((&put.key[..], &put.value[..], put.lease), (&b"a b"[..], &b"c\n"[..], 0xff));
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        let text = |line: &str| operation(line.as_bytes()).expect_err("refused").text.expect("a text");
        assert_eq!(text("get"), "invalid txn compare request: get");
        assert_eq!(text("foo a"), "invalid txn request: foo a");
        assert_eq!(text("get a --bogus"), "invalid txn request: get a --bogus (unknown flag: --bogus)");
        assert_eq!(text("get a --help"), "invalid txn request: get a --help (help requested)");
        assert_eq!(operation(b"put a").expect_err("no value").code, code::BAD_ARGS);
    }
}
