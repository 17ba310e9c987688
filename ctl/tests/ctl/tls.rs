//! TLS, against servers that want it, next to a genuine etcdctl.

use std::path::Path;

use crate::compared::as_before_3_7;
use crate::referee::{
    Given, On, Pair, Side, by_etcdctl_on_both_servers, on_either_server, output, run, without_newer_fields,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

on_either_server! {
    certificates_are_used_and_refused_alike,
    a_certificate_that_signs_itself_is_good_when_it_is_in_the_bundle,
    skipping_verification_needs_no_other_flag,
}

by_etcdctl_on_both_servers! {
    certificates_are_used_and_refused_alike,
}

/// Certificates in a directory: `ca`, `server` and `client` signed by it, `self` that signs itself and says it is a CA,
/// `other` a CA that has signed nothing.
pub fn certificates(directory: &Path) {
    let write = |name: &str, certificate: String, key: String| {
        std::fs::write(directory.join(format!("{name}.pem")), certificate).expect("write a certificate");
        std::fs::write(directory.join(format!("{name}.key")), key).expect("write a key");
    };
    let params = |ca: bool| {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("good names");
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    };
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca_params = params(true);
    ca_params.extended_key_usages.clear();
    let ca = ca_params.self_signed(&ca_key).expect("a certificate");
    write("ca", ca.pem(), ca_key.serialize_pem());
    let issuer = Issuer::new(ca_params, ca_key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(false).signed_by(&key, &issuer).expect("a certificate");
        write(name, certificate.pem(), key.serialize_pem());
    }
    for name in ["self", "other"] {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(true).self_signed(&key).expect("a certificate");
        write(name, certificate.pem(), key.serialize_pem());
    }
}

fn certificates_are_used_and_refused_alike(on: On) {
    let directory = tempfile::tempdir().expect("a directory");
    certificates(directory.path());
    let at = |name: &str| directory.path().join(name).display().to_string();
    let (ca, cert, key) = (at("ca.pem"), at("client.pem"), at("client.key"));
    let good = format!("--cacert {ca} --cert {cert} --key {key}");
    let pair = Pair::start_with(
        on,
        "https",
        &[
            "--cert-file",
            &at("server.pem"),
            "--key-file",
            &at("server.key"),
            "--trusted-ca-file",
            &ca,
            "--client-cert-auth",
        ],
        &good,
    );
    for line in [
        "put a 1",
        "get a",
        "--endpoints https://@ get a",
        "--endpoints https://localhost:1,https://@ get a",
        "--endpoints http://@ get a --command-timeout 300ms",
        "member list -w json",
        "defrag --cluster",
    ] {
        pair.same_masked(line, as_before_3_7);
    }

    pair.same_masked("endpoint hashkv -w json --cluster", without_newer_fields);

    let other = at("other.pem");
    let no_client = format!("--cacert {ca}");
    let wrong_ca = format!("--cacert {other} --cert {cert} --key {key}");
    let mismatch = format!("--cacert {ca} --cert {cert} --key {}", at("other.key"));
    let half = format!("--cacert {ca} --cert {cert}");
    let other_half = format!("--cacert {ca} --key {key}");
    let blind = format!("--cert {cert} --key {key} --insecure-skip-tls-verify");
    let system = format!("--cert {cert} --key {key}");
    for flags in [no_client, wrong_ca, mismatch, half, other_half, blind, system, String::new()] {
        let lines = Lines { pair: &pair, flags: &flags };
        lines.same("--endpoints https://@ get a --command-timeout 300ms");
        lines.same("--endpoints @ get a --command-timeout 300ms");
    }
}

/// Lines with other flags than the pair's own.
struct Lines<'p> {
    pair: &'p Pair,
    flags: &'p str,
}

impl Lines<'_> {
    #[track_caller]
    fn same(&self, line: &str) {
        let line = format!("{} {line}", self.flags);
        let ended = |side: &Side| run(&side.program, &side.words(&line), Given::default());
        let (genuine, ours) = (ended(&self.pair.genuine), ended(&self.pair.ours));
        let essential = |stderr: &str| -> Vec<String> {
            let plain = |line: &&str| {
                !line.starts_with("{\"level\":")
                    && !line.starts_with("last error: ")
                    && !line.starts_with("no answer from ")
            };
            stderr.lines().filter(plain).map(str::to_owned).collect()
        };
        assert_eq!(
            (ours.code, &ours.stdout, essential(&ours.stderr)),
            (genuine.code, &genuine.stdout, essential(&genuine.stderr)),
            "`{line}`: ours is on the left"
        );
    }
}

fn a_certificate_that_signs_itself_is_good_when_it_is_in_the_bundle(on: On) {
    let directory = tempfile::tempdir().expect("a directory");
    certificates(directory.path());
    let at = |name: &str| directory.path().join(name).display().to_string();
    let (cert, key) = (at("self.pem"), at("self.key"));
    let pair = Pair::start_with(
        on,
        "https",
        &["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &cert, "--client-cert-auth"],
        &format!("--cacert {cert} --cert {cert} --key {key}"),
    );
    pair.same("put a 1");
    pair.same("get a -w json");
    let lines = Lines { pair: &pair, flags: &format!("--cacert {} --cert {cert} --key {key}", at("other.pem")) };
    lines.same("--endpoints https://@ get a --command-timeout 300ms");
}

fn skipping_verification_needs_no_other_flag(on: On) {
    let directory = tempfile::tempdir().expect("a directory");
    certificates(directory.path());
    let at = |name: &str| directory.path().join(name).display().to_string();
    let pair = Pair::start_with(
        on,
        "https",
        &["--cert-file", &at("server.pem"), "--key-file", &at("server.key")],
        &format!("--cacert {}", at("ca.pem")),
    );
    pair.same("put a 1");
    let line = "--endpoints https://@ --insecure-skip-tls-verify get a --command-timeout 300ms";
    let ours = run(&pair.ours.program, &pair.ours.words(line), Given::default());
    assert_eq!(ours, output(0, "a\n1\n", ""));
    let genuine = run(&pair.genuine.program, &pair.genuine.words(line), Given::default());
    assert_eq!(genuine.code, 1, "no difference left, take it off the list");
}
