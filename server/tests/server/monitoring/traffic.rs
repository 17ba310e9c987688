//! Clients that do a little of everything, so that each family has something to show.

use std::time::Duration;

use cairn_proto::etcdserverpb::{
    self as pb, kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
    request_op::Request::RequestPut, watch_client::WatchClient, watch_request::RequestUnion,
};
use futures::{StreamExt as _, future::join_all, stream};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{lease::KeepAlive, process::Process, support::http, trio::Places};

/// How often a client does everything once.
const ROUND: Duration = Duration::from_millis(50);
/// How often the cluster is looked after. A defragmentation flushes the store, which flushes by itself 50 heartbeat
/// intervals after the last time.
const CARE: Duration = Duration::from_secs(4);
/// Seconds that leases live which run out.
const TTL: i64 = 1;
/// Writes that a member misses at first, and at most: the log is cut when the store is flushed, now and then.
const MISSED: std::ops::Range<usize> = 1_000..200_000;
/// Writes under way at a time.
const WRITES_AT_ONCE: usize = 16;

/// The clients.
pub struct Traffic {
    clients: JoinSet<()>,
}

impl Traffic {
    pub async fn start(members: [&Process; 3]) -> Self {
        let mut clients = JoinSet::new();
        let channels = join_all(members.iter().map(|member| member.channel())).await;
        for (channel, member) in channels.iter().zip(members) {
            clients.spawn(watches(channel.clone()));
            clients.spawn(works(channel.clone(), member.addrs[0]));
        }
        clients.spawn(cares(channels));
        Self { clients }
    }

    /// Ends the clients, none of which has failed.
    pub fn stop(mut self) {
        if let Some(ended) = self.clients.try_join_next() {
            panic!("a client ended: {ended:?}");
        }
    }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "value".into(), ..Default::default() }
}

/// Reads all events there are.
async fn watches(channel: Channel) {
    let create = pb::WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = stream::iter([create]).chain(stream::pending());
    let mut answers = WatchClient::new(channel).watch(requests).await.expect("the stream opens").into_inner();
    while let Some(answer) = answers.message().await.expect("the stream goes on") {
        assert!(!answer.canceled, "{answer:?}");
    }
}

/// Writes, reads, deletes, makes leases, keeps them, lets them end, and asks for the member's health.
async fn works(channel: Channel, address: std::net::SocketAddr) {
    let mut kv = KvClient::new(channel.clone());
    let mut leases = LeaseClient::new(channel);
    let mut kept = KeepAlive::open(&mut leases).await;
    let mut rounds = tokio::time::interval(ROUND);
    loop {
        rounds.tick().await;
        kv.put(put("key")).await.expect("a put");
        kv.range(pb::RangeRequest { key: "key".into(), ..Default::default() }).await.expect("a read");
        let success = vec![pb::RequestOp { request: Some(RequestPut(put("other"))) }];
        kv.txn(pb::TxnRequest { success, ..Default::default() }).await.expect("a transaction");
        kv.delete_range(pb::DeleteRangeRequest { key: "other".into(), ..Default::default() }).await.expect("a delete");
        leases.lease_grant(pb::LeaseGrantRequest { ttl: TTL, id: 0 }).await.expect("a lease that runs out");
        let lease = leases.lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 0 }).await.expect("a lease").into_inner();
        kept.renew(lease.id).await;
        leases.lease_revoke(pb::LeaseRevokeRequest { id: lease.id }).await.expect("a lease ends");
        let health = http(address, "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await;
        assert_eq!(health.status, 200, "{}", health.body);
    }
}

/// Compacts, defragments and compares hashes.
async fn cares(channels: Vec<Channel>) {
    let mut times = tokio::time::interval(CARE);
    loop {
        times.tick().await;
        let mut kv = KvClient::new(channels[0].clone());
        let header = kv.put(put("cared for")).await.expect("a put").into_inner().header;
        let revision = header.expect("a header").revision;
        kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("a compaction");
        for channel in &channels {
            let mut maintenance = MaintenanceClient::new(channel.clone());
            maintenance.defragment(pb::DefragmentRequest {}).await.expect("a defragmentation");
            maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("a hash");
        }
    }
}

/// Has a member miss so much of the log that it is sent a snapshot.
pub async fn lag_until_a_snapshot(places: &Places, flags: &[&str], other: &Process, mut lags: Process) -> Process {
    let mut missed = MISSED.start;
    while MISSED.contains(&missed) {
        lags.kill();
        let kv = other.kv().await;
        // Those under way when a leader is killed may fail.
        let write = async |_| drop(kv.clone().put(put("key")).await);
        stream::iter(0..missed).for_each_concurrent(WRITES_AT_ONCE, write).await;
        lags = places.spawn(2, flags);
        lags.serves().expect("it serves");
        if lags.http("/metrics").await.contains("\netcd_network_snapshot_receive_success{") {
            return lags;
        }
        missed *= 2;
    }
    panic!("it was never sent a snapshot:\n{}", lags.log());
}
