//! What the flags come to in the parts of a server, for those that cannot be seen from outside a running one.

use super::*;
use crate::config::{Invocation, load};

fn config(flags: &[&str]) -> Config {
    let loaded = load(flags.iter().map(Into::into), []).expect("good flags");
    let Invocation::Start(loaded) = loaded else { panic!("{flags:?} do not start a server") };
    loaded.config
}

fn node(flags: &[&str]) -> NodeConfig {
    node_config(&config(flags))
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn without_flags_a_node_has_the_defaults_of_etcd() {
    let node = node(&[]);
    assert_eq!((node.heartbeat, node.election), (ms(100), ms(1000)));
    assert_eq!((node.retention.snapshot_count, node.retention.catchup_commands), (10_000, 5_000));
    assert_eq!(node.compaction, CompactionPace { revisions: 1000, pause: ms(10) });
    assert_eq!((node.data_dir.as_path(), node.wal_dir.as_deref()), ("default.cairn".as_ref(), None));
    assert_eq!(node.token, "etcd-cluster");
    let alone = InitialMember { name: "default".to_owned(), peer_urls: vec!["http://localhost:2380".to_owned()] };
    assert_eq!((node.name.as_str(), node.initial_cluster), ("default", vec![alone]));
}

#[test]
fn the_flags_of_the_log_reach_the_node() {
    let node = node(&["--data-dir=/d", "--wal-dir=/w", "--snapshot-count=7", "--snapshot-catchup-entries=3"]);
    assert_eq!((node.data_dir.as_path(), node.wal_dir.as_deref()), ("/d".as_ref(), Some("/w".as_ref())));
    assert_eq!((node.retention.snapshot_count, node.retention.catchup_commands), (7, 3));
}

#[test]
fn the_flags_of_the_cluster_reach_the_node() {
    let node = node(&[
        "--name=a",
        "--initial-advertise-peer-urls=http://a:1,http://a:2",
        "--initial-cluster=a=http://a:1,b=http://b:1,a=http://a:2",
        "--initial-cluster-token=t",
        "--heartbeat-interval=50",
        "--election-timeout=700",
        "--pre-vote=false",
        "--strict-reconfig-check=false",
        "--max-learners=3",
    ]);
    let member = |name: &str, urls: &[&str]| InitialMember {
        name: name.to_owned(),
        peer_urls: urls.iter().map(|&url| url.to_owned()).collect(),
    };
    assert_eq!(node.initial_cluster, [member("a", &["http://a:1", "http://a:2"]), member("b", &["http://b:1"])]);
    assert_eq!((node.name.as_str(), node.token.as_str()), ("a", "t"));
    assert_eq!((node.heartbeat, node.election), (ms(50), ms(700)));
    assert!(!node.pre_vote && !node.rules.strict);
    assert_eq!(node.rules.learners_max, 3);
}

#[test]
fn the_flags_of_compaction_reach_the_node() {
    let node = node(&["--compaction-batch-limit=7", "--compaction-sleep-interval=3ms"]);
    assert_eq!(node.compaction, CompactionPace { revisions: 7, pause: ms(3) });
}

#[test]
fn the_flags_of_connections_between_members_reach_them() {
    let options = peer_options(&config(&["--raft-read-timeout=7s", "--snapshot-send-bytes-per-second=3"]));
    assert_eq!((options.read_timeout, options.snapshot_bytes_per_second), (ms(7000), 3));
}

#[test]
fn the_flags_of_memory_and_threads_reach_their_parts() {
    let flags = [
        "--memtable-bytes=1048576",
        "--block-cache-bytes=2097152",
        "--entry-cache-bytes=3",
        "--api-threads=5",
        "--watch-window-bytes=7",
    ];
    let node = node(&flags);
    assert_eq!(node.watch_window_bytes, 7);
    assert_eq!(
        (node.store.memtable_bytes, node.store.block_cache_bytes, node.entry_cache_bytes),
        (1 << 20, 2 << 20, 3)
    );
    assert_eq!(threads_of(&config(&flags)), 5);
}

#[test]
fn the_flags_of_connections_reach_them() {
    let limits = limits_of(&config(&[
        "--max-concurrent-streams=7",
        "--grpc-keepalive-min-time=1s",
        "--grpc-keepalive-interval=2s",
        "--grpc-keepalive-timeout=3s",
    ]));
    assert_eq!(limits.max_streams, 7);
    assert_eq!((limits.ping_min_time, limits.ping_interval, limits.ping_timeout), (ms(1000), Some(ms(2000)), ms(3000)));
    for zero in ["--grpc-keepalive-interval=0", "--grpc-keepalive-timeout=0"] {
        assert_eq!(limits_of(&config(&[zero])).ping_interval, None, "{zero}");
    }
}
