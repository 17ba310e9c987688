//! Users: asked for their names and passwords, let in and refused.

use crate::compared::{all_same, as_before_3_7, measured, stdin};
use crate::referee::{Given, On, Pair, by_etcdctl_on_both_servers, on_either_server, output, run};

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

/// A genuine program sets users and roles up, turns authentication on and is let in or refused.
fn users_and_roles_are_kept_and_judged_alike(on: On) {
    let pair = Pair::start(on, &[]);
    all_same(
        &pair,
        &[
            "user list",
            "role list",
            "auth status",
            "auth enable",
            "user add root:pw",
            "user add root:pw",
            "user add alice:secret",
            "user add bob --no-password",
            "user add :pw",
            "role add root",
            "role add team",
            "role add team",
            "role add empty",
            "auth enable",
            "user grant-role root root",
            "user grant-role alice team",
            "user grant-role alice nothing",
            "user grant-role carol team",
            "role grant-permission team readwrite foo",
            "role grant-permission team read a m",
            "role grant-permission team write --prefix pre",
            "role grant-permission team read --from-key z",
            "role grant-permission nothing read a",
            "role get team",
            "role get nothing",
            "role revoke-permission team x",
            "user get alice",
            "user get alice --detail",
            "user get carol",
            "put foo 1",
            "put secret 1",
            "auth enable",
            "auth status --user root:pw",
            "put foo 2",
            "--user alice:secret put foo 2",
            "--user alice:secret put foo 3 --prev-kv",
            "--user alice:secret put fop 2",
            "--user alice:secret put pre1 2",
            "--user alice:secret get pre1",
            "--user alice:secret get a l",
            "--user alice:secret get a n",
            "--user alice:secret get secret",
            "--user alice:secret get z --from-key",
            "--user alice:secret del pre --prefix",
            "--user alice:secret del pre --prefix --prev-kv",
            "--user alice:secret user list",
            "--user alice:secret user get alice",
            "--user alice:secret role get team",
            "--user alice:secret role get root",
            "--user alice:wrong get foo",
            "--user bob:pw get foo",
            "--user nobody:pw get foo",
            "--user root:pw get secret",
            "--user root:pw user delete root",
            "--user root:pw user revoke-role root root",
            "--user root:pw role delete root",
            "--user root:pw role revoke-permission team foo",
            "--user alice:secret get foo",
            "--user root:pw user revoke-role alice team",
            "--user alice:secret get a",
            "--user root:pw role delete team",
            "--user root:pw user delete alice",
            "--user alice:secret get a",
            "--user root:pw user list",
            "--user root:pw role list",
            "--user alice:secret auth disable",
            "--user root:pw auth disable",
            "get secret",
            "user list",
        ],
    );
}

by_etcdctl_on_both_servers! {
    without_users_a_name_and_a_password_change_nothing,
    users_and_roles_are_kept_and_judged_alike,
}
