//! `watch`: the same watches by a genuine etcdctl and by this program. They start in the past, so that what they print does
//! not depend on who is faster.

use std::time::{Duration, Instant};

use crate::referee::{Given, On, Output, Pair, Side, by_etcdctl_on_both_servers, cairnctl, on_either_server, prepared};
use crate::running::{Running, Stalled, full_pipe};

on_either_server! {
    events_are_printed_alike_in_every_format,
    a_command_runs_for_each_event,
    a_watch_that_cannot_be_is_reported_and_ends_with_exit_code_5,
    variables_name_what_to_watch,
    watches_are_asked_for_line_by_line,
}

by_etcdctl_on_both_servers! {
    events_are_printed_alike_in_every_format,
    a_command_runs_for_each_event,
    a_watch_that_cannot_be_is_reported_and_ends_with_exit_code_5,
    variables_name_what_to_watch,
    watches_are_asked_for_line_by_line,
}

fn history(pair: &Pair) {
    for line in ["put k 'v 1'", "put k v2", "put k2 x --lease 0", "del k", "put l '\"quoted\" ü'", "put k last"] {
        pair.same(line);
    }
}

/// Both print so many lines, are interrupted, and must have printed the same.
#[track_caller]
fn same_lines(pair: &Pair, line: &str, count: usize) -> Output {
    let watched = |side: &Side| {
        let mut program = Running::start(side, line);
        program.lines(count).signal("KILL");
        side.anonymous(program.end())
    };
    let (genuine, ours) = (watched(&pair.genuine), watched(&pair.ours));
    assert_eq!(ours, genuine, "`{line}`: ours is on the left");
    ours
}

fn events_are_printed_alike_in_every_format(on: On) {
    let pair = Pair::start(on, &[]);
    history(&pair);
    same_lines(&pair, "watch k --rev 2", 12);
    same_lines(&pair, "watch k --rev 2 --prev-kv", 16);
    same_lines(&pair, "watch k --rev 2 -w json", 1);
    same_lines(&pair, "watch k --rev 2 -w json --prev-kv", 1);
    same_lines(&pair, "watch k --rev 2 --prefix -w fields", 4 + 5 * 7);
    same_lines(&pair, "watch k --rev 3 -w fields --prev-kv", 4 + 3 * 7 + 2 * 6);
    same_lines(&pair, "watch k --rev 2 --hex", 12);
    same_lines(&pair, "watch k l --rev 2", 15);
    same_lines(&pair, "watch '' --prefix --rev 2 -w json", 1);
    same_lines(&pair, "watch --rev 2 k ignored and more", 12);
}

fn a_command_runs_for_each_event(on: On) {
    let pair = Pair::start(on, &[]);
    history(&pair);
    same_lines(&pair, "watch k --rev 6 -- echo hi there", 4);
    let shown = same_lines(&pair, "watch l --rev 6 -- sh -c 'env | grep ^ETCD_WATCH | sort'", 7);
    assert!(shown.stdout.ends_with("ETCD_WATCH_VALUE=\"\\\"quoted\\\" ü\"\n"), "{}", shown.stdout);
    for line in [
        "watch k --rev 2 -- false",
        "watch k --rev 2 -- sh -c 'exit 7'",
        "watch k --rev 2 -- sh -c 'kill $$'",
        "watch k --rev 2 -- /nonexistent a",
        "watch k --rev 2 -- nonexistent",
    ] {
        let ended = pair.same(line);
        assert_eq!(ended.code, 1, "`{line}`");
    }
}

fn a_watch_that_cannot_be_is_reported_and_ends_with_exit_code_5(on: On) {
    let pair = Pair::start(on, &[]);
    history(&pair);
    pair.same("compaction 4");
    for line in
        ["watch k --rev 2", "watch k --rev 2 -w json", "watch k --rev 2 --hex", "watch l k", "watch l k -w json"]
    {
        assert_eq!(pair.same(line).code, 5, "`{line}`");
    }
    // 3.7 refuses to make such a watch, which 3.5 makes only to end it.
    if !matches!(on, On::Both(_)) {
        assert_eq!(pair.same("watch k --rev=-3 -w json").code, 5);
    }
    for line in ["watch", "watch --prefix", "watch a b --prefix", "watch a --", "watch a b --"] {
        assert_eq!(pair.same(line).code, 128, "`{line}`");
    }
}

