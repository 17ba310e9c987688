//! TLS as etcdctl's users set it up: a CA bundle, a certificate with its key, or no verification at all.
//!
//! A server's certificate is good if a CA of the bundle (or, without one, of the system) has signed it, or if it stands in
//! the bundle itself. The second case is the certificate that signs itself, which everybody makes first; the certificate
//! library alone would refuse it, because it is marked as a CA.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::time::ASN1Time;

/// Where the system keeps the CAs it trusts, by distribution.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The files and switches that decide about TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The client's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The CAs that servers' certificates are checked against.
    pub cacert: Option<PathBuf>,
    /// Whether to take any certificate.
    pub skip_verify: bool,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the pair is missing.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfAPair {
        /// The key's path, may be empty.
        key: String,
        /// The certificate's path, may be empty.
        cert: String,
    },
    /// A file cannot be read.
    #[error("open {path}: {}", reason(.source))]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not belong together.
    #[error("tls: private key does not match public key")]
    Mismatch,
    /// There is nothing to check servers' certificates against.
    #[error("no CA certificates found on this system; name a bundle with --cacert")]
    NoRoots,
    /// Anything else.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
}

/// An I/O error in the few words Go has for the common ones.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

impl TlsFiles {
    /// Whether any of them asks for TLS by being there.
    pub fn wanted(&self) -> bool {
        self.cert.is_some() || self.key.is_some() || self.cacert.is_some()
    }

    /// Reads the files.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = self.identity()?;
        let verifier: Arc<dyn ServerCertVerifier> = if self.skip_verify {
            if let Some(path) = &self.cacert {
                read_certificates(path)?;
            }
            Arc::new(AcceptAll(provider.clone()))
        } else {
            Arc::new(self.verifier(&provider)?)
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => TlsError::Mismatch,
                other => TlsError::Rustls(other),
            })?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsError> {
        match (&self.cert, &self.key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((read_certificates(cert)?, read_key(key)?))),
            (cert, key) => {
                let shown = |path: &Option<PathBuf>| path.as_deref().map(display).unwrap_or_default();
                Err(TlsError::HalfAPair { key: shown(key), cert: shown(cert) })
            }
        }
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<TrustBundle, TlsError> {
        let pinned = match &self.cacert {
            Some(path) => read_certificates(path)?,
            None => system_certificates()?,
        };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(pinned.iter().cloned());
        if usable == 0 {
            return Err(TlsError::NoRoots);
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| TlsError::Rustls(rustls::Error::General(error.to_string())))?;
        let pinned = if self.cacert.is_some() { pinned } else { Vec::new() };
        Ok(TrustBundle { chain, pinned })
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Open { path: display(path), source })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |problem: String| TlsError::Content { path: display(path), problem };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| content(format!("not in PEM format ({error})")))?;
    if certificates.is_empty() {
        return Err(content("no certificate in PEM format".to_owned()));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| TlsError::Content {
        path: display(path),
        problem: format!("no private key in PEM format ({error})"),
    })
}

/// The system's CAs: those `SSL_CERT_FILE` names, or the first bundle there is.
fn system_certificates() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return read_certificates(Path::new(&path));
    }
    let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
    read_certificates(bundle.ok_or(TlsError::NoRoots)?)
}

/// Takes certificates signed by a CA of a bundle, and those that are in the bundle themselves.
#[derive(Debug)]
struct TrustBundle {
    chain: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// A certificate from the bundle needs no signature, but still has to be for this server and for now.
    fn verify_pinned(
        end_entity: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let now = ASN1Time::from_timestamp(seconds).map_err(|_| CertificateError::BadEncoding)?;
        if now < parsed.validity().not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > parsed.validity().not_after {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for TrustBundle {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chained = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if chained.is_err() && self.pinned.iter().any(|pinned| pinned == end_entity) {
            Self::verify_pinned(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        chained
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Takes any certificate, for `--insecure-skip-tls-verify`.
#[derive(Debug)]
struct AcceptAll(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
