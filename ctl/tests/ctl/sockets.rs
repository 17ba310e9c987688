//! A server of ours that listens on a socket in the file system, and both programs at it. (The genuine 3.5.1 takes no
//! path there.)

use crate::referee::{Given, Server, cairn, cairnctl, etcdctl, run, words};
use crate::tls::certificates;

/// Both programs do the same lines, and print the same.
fn compared(scheme: &str, arguments: &[&str], flags: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    // What the certificate is for, and a file of that name.
    let url = format!("{scheme}://{}/localhost:0", directory.path().display());
    let mut all = vec!["--listen-client-urls", &url, "--advertise-client-urls", &url];
    all.extend(arguments);
    let _server = Server::start_binary(&cairn(), "http", &all);
    for line in ["put a 1", "get a", "get a --prefix -w fields", "member list -w json"] {
        let words = words(&format!("{line} {flags} --endpoints {url}"));
        let (ours, genuine) = (run(&cairnctl(), &words, Given::default()), run(&etcdctl(), &words, Given::default()));
        assert_eq!(ours.code, 0, "`{line}`: {ours:?}");
        assert_eq!(ours.stdout, genuine.stdout, "`{line}`: ours is on the left");
        assert_eq!(genuine.code, 0, "`{line}`: {genuine:?}");
    }
}

#[test]
fn both_programs_reach_a_server_through_a_socket() {
    compared("unix", &[], "");
}

#[test]
fn both_programs_reach_a_server_through_a_socket_with_tls() {
    let directory = tempfile::tempdir().expect("a directory");
    certificates(directory.path());
    let at = |name: &str| directory.path().join(name).display().to_string();
    let (cert, key, ca) = (at("server.pem"), at("server.key"), at("ca.pem"));
    let flags = format!("--cacert {ca} --cert {} --key {}", at("client.pem"), at("client.key"));
    let arguments = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    compared("unixs", &arguments, &flags);
}
