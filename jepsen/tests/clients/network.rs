//! A network with nothing but a loopback device in it, so that every suite can have the default port and none meets another.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// A network namespace. It lasts as long as this value, or a process inside.
pub struct Network {
    /// Sits in the namespace and ends when its input closes, so that it does not outlive this process.
    holder: Child,
    is_root: bool,
}

impl Network {
    /// A new one. Whoever is not root gets it in a user namespace.
    pub fn new() -> Result<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let mut command = Command::new("unshare");
        if !is_root {
            command.args(["--user", "--map-root-user"]);
        }
        let mut holder = command
            .args(["--net", "sh", "-c", "PATH=$PATH:/usr/sbin:/sbin ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start `unshare` (util-linux)")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(
            line == "up\n",
            "no network namespace of our own: `unshare --net` and `ip link set lo up` have to work"
        );
        Ok(Self { holder, is_root })
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string()]);
        if !self.is_root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--net", "--"]).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // Nothing more can be done about a failure here.
        let _ = self.holder.wait();
    }
}
