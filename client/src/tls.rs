//! TLS: whom to trust, who we are, and what is to be wrong with neither.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cairn_tls::Trust;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
    sign::SingleCertAndKey,
};

/// How to speak TLS with members.
///
/// The default trusts the authorities of the system (`SSL_CERT_FILE`, or the system's bundle), shows no certificate, and
/// expects the server's certificate to be for the host of the endpoint.
#[derive(Clone, Default)]
pub struct TlsOptions {
    authorities: Option<Vec<u8>>,
    identity: Option<Identity>,
    server_name: Option<String>,
    accept_any_certificate: bool,
}

#[derive(Clone)]
struct Identity {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

/// TLS cannot be set up as wished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something given as PEM is not.
    #[error("the {what} is not valid PEM: {source}")]
    Pem {
        /// What was given.
        what: &'static str,
        /// Why it is not.
        source: pem::Error,
    },
    /// Something given as PEM holds no certificate.
    #[error("the {what} holds no certificate")]
    NoCertificate {
        /// What was given.
        what: &'static str,
    },
    /// No authorities were given and the system has none where they are looked for.
    #[error("no CA certificates given, and none found on this system (set SSL_CERT_FILE or give a CA file)")]
    NoSystemRoots,
    /// The server name is not a name.
    #[error("{name:?} is not a valid TLS server name")]
    ServerName {
        /// The name.
        name: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificates or the key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl TlsOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this PEM text and no others. A server whose own certificate is in it is trusted too.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }

    /// Trusts the authorities in this PEM file and no others, as [`ca_pem`](Self::ca_pem). The file is read now.
    pub fn ca_file(self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        Ok(self.ca_pem(read(path.as_ref())?))
    }

    /// Shows this certificate (with its chain) to servers that ask for one, both given as PEM text.
    #[must_use]
    pub fn identity_pem(mut self, certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some(Identity { certificates: certificates.into(), key: key.into() });
        self
    }

    /// Shows the certificate in these PEM files to servers that ask for one. The files are read now.
    pub fn identity_files(self, certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        Ok(self.identity_pem(read(certificates.as_ref())?, read(key.as_ref())?))
    }

    /// Expects servers' certificates to be for this name instead of the endpoint's host.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Accepts whatever certificate a server shows: encrypted, but with whom is unknown.
    #[must_use]
    pub fn accept_any_certificate(mut self) -> Self {
        self.accept_any_certificate = true;
        self
    }

    /// The set-up for all connections of a client.
    pub(crate) fn prepare(&self) -> Result<Tls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let trust = if self.accept_any_certificate {
            Trust::anybody(Arc::clone(&provider))
        } else {
            let (roots, members) = self.roots()?;
            let bundle = Trust::bundle(Arc::new(roots), members, Arc::clone(&provider));
            bundle.map_err(|error| rustls::Error::General(error.to_string()))?
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(trust));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates(&identity.certificates, "client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(&identity.key)
                    .map_err(|source| TlsError::Pem { what: "client key", source })?;
                let own = cairn_tls::certified_key(chain, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server_name = self.server_name.as_deref().map(parse_server_name).transpose()?;
        Ok(Tls { config: Arc::new(config), server_name })
    }

    /// Whom to trust: the authorities, and of a file that was given, every certificate for itself.
    fn roots(&self) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = &self.authorities {
            let members = certificates(pem, "CA file")?;
            for authority in members.iter().cloned() {
                roots.add(authority)?;
            }
            return Ok((roots, members));
        }
        let pem = read(&cairn_tls::system_roots_file().ok_or(TlsError::NoSystemRoots)?)?;
        // Of the many certificates in a system's bundle, one of an odd kind is no reason to give up.
        roots.add_parsable_certificates(certificates(&pem, "system's CA file")?);
        Ok((roots, Vec::new()))
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("own_authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .field("accept_any_certificate", &self.accept_any_certificate)
            .finish()
    }
}

/// TLS, ready to shake hands.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The same, for another protocol than gRPC's.
    pub(crate) fn speaking(&self, protocol: &[u8]) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![protocol.to_vec()];
        Self { config: Arc::new(config), server_name: self.server_name.clone() }
    }

    /// The name the certificate of a server at `host` must be for.
    pub(crate) fn name_of(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        self.server_name.clone().map_or_else(|| parse_server_name(host), Ok)
    }
}

fn parse_server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName { name: name.to_owned() })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|source| TlsError::Pem { what, source })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { what });
    }
    Ok(certificates)
}
