//! The same command lines through a genuine etcdctl 3.5 and through this program; see `referee`.

use std::io::{BufRead as _, BufReader, Write as _};

use crate::referee::{
    Given, On, Output, Pair, Side, by_etcdctl_on_both_servers, is_listed_difference, mask_after, on_either_server,
    output, prepared, run, without_newer_fields,
};

on_either_server! {
    keys_are_put_read_and_deleted_with_the_same_output_in_every_format,
    transactions_are_read_and_answered_alike,
    prompts_come_before_each_list_is_read,
    members_and_endpoints_are_shown_alike,
    what_this_api_level_added_is_shown_and_listed_as_a_difference,
    unusable_command_lines_are_refused_with_the_same_text_and_exit_code,
    flags_and_endpoints_are_read_in_every_spelling,
    endpoints_that_do_not_answer_end_in_the_same_errors,
    a_port_that_serves_no_grpc_is_told_alike,
    a_full_store_raises_an_alarm_that_is_shown_and_cleared_alike,
    what_would_have_ended_the_genuine_program_badly_is_answered,
    deleting_a_range_named_by_two_keys_takes_a_moment_or_a_flag,
}

by_etcdctl_on_both_servers! {
    keys_are_put_read_and_deleted_with_the_same_output_in_every_format,
    transactions_are_read_and_answered_alike,
    prompts_come_before_each_list_is_read,
    members_and_endpoints_are_shown_alike,
    unusable_command_lines_are_refused_with_the_same_text_and_exit_code,
}

/// Given as standard input.
pub fn stdin(text: &str) -> Given<'_> {
    Given { stdin: text, ..Given::default() }
}

/// Both do every line, and must not differ in any.
#[track_caller]
pub fn all_same(pair: &Pair, lines: &[&str]) {
    for line in lines {
        pair.same(line);
    }
}

fn keys_are_put_read_and_deleted_with_the_same_output_in_every_format(on: On) {
    let pair = Pair::start(on, &[]);
    all_same(
        &pair,
        &[
            "put a 1",
            "put a 2 --prev-kv",
            "put b 1 -w json",
            "put b 2 -w json --prev-kv",
            "put b 3 -w fields --prev-kv",
            "put b 4",
            "put --hex b 5 --prev-kv",
            "put b -- -6",
            "put -- -b -7",
            "put a x y z",
            "put a --ignore-value",
            "put a --ignore-lease kept",
            "put 'white space' 'and a\ttab'",
            "put ü 'wide 😀'",
            "get a",
            "get a -w json",
            "get a -w fields",
            "get a --hex",
            "get a --hex -w json",
            "get a b",
            "get a z --limit 2 -w json",
            "get a z --limit 2 -w fields",
            "get a -- --prefix",
            "get -- -b",
            "get missing",
            "get missing -w json",
            "get missing -w fields",
            "get '' --prefix",
            "get '' --from-key --keys-only",
            "get a --prefix --keys-only",
            "get a --from-key --print-value-only",
            "get a --prefix --count-only -w fields",
            "get a --prefix --order descend --sort-by value",
            "get '' --prefix --sort-by CREATE --order ASCEND --keys-only",
            "get '' --prefix --sort-by modify --keys-only",
            "get '' --prefix --sort-by version --limit 1 --keys-only",
            "get a --rev 3",
            "get a --rev=-5",
            "get a --consistency s",
            "get a --consistency=l --limit=-1 --prefix=false",
            "get z a",
            "del a --prev-kv -w json",
            "del b --prev-kv",
            "del missing",
            "del missing -w json",
            "del missing -w fields",
            "del ü --prefix -w fields --prev-kv",
            "del white --from-key --hex --prev-kv",
            "put c 1",
            "del '' --prefix",
            "put c 2",
            "get '' --from-key",
            "compaction 5",
            "compaction 5",
            "compaction 8 --physical",
            "compaction 8000",
            "compaction x",
            "compaction 99999999999999999999",
            "compaction",
            "compaction 1 2",
            "get a --rev 2",
            "get a --rev 8000",
            "put '' v",
            "get ''",
            "del ''",
        ],
    );
    for line in ["get c -w protobuf", "get '' --prefix -w protobuf", "del missing -w protobuf"] {
        pair.same_server(line, Given::default());
    }
    pair.same_given("put from-stdin", stdin("several\nlines\n"));
    pair.same("get from-stdin");
    pair.same_given("put from-stdin", stdin(""));
    pair.same_given("put big", stdin(&"x".repeat(1_600_000)));
    pair.same_given("put bigger", stdin(&"x".repeat(2_200_000)));
}

