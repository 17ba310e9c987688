//! A small rehearsal of a control plane: the example of the client crate, as a process.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cairn_jepsen::process::{self, Member};

#[tokio::test]
async fn a_control_plane_finds_every_promise_kept() -> Result<()> {
    // Examples lie beside the folder of the test binaries.
    let program = std::env::current_exe()?.ancestors().nth(2).context("no folder above")?.join("examples/rehearsal");
    ensure!(program.is_file(), "{} is not there: build the examples, as a run of all tests does", program.display());
    let directory = tempfile::tempdir()?;
    let mut member = Member::new(&process::cairn_binary()?, directory.path(), &[])?;
    member.start().await?;
    let mut command = Command::new("timeout");
    command.arg("240").arg(program).args(["--endpoint", &member.url(), "--nodes", "30", "--heartbeat-ms", "500"]);
    let output =
        command.args(["--seconds", "14", "--namespaces", "3", "--replicas", "3", "--event-ttl", "3"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    ensure!(output.status.success(), "{}\n{text}\nthe member's log:\n{}", output.status, member.log_tail());
    Ok(())
}
