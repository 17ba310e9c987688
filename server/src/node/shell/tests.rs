//! A whole node on real files.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;
use semver::Version;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::{
    node::{NodeError, ProposeError, ReadIndexError, Unfit, core::RetentionOptions, identity::InitialMember},
    state::{
        StateError,
        auth::Authorizer,
        command::{Reply, Request},
    },
    store::StoreError,
};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn config(dir: &Path) -> NodeConfig {
    NodeConfig { segment_bytes: 1 << 20, ..NodeConfig::new(dir.join("data")) }
}

fn put(key: &str, value: &str) -> Request {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Request::Put(pb::PutRequest { key, value, ..pb::PutRequest::default() })
}

/// Puts and gives the revision.
async fn write(node: &NodeHandle, key: &str, value: &str) -> i64 {
    match node.proposer().propose_own(put(key, value)).await.unwrap().outcome {
        Ok(Reply::Kv { revision, .. }) => revision,
        other => panic!("a put is answered by {other:?}"),
    }
}

/// The value of a key now.
fn read(node: &NodeHandle, key: &str) -> Option<Bytes> {
    let pin = node.reader().pin(&Authorizer::default().own(), 0).unwrap();
    let request = pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..pb::RangeRequest::default() };
    let rows = node.reader().range(&pin, &request).unwrap();
    rows.kvs.first().map(|kv| <cairn_proto::mvccpb::KeyValue as prost::Message>::decode(kv.clone()).unwrap().value)
}

/// Starts on a directory that its last user may be just about to leave.
fn start_when_free(config: &NodeConfig, runtime: &Runtime) -> NodeHandle {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match start(config, runtime.handle()) {
            Ok(node) => return node,
            Err(NodeError::Directory { .. } | NodeError::State(StateError::Store(StoreError::Unusable { .. })))
                if Instant::now() < deadline =>
            {
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    for round in 0..3_i64 {
        let runtime = runtime();
        let node = start(&config, runtime.handle()).unwrap();
        runtime.block_on(async {
            node.linearize().await.unwrap();
            assert_eq!(node.reader().revision(), 1 + 10 * round);
            if round > 0 {
                assert_eq!(read(&node, "key3"), Some(Bytes::from(format!("value{}", round - 1))));
            }
            for at in 0..10 {
                assert_eq!(write(&node, &format!("key{at}"), &format!("value{round}")).await, 2 + 10 * round + at);
            }
            let status = node.status();
            assert_eq!((status.leader, status.raft_index), (status.member_id, status.applied_index));
            assert!(status.term >= 2 && !status.is_learner);
            node.shutdown().await;
            assert!(node.fatal().borrow().is_none());
        });
    }
}

#[test]
fn a_node_that_was_never_shut_down_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    for round in 0..3_i64 {
        let runtime = runtime();
        let node = start_when_free(&config, &runtime);
        runtime.block_on(async {
            node.linearize().await.unwrap();
            assert_eq!(node.reader().revision(), 1 + 5 * round);
            for at in 0..5 {
                write(&node, &format!("key{at}"), "value").await;
            }
        });
        drop(runtime);
    }
    // What the last one's threads hold must be closed before the process ends.
    let runtime = runtime();
    runtime.block_on(start_when_free(&config, &runtime).shutdown());
}

#[test]
fn many_writers_at_once_are_all_answered_with_revisions_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let node = start(&config(dir.path()), runtime.handle()).unwrap();
    runtime.block_on(async {
        let writers = (0..500).map(|at| {
            let node = node.clone();
            tokio::spawn(async move { write(&node, &format!("key{}", at % 7), "value").await })
        });
        let writers: Vec<_> = writers.collect();
        let mut revisions = Vec::new();
        for writer in writers {
            revisions.push(writer.await.unwrap());
        }
        revisions.sort_unstable();
        assert_eq!(revisions, (2..502).collect::<Vec<i64>>());
        node.linearize().await.unwrap();
        assert_eq!(node.reader().revision(), 501);
        node.shutdown().await;
    });
}

#[test]
fn after_a_shutdown_everything_is_refused_and_the_directory_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let runtime = runtime();
    let node = start(&config, runtime.handle()).unwrap();
    let second = start(&config, runtime.handle()).unwrap_err().to_string();
    assert!(second.contains("is in use by"), "{second}");
    runtime.block_on(async {
        write(&node, "key", "value").await;
        node.shutdown().await;
        let refused = node.proposer().propose_own(put("key", "other")).await.unwrap_err();
        assert_eq!(refused, ProposeError::Stopped);
        assert_eq!(node.linearize().await, Err(ReadIndexError::Stopped));
        node.shutdown().await;
    });
    // The store is closed when nobody can read it any more.
    drop(node);
    let again = start(&config, runtime.handle()).unwrap();
    runtime.block_on(again.shutdown());
}

