//! Who gets in, who does not, and what setting up refuses.

use futures::FutureExt as _;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType, SerialNumber, date_time_ymd};
use rustls::version::{TLS12, TLS13};

use super::*;
use crate::config::{CipherSuite, Config, ListenAddr, Place, TlsVersion, Url};
use crate::security::error::TlsError;
use crate::security::{AcceptError, Callers, client_tls};

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let ca = Ca::new("ca");
    let (server, _) = Server::of(&Files::new(&ca.server(1)).trusting(&ca.pem())).await;
    let client = Client::showing(&ca, &ca.client("kube-apiserver", &["node1"], 10)).with_alpn(&["h2"]);
    let mut connection = client.connect(&server).await.unwrap();
    assert_eq!(connection.greeting, "tls=true cn=kube-apiserver alpn=h2");
    connection.echo("hello").await;
    assert_eq!(server.acceptor.stats().accepted(), 1);
}

#[tokio::test]
async fn naming_an_authority_makes_a_certificate_required() {
    let ca = Ca::new("ca");
    let (server, _) = Server::of(&Files::new(&ca.server(1)).trusting(&ca.pem())).await;
    assert!(Client::trusting(&ca).connect(&server).await.is_err());
    server.wait_rejected(1).await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (ca, other) = (Ca::new("ca"), Ca::new("ca"));
    let (server, _) = Server::of(&Files::new(&ca.server(1)).trusting(&ca.pem())).await;
    assert!(Client::showing(&ca, &other.client("c", &[], 10)).connect(&server).await.is_err());
    server.wait_rejected(1).await;
}

#[tokio::test]
async fn a_server_certificate_is_no_client_certificate() {
    let ca = Ca::new("ca");
    let (server, _) = Server::of(&Files::new(&ca.server(1)).trusting(&ca.pem())).await;
    assert!(Client::showing(&ca, &ca.server(2)).connect(&server).await.is_err());
}

