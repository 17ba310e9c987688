//! Clusters of three: the same lines by a genuine etcdctl on genuine members, by it on ours, and by this program on ours.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::compared::as_before_3_7;
use crate::referee::{Given, On, Output, Side, cairnctl, etcdctl, mask_after, without_newer_fields};

/// How long a cluster may take until it is ready for what is asked of it.
const DEADLINE: Duration = Duration::from_mins(1);

/// What is typed. A `*` in front says that the answer's tables or lists are in an order of the ids, or of who was faster.
const MEMBERS: &[&str] = &[
    "put a 1",
    "*member list",
    "*member list -w json",
    "*member list --hex",
    "*endpoint health --cluster",
    "*endpoint health --cluster -w json",
    "*endpoint health --cluster -w fields",
    "*endpoint status --cluster -w json",
    "*endpoint hashkv --cluster -w json",
    "*endpoint hashkv --cluster -w json --rev 1",
    "*defrag --cluster",
    "move-leader <member in hex 2>",
    "move-leader <member in hex 3>",
    "--endpoints <endpoint>,<endpoint 2>,<endpoint 3> move-leader <member in hex 2>",
    "--endpoints <endpoint>,<endpoint 2>,<endpoint 3> move-leader 7b",
    "--endpoints <endpoint 2> move-leader <member in hex>",
    "move-leader",
    "move-leader zz",
    "member add",
    "member add n4",
    "member add n4 n5 --peer-urls http://127.0.0.1:1",
    "member add n4 --peer-urls http://<peer 2>",
    "member add n4 --peer-urls nowhere",
    "member add n4 --peer-urls ftp://127.0.0.1:9",
    "member add n4 --peer-urls http://nowhere",
    "member add n4 --peer-urls http://127.0.0.1:9/path",
    "member remove",
    "member remove zz",
    "member remove 7b",
    "member update 7b",
    "member update 7b --peer-urls http://127.0.0.1:9",
    "member promote",
    "member promote 7b",
    "member list -w bogus",
];

/// One side's cluster, and what was said with it.
struct Session {
    side: Side,
    said: Vec<(String, Output)>,
}

impl Session {
    fn new(program: PathBuf, on: On) -> Self {
        let side = Side::of_three(program, on);
        // The first member leads, on either side.
        let lead = format!("--endpoints {} move-leader <member in hex>", "<endpoint>,<endpoint 2>,<endpoint 3>");
        side.eventually(&lead, |output| output.code == 0);
        side.eventually("endpoint status -w json", |output| output.stdout.contains("\"leader\":<member>,"));
        Self { side, said: Vec::new() }
    }

    /// Does a line.
    fn say(&mut self, line: &str) -> &Output {
        let output = self.side.output(line.trim_start_matches('*'), Given::default());
        let (stdout, stderr) = (normal(&output.stdout), normal(&output.stderr));
        let ordered = |text: String| if line.starts_with('*') { in_order(&text) } else { text };
        self.said.push((line.to_owned(), Output { stdout: ordered(stdout), stderr: ordered(stderr), ..output }));
        &self.said.last().expect("it was just pushed").1
    }

    /// Does a line when the members have been connected for some seconds: before, they let nobody in.
    fn say_once_healthy(&mut self, line: &str) -> &Output {
        let deadline = Instant::now() + DEADLINE;
        while self.say(line).stderr.contains("etcdserver: unhealthy cluster") {
            assert!(Instant::now() < deadline, "nobody is let in");
            self.said.pop();
            std::thread::sleep(Duration::from_millis(100));
        }
        &self.said.last().expect("it was just said").1
    }

    /// Adds a member of that peer URL, to be known by `<added>`.
    fn add(&mut self, url: &str, flags: &str) {
        let added = self.say_once_healthy(&format!("*member add n4 --peer-urls {url} {flags}"));
        assert_eq!(added.code, 0, "{added:?}");
        self.side.learn_added(url, "added");
        // Its id was not known yet; the list that is asked for next shows the same.
        self.said.last_mut().expect("it was just said").1.stdout.clear();
    }