fn transactions_are_read_and_answered_alike(on: On) {
    let pair = Pair::start(on, &[]);
    for (line, input) in [
        ("txn", "\n\n\n"),
        ("txn -w json", "\n\n\n"),
        ("txn -w fields", "\n\n\n"),
        ("txn -i", "mod(\"k\") = \"0\"\n\nput k \"a value\"\nget k\n\nput k other\n\n"),
        ("txn", "mod(\"k\") = \"0\"\n\nput k \"a value\"\nget k\n\nget k\nget k --keys-only\n\n"),
        ("txn -w json", "mod(\"k\") > \"0\"\n\nput k 2 --prev-kv\nget k\ndel other --prev-kv\n\n\n"),
        ("txn -w fields", "mod(\"k\") > \"0\"\n\nput k 3 --prev-kv\nget k --limit 1\ndel k9\n\n\n"),
        ("txn", "mod(\"k\") > \"0\"\n\nput k 4 --prev-kv\nget k\n\n\n"),
        ("txn --hex", "val(\"k\") = \"4\"\n\nget k\n\n\n"),
        ("txn", "ver(\"k\") < \"50\"\nversion(\"k\") != \"0\"\nc(\"k\") = \"2\"\ncreate(\"k\") = \"2\"\n\nget k\n\n\n"),
        ("txn", "m(\"k\") != \"1\"\nvalue(\"k\") > \"3\"\nmod( `k`)   >   `1` and more\n\nge k\n\n\n"),
        ("txn", "  mod(\"k\") > \"0\" \r\n \t \n  get k \n\n\n"),
        ("txn", "val(\"k\") < \"\"\n\n\ndel k --prefix --prev-kv\n\n"),
        ("txn", "\nput \"a\\tb\" \"c\\nd\"\nget a --prefix\n\n\n"),
        ("txn", "\nput x\"y\" it's\nget x --prefix\n\n\n"),
        ("txn", "\nput \"q\"r \"unterminated\nget q\n\n\n"),
        ("txn", "\nput -- a -b\nput c -- -d\nget '' --from-key\n\n\n"),
        ("txn", "\nput a b c d\nget a\n\n\n"),
        ("txn", "\nget a --prefix --keys-only --limit=1\nget a --order descend --sort-by key --prefix\n\n\n"),
        ("txn", "\nput a 1\nput a 2\n\n\n"),
        ("txn", "\nput a 1 --lease=1\n\n\n"),
        ("txn", "\nput a 1 --lease zz\n\n\n"),
        ("txn", "\nget a --rev 1000\n\n\n"),
        ("txn", "\nget a --prefix --from-key\n\n\n"),
        ("txn", "\nget a --consistency x\n\n\n"),
        ("txn", "\nput a\n\n\n"),
        ("txn", "\nput a --\n\n\n"),
        ("txn", "\nget\n\n\n"),
        ("txn", "\nfoo a\n\n\n"),
        ("txn", "\nput a \"bad \\q escape\"\n\n\n"),
        ("txn", ""),
        ("txn", "mod(\"k\") = \"0\""),
        ("txn -i", "\n\n"),
        ("txn", "bogus\n"),
        ("txn", "bogus(\"a\") = \"1\"\n"),
        ("txn", "MOD(\"a\") = \"1\"\n"),
        ("txn", "mod(a) = \"1\"\n"),
        ("txn", "mod(\"a\") = 1\n"),
        ("txn", "mod(\"a\")= \"1\"\n"),
        ("txn", "mod(\"a\") =\"1\"\n"),
        ("txn", "mod(\"a\" = \"1\"\n"),
        ("txn", "mod(\") = \"1\"\n"),
        ("txn", "mod (\"a\") = \"1\"\n"),
        ("txn", "(\"a\") = \"1\"\n"),
        ("txn", "mod(\"a\\q\") = \"1\"\n"),
        ("txn", "mod(\"a\") = \"1\n"),
        ("txn x", "\n\n\n"),
    ] {
        pair.same_given(line, stdin(input));
    }
    pair.same_server("txn -w protobuf", stdin("mod(\"k\") > \"0\"\n\nget k\nget a --prefix\n\n\n"));
}

