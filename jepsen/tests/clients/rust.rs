//! Rust's `etcd-client` with the suite of its crate.

use anyhow::Result;

use super::{
    server::Server,
    suite::{self, Outcome, Outcomes, Suite},
};

const ONE_MEMBER: &str = "wants a cluster that a fourth member joins";
const NO_SNAPSHOT: &str = "snapshots are not served yet";

const SUITE: Suite = Suite {
    name: "Rust `etcd-client`",
    version: "0.21.1",
    tests: 33,
    exceptions: &[&[("test_cluster", ONE_MEMBER), ("test_snapshot", NO_SNAPSHOT)]],
};

#[test]
fn the_suite_of_rust_etcd_client_passes() -> Result<()> {
    let directory = suite::installed("rust-etcd-client-0.21.1")?;
    // The sizes and times that the suite says it wants.
    let server = Server::start(&["etcd"], &["--max-request-bytes", "10240", "--auth-token-ttl", "2"], None)?;
    // Without users the tests that want one fail by themselves.
    let _ = server.etcdctl(&["user", "add", "root:rootpwd"]);
    let _ = server.etcdctl(&["user", "grant-role", "root", "root"]);
    let mut command = server.command("cargo")?;
    command
        .current_dir(directory.join("suite"))
        .env("CARGO_TARGET_DIR", directory.join("target"))
        .env("CARGO_PROFILE_TEST_DEBUG", "false")
        .args([
            "test",
            "--offline",
            "--locked",
            "--tests",
            "--no-fail-fast",
            "--",
            "--include-ignored",
            // It adds a member and waits a minute for it to start, which is no cluster for the other tests.
            "--skip=test_cluster",
            "--test-threads=4",
        ]);
    // What the run around this one set for its own build.
    for name in ["RUSTFLAGS", "CARGO_INCREMENTAL", "CARGO_MANIFEST_DIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    let output = suite::output_of(&command)?;
    let outcomes: Outcomes = output.lines().filter_map(outcome).collect();
    SUITE.judge(&outcomes, &output)
}

/// Of a line such as `test test_put ... ok`.
fn outcome(line: &str) -> Option<(String, Outcome)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match result {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        result if result.starts_with("ignored") => Outcome::Skipped,
        _ => return None,
    };
    let (name, _) = name.split_once(" - ").unwrap_or((name, ""));
    Some((name.to_owned(), outcome))
}
