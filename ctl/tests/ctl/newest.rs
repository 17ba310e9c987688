//! What a genuine etcdctl 3.7.1 printed on a member of its own (`etcdctl-3.7.1.txt`), played by this program on one of ours. The
//! genuine programs at hand are older; this is the measure for what 3.7 changed.

use std::collections::HashSet;

use crate::referee::{Given, On, Output, Side, cairn, cairnctl, is_listed_difference, mask_after, run, words};
use crate::running::Running;

const ANSWERS: &str = include_str!("etcdctl-3.7.1.txt");

/// The flags of a server 3.7.1, one a line.
const FLAGS: &str = include_str!("etcd-flags-3.7.1.txt");

/// The end of every help.
const PROMPT: &str = "Use \"cairnctl options\" for a list of global command-line options (applies to all commands).\n";

/// One command line and its answer.
#[derive(Debug, Default)]
struct Answer {
    line: String,
    env: Vec<(String, String)>,
    stdin: String,
    /// Standard output, then standard error.
    text: String,
    code: i32,
    /// Only how the text begins is known.
    goes_on: bool,
    /// The heading under which docs/etcdctl-differences.md says what this program does instead.
    difference: Option<String>,
}

/// Reads the answers; the file says how they are written.
fn answers() -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    for line in ANSWERS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (kind, rest) = line.split_at(line.len().min(2));
        if kind == "$ " {
            answers.push(Answer { line: rest.to_owned(), ..Answer::default() });
            continue;
        }
        let answer = answers.last_mut().expect("a command line comes first");
        match kind.trim_end() {
            "@" => {
                let (name, value) = rest.split_once('=').expect("a variable and its value");
                answer.env.push((name.to_owned(), value.to_owned()));
            }
            "<" => answer.stdin.extend([rest, "\n"]),
            "|" => answer.text.extend([rest, "\n"]),
            "=" => answer.code = rest.parse().expect("an exit code"),
            "^" => answer.goes_on = true,
            "!" => answer.difference = Some(rest.to_owned()),
            other => panic!("{other:?} means nothing"),
        }
    }
    answers
}

/// Sets aside what is another each time: times, sizes, positions in the log, and what a table's row shows of them.
fn normal(text: &str) -> String {
    let mut text = text.to_owned();
    for (prefix, stop) in [("\"took\":\"", '"'), (". took ", '\n')] {
        text = mask_after(&text, prefix, |character| character == stop);
    }
    for prefix in ["\"DBSize\" : ", "\"DBSizeInUse\" : ", "\"RaftIndex\" : ", "\"RaftAppliedIndex\" : "] {
        text = mask_after(&text, prefix, |character| !character.is_ascii_digit());
    }
    let lines = text.lines().map(|line| match line {
        row if row.starts_with('│') && row.contains("http://") => format!("│ {} cells", row.matches('│').count() - 1),
        rule if rule.contains('─') => rule.replace('─', ""),
        header if header.starts_with('│') => header.split_whitespace().collect::<Vec<_>>().join(" "),
        other => other.to_owned(),
    });
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

fn played(side: &Side, answer: &Answer) -> Output {
    let endpoint = side.server.endpoint();
    let env: Vec<_> = answer.env.iter().map(|(name, value)| (name.as_str(), value.replace('@', &endpoint))).collect();
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // What is put from standard input is put to the last byte.
    let stdin = if answer.line.starts_with("put") { answer.stdin.trim_end() } else { &answer.stdin };
    side.anonymous(run(&side.program, &side.words(&answer.line), Given { stdin, env: &env }))
}

#[test]
fn every_command_line_is_answered_as_by_etcdctl_3_7() {
    let side = Side::of_one(cairnctl(), On::Cairn);
    let mut lease = None;
    for answer in answers() {
        let output = played(&side, &answer);
        let mut text = output.stdout + &output.stderr;
        if answer.line.starts_with("lease grant") {
            lease = text.split(' ').nth(1).map(str::to_owned);
        }
        if let Some(lease) = &lease {
            text = text.replace(lease, "<lease>");
        }
        let (ours, theirs) = ((normal(&text), output.code), (normal(&answer.text), answer.code));
        let same = if answer.goes_on { ours.1 == theirs.1 && ours.0.starts_with(&theirs.0) } else { ours == theirs };
        match &answer.difference {
            None => assert!(same, "`{}`: ours is on the left\n{ours:#?}\n{theirs:#?}", answer.line),
            Some(heading) => {
                assert!(!same, "`{}`: no difference left, take it off the list", answer.line);
                assert!(is_listed_difference(heading), "{heading:?} is not on the list of differences");
            }
        }
    }
}

#[test]
fn a_command_of_a_watch_named_by_a_variable_runs_for_each_event() {
    let side = Side::of_one(cairnctl(), On::Cairn);
    let mut watch = Running::start_given(&side, "watch --rev 1 -- echo hi", &[("ETCDCTL_WATCH_KEY", "k")]);
    assert_eq!(side.output("put k trigger", Given::default()).code, 0);
    watch.lines(4);
    assert_eq!(watch.signal_and_end("KILL").stdout, "PUT\nk\ntrigger\nhi\n");
}

#[test]
fn help_goes_to_standard_output_and_usage_to_standard_error_behind_what_is_wrong() {
    let ours = |line: &str| run(&cairnctl(), &words(line), Given::default());
    for line in [
        "",
        "--help",
        "-h",
        "help",
        "get --help",
        "get -h a",
        "help get",
        "endpoint",
        "endpoint bogus",
        "user",
        "help help",
        "help --help",
        "lease grant --help",
        "auth enable -h",
        "completion --help",
        "help endpoint bogus",
    ] {
        let shown = ours(line);
        assert_eq!((shown.code, shown.stderr.as_str()), (0, ""), "`{line}`");
        assert!(
            shown.stdout.contains("\n\nUsage:\n  cairnctl ") && shown.stdout.ends_with(PROMPT),
            "`{line}`: {shown:?}"
        );
    }
    for (line, error) in [
        ("get a --bogus", "unknown flag: --bogus"),
        ("get -x", "unknown shorthand flag: 'x' in -x"),
        ("lease grant 1 --limit 2", "unknown flag: --limit"),
        ("get a --limit", "flag needs an argument: --limit"),
        ("endpoint --bogus", "unknown flag: --bogus"),
        ("user list --bogus", "unknown flag: --bogus"),
        ("completion", "accepts 1 arg(s), received 0"),
        ("completion tcsh", "invalid argument \"tcsh\" for \"cairnctl completion\""),
    ] {
        let refused = ours(line);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "`{line}`");
        let begins = format!("Error: {error}\nUsage:\n  cairnctl ");
        assert!(refused.stderr.starts_with(&begins) && refused.stderr.ends_with("\n\n"), "`{line}`: {refused:?}");
        assert!(!refused.stderr.contains(PROMPT), "`{line}`");
    }
    let unknown = ours("help bogus");
    assert_eq!((unknown.code, unknown.stdout.as_str()), (0, ""));
    assert!(unknown.stderr.starts_with("Unknown help topic [`bogus`]\nUsage:\n  cairnctl [command]\n"), "{unknown:?}");
}

#[test]
fn a_server_has_every_flag_of_etcd_3_7() {
    let help = run(&cairn(), &words("--help"), Given::default());
    let shown = help.stdout + &help.stderr;
    let known: HashSet<_> =
        shown.split(|character: char| !character.is_ascii_alphanumeric() && character != '-').collect();
    let missing: Vec<_> = FLAGS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|flag| !known.contains(format!("--{flag}").as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
