//! Snapshots that members send to each other: what is counted of them, and what becomes of one that is damaged.

use std::path::PathBuf;

use super::{support::eventually, trio::Trio};

/// Writes until nobody that runs has what a member lacks that has the log up to `last`.
async fn others_cut_their_logs(trio: &Trio, leader: usize, last: u64) {
    eventually("the others cut their logs", async || {
        trio.put(leader, "key", "again").await;
        let cut = |at: usize| trio.of(at).node().history().first_index > last + 1;
        trio.running().all(cut).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_is_counted_by_the_member_that_sends_it_and_the_one_that_receives_it() {
    let mut trio = Trio::start(|config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    })
    .await;
    let lags = (trio.leader().await + 1) % 3;
    let last = trio.of(lags).node().status().raft_index;
    trio.down(lags).await;
    let leader = trio.leader().await;
    others_cut_their_logs(&trio, leader, last).await;
    trio.up(lags).await;
    let revision = trio.of(leader).node().reader().revision();
    eventually("it catches up", async || (trio.of(lags).node().reader().revision() >= revision).then_some(())).await;

    let (sender, receiver) = (trio.id(trio.leader().await), trio.id(lags));
    let sent = [
        format!("etcd_network_snapshot_send_success{{To=\"{receiver:x}\"}} 1"),
        format!("etcd_network_snapshot_send_failures{{To=\"{receiver:x}\"}} 0"),
        format!("etcd_network_snapshot_send_inflights_total{{To=\"{receiver:x}\"}} 0"),
        format!("etcd_network_snapshot_send_total_duration_seconds_count{{To=\"{receiver:x}\"}} 1"),
        "# TYPE etcd_network_snapshot_send_success counter".to_owned(),
        "etcd_disk_backend_snapshot_duration_seconds_count 1".to_owned(),
        "etcd_debugging_snap_save_total_duration_seconds_count 1".to_owned(),
    ];
    let received = [
        format!("etcd_network_snapshot_receive_success{{From=\"{sender:x}\"}} 1"),
        format!("etcd_network_snapshot_receive_failures{{From=\"{sender:x}\"}} 0"),
        format!("etcd_network_snapshot_receive_inflights_total{{From=\"{sender:x}\"}} 0"),
        format!("etcd_network_snapshot_receive_total_duration_seconds_count{{From=\"{sender:x}\"}} 1"),
        "# TYPE etcd_network_snapshot_receive_failures counter".to_owned(),
        "etcd_server_snapshot_apply_in_progress_total 0".to_owned(),
        "etcd_snap_db_save_total_duration_seconds_count 1".to_owned(),
        "etcd_snap_fsync_duration_seconds_count 1".to_owned(),
    ];
    for (at, lines) in [(trio.leader().await, &sent[..]), (lags, &received[..])] {
        for line in lines {
            let what = format!("{line:?} is on the page");
            eventually(&what, async || {
                let page = trio.http(at, "/metrics").await.body;
                page.lines().any(|found| found == line).then_some(())
            })
            .await;
        }
    }
    let page = trio.http(lags, "/metrics").await.body;
    let synced = page.lines().find_map(|line| line.strip_prefix("etcd_snap_db_fsync_duration_seconds_count "));
    assert!(synced.is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 1)), "{synced:?}");
    trio.shutdown().await;
}

#[tokio::test]
async fn a_member_that_cannot_take_a_snapshot_says_so_and_gets_another_one() {
    let mut trio = Trio::start(|config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
        config.snapshot_send_bytes_per_second = 256 << 10;
    })
    .await;
    let lags = (trio.leader().await + 1) % 3;
    let last = trio.of(lags).node().status().raft_index;
    trio.down(lags).await;
    let leader = trio.leader().await;
    // Takes two seconds to be sent.
    let noise: String = (0..512 << 10).map(|_| char::from(rand::random_range(b' '..b'~'))).collect();
    trio.put(leader, "noise", &noise).await;
    others_cut_their_logs(&trio, leader, last).await;
    trio.up(lags).await;
    let directory = trio.dirs[leader].path().join("data/member");
    let is_outgoing =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("outgoing-"));
    let outgoing = eventually("a snapshot is being sent", async || {
        let entries = std::fs::read_dir(&directory).expect("the leader's directory");
        let outgoing = entries.filter_map(|entry| Some(entry.ok()?.path())).find(is_outgoing)?;
        (trio.counted("etcd_network_snapshot_receive_inflights_total", "From").await > 0).then_some(outgoing)
    })
    .await;
    for entry in std::fs::read_dir(outgoing).expect("the snapshot's directory") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("a file is lost");
    }
    let revision = trio.of(leader).node().reader().revision();
    eventually("it catches up", async || (trio.of(lags).node().reader().revision() >= revision).then_some(())).await;
    assert!(trio.counted("etcd_network_snapshot_receive_failures", "From").await > 0, "the first one came");
    trio.shutdown().await;
}
