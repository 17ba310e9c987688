//! Damage, full disks and mistakes, on the server's binary: it refuses or ends with a clear error, never panics, and
//! what was acknowledged is there again once the cause is undone.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use cairn_proto::etcdserverpb::{self as pb, kv_client::KvClient};
use cairn_server::store::{Batch, RocksOptions, RocksStore, Store, Table};
use tempfile::TempDir;

use super::{
    process::{Process, refused},
    support::{Certs, certs, raw},
};

/// Keys of [`filled`].
const KEYS: usize = 50;

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// A server that was given some keys, one write to the log each.
async fn filled(dir: &Path, flags: &[&str]) -> Process {
    let server = Process::start(dir, flags);
    for n in 0..KEYS {
        server.put(&format!("key{n}"), format!("value{n}")).await;
    }
    server
}

/// The server starts, and the first `count` keys of [`filled`] are there.
async fn still_has(dir: &Path, flags: &[&str], count: usize) -> Process {
    let server = Process::start(dir, flags);
    for n in 0..count {
        let value = server.get(&format!("key{n}")).await;
        assert_eq!(value, Some(format!("value{n}").into_bytes()), "key{n}");
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
    server
}

fn segment(dir: &Path) -> PathBuf {
    dir.join("data/member/wal/log-0000000000000001")
}

fn state(dir: &Path) -> PathBuf {
    dir.join("data/member/state-1")
}

/// Where the last byte of a segment is that is not zero.
fn last_byte(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("the segment");
    bytes.iter().rposition(|&byte| byte != 0).expect("the segment is not empty") as u64
}

/// Turns the bits of one byte over; twice is as before.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the byte");
    file.write_all_at(&[!byte[0]], at).expect("the byte is written");
}

#[tokio::test]
async fn rot_in_the_middle_of_the_log_is_refused_and_nothing_is_changed() {
    let dir = temporary();
    filled(dir.path(), &[]).await.kill();
    let segment = segment(dir.path());
    let middle = u64::midpoint(4096, last_byte(&segment));
    flip(&segment, middle);
    let damaged = fs::read(&segment).expect("the segment");
    for _ in 0..2 {
        let path = segment.display().to_string();
        refused(dir.path(), &[]).says(&[
            &path,
            "is damaged at byte",
            "the log goes on with batch",
            "Nothing was changed",
        ]);
    }
    assert_eq!(fs::read(&segment).expect("the segment"), damaged);
    flip(&segment, middle);
    still_has(dir.path(), &[], KEYS).await;
}

#[tokio::test]
async fn rot_at_the_end_of_the_log_is_a_torn_write_to_a_server_that_had_no_time_to_flush() {
    let dir = temporary();
    filled(dir.path(), &[]).await.kill();
    let segment = segment(dir.path());
    flip(&segment, last_byte(&segment));
    let server = still_has(dir.path(), &[], KEYS - 1).await;
    assert!(server.log().contains("dropped a write torn by a crash"), "{}", server.log());
}

#[tokio::test]
async fn a_lost_end_of_the_log_is_refused_when_the_state_knows_better() {
    let dir = temporary();
    let server = filled(dir.path(), &[]).await;
    server.stop();
    let segment = segment(dir.path());
    // The very last write only says what is committed; the last key is in the one before.
    let file = File::options().read(true).write(true).open(&segment).expect("the segment");
    let (mut end, at) = ([0; 200], last_byte(&segment) - 199);
    file.read_exact_at(&mut end, at).expect("the end");
    file.write_all_at(&[0; 200], at).expect("the end is gone");
    refused(dir.path(), &[]).says(&["the log ends at", "the log has lost entries"]);
    file.write_all_at(&end, at).expect("the end is back");
    still_has(dir.path(), &[], KEYS).await;
}

