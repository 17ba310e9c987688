//! What a suite brought, against what is expected of it.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

/// How long one run of a suite may take.
const RUN_DEADLINE: Duration = Duration::from_mins(5);

/// The outcomes of tests by name.
pub type Outcomes = BTreeMap<String, Outcome>;

/// What became of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// The suite itself leaves it out.
    Skipped,
}

/// A test that does not pass, and why.
pub type Exception = (&'static str, &'static str);

/// A suite and what is expected of it.
pub struct Suite {
    /// As in the first two columns of the table in docs/compatibility.md.
    pub name: &'static str,
    pub version: &'static str,
    /// Tests it has.
    pub tests: usize,
    /// Tests that do not pass, and why, in groups that suites may share. Whoever makes one pass takes it off the list.
    pub exceptions: &'static [&'static [Exception]],
}

/// Where `scripts/install-clients` put the client with this name.
pub fn installed(name: &str) -> Result<PathBuf> {
    let cache = match std::env::var_os("CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("neither CACHE nor HOME is set")?).join(".cache/cairn"),
    };
    let directory = cache.join("clients").join(name);
    let complete = directory.join("installed").is_file();
    ensure!(complete, "{} is not installed: run scripts/install-deps test", directory.display());
    Ok(directory)
}

/// Runs a suite to its end and returns what it wrote; that it found failures is no error here.
pub fn output_of(command: &Command) -> Result<String> {
    let mut bounded = Command::new("timeout");
    bounded.args(["--kill-after=5", &RUN_DEADLINE.as_secs().to_string()]).arg(command.get_program());
    bounded.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        bounded.current_dir(directory);
    }
    let output = bounded.stdin(std::process::Stdio::null()).output().context("run the suite")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // 124 and 137 are what `timeout` ends with when it had to intervene.
    let in_time = !matches!(output.status.code(), Some(124 | 137) | None);
    ensure!(in_time, "the suite did not end within {RUN_DEADLINE:?}:\n{text}");
    Ok(text)
}

impl Suite {
    /// Fails unless every test of the suite was run and only the exceptions did not pass. `output` is shown then.
    pub fn judge(&self, outcomes: &Outcomes, output: &str) -> Result<()> {
        let mut complaints = String::new();
        // What a suite does not reach because of an exception is one itself.
        let unreached = self.exceptions().filter(|(name, _)| !outcomes.contains_key(*name)).count();
        if outcomes.len() + unreached != self.tests {
            writeln!(
                complaints,
                "{} tests were run and {unreached} left out, the suite has {}",
                outcomes.len(),
                self.tests
            )?;
        }
        for (test, outcome) in outcomes {
            let excepted = self.exceptions().any(|(name, _)| name == test);
            match (outcome, excepted) {
                (Outcome::Passed, true) => writeln!(complaints, "passes and is listed as an exception: {test}")?,
                (Outcome::Failed | Outcome::Skipped, false) => writeln!(complaints, "{outcome:?}: {test}")?,
                _ => {}
            }
        }
        ensure!(complaints.is_empty(), "{} {}:\n{complaints}\nIts output:\n{output}", self.name, self.version);
        println!("{} {}: {} of {} tests pass", self.name, self.version, self.passing(), self.tests);
        self.check_documentation()
    }

    fn passing(&self) -> usize {
        self.tests - self.exceptions().count()
    }

    fn exceptions(&self) -> impl Iterator<Item = Exception> {
        self.exceptions.iter().copied().flatten().copied()
    }

    fn check_documentation(&self) -> Result<()> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
        let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        let row = format!("| {} | {} | {} | {} |", self.name, self.version, self.tests, self.passing());
        ensure!(text.contains(&row), "docs/compatibility.md has no line with `{row}`");
        for (name, reason) in self.exceptions() {
            let line = format!("| `{name}` | {reason} |");
            ensure!(text.contains(&line), "docs/compatibility.md has no line `{line}`");
        }
        Ok(())
    }
}