fn prompts_come_before_each_list_is_read(on: On) {
    let pair = Pair::start(on, &[]);
    let dialogue = |side: &Side| {
        let mut child = prepared(&side.program, &side.words("txn -i"), &[]).spawn().expect("start the program");
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut prompt = || lines.next().expect("a line").expect("text");
        let mut seen = vec![prompt()];
        stdin.write_all(b"mod(\"k\") = \"0\"\n\n").expect("write");
        seen.push(prompt());
        stdin.write_all(b"put k v\n\n").expect("write");
        seen.push(prompt());
        stdin.write_all(b"get k\n\n").expect("write");
        seen.extend(lines.map(|line| line.expect("text")));
        (seen, child.wait().expect("wait").code())
    };
    let ours = dialogue(&pair.ours);
    assert_eq!(ours, dialogue(&pair.genuine));
    let (seen, _) = ours;
    assert_eq!(seen[..3], ["compares:", "success requests (get, put, del):", "failure requests (get, put, del):"]);
}

/// Sets sizes, times and positions in the log aside.
pub fn measured(text: &str) -> String {
    let digit = |character: char| !character.is_ascii_digit();
    let mut text = without_newer_fields(text);
    for (prefix, stop) in [("took = ", '\n'), ("\"took\":\"", '"'), ("\"Took\" : ", '\n')] {
        text = mask_after(&text, prefix, |character| character == stop);
    }
    for prefix in ["\"dbSize\":", "\"dbSizeInUse\":", "\"raftIndex\":", "\"raftAppliedIndex\":"] {
        text = mask_after(&text, prefix, digit);
    }
    text
}

/// Takes out what the genuine program at hand does not tell yet: how long a defragmentation took; and a blank it still prints.
pub fn as_before_3_7(text: &str) -> String {
    let mut parts = text.split(". took ");
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |text, part| match part.find(['(', '\n']) {
        Some(end) if part[end..].starts_with('(') => text + " " + &part[end..],
        Some(end) => text + &part[end..],
        None => text,
    });
    text.replace(" \n", "\n").trim_end_matches(' ').to_owned()
}

fn members_and_endpoints_are_shown_alike(on: On) {
    let pair = Pair::start(on, &[]);
    all_same(
        &pair,
        &[
            "put a 1",
            "member list",
            "member list -w json",
            "mem li",
            "member list ignored",
            "endpoint hashkv -w protobuf",
            "endpoint status -w protobuf",
            "endpoint health -w protobuf",
            "alarm list",
            "alarm list -w json",
            "alarm list -w fields",
            "alarm list x",
            "alarm disarm",
            "alarm disarm -w json",
            "alarm disarm x",
        ],
    );
    for line in ["defrag", "defrag -w json", "defrag --cluster"] {
        pair.same_masked(line, as_before_3_7);
    }
    for line in ["member list -w protobuf", "alarm list -w protobuf"] {
        pair.same_server(line, Given::default());
    }
    let shown = |text: &str| match on {
        On::Both(_) => mask_after(&measured(text), "\"version\":", |character| character == ','),
        _ => measured(text),
    };
    for line in [
        "endpoint hashkv -w json",
        "endpoint hashkv -w json --rev 2",
        "endpoint hashkv -w json --rev=-1",
        "endpoint status -w json",
        "endpoint status -w json --cluster",
        "endpoint --cluster status -w json",
        "endpoint health",
        "endpoint health -w json",
        "endpoint health -w fields",
        "endpoint health --cluster",
    ] {
        pair.same_masked(line, shown);
    }
}

