//! `lease`: the same command lines through a genuine etcdctl and through this program.

use std::io::{BufRead as _, BufReader};

use crate::referee::{
    Given, On, Pair, Side, by_etcdctl_on_both_servers, mask_after, on_either_server, output, prepared, run,
};

on_either_server! {
    leases_are_granted_shown_renewed_and_revoked_alike,
    a_list_of_leases_shows_how_many_and_which,
    unusable_lease_commands_are_refused_with_the_same_text_and_exit_code,
    a_revocation_is_refused_before_it_is_done_when_it_could_not_be_shown,
    a_lease_kept_alive_is_renewed_until_it_is_revoked,
}

by_etcdctl_on_both_servers! {
    leases_are_granted_shown_renewed_and_revoked_alike,
    a_list_of_leases_shows_how_many_and_which,
    unusable_lease_commands_are_refused_with_the_same_text_and_exit_code,
    a_lease_kept_alive_is_renewed_until_it_is_revoked,
}

/// Sets aside the seconds a lease has left, and the id of a lease that was just granted.
fn moving(text: &str) -> String {
    let digit = |character: char| !character.is_ascii_digit() && character != '-';
    let mut text = text.to_owned();
    for prefix in ["remaining(", "\"ttl\":", "\"TTL\" : ", "\"ID\":", "\"ID\" : "] {
        text = mask_after(&text, prefix, digit);
    }
    for (prefix, end) in [("lease ", " granted"), ("lease ", " keepalived")] {
        if let Some((_, rest)) = text.split_once(prefix)
            && let Some((id, _)) = rest.split_once(end)
        {
            text = text.replace(id, "<id>");
        }
    }
    text
}

fn with_leases(on: On, ttl: u32) -> Pair {
    let mut pair = Pair::start(on, &[]);
    pair.genuine.learn_lease(ttl);
    pair.ours.learn_lease(ttl);
    pair
}

fn leases_are_granted_shown_renewed_and_revoked_alike(on: On) {
    let pair = with_leases(on, 500);
    for line in ["put a 1 --lease <lease>", "get a -w json", "get a -w fields"] {
        pair.same(line);
    }
    for format in ["simple", "json", "fields"] {
        for line in [
            "lease grant 600",
            "lease grant 0",
            "lease grant -- -7",
            "lease timetolive <lease>",
            "lease timetolive <lease> --keys",
            "lease keep-alive <lease> --once",
        ] {
            pair.same_masked(&format!("{line} -w {format}"), moving);
        }
        for line in ["lease timetolive 7b", "lease timetolive 7b --keys", "lease keep-alive 7b", "lease timetolive 0"] {
            pair.same(&format!("{line} -w {format}"));
        }
    }
    pair.same("lease revoke <lease> -w json");
    pair.same("get '' --from-key");
    pair.same("lease timetolive <lease>");
}

fn a_list_of_leases_shows_how_many_and_which(on: On) {
    let mut pair = Pair::start(on, &[]);
    for format in ["simple", "json", "fields"] {
        pair.same(&format!("lease list -w {format}"));
    }
    pair.genuine.learn_lease(600);
    pair.ours.learn_lease(600);
    for format in ["simple", "json", "fields"] {
        pair.same(&format!("lease list -w {format}"));
    }
    pair.same("lease list ignored");
    pair.same_server("lease list -w protobuf", Given::default());
    pair.same_server("lease timetolive 7b -w protobuf", Given::default());
    for format in ["simple", "fields"] {
        pair.same(&format!("lease revoke <lease> -w {format}"));
        pair.genuine.learn_lease(600);
        pair.ours.learn_lease(600);
    }
}

fn unusable_lease_commands_are_refused_with_the_same_text_and_exit_code(on: On) {
    let pair = Pair::start(on, &[]);
    for line in [
        "lease grant",
        "lease grant x",
        "lease grant 1 2",
        "lease grant 9000000001",
        "lease grant 99999999999999999999",
        "lease revoke",
        "lease revoke zz",
        "lease revoke 1234",
        "lease timetolive",
        "lease timetolive zz",
        "lease timetolive 1 2",
        "lease keep-alive",
        "lease keep-alive zz",
        "lease keep-alive 1234",
        "lease keep-alive 1234 --once",
        "lease keep-alive 1234 --once -w json",
        "lease list -w table",
        "lease timetolive 1 -w table",
    ] {
        pair.same(line);
    }
}

fn a_revocation_is_refused_before_it_is_done_when_it_could_not_be_shown(on: On) {
    let pair = with_leases(on, 500);
    let refused = output(4, "", "Error: protobuf not supported as output format");
    let genuine = pair.differs("Output formats", "lease revoke <lease> -w protobuf", Given::default(), &refused);
    assert_eq!(genuine.code, 4);
    let (genuine, ours) = pair.outputs("lease timetolive <lease>", Given::default());
    assert!(
        genuine.stdout.ends_with("already expired\n") && ours.stdout.contains("granted with TTL(500s)"),
        "{ours:?}"
    );
}

fn a_lease_kept_alive_is_renewed_until_it_is_revoked(on: On) {
    let mut pair = Pair::start(on, &[]);
    let renewed = |side: &mut Side| {
        side.learn_lease(3);
        let words = side.words("lease keep-alive <lease>");
        let mut child = prepared(&side.program, &words, &[]).spawn().expect("start the program");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut seen: Vec<_> = (0..4).map(|_| lines.next().expect("a line").expect("text")).collect();
        let revoked = run(&side.program, &side.words("lease revoke <lease>"), Given::default());
        assert_eq!(revoked.code, 0, "{revoked:?}");
        // A renewal may still have been under way.
        seen.extend(lines.map(|line| line.expect("text")).filter(|line| !line.contains("keepalived")));
        let id = words.last().expect("the id");
        let seen: Vec<_> = seen.iter().map(|line| line.replace(id, "<lease>")).collect();
        (seen, child.wait().expect("wait").code())
    };
    let ours = renewed(&mut pair.ours);
    assert_eq!(ours.0.len(), 5, "{ours:?}");
    assert_eq!(ours, renewed(&mut pair.genuine));
}
