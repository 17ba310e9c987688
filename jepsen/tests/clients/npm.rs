//! npm's `etcd3` with the suite of its package, and the newest `etcd3`, whose package has none, with cases of the same names.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    server::Server,
    suite::{self, Outcome, Outcomes, Suite},
};

const OWN_SKIP: &str = "left out by the suite itself";

const SUITE: Suite = Suite {
    name: "npm `etcd3`",
    version: "0.2.13",
    tests: 150,
    exceptions: &[&[
        ("watch() network interruptions is resilient to network interruptions", OWN_SKIP),
        ("watch() network interruptions replays historical updates", OWN_SKIP),
    ]],
};

/// The newest `etcd3`, whose package has no tests: cases of our own in their place.
const CASES: Suite = Suite { name: "npm `etcd3`, our cases", version: "1.1.2", tests: 142, exceptions: &[] };

/// A leftover of an earlier build in the package: it asks the suite for functions that the suite does not have.
const STALE: &str = "kv.test.js";

#[test]
fn the_suite_of_npm_etcd3_passes() -> Result<()> {
    let directory = suite::installed("npm-etcd3-0.2.13")?;
    let package = directory.join("node_modules/etcd3");
    let tests = package.join("lib/test");
    let server = Server::start(&["etcd0"], &[], Some(certificates(&tests).each_ref().map(AsRef::as_ref)))?;
    let mut files: Vec<_> =
        fs::read_dir(&tests)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".test.js") && name != STALE
    });
    files.sort();
    let mut command = mocha(&server, &directory)?;
    command.current_dir(&package).args(["--require", "lib/test/_setup.js"]).args(files);
    judge(&SUITE, &command)
}

#[test]
fn the_cases_of_the_newest_npm_etcd3_pass() -> Result<()> {
    let directory = suite::installed("npm-etcd3-1.1.2")?;
    let server = Server::start(&["etcd0"], &[], None)?;
    let mut command = mocha(&server, &directory)?;
    command.current_dir(&directory).env("NODE_PATH", directory.join("node_modules"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/npm_cases.js"));
    judge(&CASES, &command)
}

/// What runs the tests of either.
fn mocha(server: &Server, directory: &Path) -> Result<Command> {
    let mut command = server.command(directory.join("node_modules/.bin/mocha"))?;
    command.args(["--timeout", "20000", "--exit", "--reporter", "json"]);
    Ok(command)
}

fn judge(suite: &Suite, command: &Command) -> Result<()> {
    let output = suite::output_of(command)?;
    suite.judge(&outcomes(&output)?, &output)
}

/// Where the suite looks for the server's certificate, key and authority.
fn certificates(tests: &Path) -> [std::path::PathBuf; 3] {
    ["certs/certs/etcd0.localhost.crt", "certs/private/etcd0.localhost.key", "certs/certs/ca.crt"]
        .map(|path| tests.join(path))
}

/// Of the report that mocha writes behind whatever the tests wrote.
fn outcomes(output: &str) -> Result<Outcomes> {
    let start = output.find("{\n  \"stats\"").context("no report").with_context(|| output.to_owned())?;
    let report = serde_json::Deserializer::from_str(&output[start..]).into_iter::<Value>().next();
    let report = report.context("no report")?.with_context(|| output.to_owned())?;
    let mut outcomes = Outcomes::new();
    for (list, outcome) in [("passes", Outcome::Passed), ("failures", Outcome::Failed), ("pending", Outcome::Skipped)] {
        for test in report[list].as_array().into_iter().flatten() {
            let title = test["fullTitle"].as_str().context("a test without a title")?;
            // A hook that fails ends its group: the group's tests are missing then, and that is told below.
            if !title.contains(" hook for ") {
                outcomes.insert(title.to_owned(), outcome);
            }
        }
    }
    Ok(outcomes)
}