fn variables_name_what_to_watch(on: On) {
    let pair = Pair::start(on, &[]);
    history(&pair);
    pair.same("compaction 4");
    let key = &[("ETCDCTL_WATCH_KEY", "k")][..];
    let range = &[("ETCDCTL_WATCH_KEY", "k"), ("ETCDCTL_WATCH_RANGE_END", "l")][..];
    for (line, env) in [
        ("watch --rev 2", key),
        ("watch a", key),
        ("watch a -- echo", key),
        ("watch --rev 2 -- echo", range),
        ("watch a", &[("ETCDCTL_WATCH_RANGE_END", "k")][..]),
    ] {
        pair.same_given(line, Given { env, stdin: "" });
    }
}

fn watches_are_asked_for_line_by_line(on: On) {
    let pair = Pair::start(on, &[]);
    history(&pair);
    for input in [
        "\nfoo\nwatch\n",
        "watch a --\n",
        "watch a --bogus\n",
        "watch a b --prefix\n",
        "watch --prefix\n",
        "watch 'unfinished",
    ] {
        let ended = pair.same_given("watch -i", Given { stdin: input, env: &[] });
        assert!(ended.code == 3 || ended.code == 128, "{ended:?}");
    }
    let dialogue = |side: &Side| {
        let mut program = Running::start(side, "watch -i");
        program.write("watch k --rev 2\n").lines(12);
        program.write("watch \"l\" --rev 2 --prev-kv -- echo seen\n").lines(4);
        program.write("progress\n");
        assert!(program.line_is_soon("progress notify: 7\n"), "no progress");
        side.anonymous(program.end())
    };
    let (genuine, ours) = (dialogue(&pair.genuine), dialogue(&pair.ours));
    assert_eq!(ours.stderr, genuine.stderr);
    assert_eq!(ours.code, genuine.code);
}

/// MiB of memory that a program has in use.
fn resident_mib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a program that runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

#[test]
fn what_happens_while_the_output_stands_still_is_told_after_a_compaction_too() {
    const PUTS: usize = 60;
    let side = Side::of_one(cairnctl(), On::Cairn);
    let value = "x".repeat(1_000_000);
    let put = |key: &str, value: &str| {
        let line = format!("put {key}");
        assert_eq!(side.output(&line, Given { stdin: value, ..Given::default() }).code, 0);
    };
    // Nothing of the output is read until the watch holds all that happened, and none of it is left at the member.
    let mut stalled = Stalled::start(&side, "watch k --rev 1");
    for _ in 0..PUTS {
        put("k", &value);
    }
    stalled.wait_for(|id| resident_mib(id) > PUTS as u64);
    assert_eq!(side.output(&format!("compaction {}", PUTS + 1), Given::default()).code, 0);
    put("k", "last");
    let lines = stalled.read_until("last");
    assert_eq!(lines.len(), 3 * (PUTS + 1));
    assert_eq!(lines.iter().filter(|line| **line == value).count(), PUTS);
}

#[test]
fn a_lease_is_kept_alive_while_the_output_stands_still() {
    let side = Side::of_one(cairnctl(), On::Cairn);
    let granted = side.output("lease grant 6", Given::default()).stdout;
    let id = granted.split(' ').nth(1).expect("a lease").to_owned();
    let (_reader, full) = full_pipe();
    let mut keeper = prepared(&side.program, &side.words(&format!("lease keep-alive {id}")), &[]);
    let mut keeper = keeper.stdout(full).spawn().expect("start the program");
    // Renewed over and over, though not even its first line could be printed.
    let ttl = |side: &Side| side.output(&format!("lease timetolive {id}"), Given::default()).stdout;
    let mut renewals = 0;
    let (mut before, deadline) = (6, Instant::now() + Duration::from_mins(1));
    while renewals < 3 {
        let shown = ttl(&side);
        let left = shown.split("remaining(").nth(1).and_then(|rest| rest.split('s').next()?.parse::<i64>().ok());
        let left = left.unwrap_or_else(|| panic!("the lease is gone: {shown}"));
        renewals += usize::from(left > before);
        before = left;
        assert!(Instant::now() < deadline, "not renewed");
    }
    let _ = keeper.kill();
    let _ = keeper.wait();
}
