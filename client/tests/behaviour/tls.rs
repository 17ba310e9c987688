//! TLS over real sockets: whom the client trusts, how it shows who it is, and that the rest is refused.

use std::{net::SocketAddr, sync::Arc};

use cairn_client::{Client, ClientBuilder, Error, TlsError, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ConfigBuilder, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WantsServerCert, WebPkiClientVerifier},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::{member::Member, network::serve};

/// A certificate authority for one test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a name, as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A member behind TLS on a free port, gone when dropped.
struct Secured {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Secured {
    fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// With a certificate for `name`; asks clients for one of `clients`' if given.
    async fn start(authority: &Authority, name: &str, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(clients.pem().as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let (certificate, key) = authority.issue(name);
        Self::start_with(builder, &certificate, &key).await
    }

    /// Shows this certificate.
    async fn start_with(builder: ConfigBuilder<ServerConfig, WantsServerCert>, certificate: &str, key: &str) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];

        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (member, mut connections) = (Member::new(1), JoinSet::new());
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, routes) = (acceptor.clone(), member.routes());
                connections.spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        serve(tls, routes).await;
                    }
                });
            }
        });
        Self { address, _tasks: tasks }
    }

    fn client(&self, tls: TlsOptions) -> ClientBuilder {
        Client::builder([self.endpoint()]).tls(tls).fail_fast()
    }
}

/// The reason a put did not even leave.
async fn refusal(client: ClientBuilder) -> String {
    let error = client.build().unwrap().put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_server_of_a_trusted_authority_is_trusted() {
    let authority = Authority::new();
    let server = Secured::start(&authority, "127.0.0.1", None).await;
    let tls = TlsOptions::new().ca_pem(authority.pem());
    server.client(tls.clone()).build().unwrap().put("k", "v").await.unwrap();

    let with_scheme = Client::builder([format!("https://{}", server.address)]).tls(tls);
    with_scheme.build().unwrap().put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let server = Secured::start(&Authority::new(), "127.0.0.1", None).await;
    let text = refusal(server.client(TlsOptions::new().ca_pem(Authority::new().pem()))).await;
    assert!(text.contains("invalid peer certificate"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_trusted_where_it_was_given_and_for_its_own_name() {
    let own = |name: &str| {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new([name.to_owned()]).unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let builder = || {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth()
    };
    let (certificate, key) = own("127.0.0.1");
    let server = Secured::start_with(builder(), &certificate, &key).await;
    server.client(TlsOptions::new().ca_pem(certificate)).build().unwrap().put("k", "v").await.unwrap();
    let text = refusal(server.client(TlsOptions::new().ca_pem(own("127.0.0.1").0))).await;
    assert!(text.contains("invalid peer certificate"), "{text}");

    let (certificate, key) = own("elsewhere.example");
    let server = Secured::start_with(builder(), &certificate, &key).await;
    let text = refusal(server.client(TlsOptions::new().ca_pem(certificate))).await;
    assert!(text.contains("not valid for name"), "{text}");
}

#[tokio::test]
async fn any_server_is_accepted_if_told_so() {
    let server = Secured::start(&Authority::new(), "elsewhere.example", None).await;
    let client = server.client(TlsOptions::new().accept_any_certificate());
    client.build().unwrap().put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_that_name_is_expected() {
    let authority = Authority::new();
    let server = Secured::start(&authority, "etcd.example", None).await;
    let tls = TlsOptions::new().ca_pem(authority.pem());
    let text = refusal(server.client(tls.clone())).await;
    assert!(text.contains("certificate"), "{text}");
    server.client(tls.server_name("etcd.example")).build().unwrap().put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_it_from_files() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = Secured::start(&authority, "127.0.0.1", Some(&clients)).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (certificate, key) = clients.issue("client");
    std::fs::write(path("ca.crt"), authority.pem()).unwrap();
    std::fs::write(path("client.crt"), certificate).unwrap();
    std::fs::write(path("client.key"), key).unwrap();

    let tls = TlsOptions::new().ca_file(path("ca.crt")).unwrap();
    let identified = tls.clone().identity_files(path("client.crt"), path("client.key")).unwrap();
    server.client(identified).build().unwrap().put("k", "v").await.unwrap();

    let (certificate, key) = Authority::new().issue("stranger");
    for tls in [tls.clone(), tls.identity_pem(certificate, key)] {
        // Under TLS 1.3 a server judges the client after the client believes to be connected, so it ends as a lost request.
        let error = server.client(tls).build().unwrap().put("k", "v").await.unwrap_err();
        assert!(matches!(error, Error::Lost { .. } | Error::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_plain_client_gets_nothing_from_a_secured_server() {
    let server = Secured::start(&Authority::new(), "127.0.0.1", None).await;
    for endpoint in [server.endpoint(), format!("http://{}", server.address)] {
        let client = Client::builder([endpoint]).fail_fast().build().unwrap();
        client.put("k", "v").await.unwrap_err();
    }
}

#[tokio::test]
async fn wrong_material_is_refused_with_a_reason_before_anything_is_sent() {
    let (certificate, _) = Authority::new().issue("a");
    let (_, key_of_another) = Authority::new().issue("b");
    let build = |tls: TlsOptions| Client::builder(["localhost:1"]).tls(tls).build().unwrap_err().to_string();

    assert!(build(TlsOptions::new().ca_pem("nothing")).contains("the CA file holds no certificate"));
    let trusting = TlsOptions::new().accept_any_certificate();
    assert!(build(trusting.clone().identity_pem("", key_of_another.clone())).contains("client certificate"));
    assert!(build(trusting.clone().identity_pem(certificate.clone(), "")).contains("client key"));
    let text = build(trusting.clone().identity_pem(certificate, key_of_another));
    assert!(text.contains("cannot be used"), "{text}");
    assert!(build(trusting.server_name("not a name")).contains("not a valid TLS server name"));

    let error = TlsOptions::new().ca_file("/does/not/exist").unwrap_err();
    assert!(matches!(error, TlsError::Read { .. }) && error.to_string().contains("/does/not/exist"));
}
