//! Certificates of every kind of key, version and usage, shown by a server and by a client, beside what a genuine etcd
//! does with each.
//!
//! The certificates and etcd's answers (3.5.1, built with Go 1.16) are in `testdata/kinds`, made by `make.sh` there.

use std::path::PathBuf;

use super::*;
use crate::config::{TlsConfig, TlsVersion};

/// What is refused here and taken by etcd, each with the reason.
const STRICTER: [(&str, &str); 8] = [
    ("p521-v1", "the library has no ECDSA P-521"),
    ("p521-v3", "the library has no ECDSA P-521"),
    ("rsa1024-v1", "RSA of 1024 bits can be broken"),
    ("rsa1024-v3", "RSA of 1024 bits can be broken"),
    ("of-ca-p521-v1", "the library has no ECDSA P-521"),
    ("of-ca-p521-v3", "the library has no ECDSA P-521"),
    ("of-ca-rsa1024-v1", "RSA of 1024 bits can be broken"),
    ("of-ca-rsa1024-v3", "RSA of 1024 bits can be broken"),
];

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/security/testdata/kinds")).join(name)
}

/// Shows a certificate and trusts those of an authority.
fn showing(name: &str, authority: &str) -> TlsConfig {
    TlsConfig {
        cert_file: Some(file(&format!("{name}.crt"))),
        key_file: Some(file(&format!("{name}.key"))),
        trusted_ca_file: Some(file(&format!("{authority}.crt"))),
        client_cert_auth: true,
        ..TlsConfig::between_members()
    }
}

/// Whether a connection is made, and if not, why.
async fn connected(serving: TlsConfig, dialing: TlsConfig) -> Result<(), String> {
    let reloader = TlsReloader::new(serving, Duration::from_hours(1)).map_err(|error| error.to_string())?;
    let config = super::super::client_config::build_client(&dialing).map_err(|error| error.to_string())?;
    let server = Server::start(Acceptor::tls(Arc::new(reloader), AcceptLimits::default())).await;
    let client = Client { config };
    client.connect(&server).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn every_kind_of_certificate_is_taken_that_etcd_takes_unless_it_is_unsafe() {
    let answers = std::fs::read_to_string(file("answers.txt")).unwrap();
    let mut judged = 0;
    for line in answers.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, authority, server, client] = words[..] else { panic!("{line}") };
        let reason = STRICTER.iter().find(|(stricter, _)| *stricter == name).map(|(_, reason)| *reason);
        let expected = |taken: bool| taken && reason.is_none();
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let only = |config: TlsConfig| TlsConfig { min_version: version, max_version: version, ..config };
            let by_server = connected(only(showing(name, "ca-p256")), only(showing("good", authority))).await;
            assert_eq!(
                by_server.is_ok(),
                expected(server == "server=yes"),
                "{version}: {line}: {by_server:?} {reason:?}"
            );
            let by_client = connected(only(showing("good", authority)), only(showing(name, "ca-p256"))).await;
            assert_eq!(
                by_client.is_ok(),
                expected(client == "client=yes"),
                "{version}: {line}: {by_client:?} {reason:?}"
            );
        }
        judged += 1;
    }
    assert_eq!(judged, 26, "every line of the answers");
}

#[tokio::test]
async fn what_is_refused_says_what_to_do() {
    for name in ["p521-v3", "p521-v1"] {
        let error = connected(showing(name, "ca-p256"), showing("good", "ca-p256")).await.unwrap_err();
        assert!(error.contains("--peer-key-file") && error.contains("make a new key, of ECDSA P-256"), "{error}");
    }
    let error = cairn_tls::check_key(&certificate("rsa1024-v3")).unwrap_err().to_string();
    assert!(error.contains("RSA with 1024 bits is too weak: make a new key"), "{error}");
    let error = connected(showing("p256-v1", "ca-p256"), showing("good", "ca-p256")).await.unwrap_err();
    assert!(error.contains("X.509 version 1, which has no names: make one with subjectAltName"), "{error}");
    let authorities = [certificate("ca-p521"), certificate("ca-p256"), certificate("ca-rsa1024")];
    let unusable: Vec<_> = cairn_tls::unusable_authorities(&authorities).map(|(subject, _)| subject).collect();
    assert_eq!(unusable, ["CN=ca-p521", "CN=ca-rsa1024"]);
}

fn certificate(name: &str) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_file(file(&format!("{name}.crt"))).unwrap()
}

#[tokio::test]
async fn a_client_of_version_1_is_known_by_its_name_and_kept_out_when_it_is_revoked_or_too_late() {
    let taken = connected(showing("good", "ca-p256"), showing("p256-v1", "ca-p256")).await;
    assert_eq!(taken, Ok(()));
    let named = TlsConfig { allowed_common_names: vec!["p256-v1".to_owned()], ..showing("good", "ca-p256") };
    assert_eq!(connected(named, showing("p256-v1", "ca-p256")).await, Ok(()));
    let others = TlsConfig { allowed_common_names: vec!["other".to_owned()], ..showing("good", "ca-p256") };
    assert!(connected(others, showing("p256-v1", "ca-p256")).await.is_err());
    let revoked = TlsConfig { client_crl_file: Some(file("revoked.crl")), ..showing("good", "ca-p256") };
    assert!(connected(revoked.clone(), showing("p256-v1", "ca-p256")).await.is_err());
    assert_eq!(connected(revoked, showing("p384-v1", "ca-p256")).await, Ok(()));
    for other_authority in ["ca-rsa2048", "ca-v1"] {
        let elsewhere = connected(showing("good", other_authority), showing("p256-v1", "ca-p256")).await;
        assert!(elsewhere.is_err(), "{other_authority}");
    }
}
