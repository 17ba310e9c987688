//! A control plane that keeps its objects in its own process: no second program to run, no socket, and the same store that `etcdctl` could look into.
//!
//! Every object lives under `/registry/<kind>/<name>`. It is created if there is none, and updated only if nobody changed it meanwhile; the revision of the
//! last change is its version. Run it twice to see that the objects stay; they are in `control-plane.cairn`, or in the directory that it is given:
//!
//! ```text
//! cargo run -p cairn-server --example control_plane
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cairn_proto::etcdserverpb::{self as pb, compare, request_op::Request as Op, response_op::Response as Answer};
use cairn_server::server::{Server, client::LocalClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let directory: PathBuf = std::env::args_os().nth(1).map_or_else(|| "control-plane.cairn".into(), PathBuf::from);
    let server = Server::builder().name("control-plane").data_dir(directory).in_process_only().start().await?;
    let objects = Objects { client: server.client() };

    for name in ["web-0", "web-1", "db-0"] {
        match objects.create("pods", name, &format!("{{\"name\":\"{name}\",\"phase\":\"Pending\"}}")).await? {
            Some(revision) => println!("created pods/{name} at revision {revision}"),
            None => println!("pods/{name} was there already"),
        }
    }

    let (revision, _) = objects.get("pods", "web-0").await?.context("web-0 was just created")?;
    match objects.update("pods", "web-0", revision, "{\"name\":\"web-0\",\"phase\":\"Running\"}").await? {
        Ok(revision) => println!("web-0 runs as of revision {revision}"),
        Err(current) => println!("somebody else changed web-0 at revision {current}"),
    }
    // The revision is old now: this update is refused, and nothing is lost.
    if objects.update("pods", "web-0", revision, "{}").await?.is_ok() {
        bail!("an update with an old revision went through");
    }

    println!("all pods:");
    for (name, value) in objects.list("pods").await? {
        println!("  {name} {value}");
    }
    server.shutdown().await;
    Ok(())
}

/// The objects of the control plane.
struct Objects {
    client: LocalClient,
}

impl Objects {
    /// Creates an object and returns its revision; none if there is one of that name.
    async fn create(&self, kind: &str, name: &str, value: &str) -> Result<Option<i64>> {
        let key = key(kind, name);
        let created = self.client.call(pb::TxnRequest {
            compare: vec![if_changed_at(&key, 0)],
            success: vec![put(&key, value)],
            failure: vec![],
        });
        let created = created.await?;
        Ok(created.succeeded.then(|| revision_of(&created)))
    }

    /// An object and the revision of its last change.
    async fn get(&self, kind: &str, name: &str) -> Result<Option<(i64, String)>> {
        let found = self.client.call(pb::RangeRequest { key: key(kind, name).into(), ..Default::default() }).await?;
        Ok(found.kvs.first().map(|kv| (kv.mod_revision, text(&kv.value))))
    }

    /// Changes an object that was last changed at `revision`, and returns its new revision, or the one it has.
    async fn update(&self, kind: &str, name: &str, revision: i64, value: &str) -> Result<Result<i64, i64>> {
        let key = key(kind, name);
        let read = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![if_changed_at(&key, revision)],
            success: vec![put(&key, value)],
            failure: vec![pb::RequestOp { request: Some(Op::RequestRange(read)) }],
        };
        let updated = self.client.call(request).await?;
        if updated.succeeded {
            return Ok(Ok(revision_of(&updated)));
        }
        match updated.responses.into_iter().next().and_then(|op| op.response) {
            Some(Answer::ResponseRange(found)) => Ok(Err(found.kvs.first().map_or(0, |kv| kv.mod_revision))),
            _ => bail!("a range was asked for and something else was answered"),
        }
    }

    /// All objects of a kind by name.
    async fn list(&self, kind: &str) -> Result<Vec<(String, String)>> {
        let (from, to) = (format!("/registry/{kind}/"), format!("/registry/{kind}0"));
        let found = self
            .client
            .call(pb::RangeRequest { key: from.clone().into(), range_end: to.into(), ..Default::default() })
            .await?;
        let objects = found.kvs.iter().map(|kv| (text(&kv.key[from.len()..]), text(&kv.value)));
        Ok(objects.collect())
    }
}

fn key(kind: &str, name: &str) -> String {
    format!("/registry/{kind}/{name}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn put(key: &str, value: &str) -> pb::RequestOp {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    pb::RequestOp { request: Some(Op::RequestPut(request)) }
}

/// Holds if the key was last changed at `revision`; 0 stands for a key that does not exist.
fn if_changed_at(key: &str, revision: i64) -> pb::Compare {
    pb::Compare {
        key: key.to_owned().into(),
        target: compare::CompareTarget::Mod.into(),
        result: compare::CompareResult::Equal.into(),
        target_union: Some(compare::TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

fn revision_of(answer: &pb::TxnResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}