    /// Adds members, changes them and removes them. Their peer URLs have this port and those behind it: the same URL twice within
    /// a second would be the same member, which is gone for good.
    fn change_members(&mut self, format: &str, port: u16) {
        self.add(&format!("http://127.0.0.1:{port}"), &format!("-w {format}"));
        self.say("*member list");
        self.say(&format!("*member update <added in hex> --peer-urls http://127.0.0.1:9 -w {format}"));
        self.say(&format!("*member remove <added in hex> -w {format}"));
        self.say("member remove <added in hex>");
        self.add(&format!("http://127.0.0.1:{}", port + 1), &format!("--learner -w {format}"));
        self.say(&format!("*member list -w {format}"));
        self.say(&format!("*member promote <added in hex> -w {format}"));
        self.say("member add n5 --learner --peer-urls http://127.0.0.1:9");
        self.say(&format!("*member remove <added in hex> -w {format}"));
        self.say("*member list -w json");
    }
}

/// Sets sizes, times, terms and positions in the log aside, and what only the newer API level has.
fn normal(text: &str) -> String {
    let mut text = text.to_owned();
    for prefix in ["\"took\":\"", "\"version\":\""] {
        text = mask_after(&text, prefix, |character| character == '"');
    }
    for prefix in ["took = ", "\"Took\" : ", "\"RaftTerm\" : "] {
        text = mask_after(&text, prefix, |character| character == '\n');
    }
    for prefix in ["raft_term", "dbSize", "dbSizeInUse", "raftIndex", "raftTerm", "raftAppliedIndex", "hash"] {
        text = mask_after(&text, &format!("\"{prefix}\":"), |character| !character.is_ascii_digit());
    }
    text = as_before_3_7(&without_newer_fields(&text));
    // An id with a leading zero is a digit shorter, and padded.
    while text.contains("  ") {
        text = text.replace("  ", " ");
    }
    text
}

/// The pieces of a list in a fixed order.
fn in_order(text: &str) -> String {
    let mut pieces: Vec<_> = text.split(['\n', ',', '[', ']', '{', '}']).map(str::trim).collect();
    pieces.sort_unstable();
    pieces.join("\n")
}

/// Has the same session with two sides.
fn compare(sides: [(PathBuf, On); 2], talk: impl Fn(&mut Session)) {
    let [genuine, ours] = sides.map(|(program, on)| {
        let mut session = Session::new(program, on);
        talk(&mut session);
        session.said
    });
    assert_eq!(genuine.len(), ours.len());
    for (genuine, ours) in genuine.iter().zip(&ours) {
        assert_eq!(ours, genuine, "ours is on the left");
    }
}

fn members_are_looked_after(session: &mut Session) {
    for line in MEMBERS {
        session.say_once_healthy(line);
    }
    // Whoever leads now, what follows begins alike.
    for (format, port) in [("simple", 7), ("json", 17)] {
        session.change_members(format, port);
    }
}

#[test]
fn etcdctl_drives_three_members_of_ours_as_it_drives_genuine_ones() {
    compare([(etcdctl(), On::Etcd), (etcdctl(), On::Cairn)], |session| {
        members_are_looked_after(session);
        for line in
            ["*endpoint status --cluster -w table", "*member list -w table", "*endpoint hashkv --cluster -w table"]
        {
            let (_, shown) = {
                session.say(line);
                session.said.pop().expect("a line")
            };
            session.said.push((line.to_owned(), Output { stdout: of_a_table(&shown.stdout), ..shown }));
        }
    });
}

/// A table's cells without what differs from server to server: sizes, versions, hashes, positions in the log.
fn of_a_table(sorted: &str) -> String {
    let cells = |line: &str| {
        let masked = |cell: &str| cell.starts_with(|character: char| character.is_ascii_digit()) && !cell.contains(':');
        line.split('|').map(str::trim).map(|cell| if masked(cell) { "…" } else { cell }).collect::<Vec<_>>().join("|")
    };
    let line = |line: &str| match line.strip_prefix('+') {
        Some(_) => "+".to_owned(),
        None => cells(line),
    };
    sorted.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn this_program_drives_three_members_of_ours_as_etcdctl_drives_genuine_ones() {
    compare([(etcdctl(), On::Etcd), (cairnctl(), On::Cairn)], members_are_looked_after);
}

#[test]
fn this_program_drives_three_genuine_members_as_etcdctl_does() {
    compare([(etcdctl(), On::Etcd), (cairnctl(), On::Etcd)], members_are_looked_after);
}
