//! The session that every newcomer types, against our server under client certificates, with each client there is.

use crate::referee::{Given, Server, cairn, cairnctl, etcdctl, etcdctl_of_debian, output, run, words};
use crate::tls::certificates;

/// What is typed, and what it prints.
const SESSION: [(&str, &str); 5] = [
    ("put key1 value1", "OK\n"),
    ("get key1", "key1\nvalue1\n"),
    ("get / --prefix --keys-only", ""),
    ("put /registry/pods/default/web '{\"kind\":\"Pod\"}'", "OK\n"),
    ("get / --prefix --keys-only", "/registry/pods/default/web\n\n"),
];

#[test]
fn the_first_session_prints_the_same_with_every_client() {
    let directory = tempfile::tempdir().expect("a directory");
    certificates(directory.path());
    let at = |name: &str| directory.path().join(name).display().to_string();
    for client in [cairnctl(), etcdctl(), etcdctl_of_debian()] {
        let server = Server::start_binary(
            &cairn(),
            "https",
            &[
                "--cert-file",
                &at("server.pem"),
                "--key-file",
                &at("server.key"),
                "--trusted-ca-file",
                &at("ca.pem"),
                "--client-cert-auth",
            ],
        );
        let connection = format!(
            "--endpoints {} --cacert {} --cert {} --key {}",
            server.endpoint(),
            at("ca.pem"),
            at("client.pem"),
            at("client.key")
        );
        let given = Given { env: &[("ETCDCTL_API", "3")], ..Given::default() };
        for (line, printed) in SESSION {
            let ended = run(&client, &words(&format!("{connection} {line}")), given);
            assert_eq!(ended, output(0, printed, ""), "`{line}` with {}", client.display());
        }
        let without =
            format!("--endpoints {} --cacert {} get key1 --command-timeout 500ms", server.endpoint(), at("ca.pem"));
        let refused = run(&client, &words(&without), given);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "without a certificate, {}", client.display());
    }
}
