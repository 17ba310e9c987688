//! Users: asked for their names and passwords, let in and refused.

use crate::compared::{all_same, as_before_3_7, measured, stdin};
use crate::referee::{Given, On, Pair, by_etcdctl_on_both_servers, on_either_server, output};

#[test]
fn users_are_asked_for_and_refused_alike() {
    let pair = Pair::start(On::Etcd, &[]);
    all_same(&pair, &["user add root:pw", "user add nobody:pw", "user grant-role root root", "put a 1", "auth enable"]);
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

#[test]
fn users_and_roles_are_set_up_and_shown_alike() {
    let pair = Pair::start(On::Etcd, &[]);
    all_same(
        &pair,
        &[
            "auth status",
            "auth status -w json",
            "auth status -w fields",
            "auth enable",
            "user list",
            "role list -w fields",
            "user add a:pw",
            "user add a:pw",
            "user add b --new-user-password pw -w json",
            "user add c:d --new-user-password pw",
            "user add :x --no-password",
            "user add d --no-password -w fields",
            "user add '' --new-user-password pw",
            "user add e:",
            "role add r",
            "role add r",
            "role add empty -w json",
            "role add s -w fields",
            "role add ''",
            "role grant-permission r read k",
            "role grant-permission r READ k",
            "role grant-permission r write w -w json",
            "role grant-permission r readwrite a c -w fields",
            "role grant-permission r read p --prefix",
            "role grant-permission r --from-key write z",
            "role grant-permission r read 'ü' --prefix",
            "role grant-permission s read '' --prefix",
            "role grant-permission s write '' --from-key",
            "role grant-permission s readwrite '' ignored",
            "role grant-permission s read '' ignored --prefix",
            "role grant-permission s read '' --prefix --from-key",
            "role grant-permission s read b a",
            "role grant-permission missing read k",
            "role get r",
            "role get r -w json",
            "role get r -w fields",
            "role get s",
            "role get s -w json",
            "role get empty",
            "role get missing",
            "role list",
            "role list -w json",
            "role list -w fields",
            "user grant-role a r",
            "user grant-role a s -w json",
            "user grant-role b s -w fields",
            "user grant-role a missing",
            "user grant-role missing r",
            "user get a",
            "user get a -w json",
            "user get a -w fields",
            "user get a --detail",
            "user get a --detail -w json",
            "user get a --detail -w fields",
            "user get c:d",
            "user get d --detail",
            "user get missing",
            "user get missing --detail",
            "user list",
            "user list -w json",
            "user list -w fields",
            "user revoke-role a r",
            "user revoke-role a r",
            "user revoke-role a s -w json",
            "user revoke-role missing s",
            "role revoke-permission r k",
            "role revoke-permission r k",
            "role revoke-permission r a c -w json",
            "role revoke-permission r p --prefix",
            "role revoke-permission r z --from-key",
            "role revoke-permission s '' --prefix",
            "role revoke-permission r missing more",
            "role get r",
            "role delete r",
            "role delete r",
            "role delete empty -w json",
            "user delete d",
            "user delete d",
            "user delete e: -w fields",
            "auth disable",
            "auth enable",
            "user add root:pw",
            "auth enable",
            "auth enable",
            "user list",
            "--user root:pw user get root -w json",
            "--user root:pw role list",
            "--user root:wrong role list",
            "--user a:pw role list",
            "--user a:pw user get a",
            "--user a:pw user get b",
            "--user d:pw get k",
            "--user root:pw auth status",
            "--user a:pw auth disable",
            "--user a --password pw put k 1",
            "--user b:pw put k 1",
            "--user root:pw auth disable",
            "auth disable",
            "auth status",
        ],
    );
    pair.same_given("user passwd a --interactive=false", stdin("new\n"));
    pair.same_given("user add f --interactive=false", stdin("two words\n"));
    pair.same("auth enable");
    let env = [("ETCDCTL_USER", "a"), ("ETCDCTL_PASSWORD", "new")];
    pair.same_given("user get a", Given { env: &env, ..Given::default() });
    pair.same("--user f:two user get f -w json");
    for line in ["user list", "role list", "user get b", "role get s", "auth status", "user get a --detail"] {
        pair.same_server(&format!("--user root:pw {line} -w protobuf"), Given::default());
        let refused = pair.ours.output(&format!("--user root:pw {line} -w table"), Given::default());
        assert_eq!(refused, output(4, "", "Error: table not supported as output format"), "{line}");
    }
}

#[test]
fn a_new_password_is_asked_for_twice() {
    let pair = Pair::start(On::Etcd, &[]);
    let asked = "Password of a: Type password of a again for confirmation: ";
    let (bad, done) = (128, "User a created\n");
    for (input, code, stdout, stderr) in [
        ("\n", bad, "", "Password of a: Error: empty password".to_owned()),
        ("one\ntwo\n", bad, "", format!("{asked}Error: given passwords are different")),
        ("one\none\n", 0, done, asked.to_owned()),
    ] {
        pair.differs("Passwords", "user add a", stdin(input), &output(code, stdout, &stderr));
    }
    let changed = pair.ours.output("user passwd a", stdin("two\ntwo\n"));
    assert_eq!(changed, output(0, "Password updated\n", asked));
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
