//! What needs no server: help, completion, commands that are not there yet.

use crate::referee::{Given, Output, cairnctl, output, run, words};

fn ours(line: &str) -> Output {
    run(&cairnctl(), &words(line), Given::default())
}

#[test]
fn commands_that_are_not_there_yet_check_their_arguments_and_say_so() {
    for line in ["snapshot save f", "downgrade validate 3.6", "downgrade cancel"] {
        let ended = ours(line);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{line}");
        assert!(ended.stderr.starts_with("Error: \"") && ended.stderr.contains("is not available yet"), "{line}");
    }
    // Of `downgrade`, which came with 3.6, what etcdctl of that says.
    for (line, text) in [
        ("snapshot save", "snapshot save expects one argument"),
        ("downgrade validate", "TARGET_VERSION not provided"),
        ("downgrade enable 3.6 3.5", "too many arguments"),
    ] {
        let ended = ours(line);
        assert_eq!((ended.code, ended.stderr), (128, format!("Error: {text}\n")), "{line}");
    }
    let help = ours("--help").stdout;
    for name in ["snapshot", "downgrade"] {
        let line = help.lines().find(|line| line.starts_with(&format!("  {name} ")));
        assert!(line.is_some_and(|line| line.ends_with(" (not available yet)")), "{name}: {line:?}");
    }
}

#[test]
fn completion_is_generated_for_four_shells_and_refused_for_others() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ended = ours(&format!("completion {shell}"));
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{shell}");
        assert!(ended.stdout.contains("cairnctl"), "{shell}");
    }
    assert_eq!(ours("completion").code, 1);
    assert_eq!(ours("completion tcsh").code, 1);
}

#[test]
fn global_options_are_listed_on_their_own() {
    let ended = ours("options");
    assert!(ended.stdout.starts_with("The following options can be passed to any command:\n\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("--max-request-bytes"), "{}", ended.stdout);
}

#[test]
fn discovery_by_dns_is_refused_instead_of_ignored() {
    let refused = "Error: --discovery-srv is not supported: name the members' addresses with --endpoints\n";
    assert_eq!(ours("get a --discovery-srv example.com"), output(1, "", refused));
}

#[test]
fn debug_shows_every_global_option_but_no_secret() {
    let ended = ours("--endpoints 127.0.0.1:1 --command-timeout 0s --user a:secret --debug -w json get a");
    for line in
        ["ETCDCTL_ENDPOINTS=[127.0.0.1:1]", "ETCDCTL_COMMAND_TIMEOUT=0s", "ETCDCTL_WRITE_OUT=json", "ETCDCTL_USER=***"]
    {
        assert!(ended.stderr.lines().any(|shown| shown == line), "{line} is missing:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("secret"));
}

#[test]
fn a_lost_connection_is_explained_beside_the_error() {
    let ended = ours("--endpoints 127.0.0.1:1 get a --command-timeout 300ms");
    assert_eq!(ended.code, 1);
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert!(lines[0].starts_with("last error: cannot reach 127.0.0.1:1: "), "{lines:?}");
    assert_eq!(lines[1..], ["Error: context deadline exceeded"]);
}

#[test]
fn arguments_of_member_commands_are_refused_in_the_words_of_etcdctl() {
    // What a genuine etcdctl 3.5 says, with the same code.
    let bad_id = "bad member ID arg (strconv.ParseUint: parsing \"zz\": invalid syntax), expecting ID in Hex";
    for (line, text) in [
        ("member add", "member name not provided"),
        ("member add a b", "too many arguments"),
        ("member add a", "member peer urls not provided"),
        ("member update", "member ID is not provided"),
        ("member update 1", "member peer urls not provided"),
        ("member update zz --peer-urls=http://a:1", bad_id),
        ("member promote", "member ID is not provided"),
        ("member promote zz", bad_id),
        ("member remove", "member ID is not provided"),
        ("move-leader", "move-leader command needs 1 argument"),
        ("move-leader zz", "strconv.ParseUint: parsing \"zz\": invalid syntax"),
    ] {
        let ended = ours(line);
        assert_eq!((ended.code, ended.stderr), (128, format!("Error: {text}\n")), "{line}");
    }
    let ended = ours("-w fields member remove 1");
    assert_eq!((ended.code, ended.stderr.as_str()), (4, "Error: fields not supported as output format\n"));
}

#[test]
fn arguments_about_users_and_roles_are_refused_in_the_words_of_etcdctl() {
    let grant = "role grant command requires role name, permission type, and key [endkey] as its argument";
    let revoke = "role revoke-permission command requires role name and key [endkey] as its argument";
    let add = "user add command requires user name as its argument";
    // What genuine etcdctls say, with the same code.
    for (line, text) in [
        ("auth enable x", "auth enable command does not accept any arguments"),
        ("auth status x", "auth status command does not accept any arguments"),
        ("user add", add),
        ("user add a b", add),
        ("user add :p", "empty user name is not allowed"),
        ("user passwd", "user passwd command requires user name as its argument"),
        ("user list x", "user list command requires no arguments"),
        ("user grant-role a", "user grant command requires user name and role name as its argument"),
        ("user revoke-role a", "user revoke-role requires user name and role name as its argument"),
        ("role add", "role add command requires role name as its argument"),
        ("role list x", "role list command requires no arguments"),
        ("role grant-permission", grant),
        ("role grant-permission a read", grant),
        ("role grant-permission a bogus k", "invalid permission type: bogus"),
        ("role grant-permission a READ k --prefix --from-key", "--from-key and --prefix flags are mutually exclusive"),
        ("role grant-permission a read --prefix k e", "unexpected endkey argument with --prefix flag"),
        ("role revoke-permission a", revoke),
        ("role revoke-permission a k e --from-key", "unexpected endkey argument with --from-key flag"),
    ] {
        let ended = ours(line);
        assert_eq!((ended.code, ended.stderr), (128, format!("Error: {text}\n")), "{line}");
    }
}