#[test]
fn a_node_without_handles_stops_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let runtime = runtime();
    let node = start(&config, runtime.handle()).unwrap();
    runtime.block_on(write(&node, "key", "value"));
    drop(node);
    // The runtime goes on: it is not its end that frees the directory.
    let deadline = Instant::now() + Duration::from_secs(30);
    let node = loop {
        runtime.block_on(tokio::task::yield_now());
        match start(&config, runtime.handle()) {
            Ok(node) => break node,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(read(&node, "key"), Some("value".into()));
    runtime.block_on(node.shutdown());
}

#[test]
fn what_was_accepted_before_a_shutdown_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let node = start(&config(dir.path()), runtime.handle()).unwrap();
    runtime.block_on(async {
        let writers: Vec<_> = (0..50)
            .map(|at| {
                let node = node.clone();
                tokio::spawn(async move { node.proposer().propose_own(put(&format!("key{at}"), "value")).await })
            })
            .collect();
        tokio::task::yield_now().await;
        node.shutdown().await;
        for writer in writers {
            assert!(writer.await.unwrap().is_ok());
        }
    });
}

#[test]
fn a_fatal_error_is_shown_and_nothing_is_acknowledged_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let node = start(&config(dir.path()), runtime.handle()).unwrap();
    runtime.block_on(async {
        let mut fatal = node.fatal();
        node.fail(NodeError::Panicked("a test"));
        node.fail(NodeError::Panicked("another one"));
        let shown = fatal.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(shown.to_string().contains("a test"));
        assert_eq!(node.proposer().propose_own(put("key", "value")).await.unwrap_err(), ProposeError::Stopped);
        assert_eq!(node.linearize().await, Err(ReadIndexError::Stopped));
        node.shutdown().await;
    });
}

#[test]
fn a_member_keeps_the_identity_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let first = config(dir.path());
    let other = NodeConfig {
        initial_cluster: vec![InitialMember { name: "other".into(), peer_urls: vec!["http://other:2380".into()] }],
        name: "other".into(),
        token: "another".into(),
        ..first.clone()
    };
    let mut ids = Vec::new();
    for config in [first, other] {
        let runtime = runtime();
        let node = start(&config, runtime.handle()).unwrap();
        ids.push((node.status().member_id, node.status().cluster_id));
        runtime.block_on(node.shutdown());
    }
    assert_eq!(ids, [(0x8e9e_05c5_2164_694d, 0xcdf8_1819_4e3a_8c32); 2]);
}

#[test]
fn flags_that_do_not_name_this_member_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig { name: "nobody".into(), ..config(dir.path()) };
    let refused = start(&config, runtime().handle()).unwrap_err().to_string();
    assert!(refused.contains("nobody") && refused.contains("--initial-cluster"), "{refused}");
}

#[test]
fn a_program_below_the_clusters_version_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let (config, runtime) = (config(dir.path()), runtime());
    runtime.block_on(async {
        let node = start(&config, runtime.handle()).unwrap();
        for version in [Version::new(3, 7, 9), Version::new(99, 0, 0)] {
            let proposed = node.proposer().propose_own(Request::ClusterVersion(version)).await.unwrap();
            assert_eq!(proposed.outcome, Ok(Reply::Done));
        }
        node.shutdown().await;
    });
    match start(&config, runtime.handle()) {
        Err(error @ NodeError::TooOld { .. }) => assert!(error.to_string().contains("99.0.0"), "{error}"),
        other => panic!("it started, or says {other:?}"),
    }
}