fn what_this_api_level_added_is_shown_and_listed_as_a_difference(on: On) {
    let pair = Pair::start(on, &[]);
    pair.same("put a 1");
    let given = Given::default();

    // The same server, because an id may be a digit shorter than another and the column with it.
    let (genuine, ours) = pair.outputs_of_one_server("member list -w table", given);
    let plain = ours.stdout.replace(['┌', '┬', '┐', '├', '┼', '┤', '└', '┴', '┘'], "+");
    let plain = plain.replace('─', "-").replace('│', "|");
    assert_eq!(plain, genuine.stdout, "only the lines of the boxes differ");
    assert!(ours.stdout.starts_with("┌──") && ours.stdout.ends_with("──┘\n"), "{}", ours.stdout);
    let (_, ours) = pair.outputs("member list -w table", given);
    pair.differs("Tables", "member list -w table", given, &ours);

    let fields = "\"ClusterID\" : <cluster>\n\"MemberID\" : <member>\n\"RaftTerm\" : 2\n\"ID\" : <member>\n\"Name\" : \"n1\"\n\
                  \"PeerURL\" : \"http://<peer>\"\n\"ClientURL\" : \"http://<endpoint>\"\n\"IsLearner\" : false\n\n";
    let genuine = pair.differs("Revision 0", "member list -w fields", given, &output(0, fields, ""));
    assert_eq!(genuine.stdout.replace("\"Revision\" : 0\n", ""), fields);

    let hex = "{\"header\":{\"cluster_id\":\"<cluster in hex>\",\"member_id\":\"<member in hex>\",\"raft_term\":2},\
               \"members\":[{\"ID\":\"<member in hex>\",\"name\":\"n1\",\"peerURLs\":[\"http://<peer>\"],\
               \"clientURLs\":[\"http://<endpoint>\"]}]}\n";
    let genuine = pair.differs("Hexadecimal ids", "member list -w json --hex", given, &output(0, hex, ""));
    assert_eq!(genuine.stdout.replace("clientURLS", "clientURLs"), hex);

    let fields = "\"ClusterID\" : <cluster in hex>\n\"MemberID\" : <member in hex>\n\"Revision\" : 2\n\"RaftTerm\" : 2\n\
                  \"Key\" : \"a\"\n\"CreateRevision\" : 2\n\"ModRevision\" : 2\n\"Version\" : 1\n\"Value\" : \"1\"\n\
                  \"Lease\" : 0000000000000000\n\"More\" : false\n\"Count\" : 1\n";
    pair.differs("Hexadecimal ids", "get a -w fields --hex", given, &output(0, fields, ""));

    let hash = pair.genuine_number("endpoint hashkv", ", ");
    // The revision that was hashed, which the genuine server at hand does not tell.
    let revision = if on == On::Etcd { 0 } else { 2 };
    let hashed = output(0, &format!("<endpoint>, {hash}, {revision}\n"), "");
    pair.differs("Status and hash", "endpoint hashkv", given, &hashed);

    let (genuine, ours) = pair.outputs("endpoint status", given);
    let (genuine, ours): (Vec<_>, Vec<_>) = (genuine.stdout.split(", ").collect(), ours.stdout.split(", ").collect());
    assert_eq!(genuine.len() + 6, ours.len());
    assert_eq!(genuine[..3], ours[..3], "endpoint, ID, version");
    assert_eq!(genuine[4..7], ours[8..11], "is leader to raft term");
    // The indexes of two servers differ: commands that wait at the same time share an entry, as those of a start may.
    for index in genuine[7..9].iter().chain(&ours[11..13]) {
        assert!(index.parse::<u64>().is_ok(), "{index} is no index");
    }

    let (_, ours) = pair.outputs("defrag", given);
    assert!(ours.stdout.starts_with("Finished defragmenting etcd member[<endpoint>]. took "), "{}", ours.stdout);
    assert!(is_listed_difference("Defragmentation"));

    let version = "etcdctl version: 3.7.1\nAPI version: 3.7\ncairnctl version: 0.1.0\n";
    pair.differs("Version", "version", given, &output(0, version, ""));
}

impl Pair {
    /// The number behind the first `prefix` in what the genuine program prints.
    fn genuine_number(&self, line: &str, prefix: &str) -> u64 {
        let (genuine, _) = self.outputs(line, Given::default());
        let (_, rest) = genuine.stdout.split_once(prefix).expect("the prefix");
        rest.trim().parse().expect("a number")
    }
}

