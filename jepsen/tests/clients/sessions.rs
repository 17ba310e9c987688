//! Sessions of a genuine etcdctl, each once with a genuine etcd and once with Cairn: what is typed is the same, and so is what comes back after the ids
//! that a server chooses are set aside.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use cairn_jepsen::process::{self, Member};
use tempfile::TempDir;

use super::{server::genuine_directory, terminal::Terminal};

/// How long a change may take to be seen.
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// Fewer hexadecimal digits in a row are a word or a revision, not an id.
const ID_DIGITS_MIN: usize = 12;

/// One server and what was said with it.
struct Session {
    etcdctl: PathBuf,
    member: Member,
    /// Where the member has its data.
    _directory: TempDir,
    transcript: Vec<String>,
    /// Ids in the order of their first appearance.
    ids: HashMap<String, usize>,
}

impl Session {
    async fn with(binary: &std::path::Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut member = Member::new(binary, directory.path(), &[])?;
        member.start().await?;
        let etcdctl = genuine_directory()?.join("etcdctl");
        Ok(Self { etcdctl, member, _directory: directory, transcript: Vec::new(), ids: HashMap::new() })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.etcdctl);
        // Flags first: what follows `--` belongs to the program that etcdctl starts.
        command.arg(format!("--endpoints={}", self.member.url())).args(arguments).env("ETCDCTL_API", "3");
        command
    }

    fn note(&mut self, line: &str) {
        // The client's own log: times and addresses.
        if line.starts_with("{\"level\"") {
            return;
        }
        let line = line.replace(&self.member.url(), "<url>");
        let line = self.with_ids_set_aside(&line);
        self.transcript.push(line);
    }

    /// Replaces every id by its number, and the seconds that a lease has left by `?`.
    fn with_ids_set_aside(&mut self, line: &str) -> String {
        let (mut text, mut word) = (String::new(), String::new());
        for c in line.chars().chain(['\n']) {
            if c.is_ascii_hexdigit() {
                word.push(c);
                continue;
            }
            if word.len() >= ID_DIGITS_MIN {
                let next = self.ids.len();
                let number = *self.ids.entry(std::mem::take(&mut word)).or_insert(next);
                text.push_str("<id ");
                text.push_str(&number.to_string());
                text.push('>');
            } else {
                text += &std::mem::take(&mut word);
            }
            text.push(c);
        }
        text.pop();
        match (text.find("remaining("), text.find("s), attached").or_else(|| text.rfind("s)"))) {
            (Some(from), Some(to)) if from < to => format!("{}remaining(?{}", &text[..from], &text[to..]),
            _ => text,
        }
    }

    /// Runs a command to its end, and notes and returns what it wrote.
    fn run(&mut self, arguments: &[&str]) -> Result<String> {
        self.note(&format!("$ etcdctl {}", arguments.join(" ")));
        let output = self.command(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in text.lines() {
            self.note(line);
        }
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            self.note(line);
        }
        self.transcript.push(format!("exit {:?}", output.status.code()));
        Ok(text)
    }

    /// Starts a command that goes on.
    fn start(&mut self, arguments: &[&str]) -> Result<Terminal> {
        self.note(&format!("$ etcdctl {} &", arguments.join(" ")));
        Terminal::start(&mut self.command(arguments))
    }

    /// Waits for this many lines and notes them.
    fn lines(&mut self, terminal: &mut Terminal, count: usize) -> Result<Vec<String>> {
        let lines = terminal.lines(count)?;
        for line in &lines {
            self.note(line);
        }
        Ok(lines)
    }

    /// Interrupts a command and notes how it ended.
    fn interrupt(&mut self, mut terminal: Terminal) -> Result<()> {
        self.transcript.push("Ctrl-C".to_owned());
        terminal.interrupt()?;
        self.end(terminal)
    }

    /// Waits for a command's end and notes it.
    fn end(&mut self, terminal: Terminal) -> Result<()> {
        let (code, rest) = terminal.end()?;
        for line in rest {
            self.note(&line);
        }
        self.transcript.push(format!("exit {code:?}"));
        Ok(())
    }

    /// Asks until the answer is as wanted; only the last one is noted.
    fn run_until(&mut self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> Result<()> {
        self.wait_until(arguments, wanted)?;
        self.run(arguments)?;
        Ok(())
    }

    /// Waits until a prefix has this many keys. Which comes first is the servers' choice: nothing is noted.
    fn wait_until_keys(&mut self, prefix: &str, count: usize) -> Result<()> {
        self.wait_until(&["get", prefix, "--prefix", "--keys-only"], |keys| keys.matches(prefix).count() == count)
    }

    fn wait_until(&mut self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let output = self.command(arguments).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if wanted(&text) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "etcdctl {} keeps answering:\n{text}", arguments.join(" "));
            std::thread::sleep(POLL);
        }
    }
}

