//! `audit grep`: who did it. Reads records of calls (`--audit-log` of the server), compressed or not, without any
//! server.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use crate::cli::Invocation;
use crate::exit::{Failure, code};
use crate::output::emit;

/// The first bytes of a compressed file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes of the longest line that is looked at: a record has none that is longer than a request and its keys in base64.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What is looked for.
struct Wanted {
    key: Vec<u8>,
    /// The newest write of the key that this revision shows.
    revision: Option<i64>,
}

/// What a line says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Line {
    time: String,
    member: String,
    rpc: String,
    user: Option<String>,
    common_name: Option<String>,
    address: Option<String>,
    #[serde(default)]
    keys: Vec<Touched>,
    revision: Option<i64>,
    /// Keys that a delete found.
    deleted: Option<u64>,
    code: String,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Touched {
    access: String,
    key: Option<String>,
    key_base64: Option<String>,
    range_end: Option<String>,
    range_end_base64: Option<String>,
}

/// `audit grep`.
pub fn grep(invocation: &Invocation) -> Result<(), Failure> {
    let (flags, files) = (&invocation.flags, &invocation.args);
    if !flags.given("key") || files.is_empty() {
        return Err(Failure::bad_args("audit grep command requires --key and a file, or more"));
    }
    let revision = flags.given("rev").then(|| flags.int("rev"));
    let wanted = Wanted { key: flags.bytes("key").to_vec(), revision };
    let whole = match &*flags.text("write-out") {
        "simple" => false,
        "json" => true,
        other => return Err(Failure::bad_feature(format!("audit grep prints simple or json, not {other}"))),
    };
    let mut newest = Vec::new();
    let (mut at, mut any) = (i64::MIN, false);
    for file in files {
        let name = String::from_utf8_lossy(file);
        let failed = |error: io::Error| Failure::error(format!("{name}: {error}"));
        let mut found = |text: &str, line: &Line| {
            let shown = if whole { format!("{text}\n") } else { line.simple() };
            match (wanted.revision, line.revision) {
                (Some(_), Some(revision)) if revision > at => (at, newest) = (revision, vec![shown]),
                // A request of each of two keys may make one revision; two members may tell of one call, too.
                (Some(_), Some(revision)) if revision == at => newest.push(shown),
                (Some(_), _) => {}
                (None, _) => {
                    any = true;
                    emit(shown.as_bytes())?;
                }
            }
            Ok(())
        };
        let input = open(&name).map_err(failed)?;
        read(input, &name, &wanted, &mut found)?;
    }
    emit(newest.concat().as_bytes())?;
    if let Some(wanted) = wanted.revision
        && !newest.is_empty()
        && at < wanted
    {
        eprintln!("Note: the newest write on record is of revision {at}; a lease that ran out leaves no line");
    }
    if any || !newest.is_empty() { Ok(()) } else { Err(Failure::silent(code::ERROR)) }
}

/// A file, or standard input for `-`; decompressed if it is compressed.
fn open(name: &str) -> io::Result<Box<dyn BufRead>> {
    let plain: Box<dyn Read> = if name == "-" { Box::new(io::stdin()) } else { Box::new(File::open(name)?) };
    let mut plain = BufReader::new(plain);
    if plain.fill_buf()?.starts_with(&GZIP) {
        return Ok(Box::new(BufReader::new(MultiGzDecoder::new(plain))));
    }
    Ok(Box::new(plain))
}

/// Tells `found` each line that is wanted. Lines that are none are counted.
fn read(
    mut input: Box<dyn BufRead>,
    name: &str,
    wanted: &Wanted,
    found: &mut dyn FnMut(&str, &Line) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut text, mut unreadable) = (Vec::new(), 0_u64);
    loop {
        text.clear();
        let read = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        if read.map_err(|error| Failure::error(format!("{name}: {error}")))? == 0 {
            break;
        }
        let Ok(text) = str::from_utf8(&text) else {
            unreadable += 1;
            continue;
        };
        let text = text.trim();
        match serde_json::from_str::<Line>(text) {
            Ok(line) if wanted.is(&line) => found(text, &line)?,
            Ok(_) => {}
            Err(_) if text.is_empty() => {}
            Err(_) => unreadable += 1,
        }
    }
    if unreadable > 0 {
        eprintln!("Warning: {unreadable} lines of {name} are not of a record of calls, and were passed over");
    }
    Ok(())
}