fn unusable_command_lines_are_refused_with_the_same_text_and_exit_code(on: On) {
    let pair = Pair::start(on, &[]);
    all_same(
        &pair,
        &[
            "get",
            "get a b --prefix",
            "get a --prefix --from-key",
            "get a --keys-only --count-only",
            "get a --count-only",
            "get a --count-only -w json",
            "get a --print-value-only -w json",
            "get a --consistency x",
            "get a --order x",
            "get a --sort-by x",
            "get a -w table",
            "get a -w foo",
            "put",
            "put a b --ignore-value",
            "put a b --lease zz",
            "put a b --lease 1234",
            "put a b --lease 99999999999999999",
            "put a -w table",
            "del",
            "del a b c",
            "del a b --prefix",
            "del a --prefix --from-key",
            "del a -w table",
            "alarm list -w table",
            "get a --cert ''",
            "get a --cacert ''",
            "get a --cacert /nonexistent",
            "get a --cert /nonexistent",
            "get a --key /nonexistent",
            "get a --cert /nonexistent --key /nonexistent",
            "--endpoints= get a",
            "check perf --load huge",
        ],
    );
    // The genuine program at hand prints its usage in another layout, to standard output; the error must not differ.
    for line in [
        "get a --limit x",
        "get a --limit 99999999999999999999",
        "get a --limit",
        "get a --bogus",
        "get -x",
        "get a --prefix=maybe",
        "get a --command-timeout x",
        "get a --dial-timeout 5",
        "get a --dial-timeout 5y",
        "get a -w",
        "version -x",
        "endpoint hashkv --rev x",
    ] {
        let (genuine, ours) = pair.outputs(line, Given::default());
        let error = |output: &Output| output.stderr.lines().next().unwrap_or_default().to_owned();
        assert_eq!((ours.code, error(&ours)), (genuine.code, error(&genuine)), "`{line}`: ours is on the left");
        if !matches!(on, On::Both(_)) {
            pair.differs("Help and usage", line, Given::default(), &ours);
        }
    }
    for line in ["bogus", "gett a", "--hex bogus get"] {
        let (genuine, ours) = pair.outputs(line, Given::default());
        let lines = |text: &str| -> Vec<String> {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines.dedup();
            lines
        };
        assert_eq!((ours.code, lines(&ours.stderr)), (genuine.code, lines(&genuine.stderr)), "`{line}`");
    }
    for line in ["", "--help", "endpoint", "endpoint bogus", "alarm", "get --help", "help get", "help bogus"] {
        let (genuine, ours) = pair.outputs(line, Given::default());
        let complaint = |output: &Output| output.stderr.lines().next().unwrap_or_default().to_owned();
        assert_eq!((ours.code, complaint(&ours)), (genuine.code, complaint(&genuine)), "`{line}`: ours is on the left");
    }
}

fn flags_and_endpoints_are_read_in_every_spelling(on: On) {
    let pair = Pair::start(on, &[]);
    all_same(
        &pair,
        &[
            "put a 1",
            "put ab 2",
            "get a -wjson",
            "get a -w=json",
            "-w json get a",
            "--write-out=json --hex=false get a --prefix=true",
            "ge a",
            "get --limit=-1 --prefix a",
            "get --limit 0x1 --prefix a",
            "get --limit 1_0 --prefix a",
            "get --limit 2 --limit 1 --prefix a",
            "get a --prefix --prefix=false",
            "--endpoints http://@ get a",
            // These go into the genuine client's requests as a name of the server that is none.
            "--endpoints http://@/ get a",
            "--endpoints ,@ get a",
            "--endpoints http://127.0.0.1:1,@ get a",
            "--endpoints 127.0.0.1:1 --endpoints @ get a",
            "get a --endpoints=@",
            "get a --insecure-skip-tls-verify --insecure-discovery=false --keepalive-time 1m --keepalive-timeout 1m",
            "get a --command-timeout 1m30s --dial-timeout 1500ms --discovery-srv-name x",
            "get a --user someone:password",
            "get a --user someone --password password",
            "get a --password password",
            "get a --command-timeout 0s",
            "put a 2 --command-timeout 0s",
            "get a --dial-timeout 0s",
            "get a --dial-timeout 0s --user someone:password",
        ],
    );
    let env = |pairs| Given { env: pairs, ..Given::default() };
    for pairs in [
        &[("ETCDCTL_API", "3"), ("ETCDCTL_WRITE_OUT", "json")][..],
        &[("ETCDCTL_API", "4")],
        &[("ETCDCTL_HEX", "true"), ("ETCDCTL_DIAL_TIMEOUT", "7s"), ("ETCDCTL_CACERT", "")],
        &[("ETCDCTL_USER", "a:b"), ("ETCDCTL_INSECURE_TRANSPORT", "true")],
        &[("ETCDCTL_PREFIX", "true")],
        &[("ETCDCTL_WRITE_OUT", "nothing")],
        &[("ETCDCTL_CERT", "/nonexistent")],
    ] {
        let (genuine, ours) = pair.outputs("get a", env(pairs));
        let text = |stderr: &str| stderr.replace("Error: ", "");
        assert_eq!(
            (ours.code, &ours.stdout, text(&ours.stderr)),
            (genuine.code, &genuine.stdout, text(&genuine.stderr)),
            "{pairs:?}: ours is on the left"
        );
    }
    let ours = output(0, "a\n1\n", "");
    pair.differs("Variables and flags", "--endpoints @ get a", env(&[("ETCDCTL_ENDPOINTS", "127.0.0.1:1")]), &ours);
    let refused = "Error: invalid value of the environment variable ETCDCTL_HEX: \
                   strconv.ParseBool: parsing \"perhaps\": invalid syntax";
    pair.differs("Unreadable variables", "get a", env(&[("ETCDCTL_HEX", "perhaps")]), &output(128, "", refused));
    let refused = "Error: ETCDCTL_API=2: there is no v2 API here; unset ETCDCTL_API or set it to 3";
    pair.differs("API version 2", "get a", env(&[("ETCDCTL_API", "2")]), &output(1, "", refused));
}

