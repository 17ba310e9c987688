//! Users: asked for their names and passwords, let in and refused.

use crate::compared::{all_same, as_before_3_7, measured, stdin};
use crate::referee::{Etcdctl, Given, On, Pair, by_etcdctl_on_both_servers, on_either_server, output, run};

/// On genuine servers alone, as long as ours know no users: see below.
#[test]
fn users_are_asked_for_and_refused_alike() {
    let pair = Pair::start(On::Etcd, &[]);
    // This program cannot set users up yet, so the genuine one does it on both servers.
    for side in [&pair.genuine, &pair.ours] {
        for line in ["user add root:pw", "user add nobody:pw", "user grant-role root root", "put a 1", "auth enable"] {
            let done = run(&pair.genuine.program, &side.words(line), Given::default());
            assert_eq!(done.code, 0, "`{line}`: {}", done.stderr);
        }
    }
    all_same(
        &pair,
        &[
            "get a",
            "get a --user root:pw",
            "get a --user root --password pw",
            "get a --user root:wrong",
            "get a --user root:pw --password pw",
            "get a --user nobody:pw",
            "put a 2 --user nobody:pw",
            "member list",
            "alarm list --user root:pw",
            "endpoint hashkv -w json",
            "endpoint hashkv -w json --user root:pw",
            "--endpoints @,127.0.0.1:1 get a --user root:pw",
        ],
    );
    pair.same_masked("defrag", as_before_3_7);
    pair.same_masked("endpoint health --user nobody:pw", measured);
    pair.same_masked("endpoint health --cluster --user root:pw", measured);
    assert_eq!(pair.same_masked("endpoint health --user root:wrong -w json", measured).code, 1);
    let given = stdin("pw\n");
    let asked = output(0, "a\n1\n", "Password: ");
    pair.differs("Passwords", "get a --user root", given, &asked);
}

fn without_users_a_name_and_a_password_change_nothing(on: On) {
    let pair = Pair::start(on, &[]);
    all_same(
        &pair,
        &[
            "--user root:pw put a b",
            "--user nobody:pw get a",
            "get a --user root --password pw",
            "put a c --lease=99 --user root:pw",
            "member list --user root:pw",
            "get a --rev 9 --user root:pw",
        ],
    );
    pair.same_masked("endpoint health --user root:pw", measured);
}

on_either_server! {
    without_users_a_name_and_a_password_change_nothing,
}

by_etcdctl_on_both_servers! {
    without_users_a_name_and_a_password_change_nothing,
}

#[test]
fn our_server_tells_a_genuine_program_that_it_knows_no_users_yet() {
    let pair = Pair::start(On::Both(Etcdctl::V3_5), &[]);
    for line in [
        "user list",
        "user add root:pw",
        "user grant-role root root",
        "role list",
        "role add root",
        "auth status",
        "auth enable",
    ] {
        let refused = pair.ours.output(line, Given::default());
        let text = "Error: rpc error: code = Unimplemented desc = authentication is not implemented by this server yet";
        assert_eq!(refused, output(1, "", text), "`{line}`");
    }
}
