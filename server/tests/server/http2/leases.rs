//! Leases by the thousand, kept alive on one stream as clients in Go do it: all that are due at once, twice a second.
//!
//! `CAIRN_LEASES=20000 CAIRN_LEASES_SECONDS=300 cargo nextest run --release -p cairn-server --test server -E 'test(leases_on_one_stream)'` takes
//! five minutes; by default it is a short one.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use cairn_proto::etcdserverpb as pb;
use futures::{StreamExt, stream};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::{process::Process, support::DEADLINE};

const TTL_SECONDS: i64 = 9;
/// How long the client does not read, and the server does not run.
const PAUSE: Duration = Duration::from_millis(700);

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn leases_on_one_stream_are_kept_over_pauses() {
    let count = from_environment("CAIRN_LEASES", 4000) as i64;
    let seconds = from_environment("CAIRN_LEASES_SECONDS", 8);
    let dir = TempDir::new().expect("a temporary directory");
    let server = Process::start(dir.path(), &[]);
    let channel = server.channel().await;
    let lease = pb::lease_client::LeaseClient::new(channel);
    let granter = lease.clone();
    let grants = stream::iter(1..=count).map(move |id| {
        let mut lease = granter.clone();
        async move { lease.lease_grant(pb::LeaseGrantRequest { ttl: TTL_SECONDS, id }).await }
    });
    let (requests, receiver) = mpsc::channel::<pb::LeaseKeepAliveRequest>(1);
    let began = Instant::now();
    let mut keeping = lease.clone();
    let mut answers = keeping.lease_keep_alive(ReceiverStream::new(receiver)).await.expect("a stream").into_inner();
    let (granted, mut grants_seen) = mpsc::unbounded_channel();
    let granting = tokio::spawn(grants.buffer_unordered(64).for_each(move |answer| {
        granted.send(answer.expect("a lease").into_inner().id).expect("the test goes on");
        futures::future::ready(())
    }));
    let sending = tokio::spawn(async move {
        let mut ids = Vec::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        // A third of the time to live is six ticks; as after the start of a client, all are due at once.
        for tick in 0.. {
            ticks.tick().await;
            let known = ids.len();
            while let Ok(id) = grants_seen.try_recv() {
                ids.push(id);
            }
            let due = if tick % 6 == 0 { 0 } else { known };
            for id in &ids[due..] {
                if requests.send(pb::LeaseKeepAliveRequest { id: *id }).await.is_err() {
                    return;
                }
            }
        }
    });
    let (mut lost, mut answered, mut pauses) = (HashSet::new(), 0_u64, 0);
    let mut next_pause = began + 2 * PAUSE;
    while began.elapsed() < Duration::from_secs(seconds) || !granting.is_finished() {
        let answer = tokio::time::timeout(DEADLINE, answers.message()).await.expect("answers come");
        let answer = answer.expect("the stream goes on").expect("the stream goes on");
        answered += 1;
        if answer.ttl == 0 {
            lost.insert(answer.id);
        }
        if Instant::now() >= next_pause {
            pauses += 1;
            if pauses % 2 == 0 {
                server.pause();
                tokio::time::sleep(PAUSE).await;
                server.resume();
            } else {
                tokio::time::sleep(PAUSE).await;
            }
            next_pause = Instant::now() + 2 * PAUSE;
        }
    }
    sending.abort();
    let kept = lease.clone().lease_leases(pb::LeaseLeasesRequest {}).await.expect("a list").into_inner().leases.len();
    println!("{answered} answers, {pauses} pauses, {} lost, {kept} kept", lost.len());
    assert_eq!((lost.len(), kept), (0, count as usize));
    assert!(answered > 0 && pauses > 0);
}