/// Has a session with both servers and compares the transcripts.
async fn compare(session: fn(&mut Session) -> Result<()>) -> Result<()> {
    let mut transcripts = Vec::new();
    for binary in [genuine_directory()?.join("etcd"), process::cairn_binary()?] {
        let mut with = Session::with(&binary).await?;
        let result = session(&mut with);
        let said = with.transcript.join("\n");
        if let Err(why) = result {
            bail!("with {}: {why:#}\nso far:\n{said}\nthe server's log:\n{}", binary.display(), with.member.log_tail());
        }
        transcripts.push(said);
    }
    ensure!(transcripts[0] == transcripts[1], "with etcd:\n{}\n\nwith Cairn:\n{}", transcripts[0], transcripts[1]);
    println!("{}", transcripts[1]);
    Ok(())
}

#[tokio::test]
async fn etcdctl_watch_tells_the_same() -> Result<()> {
    compare(|with| {
        for value in ["1", "2"] {
            with.run(&["put", "a", value])?;
        }
        with.run(&["put", "b/1", "x"])?;
        with.run(&["del", "a"])?;

        let mut from_the_past = with.start(&["watch", "a", "--rev=2"])?;
        with.lines(&mut from_the_past, 9)?;
        with.interrupt(from_the_past)?;

        let mut with_previous = with.start(&["watch", "--prefix", "", "--rev=3", "--prev-kv"])?;
        with.lines(&mut with_previous, 5 + 3 + 5)?;
        with.run(&["put", "live", "now"])?;
        with.lines(&mut with_previous, 3)?;
        with.interrupt(with_previous)?;

        let show = "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
        let mut with_command = with.start(&["watch", "b/1", "--rev=2", "--", "sh", "-c", show])?;
        with.lines(&mut with_command, 3 + 1)?;
        with.interrupt(with_command)?;

        let mut range = with.start(&["watch", "b", "c", "--rev=1"])?;
        with.lines(&mut range, 3)?;
        with.interrupt(range)
    })
    .await
}

#[tokio::test]
async fn etcdctl_watch_talks_the_same() -> Result<()> {
    compare(|with| {
        let mut terminal = with.start(&["watch", "-i"])?;
        terminal.type_line("watch a")?;
        // Its answer comes behind the creation on the same stream, so the watch is there before the put.
        terminal.type_line("progress")?;
        with.lines(&mut terminal, 1)?;
        with.run(&["put", "a", "1"])?;
        with.run(&["put", "other", "unseen"])?;
        with.lines(&mut terminal, 3)?;
        terminal.type_line("watch --prefix o --rev=2")?;
        with.lines(&mut terminal, 3)?;
        with.interrupt(terminal)
    })
    .await
}

#[tokio::test]
async fn etcdctl_watch_of_a_compacted_revision_ends_the_same() -> Result<()> {
    compare(|with| {
        for value in ["1", "2", "3"] {
            with.run(&["put", "a", value])?;
        }
        with.run(&["compact", "3"])?;
        let compacted = with.start(&["watch", "a", "--rev=2"])?;
        with.end(compacted)?;
        let mut kept = with.start(&["watch", "a", "--rev=3"])?;
        with.lines(&mut kept, 6)?;
        with.interrupt(kept)
    })
    .await
}

