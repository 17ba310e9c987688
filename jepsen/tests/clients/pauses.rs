//! The client crate and the links between members, through pauses of those at the other end: calls may run out of time, connections stay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use cairn_client::Client;
use cairn_jepsen::{
    cluster::Members,
    process::{self, Member},
};
use cairn_proto::etcdserverpb as pb;
use futures::{StreamExt as _, future, stream};
use tokio::net::TcpStream;

const PAUSE: Duration = Duration::from_millis(700);
const PAUSES: usize = 3;
const LEASES: i64 = 2000;
const TTL_SECONDS: i64 = 15;
/// A test of some seconds that takes longer has failed.
const DEADLINE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn the_client_crate_keeps_its_connection_when_the_server_pauses() -> Result<()> {
    tokio::time::timeout(DEADLINE, client_over_pauses()).await.context("it takes too long")?
}

async fn client_over_pauses() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut member = Member::new(&process::cairn_binary()?, directory.path(), &[])?;
    member.start().await?;
    let addr = member.url().trim_start_matches("http://").to_owned();
    let dials = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dials);
    let dial = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        TcpStream::connect(addr.clone())
    };
    let client = Client::builder([member.url().as_str()]).connector(dial).command_timeout(DEADLINE).build()?;
    let mut watcher = client.watch("mine").start().await?;
    let grants = stream::iter(1..=LEASES).map(|id| client.lease_grant(TTL_SECONDS, id));
    let grants: Vec<_> = grants.buffer_unordered(64).collect().await;
    ensure!(grants.iter().all(Result::is_ok), "a lease was not granted");
    let held: Vec<_> = (1..=LEASES).map(|id| client.keep_alive(id)).collect();
    for pause in 0..PAUSES {
        member.freeze()?;
        let hasty = client.with_timeout(PAUSE / 2);
        let reads = future::join_all((0..300).map(|_| async { hasty.get("mine").await.is_ok() }));
        let given_up = future::join_all((0..300).map(|_| tokio::time::timeout(PAUSE / 10, client.get("other"))));
        let renewed = future::join_all((1..=LEASES).map(|id| client.lease_keep_alive_once(id)));
        let resumed = async {
            tokio::time::sleep(PAUSE).await;
            member.thaw()
        };
        let (reads, given_up, renewed, resumed) = tokio::join!(reads, given_up, renewed, resumed);
        resumed?;
        ensure!(reads.iter().all(|read| !read) && given_up.iter().all(Result::is_err), "the member was not paused");
        for renewed in renewed {
            ensure!(renewed?.ttl > 0, "a lease is gone");
        }
        client.put("mine", pause.to_string()).await?;
        let events = watcher.next().await?.events;
        ensure!(events.len() == 1, "{events:?}");
    }
    ensure!(held.iter().all(|held| held.is_lost().is_none()), "a lease was lost");
    let dials = dials.load(Ordering::Relaxed);
    ensure!(dials == 1, "{dials} connections were made");
    Ok(())
}

#[tokio::test]
async fn links_between_members_outlast_a_leader_that_pauses() -> Result<()> {
    tokio::time::timeout(DEADLINE, members_over_pauses()).await.context("it takes too long")?
}

async fn members_over_pauses() -> Result<()> {
    // The leader stays leader over its pauses.
    let patient = ["--heartbeat-interval=500", "--election-timeout=5000"];
    let mut members = Members::with_arguments(&process::cairn_binary()?, 3, &patient)?;
    members.start_all().await?;
    let mut leader = None;
    for at in 0..3 {
        let status = pb::maintenance_client::MaintenanceClient::new(members.member(at).connect().await?);
        let status = { status }.status(pb::StatusRequest {}).await?.into_inner();
        let id = status.header.context("no header")?.member_id;
        leader = leader.or((status.leader == id).then_some(at));
    }
    let leader = leader.context("no member leads")?;
    let follower = (leader + 1) % 3;
    let client = Client::builder([members.member(follower).url().as_str()]).command_timeout(DEADLINE).build()?;
    let before = failures(&mut members).await?;
    let grants = stream::iter(1..=LEASES).map(|id| client.lease_grant(TTL_SECONDS * 4, id));
    let grants: Vec<_> = grants.buffer_unordered(64).collect().await;
    ensure!(grants.iter().all(Result::is_ok), "a lease was not granted");
    for pause in 0..PAUSES {
        members.member(leader).freeze()?;
        let puts =
            future::join_all((0..2000).map(|key| client.put(format!("k{key}"), pause.to_string()).into_future()));
        let hasty = client.with_timeout(PAUSE / 2);
        let reads = future::join_all((0..2000).map(|_| async { hasty.get("k1").await.is_ok() }));
        let renewed = future::join_all((1..=LEASES).map(|id| client.lease_keep_alive_once(id)));
        let resumed = async {
            tokio::time::sleep(PAUSE).await;
            members.member(leader).thaw()
        };
        let (puts, reads, renewed, resumed) = tokio::join!(puts, reads, renewed, resumed);
        resumed?;
        ensure!(reads.iter().all(|read| !read), "the leader was not paused");
        puts.into_iter().collect::<Result<Vec<_>, _>>()?;
        for renewed in renewed {
            ensure!(renewed?.ttl > 0, "a lease is gone");
        }
    }
    let after = failures(&mut members).await?;
    ensure!(before == after, "links failed: {before:?}, then {after:?}");
    Ok(())
}

/// Of each member, what it counts of links that ended or failed.
async fn failures(members: &mut Members) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for at in 0..3 {
        let page = members.member(at).page("/metrics").await?;
        let counted = ["etcd_network_disconnected_peers_total{", "etcd_network_peer_sent_failures_total{"];
        let of_links = page.lines().filter(|line| counted.iter().any(|name| line.starts_with(name)));
        lines.extend(of_links.map(|line| format!("{at}: {line}")));
    }
    ensure!(!lines.is_empty(), "no member counts its links");
    lines.sort();
    Ok(lines)
}