impl Wanted {
    /// With a revision only writes that succeeded until then, and not those that found nothing to delete.
    fn is(&self, line: &Line) -> bool {
        let by_revision = self
            .revision
            .is_none_or(|last| line.changed_something() && line.revision.is_some_and(|revision| revision <= last));
        let touches = |key: &Touched| (self.revision.is_none() || key.access == "write") && key.holds(&self.key);
        by_revision && line.keys.iter().any(touches)
    }
}

/// Bytes that stand as text or as base64.
fn bytes(text: Option<&String>, base64: Option<&String>) -> Option<Vec<u8>> {
    text.map(|text| text.clone().into_bytes()).or_else(|| BASE64.decode(base64?).ok())
}

impl Touched {
    fn holds(&self, wanted: &[u8]) -> bool {
        let Some(key) = bytes(self.key.as_ref(), self.key_base64.as_ref()) else { return false };
        match bytes(self.range_end.as_ref(), self.range_end_base64.as_ref()).as_deref() {
            None => key == wanted,
            Some([0]) => *key <= *wanted,
            Some(end) => *key <= *wanted && wanted < end,
        }
    }
}

impl Line {
    fn changed_something(&self) -> bool {
        self.code == "Ok" && self.deleted != Some(0)
    }

    fn simple(&self) -> String {
        let who = self.user.as_deref().or(self.common_name.as_deref()).unwrap_or("-");
        let from = self.address.as_deref().unwrap_or("-");
        let revision = self.revision.map_or("-".to_owned(), |revision| revision.to_string());
        let Self { time, member, rpc, code, .. } = self;
        let error = self.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        format!("{time} user {who} from {from} by member {member}: {rpc}, revision {revision}, {code}{error}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(keys: &str, revision: i64, code: &str) -> Line {
        let text = format!(
            r#"{{"time":"t","member":"m","rpc":"etcdserverpb.KV/Put","access":"write","keys":{keys},"revision":{revision},
            "code":"{code}","micros":3}}"#
        );
        serde_json::from_str(&text).expect("a line")
    }

    #[test]
    fn keys_and_ranges_hold_what_they_hold() {
        let wanted = |key: &str, revision| Wanted { key: key.as_bytes().to_vec(), revision };
        let one = line(r#"[{"access":"write","key":"/a"}]"#, 5, "Ok");
        assert!(wanted("/a", None).is(&one) && !wanted("/a/b", None).is(&one));
        let range = line(r#"[{"access":"write","key":"/a","range_end":"/b"}]"#, 5, "Ok");
        assert!(wanted("/a", None).is(&range) && wanted("/az", None).is(&range) && !wanted("/b", None).is(&range));
        let rest = line(r#"[{"access":"write","key_base64":"L2E=","range_end":"\u0000"}]"#, 5, "Ok");
        assert!(wanted("/z", None).is(&rest) && !wanted("/", None).is(&rest));
        // By revision, what wrote it and went well.
        assert!(wanted("/a", Some(5)).is(&one) && wanted("/a", Some(9)).is(&one) && !wanted("/a", Some(4)).is(&one));
        let read = line(r#"[{"access":"read","key":"/a"}]"#, 5, "Ok");
        assert!(wanted("/a", None).is(&read) && !wanted("/a", Some(5)).is(&read));
        let in_vain = Line { deleted: Some(0), ..line(r#"[{"access":"write","key":"/a"}]"#, 5, "Ok") };
        assert!(wanted("/a", None).is(&in_vain) && !wanted("/a", Some(5)).is(&in_vain));
        let refused = line(r#"[{"access":"write","key":"/a"}]"#, 5, "PermissionDenied");
        assert!(wanted("/a", None).is(&refused) && !wanted("/a", Some(5)).is(&refused));
    }
}
