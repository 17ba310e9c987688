//! `watch`: the same watches by a genuine etcdctl and by this program. They start in the past, so that what they print does
//! not depend on who is faster.

use crate::referee::{Given, On, Output, Pair, Side, by_etcdctl_on_both_servers, on_either_server};
use crate::running::Running;

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