#[tokio::test]
async fn etcdctl_lease_tells_the_same() -> Result<()> {
    compare(|with| {
        let granted = with.run(&["lease", "grant", "100"])?;
        let id = granted.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let lease = format!("--lease={id}");
        with.run(&["put", "k1", "v", &lease])?;
        with.run(&["put", "k0", "v", &lease])?;
        with.run(&["put", "k2", "v", "--lease=1234"])?;
        with.run(&["lease", "timetolive", &id])?;
        with.run(&["lease", "list"])?;
        with.run(&["lease", "keep-alive", &id, "--once"])?;
        let mut keeping = with.start(&["lease", "keep-alive", &id])?;
        with.lines(&mut keeping, 1)?;
        with.run(&["del", "k0"])?;
        with.run(&["lease", "timetolive", &id, "--keys"])?;
        with.run(&["lease", "revoke", &id])?;
        with.run(&["get", "k", "--prefix"])?;
        // A keep-alive learns of the revoke when it asks next, long before a hundred seconds are over.
        with.interrupt(keeping)?;
        with.run(&["lease", "revoke", &id])?;
        with.run(&["lease", "timetolive", &id])?;
        with.run(&["lease", "keep-alive", &id, "--once"])?;
        with.run(&["lease", "grant", "0"])?;
        with.run(&["lease", "grant", "--", "-1"])?;
        with.run(&["lease", "grant", "9000000001"])?;

        let short = with.run(&["lease", "grant", "2"])?;
        let id = short.split_whitespace().nth(1).unwrap_or_default().to_owned();
        with.run(&["put", "short", "lived", &format!("--lease={id}")])?;
        with.run_until(&["get", "short"], str::is_empty)?;
        with.run(&["lease", "timetolive", &id])?;
        with.run(&["get", "short", "--rev=6"])?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn etcdctl_lock_tells_the_same() -> Result<()> {
    compare(|with| {
        let mut first = with.start(&["lock", "mine"])?;
        with.lines(&mut first, 1)?;
        let mut second = with.start(&["lock", "mine"])?;
        with.wait_until_keys("mine/", 2)?;
        second.expect_silence()?;
        with.interrupt(first)?;
        with.lines(&mut second, 1)?;
        with.interrupt(second)?;
        with.run(&["get", "mine", "--prefix", "--keys-only"])?;

        let show = "echo got ${ETCD_LOCK_KEY%%/*} at $ETCD_LOCK_REV";
        let command = with.start(&["lock", "--ttl=5", "theirs", "--", "sh", "-c", show])?;
        with.end(command)?;
        let failing = with.start(&["lock", "theirs", "--", "sh", "-c", "exit 3"])?;
        with.end(failing)
    })
    .await
}

#[tokio::test]
async fn etcdctl_elect_tells_the_same() -> Result<()> {
    compare(|with| {
        let mut first = with.start(&["elect", "office", "one"])?;
        with.lines(&mut first, 2)?;
        let mut observer = with.start(&["elect", "office", "-l"])?;
        with.lines(&mut observer, 2)?;
        let mut second = with.start(&["elect", "office", "two"])?;
        with.wait_until_keys("office/", 2)?;
        second.expect_silence()?;
        with.interrupt(first)?;
        with.lines(&mut second, 2)?;
        with.lines(&mut observer, 2)?;
        with.interrupt(observer)?;
        with.interrupt(second)?;
        with.run(&["get", "office", "--prefix", "--keys-only"])?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn etcdctl_make_mirror_copies_the_same() -> Result<()> {
    compare(|with| {
        for (key, value) in [("from/1", "a"), ("from/2", "b"), ("elsewhere", "c")] {
            with.run(&["put", key, value])?;
        }
        // Source and destination are one server: what is copied has another prefix.
        let url = with.member.url();
        let arguments = ["make-mirror", "--prefix=from/", "--dest-prefix=to/", &url];
        let mirror = with.start(&arguments)?;
        with.run_until(&["get", "to/", "--prefix"], |found| found.lines().count() == 4)?;
        with.run(&["put", "from/3", "later"])?;
        with.run(&["del", "from/1"])?;
        with.run(&["put", "from/2", "changed"])?;
        with.run_until(&["get", "to/", "--prefix"], |found| found.ends_with("later\n") && found.contains("changed"))?;
        with.run(&["get", "", "--prefix"])?;
        drop(mirror);
        Ok(())
    })
    .await
}
