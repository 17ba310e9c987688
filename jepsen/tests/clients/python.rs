//! Python's `etcd3` with the suite of its source distribution.

use std::thread;

use anyhow::{Context as _, Result};

use super::{
    server::Server,
    suite::{self, Outcome, Outcomes, Suite},
};

const NO_SNAPSHOT: &str = "snapshots are not served yet";
const BROKEN: &str = "fails before it reaches a server: it patches a module `etcdrpc` that does not exist";

const SUITE: Suite = Suite {
    name: "Python `etcd3`",
    version: "0.12.0",
    tests: 82,
    exceptions: &[&[("TestEtcd3::test_snapshot", NO_SNAPSHOT), ("TestClient::test_user_pwd_auth", BROKEN)]],
};

/// The suite mostly waits; three parts side by side, each with servers of its own, wait at the same time. The names of the members are those that the suite
/// expects; one part stops and resumes every process on the machine that is called after the second or third of them, so only that part may have these.
const PARTS: [(&str, &[&str]); 3] = [
    ("lock or lease", &["pifpaf0", "member1", "member2"]),
    ("watch", &["pifpaf0"]),
    ("not lock and not lease and not watch", &["pifpaf0", "pifpaf1", "pifpaf2"]),
];

#[test]
fn the_suite_of_python_etcd3_passes() -> Result<()> {
    let parts: Vec<_> = PARTS.into_iter().map(|(part, names)| thread::spawn(move || run(part, names))).collect();
    let (mut outcomes, mut output) = (Outcomes::new(), String::new());
    for part in parts {
        let (its_outcomes, its_output) = part.join().expect("a part panicked")?;
        outcomes.extend(its_outcomes);
        output += &its_output;
    }
    SUITE.judge(&outcomes, &output)
}

fn run(part: &str, names: &[&str]) -> Result<(Outcomes, String)> {
    let directory = suite::installed("python-etcd3-0.12.0")?;
    let server = Server::start(names, &[], None)?;
    let mut command = server.command(directory.join("venv/bin/python"))?;
    command
        .current_dir(&directory)
        .args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-rpfEs", "-k", part, "tests"])
        .env("TEST_ETCD_VERSION", "v3.5.1")
        .env("PYTHON_ETCD_HTTP_URL", "http://localhost:2379");
    let output = suite::output_of(&command)?;
    let summary =
        output.rsplit_once("short test summary info").context("no summary").with_context(|| output.clone())?.1;
    let outcomes = summary.lines().filter_map(outcome).collect();
    Ok((outcomes, output))
}

/// Of a line such as `PASSED tests/test_etcd3.py::TestEtcd3::test_hash`.
fn outcome(line: &str) -> Option<(String, Outcome)> {
    let (word, rest) = line.split_once(' ')?;
    let outcome = match word {
        "PASSED" => Outcome::Passed,
        "FAILED" | "ERROR" => Outcome::Failed,
        "SKIPPED" => Outcome::Skipped,
        _ => return None,
    };
    let (_, name) = rest.split_once("::")?;
    Some((name.split(" - ").next()?.to_owned(), outcome))
}