#[test]
fn a_log_without_its_state_and_a_state_without_its_log_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let runtime = runtime();
    let node = start(&config, runtime.handle()).unwrap();
    runtime.block_on(async {
        write(&node, "key", "value").await;
        node.shutdown().await;
    });
    drop(node);
    let member = config.data_dir.join("member");
    let aside = |name: &str| fs::rename(member.join(name), dir.path().join(name)).unwrap();
    let back = |name: &str| fs::rename(dir.path().join(name), member.join(name)).unwrap();
    aside("wal");
    let refused = start(&config, runtime.handle()).unwrap_err().to_string();
    assert!(refused.contains("raft log is missing"), "{refused}");
    fs::remove_dir_all(member.join("wal")).unwrap();
    back("wal");
    aside("CURRENT");
    aside("state-1");
    let refused = start(&config, runtime.handle()).unwrap_err();
    assert!(matches!(refused, NodeError::Unfit(Unfit::StateEmpty { .. })), "{refused}");
    fs::remove_file(member.join("CURRENT")).unwrap();
    fs::remove_dir_all(member.join("state-1")).unwrap();
    back("CURRENT");
    back("state-1");
    let node = start(&config, runtime.handle()).unwrap();
    assert_eq!(read(&node, "key"), Some("value".into()));
    runtime.block_on(node.shutdown());
}

#[test]
fn an_interrupted_first_start_is_finished_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let member = config.data_dir.join("member");
    let runtime = runtime();
    let node = start(&config, runtime.handle()).unwrap();
    runtime.block_on(node.shutdown());
    let identity = node.status();
    drop(node);
    // The log is there, but empty, and the state is not there yet: as if the power had failed between the two.
    fs::remove_dir_all(member.join("wal")).unwrap();
    fs::remove_dir_all(member.join("state-1")).unwrap();
    fs::remove_file(member.join("CURRENT")).unwrap();
    {
        use crate::log::{Identity, Log, LogOptions};
        fs::create_dir(member.join("wal")).unwrap();
        let identity = Identity { cluster_id: identity.cluster_id, member_id: identity.member_id };
        drop(Log::open_dir(&member.join("wal"), &LogOptions::new(identity, 1), 0).unwrap());
    }
    let node = start(&config, runtime.handle()).unwrap();
    runtime.block_on(async {
        assert_eq!(write(&node, "key", "value").await, 2);
        node.shutdown().await;
    });
}

#[test]
fn the_log_is_cut_after_enough_commands() {
    let dir = tempfile::tempdir().unwrap();
    let retention = RetentionOptions {
        snapshot_count: 100,
        catchup_commands: 10,
        flush_ticks_min: 0,
        ..RetentionOptions::default()
    };
    let config = NodeConfig { retention, segment_bytes: 64 << 10, ..config(dir.path()) };
    let runtime = runtime();
    let node = start(&config, runtime.handle()).unwrap();
    runtime.block_on(async {
        let value = "v".repeat(1000);
        let deadline = Instant::now() + Duration::from_mins(1);
        // The purge is reported with the size of what is left.
        while node.metrics().wal_size.get() == 0 {
            assert!(Instant::now() < deadline, "nothing was purged");
            write(&node, "key", &value).await;
        }
        node.shutdown().await;
    });
    drop(node);
    let runtime = self::runtime();
    let node = start(&config, runtime.handle()).unwrap();
    assert!(read(&node, "key").is_some());
    runtime.block_on(node.shutdown());
}

#[test]
fn requests_beyond_the_limit_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig { requests_max: 3, ..config(dir.path()) };
    let runtime = runtime();
    let node = start(&config, runtime.handle()).unwrap();
    runtime.block_on(async {
        let writers: Vec<_> = (0..10)
            .map(|at| {
                let node = node.clone();
                tokio::spawn(async move { node.proposer().propose_own(put(&format!("key{at}"), "value")).await })
            })
            .collect();
        let mut refused = 0;
        for writer in writers {
            match writer.await.unwrap() {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error, ProposeError::TooManyRequests);
                    refused += 1;
                }
            }
        }
        assert_eq!((refused, node.metrics().requests_refused.get()), (7, 7));
        write(&node, "key", "value").await;
        node.shutdown().await;
    });
}

#[test]
fn a_compaction_is_carried_out_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let node = start(&config(dir.path()), runtime.handle()).unwrap();
    runtime.block_on(async {
        for at in 0..50 {
            write(&node, "key", &at.to_string()).await;
        }
        let compact = Request::Compact(pb::CompactionRequest { revision: 51, physical: true });
        node.proposer().propose_own(compact).await.unwrap().outcome.unwrap();
        tokio::time::timeout(Duration::from_secs(30), node.reader().wait_compacted(51)).await.unwrap();
        assert_eq!(read(&node, "key"), Some("49".into()));
        node.shutdown().await;
    });
}

#[test]
fn the_handle_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<NodeHandle>();
    shared::<Arc<NodeHandle>>();
}