#[tokio::test]
async fn any_of_several_authorities_will_do() {
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let bundle = format!("{}{}", one.pem(), two.pem());
    let (server, _) = Server::of(&Files::new(&one.server(1)).trusting(&bundle)).await;
    for ca in [&one, &two] {
        Client::showing(&one, &ca.client("c", &[], 10)).connect(&server).await.unwrap();
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_others_are_not() {
    let ca = Ca::new("ca");
    let list = ca.revoke(&[10]);
    for content in [list.pem().unwrap().into_bytes(), list.der().to_vec()] {
        let mut files = Files::new(&ca.server(1)).trusting(&ca.pem());
        files.tls.client_crl_file = Some(files.put("crl", content));
        let (server, _) = Server::of(&files).await;
        assert!(Client::showing(&ca, &ca.client("revoked", &[], 10)).connect(&server).await.is_err());
        Client::showing(&ca, &ca.client("good", &[], 11)).connect(&server).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_good_when_it_is_in_the_bundle() {
    let serial = |params: &mut CertificateParams| params.serial_number = Some(SerialNumber::from(7_u64));
    let own = Ca::with("own", serial);
    let server_ca = Ca::new("ca");
    let bundle = format!("{}{}", server_ca.pem(), own.pem());
    let lets_in = async |files: &Files, cert: &Signed| {
        let (server, _) = Server::of(files).await;
        Client::showing(&server_ca, cert).connect(&server).await.is_ok()
    };
    let files = Files::new(&server_ca.server(1)).trusting(&bundle);
    assert!(lets_in(&files, &own.itself()).await);
    assert!(!lets_in(&files, &Ca::with("own", serial).itself()).await, "one of the same name is not in it");

    let mut files = Files::new(&server_ca.server(1)).trusting(&bundle);
    files.tls.client_crl_file = Some(files.put("crl", own.revoke(&[8]).pem().unwrap()));
    assert!(lets_in(&files, &own.itself()).await);
    files.tls.client_crl_file = Some(files.put("crl", own.revoke(&[7]).pem().unwrap()));
    assert!(!lets_in(&files, &own.itself()).await, "it has revoked itself");

    let mut files = Files::new(&server_ca.server(1)).trusting(&bundle);
    files.tls.client_cert_allowed_hostnames = vec!["node1".to_owned()];
    assert!(!lets_in(&files, &own.itself()).await, "it has no name that is allowed");

    for (change, why) in [
        (
            &(|params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1)) as &dyn Fn(&mut _),
            "expired",
        ),
        (&|params: &mut CertificateParams| params.not_before = date_time_ymd(2120, 1, 1), "not valid yet"),
        (
            &|params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            "for servers",
        ),
    ] {
        let unfit = Ca::with("unfit", change);
        let files = Files::new(&server_ca.server(1)).trusting(&format!("{}{}", server_ca.pem(), unfit.pem()));
        assert!(!lets_in(&files, &unfit.itself()).await, "{why}");
    }
}

#[tokio::test]
async fn a_member_takes_another_one_whose_certificate_is_in_the_bundle_itself() {
    let own = |change: &dyn Fn(&mut CertificateParams)| {
        Ca::with("own", |params| {
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
            change(params);
        })
    };
    // Who shows `server` is dialed by somebody who trusts `bundle`.
    let takes = async |server: &Ca, bundle: &Ca| {
        let (server, _) = Server::of(&Files::new(&server.itself())).await;
        let files = Files::new(&bundle.itself()).trusting(&bundle.pem());
        let dialing = Arc::new(TlsReloader::for_dialing(files.tls.clone(), Duration::ZERO).unwrap());
        Client { config: dialing.current().await }.connect(&server).await.is_ok()
    };
    let member = own(&|_| ());
    assert!(takes(&member, &member).await);
    assert!(!takes(&own(&|_| ()), &member).await, "one of the same name is not in it");
    for (change, why) in [
        (&(|params: &mut CertificateParams| params.subject_alt_names.clear()) as &dyn Fn(&mut _), "for another name"),
        (&|params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1), "expired"),
        (&|params: &mut CertificateParams| params.not_before = date_time_ymd(2120, 1, 1), "not valid yet"),
        (
            &|params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "for clients",
        ),
    ] {
        let unfit = own(change);
        assert!(!takes(&unfit, &unfit).await, "{why}");
    }
}

#[tokio::test]
async fn a_certificate_no_list_speaks_of_is_let_in() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let mut files = Files::new(&ca.server(1)).trusting(&ca.pem());
    files.tls.client_crl_file = Some(files.put("crl", other.revoke(&[10]).pem().unwrap()));
    let (server, _) = Server::of(&files).await;
    Client::showing(&ca, &ca.client("c", &[], 10)).connect(&server).await.unwrap();
}

#[tokio::test]
async fn only_allowed_hostnames_get_in() {
    let ca = Ca::new("ca");
    let mut files = Files::new(&ca.server(1)).trusting(&ca.pem());
    files.tls.client_cert_allowed_hostnames = vec!["node1.infra.example".to_owned(), "10.0.0.1".to_owned()];
    let (server, _) = Server::of(&files).await;
    for names in [["node1.infra.example"], ["*.infra.example"], ["10.0.0.1"]] {
        Client::showing(&ca, &ca.client("c", &names, 10)).connect(&server).await.unwrap();
    }
    for names in [["node2.infra.example"].as_slice(), &["10.0.0.2"], &[]] {
        assert!(Client::showing(&ca, &ca.client("c", names, 10)).connect(&server).await.is_err(), "{names:?}");
    }
}

#[tokio::test]
async fn versions_outside_the_limits_are_refused() {
    let ca = Ca::new("ca");
    let server = |min_version, max_version| {
        let mut files = Files::new(&ca.server(1));
        (files.tls.min_version, files.tls.max_version) = (min_version, max_version);
        async move { Server::of(&files).await.0 }
    };
    let connects = async |server: &Server, versions: &[&'static rustls::SupportedProtocolVersion]| {
        Client::speaking(&ca, versions).connect(server).await.is_ok()
    };
    let both = server(TlsVersion::Tls12, TlsVersion::Tls13).await;
    assert!(connects(&both, &[&TLS12]).await && connects(&both, &[&TLS13]).await);
    let only_13 = server(TlsVersion::Tls13, TlsVersion::Tls13).await;
    assert!(!connects(&only_13, &[&TLS12]).await && connects(&only_13, &[&TLS13]).await);
    let only_12 = server(TlsVersion::Tls12, TlsVersion::Tls12).await;
    assert!(connects(&only_12, &[&TLS12]).await && !connects(&only_12, &[&TLS13]).await);
}

#[tokio::test]
async fn only_the_suites_named_are_spoken_in_tls_1_2() {
    let ca = Ca::new("ca");
    let mut files = Files::new(&ca.server(1));
    files.tls.cipher_suites = vec![CipherSuite::EcdheEcdsaAes256GcmSha384];
    let (server, _) = Server::of(&files).await;
    let suite = async |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let connection = Client::speaking(&ca, versions).connect(&server).await.unwrap();
        connection.stream.get_ref().1.negotiated_cipher_suite().unwrap().suite()
    };
    assert_eq!(suite(&[&TLS12]).await, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
    // The suites of TLS 1.3 are not configurable.
    assert!(suite(&[&TLS13]).await.as_str().unwrap().starts_with("TLS13_"));

    // A certificate with another kind of key fits none of these.
    files.tls.cipher_suites = vec![CipherSuite::EcdheRsaAes128GcmSha256];
    let (server, _) = Server::of(&files).await;
    assert!(Client::speaking(&ca, &[&TLS12]).connect(&server).await.is_err());
}

#[tokio::test]
async fn http_1_and_2_are_both_spoken() {
    let ca = Ca::new("ca");
    let (server, _) = Server::of(&Files::new(&ca.server(1))).await;
    for (offered, chosen) in [(["h2", "http/1.1"].as_slice(), "h2"), (&["http/1.1"], "http/1.1"), (&[], "")] {
        let connection = Client::trusting(&ca).with_alpn(offered).connect(&server).await.unwrap();
        assert_eq!(connection.greeting, format!("tls=true cn= alpn={chosen}"));
    }
}

#[tokio::test]
async fn tls_and_plain_share_a_port_if_both_are_asked_for() {
    let ca = Ca::new("ca");
    let files = Files::new(&ca.server(1));
    let reloader = Arc::new(TlsReloader::new(files.tls.clone(), Duration::ZERO).unwrap());
    let listen = ListenAddr { place: Place::Tcp("127.0.0.1:0".parse().unwrap()), plain: true, tls: true };
    let server =
        Server::start(Acceptor::for_listener(&listen, Some(&reloader), Callers::Clients, AcceptLimits::default()))
            .await;

    assert_eq!(Client::trusting(&ca).connect(&server).await.unwrap().greeting, "tls=true cn= alpn=");
    let mut plain = TcpStream::connect(server.addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\n").await.unwrap();
    assert_eq!(read_line(&mut plain).await.unwrap(), "tls=false cn= alpn=");
    assert_eq!(read_line(&mut plain).await.unwrap(), "GET / HTTP/1.1", "the byte looked at is still there");
}

#[tokio::test]
async fn a_plain_listener_serves_without_certificates() {
    let server = Server::start(Acceptor::plain(AcceptLimits::default())).await;
    let mut plain = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(read_line(&mut plain).await.unwrap(), "tls=false cn= alpn=");
}

#[tokio::test]
async fn garbage_is_rejected() {
    let ca = Ca::new("ca");
    let (server, _) = Server::of(&Files::new(&ca.server(1))).await;
    for garbage in
        [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\x16\x03\x01\xff\xff\xff", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    server.wait_rejected(3).await;
    Client::trusting(&ca).connect(&server).await.unwrap().echo("served all the same").await;
}

/// Two ends of a connection, the second for an acceptor.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn a_client_that_says_nothing_is_dropped() {
    let ca = Ca::new("ca");
    let files = Files::new(&ca.server(1));
    let reloader = Arc::new(TlsReloader::new(files.tls.clone(), Duration::ZERO).unwrap());
    let limits = AcceptLimits { handshake_timeout: Duration::from_millis(20), ..AcceptLimits::default() };
    let both = ListenAddr { place: Place::Tcp("127.0.0.1:0".parse().unwrap()), plain: true, tls: true };
    for acceptor in [
        Acceptor::tls(Arc::clone(&reloader), limits),
        Acceptor::for_listener(&both, Some(&reloader), Callers::Clients, limits),
    ] {
        let (mut client, stream) = connected().await;
        assert!(matches!(acceptor.accept(stream).await, Err(AcceptError::TimedOut)));
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
        assert_eq!(acceptor.stats().rejected(), 1);
    }
}

#[tokio::test]
async fn too_many_handshakes_hold_the_accept_loop_back() {
    let ca = Ca::new("ca");
    let files = Files::new(&ca.server(1));
    let reloader = Arc::new(TlsReloader::new(files.tls.clone(), Duration::ZERO).unwrap());
    let acceptor = Acceptor::tls(reloader, AcceptLimits { max_handshakes: 1, ..AcceptLimits::default() });
    assert!(acceptor.ready().now_or_never().is_some());

    let (client, stream) = connected().await;
    let mut silent = Box::pin(acceptor.accept(stream));
    assert!((&mut silent).now_or_never().is_none());
    assert_eq!(acceptor.handshakes(), 1);
    assert!(acceptor.ready().now_or_never().is_none());

    drop(client);
    assert!(silent.await.is_err());
    assert!(acceptor.ready().now_or_never().is_some());
    assert_eq!(acceptor.handshakes(), 0);
}

fn refused(files: &Files) -> TlsError {
    TlsReloader::new(files.tls.clone(), Duration::ZERO).unwrap_err()
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = Ca::new("ca");
    let files = Files::new(&ca.server(1));
    files.put("key.pem", &ca.server(2).key);
    let error = refused(&files);
    assert!(matches!(error, TlsError::KeyMismatch { .. }));
    let text = error.to_string();
    assert!(
        text.starts_with("the private key in ") && text.contains("key.pem does not belong to the certificate in"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_no_good_is_named_with_its_flag() {
    let ca = Ca::new("ca");
    let files = || Files::new(&ca.server(1)).trusting(&ca.pem());
    let text = |change: &dyn Fn(&mut Files)| {
        let mut files = files();
        change(&mut files);
        refused(&files).to_string()
    };
    assert!(text(&|files| files.remove("cert.pem")).contains("cert.pem of --cert-file: No such file"));
    assert!(
        text(&|files| drop(files.put("cert.pem", "x"))).ends_with("cert.pem of --cert-file holds no PEM certificate")
    );
    assert!(
        text(&|files| drop(files.put("key.pem", ca.pem())))
            .contains("of --key-file holds no unencrypted PEM private key")
    );
    assert!(
        text(&|files| drop(files.put("ca.pem", ""))).ends_with("ca.pem of --trusted-ca-file holds no PEM certificate")
    );
    let strange = "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n";
    assert!(
        text(&|files| drop(files.put("key.pem", strange))).contains("key.pem of --key-file is of no supported kind")
    );
    let broken = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
    assert!(text(&|files| drop(files.put("cert.pem", broken))).contains("cert.pem of --cert-file is unusable"));
    assert!(
        text(&|files| drop(files.put("ca.pem", broken))).contains("of --trusted-ca-file holds an unusable authority")
    );
    for content in ["", "0broken", "text"] {
        let text = text(&|files| files.tls.client_crl_file = Some(files.put("crl", content)));
        assert!(text.contains("crl of --client-crl-file"), "{text}");
    }
    let text = text(&|files| files.tls.client_cert_allowed_hostnames = vec!["not a host".to_owned()]);
    assert!(text.starts_with("\"not a host\" of --client-cert-allowed-hostname"), "{text}");
}

#[test]
fn http_alone_needs_no_tls() {
    assert!(client_tls(&Config::default()).unwrap().is_none());
}

#[tokio::test]
async fn auto_tls_serves_a_certificate_that_outlives_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: Some(dir.path().join("data")),
        listen_client_urls: vec![Url::parse("https://127.0.0.1:0").unwrap(), Url::parse("http://127.0.0.1:0").unwrap()],
        advertise_client_urls: vec![Url::parse("https://localhost:2379").unwrap()],
        ..Config::default()
    };
    config.client_tls.auto_tls = true;
    let reloader = client_tls(&config).unwrap().unwrap();
    let pem = std::fs::read(dir.path().join("data/fixtures/client/cert.pem")).unwrap();
    let server = Server::start(Acceptor::tls(reloader, AcceptLimits::default())).await;

    // The certificate is its own authority.
    let der = <CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(&pem).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config_of_client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client { config: Arc::new(config_of_client) };
    let connection = client.connect(&server).await.unwrap();
    assert_eq!(connection.server_cert(), der.into_owned());

    client_tls(&config).unwrap().unwrap();
    assert_eq!(std::fs::read(dir.path().join("data/fixtures/client/cert.pem")).unwrap(), pem);
}