fn endpoints_that_do_not_answer_end_in_the_same_errors(on: On) {
    let pair = Pair::start(on, &[]);
    all_same(
        &pair,
        &[
            "--endpoints 127.0.0.1:1 get a --command-timeout 300ms",
            "--endpoints 127.0.0.1:1 put a b --command-timeout 300ms",
            "--endpoints http://@ --endpoints 127.0.0.1:1 put a b",
            "--endpoints https://@ get a --command-timeout 300ms",
            "--endpoints nowhere get a --command-timeout 300ms",
            "--endpoints unix:///nonexistent/socket get a --command-timeout 300ms",
            "--endpoints @ --insecure-transport=false get a --command-timeout 300ms",
            "--endpoints http://@ --insecure-transport=false get a",
            "--endpoints 127.0.0.1:1 endpoint status --command-timeout 300ms -w json",
            "--endpoints 127.0.0.1:1 endpoint hashkv --command-timeout 300ms -w json",
            "--endpoints 127.0.0.1:1 endpoint status --cluster --command-timeout 300ms",
            "--endpoints 127.0.0.1:1 get a --user a:b --dial-timeout 300ms",
            "endpoint hashkv --rev 200 -w json",
        ],
    );
    pair.same_masked("--endpoints 127.0.0.1:1,@ defrag --command-timeout 300ms", as_before_3_7);
    pair.same_masked("--endpoints 127.0.0.1:1,@ endpoint status --command-timeout 300ms -w json", measured);
    for line in [
        "--endpoints 127.0.0.1:1 endpoint health --command-timeout 300ms",
        "--endpoints 127.0.0.1:1,@ endpoint health --command-timeout 300ms -w json",
        "--endpoints 127.0.0.1:1,@ endpoint health --command-timeout 300ms",
    ] {
        assert_eq!(pair.same_masked(line, measured).code, 1, "`{line}`");
    }
}

fn a_port_that_serves_no_grpc_is_told_alike(on: On) {
    let pair = Pair::start(on, &[]);
    let told = |side: &Side| {
        let endpoint = side.server.metrics_endpoint();
        ["get a", "endpoint status -w json"].map(|command| {
            let line = format!("--endpoints {endpoint} --command-timeout 500ms {command}");
            let told = side.output(&line, Given::default());
            Output { stderr: told.stderr.replace(&endpoint, "<metrics>"), ..told }
        })
    };
    let ours = told(&pair.ours);
    assert_eq!(ours, told(&pair.genuine), "ours is on the left");
    // A genuine one speaks HTTP/1.1 there and nothing else, so that a client waits for it to come to its senses.
    if on == On::Cairn {
        let text = "Error: rpc error: code = Unimplemented desc = Not Found: HTTP status code 404; \
                    transport: received the unexpected content-type \"text/plain; charset=utf-8\"";
        assert_eq!(ours[0], output(1, "", text));
    }
}

