//! What the server's binary logs, and where: files that are rotated, levels that change while it runs, slow work.

use std::{fs, io::Read, path::Path};

use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::{
    process::{Process, refused},
    support::{eventually, raw},
};

/// What is logged of a request that takes long.
const SLOW: &str = "a request took too long";

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// Waits until the server's stderr has a line with `text` after the first `from` bytes.
async fn logged(server: &Process, from: usize, text: &str) {
    eventually(text, async || server.log()[from..].contains(text).then_some(())).await;
}

#[tokio::test]
async fn a_hangup_reads_the_level_of_a_config_file_again() {
    let dir = temporary();
    let file = dir.path().join("cairn.yaml");
    let configure = |level: &str| {
        let data = dir.path().join("data");
        let text = format!(
            "data-dir: {}\nlisten-client-urls: http://127.0.0.1:0\nadvertise-client-urls: http://127.0.0.1:2379\n\
             listen-peer-urls: http://127.0.0.1:0\nwarning-unary-request-duration: 0\nlog-level: {level}\n",
            data.display()
        );
        fs::write(&file, text).expect("the file is written");
    };
    configure("info");
    let server = Process::start(dir.path(), &[&format!("--config-file={}", file.display())]);
    changes_its_level(server, configure, "no-such-level").await;
}

#[tokio::test]
async fn a_hangup_reads_the_level_of_a_file_in_the_data_directory() {
    let dir = temporary();
    let server = Process::start(dir.path(), &["--warning-unary-request-duration=0s"]);
    let file = dir.path().join("data/log-level");
    let from = server.log().len();
    server.hang_up();
    logged(&server, from, "\"level\":\"Info\"").await;
    changes_its_level(server, |level| fs::write(&file, format!("{level}\n")).expect("it is written"), "loud").await;
}

/// Has a server log at other levels in turn, that logs a warning for each request at first.
async fn changes_its_level(server: Process, configure: impl Fn(&str), wrong: &str) {
    let tells_of_requests = async || {
        let from = server.log().len();
        server.put("a", "1").await;
        server.log()[from..].contains(SLOW)
    };
    let hang_up = async |level: &str, answer: &str| {
        configure(level);
        let from = server.log().len();
        server.hang_up();
        logged(&server, from, answer).await;
    };
    assert!(tells_of_requests().await);
    hang_up("error", "\"level\":\"Error\"").await;
    eventually("no more warnings", async || (!tells_of_requests().await).then_some(())).await;
    hang_up("warn", "\"level\":\"Warn\"").await;
    assert!(tells_of_requests().await);
    hang_up(wrong, "the log level stays: it cannot be read again").await;
    assert!(tells_of_requests().await);
    hang_up("info", "\"level\":\"Info\"").await;
    server.stop();
}

#[tokio::test]
async fn slow_work_is_told_from_the_time_on_that_was_given() {
    for (duration, told) in [("0s", true), ("1h", false)] {
        let dir = temporary();
        let server = Process::start(dir.path(), &[&format!("--warning-apply-duration={duration}")]);
        server.put("a", "1").await;
        assert_eq!(server.log().contains("apply request took too long"), told, "{}", server.log());
        let slow = format!("etcd_server_slow_apply_total {}", if told { "" } else { "0" });
        assert!(server.http("/metrics").await.contains(&slow));
    }
}

#[tokio::test]
async fn a_log_file_is_put_aside_and_compressed_when_it_is_large() {
    let dir = temporary();
    let file = dir.path().join("cairn.log");
    // What was written before nearly fills it.
    fs::write(&file, vec![b'x'; 1024 * 1024 - 100]).expect("the file is written");
    let flags = [
        format!("--log-outputs=stderr,{}", file.display()),
        "--enable-log-rotation".to_owned(),
        "--log-rotation-config-json={\"maxsize\": 1, \"maxbackups\": 3, \"compress\": true}".to_owned(),
    ];
    let server = Process::start(dir.path(), &flags.each_ref().map(String::as_str));
    let is_compressed = |name: &str| name.starts_with("cairn-20") && name.ends_with(".log.gz");
    let aside = eventually("a compressed file", async || {
        let names = files(dir.path()).into_iter().filter(|name| name.starts_with("cairn-")).collect::<Vec<_>>();
        (names.len() == 1 && is_compressed(&names[0])).then(|| names[0].clone())
    });
    let aside = fs::read(dir.path().join(aside.await)).expect("the file is there");
    let mut text = Vec::new();
    GzDecoder::new(&aside[..]).read_to_end(&mut text).expect("it is compressed whole");
    let now = fs::read_to_string(&file).expect("the log goes on");
    assert!(text.starts_with(b"xxx") && now.contains("ready to serve client requests"));
    server.stop();
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the directory is there");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_cannot_be_rotated_ends_the_start_as_in_etcd() {
    let dir = temporary();
    let single = "--log-outputs requires a single file path when --log-rotate-config-json is defined";
    refused(dir.path(), &["--enable-log-rotation"]).says(&[single]);
    refused(dir.path(), &["--enable-log-rotation", "--log-outputs=/a/l,/a/m"]).says(&[single]);
    let broken = ["--enable-log-rotation", "--log-outputs=/a/l", "--log-rotation-config-json={"];
    refused(dir.path(), &broken).says(&["improperly formatted log rotation config"]);
    let wrong = ["--enable-log-rotation", "--log-outputs=/a/l", "--log-rotation-config-json={\"maxsize\":\"1\"}"];
    refused(dir.path(), &wrong).says(&["invalid log rotation config"]);
}

#[tokio::test]
async fn metrics_are_compressed_for_who_asks() {
    let dir = temporary();
    let server = Process::start(dir.path(), &["--listen-metrics-urls=http://127.0.0.1:0"]);
    let page = async |at: usize, accepts: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{accepts}Connection: close\r\n\r\n");
        let answer = raw(server.addrs[at], request.as_bytes()).await;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
        (String::from_utf8(answer[..end].to_vec()).expect("text").to_lowercase(), answer[end..].to_vec())
    };
    for at in [0, 1] {
        let (head, body) = page(at, "Accept-Encoding: gzip, deflate\r\n").await;
        assert!(head.contains("content-encoding: gzip\r\n") && head.contains("vary: accept-encoding\r\n"), "{head}");
        let mut text = String::new();
        GzDecoder::new(&body[..]).read_to_string(&mut text).expect("it is compressed whole");
        assert!(text.contains("etcd_server_has_leader 1") && body.len() * 3 < text.len());
        for accepts in ["", "Accept-Encoding: identity\r\n", "Accept-Encoding: gzip;q=0\r\n"] {
            let (head, body) = page(at, accepts).await;
            assert!(!head.contains("content-encoding") && body.starts_with(b"# HELP"), "{head}");
        }
    }
}
