//! The record of calls, from the server that keeps it to the command that finds who did it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::referee::{Given, On, Output, Server, cairnctl, run};

const DEADLINE: Duration = Duration::from_mins(1);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

fn ctl(words: &[&str]) -> Output {
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    run(&cairnctl(), &words, Given::default())
}

/// Looks again and again until something is there.
fn wait<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(LOOK);
    }
}

/// The lines of a file, once there are so many.
fn lines(file: &Path, count: usize) -> Vec<String> {
    let found = wait("the lines are written", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    });
    assert_eq!(found.len(), count, "{found:?}");
    found
}

#[test]
fn who_wrote_a_key_is_found_over_files_that_were_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let (log, old) = (path("audit.log"), path("audit.log.1"));
    let log_text = log.to_str().expect("a path of text").to_owned();
    let server = Server::start_binary(&On::Cairn.binary(), "http", &["--audit-log", &log_text]);
    let endpoint = server.endpoint();
    let call = |words: &[&str]| {
        let output = ctl(&[&["--endpoints", &endpoint], words].concat());
        assert_eq!(output.code, 0, "{words:?}: {output:?}");
    };
    call(&["put", "/a", "one"]);
    call(&["put", "/b", "other"]);
    call(&["put", "/a", "two"]);
    call(&["get", "/a"]);
    let told = lines(&log, 3);
    assert!(told.iter().all(|line| line.contains("\"address\":\"127.0.0.1:") && !line.contains("two")), "{told:?}");

    // As logrotate does it.
    std::fs::rename(&log, &old).expect("it is put aside");
    let hung_up = Command::new("kill").args(["-HUP", &server.pid().to_string()]).status().expect("a signal");
    assert!(hung_up.success());
    wait("the file is opened anew", || log.exists().then_some(()));
    call(&["del", "/", "--prefix"]);
    call(&["del", "/a"]);
    lines(&log, 2);
    let packed = Command::new("gzip").arg(&old).status().expect("gzip");
    assert!(packed.success());

    let old = format!("{}.gz", old.display());
    let grep = |words: &[&str]| ctl(&[&["audit", "grep"], words, &[&log_text, &old]].concat());
    let all = grep(&["--key", "/a"]);
    assert_eq!((all.code, all.stdout.lines().count()), (0, 4), "{all:?}");
    for (revision, rpc, at) in
        [("2", "KV/Put", "revision 2"), ("3", "KV/Put", "revision 2"), ("4", "KV/Put", "revision 4")]
    {
        let found = grep(&["--key", "/a", "--rev", revision]);
        assert_eq!(found.stdout.lines().count(), 1, "{found:?}");
        assert!(found.stdout.contains(rpc) && found.stdout.contains(at), "at {revision}: {found:?}");
    }
    let deleted = grep(&["--key", "/a", "--rev", "5", "-w", "json"]);
    assert!(deleted.stdout.contains("KV/DeleteRange") && deleted.stdout.contains("\"range_end\":\"0\""), "{deleted:?}");
    // The second delete found nothing.
    assert_eq!(deleted.stdout.lines().count(), 1, "{deleted:?}");
    let before = grep(&["--key", "/a", "--rev", "3"]);
    assert!(before.stderr.contains("of revision 2;"), "{before:?}");
    let nothing = grep(&["--key", "/none", "--rev", "4"]);
    assert_eq!((nothing.code, &*nothing.stdout, &*nothing.stderr), (1, "", ""), "{nothing:?}");
}

#[test]
fn who_revoked_the_lease_of_a_key_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit.log");
    let log_text = log.to_str().expect("a path of text").to_owned();
    let server = Server::start_binary(&On::Cairn.binary(), "http", &["--audit-log", &log_text]);
    let endpoint = server.endpoint();
    let call = |words: &[&str]| {
        let output = ctl(&[&["--endpoints", &endpoint], words].concat());
        assert_eq!(output.code, 0, "{words:?}: {output:?}");
        output.stdout
    };
    let granted = call(&["lease", "grant", "600"]);
    let lease = granted.split(' ').nth(1).expect("its id");
    call(&["put", "/a", "one", "--lease", lease]);
    call(&["lease", "revoke", lease]);
    lines(&log, 3);
    let found = ctl(&["audit", "grep", "--key", "/a", "--rev", "3", &log_text]);
    assert!(found.stdout.contains("Lease/LeaseRevoke, revision 3, Ok"), "{found:?}");
}

#[test]
fn what_is_not_a_record_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, b"no line\n\n{}\n\xff\n").expect("a file");
    let name = file.to_str().expect("a path of text");
    let found = ctl(&["audit", "grep", "--key", "a", name]);
    assert_eq!(found.code, 1);
    assert!(found.stderr.starts_with("Warning: 3 lines of "), "{found:?}");
    for words in [&["audit", "grep", name][..], &["audit", "grep", "--key", "a"]] {
        assert_eq!(ctl(words).code, 128, "{words:?}");
    }
    assert_eq!(ctl(&["audit", "grep", "--key", "a", "no such file"]).code, 1);
    assert_eq!(ctl(&["audit", "grep", "--key", "a", "-w", "table", name]).code, 4);
}
