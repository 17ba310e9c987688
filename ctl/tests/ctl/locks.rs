//! `lock` and `elect`: held, waited for, given up.

use crate::referee::{Etcdctl, Given, On, Pair, Side, by_etcdctl_on_both_servers, mask_after, on_either_server};
use crate::running::Running;

on_either_server! {
    a_command_runs_under_the_lock_and_its_exit_code_is_passed_on,
    a_lock_is_held_until_a_signal_and_goes_to_the_next,
    who_waits_for_a_lock_can_be_interrupted,
    a_lock_whose_lease_is_revoked_is_lost,
    leaders_follow_each_other_and_an_observer_hears_of_them,
}

by_etcdctl_on_both_servers! {
    a_command_runs_under_the_lock_and_its_exit_code_is_passed_on,
    a_lock_is_held_until_a_signal_and_goes_to_the_next,
    who_waits_for_a_lock_can_be_interrupted,
    a_lock_whose_lease_is_revoked_is_lost,
    leaders_follow_each_other_and_an_observer_hears_of_them,
}

/// Sets aside the lease in a key, which is another one each time.
fn nameless(text: &str) -> String {
    let mut text = text.to_owned();
    for prefix in ["l/", "e/"] {
        text = mask_after(&text, prefix, |character| !character.is_ascii_hexdigit());
    }
    for prefix in ["\"lease\":", "\"Lease\" : ", "\"key\":\""] {
        text = mask_after(&text, prefix, |character| matches!(character, '}' | '\n' | '"' | ','));
    }
    text
}

fn a_command_runs_under_the_lock_and_its_exit_code_is_passed_on(on: On) {
    let pair = Pair::start(on, &[]);
    for (line, code) in [
        ("lock l echo a b", 0),
        ("lock l -- sh -c 'env | grep ^ETCD_LOCK | sort'", 0),
        ("lock l -- sh -c 'exit 5'", 5),
        ("lock l false", 1),
        ("lock l /nonexistent", 1),
        ("lock l nonexistent", 1),
        ("lock l -- sh -c 'kill -9 $$'", 255),
        ("lock", 128),
        ("elect", 128),
        ("elect e", 128),
        ("elect -l e p", 128),
        ("elect a b c", 128),
    ] {
        let ended = pair.same_masked(line, nameless);
        // 3.4 passes no code on.
        if on != On::Both(Etcdctl::V3_4) {
            assert_eq!(ended.code, code, "`{line}`");
        }
    }
    pair.same("get '' --from-key -w json");
}

fn a_lock_is_held_until_a_signal_and_goes_to_the_next(on: On) {
    let pair = Pair::start(on, &[]);
    for (format, lines) in [("simple", 2), ("json", 1), ("fields", 12)] {
        for signal in ["INT", "TERM"] {
            let held = |side: &Side| {
                let mut program = Running::start(side, &format!("lock l -w {format} --ttl 20"));
                program.lines(lines);
                let mut next = Running::start(side, "lock l");
                // The one behind has queued up when its key is there.
                side.eventually("get l/ --prefix --keys-only", |output| output.stdout.matches("l/").count() == 2);
                let first = side.anonymous(program.signal_and_end(signal));
                next.lines(2);
                let second = side.anonymous(next.signal_and_end(signal));
                [first, second].map(|ended| (ended.code, nameless(&ended.stdout), ended.stderr))
            };
            assert_eq!(held(&pair.ours), held(&pair.genuine), "{format}, {signal}: ours is on the left");
        }
    }
    pair.same("get l/ --prefix --keys-only");
}

fn who_waits_for_a_lock_can_be_interrupted(on: On) {
    let pair = Pair::start(on, &[]);
    let waited = |side: &Side| {
        let mut holder = Running::start(side, "lock l");
        holder.lines(2);
        let waiting = Running::start(side, "lock l");
        side.eventually("get l/ --prefix --keys-only", |output| output.stdout.matches("l/").count() == 2);
        let ended = waiting.signal_and_end("INT");
        side.eventually("get l/ --prefix --keys-only", |output| output.stdout.matches("l/").count() == 1);
        ended
    };
    assert_eq!(waited(&pair.ours), waited(&pair.genuine));
}

fn a_lock_whose_lease_is_revoked_is_lost(on: On) {
    let pair = Pair::start(on, &[]);
    for (line, lines) in [("lock l --ttl 3", 2), ("elect e me", 2)] {
        // Only the lock's short time to live lets the loss be noticed soon.
        if line.starts_with("elect") {
            continue;
        }
        let lost = |side: &Side| {
            let mut program = Running::start(side, line);
            program.lines(lines);
            let found = side.output("get l/ --prefix --keys-only", Given::default()).stdout;
            let lease = found.trim().trim_start_matches("l/").to_owned();
            assert_eq!(side.output(&format!("lease revoke {lease}"), Given::default()).code, 0);
            let ended = program.end();
            (ended.code, ended.stderr)
        };
        assert_eq!(lost(&pair.ours), lost(&pair.genuine));
    }
}

fn leaders_follow_each_other_and_an_observer_hears_of_them(on: On) {
    let pair = Pair::start(on, &[]);
    for (format, lines) in [("simple", 2), ("json", 1)] {
        let elected = |side: &Side| {
            let mut observer = Running::start(side, &format!("elect -l e -w {format}"));
            let mut first = Running::start(side, &format!("elect e p1 -w {format}"));
            first.lines(lines);
            observer.lines(lines);
            let mut second = Running::start(side, &format!("elect e p2 -w {format}"));
            side.eventually("get e/ --prefix --keys-only", |output| output.stdout.matches("e/").count() == 2);
            let first = first.signal_and_end("INT");
            second.lines(lines);
            observer.lines(lines);
            let second = second.signal_and_end("TERM");
            let observer = observer.signal_and_end("INT");
            [first, second, observer].map(|ended| (ended.code, nameless(&side.anonymous(ended).stdout)))
        };
        assert_eq!(elected(&pair.ours), elected(&pair.genuine), "{format}: ours is on the left");
    }
}
