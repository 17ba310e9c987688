//! `make-mirror`: what a genuine etcdctl copies, this program copies.

use crate::referee::{Given, On, Pair, Server, Side, by_etcdctl_on_both_servers, on_either_server};
use crate::running::Running;

on_either_server! {
    keys_are_copied_and_followed_alike,
    unusable_mirrors_are_refused_with_the_same_text_and_exit_code,
    a_mirror_may_begin_at_a_revision,
}

by_etcdctl_on_both_servers! {
    keys_are_copied_and_followed_alike,
    unusable_mirrors_are_refused_with_the_same_text_and_exit_code,
}

/// Copies from a side's server to another one, with changes before and behind the start. What the copy then holds.
fn mirrored(side: &Side, flags: &str, shown: &str) -> String {
    let put = |line: &str| {
        let done = side.output(line, Given::default());
        assert_eq!(done.code, 0, "`{line}`: {done:?}");
    };
    let destination = Server::start("http", &[]);
    let target = destination.endpoint();
    for line in ["put /a/1 one", "put /a/2 two", "put /b/1 other", "del /a/1"] {
        put(line);
    }
    let program = Running::start(side, &format!("make-mirror {flags} {target}"));
    let there = |key: &str| {
        let line = format!("--endpoints {target} get {key} --prefix --keys-only");
        side.eventually(&line, |output| output.stdout.contains(key));
    };
    there(&format!("{shown}2"));
    for line in ["put /a/3 three", "put /a/2 changed", "del /b/1", "put /a/4 four", "del /a/3", "put /a/5 end"] {
        put(line);
    }
    there(&format!("{shown}5"));
    let ended = program.signal_and_end("KILL");
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
    side.output(&format!("--endpoints {target} get '' --from-key"), Given::default()).stdout
}

fn keys_are_copied_and_followed_alike(on: On) {
    for (flags, shown) in [
        ("--prefix /a/", "/a/"),
        ("", "/a/"),
        ("--prefix /a/ --dest-prefix /c/d/", "/c/d/"),
        ("--prefix /a/ --no-dest-prefix", ""),
    ] {
        let pair = Pair::start(on, &[]);
        let ours = mirrored(&pair.ours, flags, shown);
        assert_eq!(ours, mirrored(&pair.genuine, flags, shown), "`{flags}`: ours is on the left");
        assert!(ours.contains("changed") && !ours.contains("three"), "{ours}");
    }
}

fn unusable_mirrors_are_refused_with_the_same_text_and_exit_code(on: On) {
    let pair = Pair::start(on, &[]);
    for line in ["make-mirror", "make-mirror a b", "make-mirror --dest-prefix x --no-dest-prefix @"] {
        assert_eq!(pair.same(line).code, 128, "`{line}`");
    }
}

fn a_mirror_may_begin_at_a_revision(on: On) {
    let pair = Pair::start(on, &[]);
    let destination = Server::start("http", &[]);
    let target = destination.endpoint();
    for line in ["put /a/1 one", "put /a/2 two", "put /a/3 three"] {
        assert_eq!(pair.ours.output(line, Given::default()).code, 0);
    }
    let program = Running::start(&pair.ours, &format!("make-mirror --rev 3 {target}"));
    let copied = format!("--endpoints {target} get '' --from-key --keys-only");
    pair.ours.eventually(&copied, |output| output.stdout == "/a/2\n\n/a/3\n\n");
    drop(program);
    assert_eq!(pair.ours.output("compaction 4", Given::default()).code, 0);
    let ended = Running::start(&pair.ours, &format!("make-mirror --rev 3 {target}")).end();
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (1, "Error: etcdserver: mvcc: required revision has been compacted")
    );
}