#[tokio::test]
async fn a_missing_file_of_the_store_is_named_and_taken_back() {
    let dir = temporary();
    filled(dir.path(), &[]).await.stop();
    for kind in ["CURRENT", "MANIFEST-", ".sst"] {
        let is_kind = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            if kind.starts_with('.') { name.ends_with(kind) } else { name.starts_with(kind) }
        };
        let entries = fs::read_dir(state(dir.path())).expect("the state's directory");
        let file = entries.map(|entry| entry.expect("an entry").path()).find(is_kind);
        let file = file.unwrap_or_else(|| panic!("there is no {kind}"));
        let aside = dir.path().join("aside");
        fs::rename(&file, &aside).expect("the file goes");
        for _ in 0..2 {
            refused(dir.path(), &[]).says(&[&state(dir.path()).display().to_string(), "missing"]);
        }
        fs::rename(&aside, &file).expect("the file comes back");
        still_has(dir.path(), &[], KEYS).await.stop();
    }
}

#[tokio::test]
async fn a_log_of_a_newer_format_is_refused() {
    let dir = temporary();
    filled(dir.path(), &[]).await.kill();
    let file = File::options().write(true).open(segment(dir.path())).expect("the segment");
    file.write_all_at(&2u32.to_le_bytes(), 8).expect("the version is written");
    refused(dir.path(), &[]).says(&["has format version 2, this program reads versions up to 1"]);
    file.write_all_at(&1u32.to_le_bytes(), 8).expect("the version is written");
    still_has(dir.path(), &[], KEYS).await;
}

#[tokio::test]
async fn a_state_of_a_newer_format_is_refused() {
    let dir = temporary();
    filled(dir.path(), &[]).await.stop();
    let set = |version: u32| {
        let store = RocksStore::open(&state(dir.path()), &RocksOptions::default()).expect("the store");
        let mut batch = Batch::default();
        batch.put(Table::Meta, &b"format"[..], version.to_be_bytes().to_vec());
        store.write(&batch).and_then(|()| store.flush()).expect("the version is written");
    };
    set(2);
    refused(dir.path(), &[]).says(&["has format 2, this version reads up to 1"]);
    set(1);
    still_has(dir.path(), &[], KEYS).await;
}

#[tokio::test]
async fn a_second_process_on_a_directory_is_told_who_uses_it() {
    let dir = temporary();
    let server = filled(dir.path(), &[]).await;
    let (second, data) = (temporary(), dir.path().join("data"));
    let holder = format!("in use by process {}", server.id());
    let data_dir = format!("--data-dir={}", data.display());
    refused(second.path(), &[&data_dir]).says(&[&data.display().to_string(), &holder]);
    server.put("after", "1").await;
    server.stop();
    still_has(dir.path(), &[], KEYS).await;
}

#[tokio::test]
async fn requests_that_make_no_sense_leave_the_process_alone() {
    let dir = temporary();
    let server = filled(dir.path(), &[]).await;
    let large = pb::PutRequest { key: "large".into(), value: vec![0; 3 << 20].into(), ..Default::default() };
    server.kv().await.put(large).await.expect_err("too large");
    for garbage in [&b"garbage\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], &[0; 4000], &[0xff; 9000]] {
        // It may close the connection before everything is written.
        let mut stream = tokio::net::TcpStream::connect(server.addrs[0]).await.expect("the server accepts");
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, garbage).await;
        drop(stream);
        server.put("alive", "1").await;
    }
    assert_eq!(server.get("large").await, None);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    server.stop();
    still_has(dir.path(), &[], KEYS).await;
}