fn a_full_store_raises_an_alarm_that_is_shown_and_cleared_alike(on: On) {
    let pair = Pair::start(on, &["--quota-backend-bytes", "4000000"]);
    let value = "x".repeat(1_000_000);
    // When a server notices that it is full depends on when it last wrote, so the two need not be full at the same put.
    let full = (0..10).any(|number| {
        let (genuine, ours) = pair.outputs(&format!("put key{number}"), stdin(&value));
        [genuine, ours].iter().all(|output| output.stderr == "Error: etcdserver: mvcc: database space exceeded")
    });
    assert!(full, "the quota was never reached");
    let masked = |text: &str| {
        let text =
            mask_after(&as_before_3_7(&measured(text)), "\"revision\":", |character| !character.is_ascii_digit());
        mask_after(&text, "\"Revision\" : ", |character| character == '\n')
    };
    for line in
        ["put small value", "alarm list", "alarm list -w json", "alarm list -w fields", "endpoint status -w json"]
    {
        let shown = pair.same_masked(line, masked);
        assert!(
            line.starts_with("put") || (shown.stdout + &shown.stderr).contains("<member>"),
            "`{line}` shows no alarm"
        );
    }
    pair.same_server("alarm list -w protobuf", Given::default());
    assert_eq!(pair.same_masked("endpoint health -w json", measured).code, 1);
    pair.same("del key0");
    pair.same_masked("alarm disarm", as_before_3_7);
    all_same(&pair, &["alarm disarm", "put key0 1"]);
}

fn what_would_have_ended_the_genuine_program_badly_is_answered(on: On) {
    let pair = Pair::start(on, &[]);
    pair.same("put k2 v");
    let heading = "Transactions";
    for (input, stderr, code) in [
        ("mod(\"k\") == \"1\"\n", "Error: malformed comparison: mod(\"k\") == \"1\" (unknown operator ==)", 3),
        (
            "mod(\"k\") = \"x\"\n",
            "Error: invalid txn compare request: mod(\"k\") = \"x\" (strconv.ParseInt: parsing \"x\": invalid syntax)",
            3,
        ),
        ("\nget a --bogus\n", "Error: invalid txn request: get a --bogus (unknown flag: --bogus)", 3),
    ] {
        pair.differs(heading, "txn", stdin(input), &output(code, "", stderr));
    }
    let answered = output(0, "SUCCESS\n\nk2\nv\n", "");
    pair.differs(heading, "txn", stdin("lease(\"k2\") = \"0\"\n\nget k2\n\n\n"), &answered);
    let quoted = output(0, "SUCCESS\n\nOK\n\nk2\nsingle quoted\n", "");
    pair.differs(heading, "txn", stdin("\nput k2 'single quoted'\nget k2\n\n\n"), &quoted);

    let fields = "\"ClusterID\" : 0\n\"MemberID\" : 0\n\"RaftTerm\" : 0\n";
    pair.differs("Alarms", "alarm disarm -w fields", Given::default(), &output(0, fields, ""));

    // Too late to refuse the format once the put is done.
    let refused = output(4, "", "Error: table not supported as output format");
    let (genuine, ours) = pair.outputs("put done-or-not 1 -w table", Given::default());
    assert_eq!((&ours, &genuine), (&refused, &refused));
    let (genuine, ours) = pair.outputs("get done-or-not", Given::default());
    assert_eq!((ours.stdout.as_str(), genuine.stdout.as_str()), ("", "done-or-not\n1\n"));
}

fn deleting_a_range_named_by_two_keys_takes_a_moment_or_a_flag(on: On) {
    let pair = Pair::start(on, &[]);
    all_same(&pair, &["put a 1", "put b 1", "put c 1", "del a c -w json", "get '' --prefix"]);
    let warned = run(&pair.ours.program, &pair.ours.words("del a c"), Given::default());
    assert!(warned.stderr.starts_with("Warning: Keys between \"a\" and \"c\" will be deleted."), "{}", warned.stderr);
    let at_once = run(&pair.ours.program, &pair.ours.words("del c d --range"), Given::default());
    assert_eq!(at_once, output(0, "1\n", ""));
}