#[tokio::test]
async fn a_wrong_certificate_leaves_the_process_alone() {
    let dir = temporary();
    let file = |name: &str| certs().path(name).display().to_string();
    let server = Process::start(
        dir.path(),
        &[
            "--listen-client-urls=https://127.0.0.1:0",
            "--advertise-client-urls=https://127.0.0.1:2379",
            "--client-cert-auth",
            &format!("--cert-file={}", file("server.crt")),
            &format!("--key-file={}", file("server.key")),
            &format!("--trusted-ca-file={}", file("ca.crt")),
        ],
    );
    let other = Certs::new();
    let get = async |identity: Option<&Certs>| {
        let channel = certs().connect_to(server.addrs[0], identity).await.ok()?;
        let request = pb::RangeRequest { key: "a".into(), ..Default::default() };
        KvClient::new(channel).range(request).await.ok()
    };
    assert!(get(None).await.is_none() && get(Some(&other)).await.is_none());
    assert!(other.connect_to(server.addrs[0], Some(&other)).await.is_err());
    let plain = raw(server.addrs[0], b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!String::from_utf8_lossy(&plain).contains("health"), "{plain:?}");
    assert!(get(Some(certs())).await.is_some());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    server.stop();
}

/// A file system of its own in memory. Mounting takes root's rights, as CI has them.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: PathBuf, size: &str) -> Self {
        fs::create_dir(&path).expect("a directory to mount at");
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "small"], &path);
        Self { path }
    }

    fn grow(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.path);
    }
}

fn mount(options: &[&str], path: &Path) {
    let done = Command::new("mount").args(options).arg(path).output().expect("mount runs");
    assert!(
        done.status.success(),
        "this test mounts a small file system, which takes the rights of root: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What still uses it is killed by its own drop; the mount goes when that is done.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// Writes until the server ends, and returns how many writes were acknowledged.
async fn write_until_the_end(server: &mut Process) -> usize {
    let mut kv = server.kv().await;
    let mut acknowledged = 0;
    loop {
        let key = format!("full{acknowledged}").into();
        let request = pb::PutRequest { key, value: vec![7; 100_000].into(), ..Default::default() };
        if kv.put(request).await.is_err() {
            break;
        }
        acknowledged += 1;
        assert!(acknowledged < 10_000, "the disk does not become full");
    }
    acknowledged
}

async fn has_all(server: &Process, acknowledged: usize) {
    for n in 0..acknowledged {
        assert!(server.get(&format!("full{n}")).await.is_some(), "full{n} of {acknowledged} is lost");
    }
}

#[tokio::test]
async fn a_disk_too_small_for_the_log_is_refused_at_the_first_start() {
    let dir = temporary();
    let disk = SmallDisk::mount(dir.path().join("data"), "2m");
    refused(dir.path(), &[]).says(&["raft log", "no space left on the device", "free some space"]);
    disk.grow("100m");
    filled(dir.path(), &[]).await.kill();
    still_has(dir.path(), &[], KEYS).await;
}

#[tokio::test]
async fn a_disk_that_becomes_full_ends_the_server_and_loses_nothing() {
    let dir = temporary();
    let disk = SmallDisk::mount(dir.path().join("data"), "24m");
    let mut server = Process::start(dir.path(), &[]);
    let acknowledged = write_until_the_end(&mut server).await;
    let status = server.wait();
    let log = server.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("no space left on the device. Nothing acknowledged is lost"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    drop(server);
    disk.grow("400m");
    let server = Process::start(dir.path(), &[]);
    has_all(&server, acknowledged).await;
    server.put("after", "1").await;
}

#[tokio::test]
async fn a_store_that_becomes_full_beside_a_log_that_does_not_ends_the_server_and_loses_nothing() {
    let dir = temporary();
    let disk = SmallDisk::mount(dir.path().join("data"), "12m");
    let wal_dir = format!("--wal-dir={}", dir.path().join("wal").display());
    let mut server = Process::start(dir.path(), &[&wal_dir]);
    let acknowledged = write_until_the_end(&mut server).await;
    let status = server.wait();
    let log = server.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("is the disk full?") || log.contains("No space left on device"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    drop(server);
    disk.grow("400m");
    let server = Process::start(dir.path(), &[&wal_dir]);
    has_all(&server, acknowledged).await;
    server.put("after", "1").await;
}
