//! What the TLS files hold, read and parsed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::error::TlsError;
use crate::config::TlsConfig;

/// The contents of all TLS files, read at one time.
pub(super) struct Material {
    /// The server's certificate and its intermediates.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub(super) key: PrivateKeyDer<'static>,
    /// Who may have signed client certificates; none if clients need none.
    pub(super) roots: Option<Arc<RootCertStore>>,
    /// Their certificates.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// Which of those are revoked.
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
}

/// A file and its flag.
type Named<'a> = (&'static str, &'a Option<PathBuf>);

impl Material {
    /// Reads every file that a server needs.
    pub(super) fn for_serving(tls: &TlsConfig) -> Result<Self, TlsError> {
        let flags = tls.flags();
        Self::read(tls, (flags.cert, &tls.cert_file), (flags.key, &tls.key_file))
    }

    /// Reads every file that a member needs that connects to another one.
    pub(super) fn for_dialing(tls: &TlsConfig) -> Result<Self, TlsError> {
        if tls.dialing_cert_file.is_none() {
            return Self::for_serving(tls);
        }
        let flags = tls.flags();
        Self::read(tls, (flags.dialing_cert, &tls.dialing_cert_file), (flags.dialing_key, &tls.dialing_key_file))
    }

    fn read(tls: &TlsConfig, cert: Named<'_>, key: Named<'_>) -> Result<Self, TlsError> {
        let flags = tls.flags();
        let ((cert_flag, Some(cert_file)), (key_flag, Some(key_file))) = (cert, key) else {
            return Err(TlsError::NotConfigured(cert.0));
        };
        let authorities = tls.trusted_ca_file.as_deref();
        let (roots, authorities) = authorities.map(|path| roots(flags.ca, path)).transpose()?.unzip();
        Ok(Self {
            chain: certificates(cert_flag, cert_file)?,
            key: private_key(key_flag, key_file)?,
            roots,
            authorities: authorities.unwrap_or_default(),
            crls: tls
                .client_crl_file
                .as_deref()
                .map(|path| revocations(flags.crl, path))
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { flag, path: path.to_owned(), source })
}

fn unusable(flag: &'static str, path: &Path, reason: impl Into<String>) -> TlsError {
    TlsError::Unusable { flag, path: path.to_owned(), reason: reason.into() }
}

/// Every certificate of a PEM file, at least one.
fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(flag, path)?;
    let certs = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(flag, path, format!("is not valid PEM: {error}")))?;
    if certs.is_empty() {
        return Err(unusable(flag, path, "holds no PEM certificate"));
    }
    Ok(certs)
}

fn private_key(flag: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(flag, path)?;
    // The parser's error would quote nothing of the key, but it says no more than this either.
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| unusable(flag, path, "holds no unencrypted PEM private key (PKCS#8, PKCS#1 or SEC1)"))
}

type Authorities = (Arc<RootCertStore>, Vec<CertificateDer<'static>>);

fn roots(flag: &'static str, path: &Path) -> Result<Authorities, TlsError> {
    let mut roots = RootCertStore::empty();
    let authorities = certificates(flag, path)?;
    for cert in &authorities {
        roots
            .add(cert.clone())
            .map_err(|error| unusable(flag, path, format!("holds an unusable authority: {error}")))?;
    }
    for (subject, problem) in cairn_tls::unusable_authorities(&authorities) {
        let file = path.display();
        tracing::warn!(subject, %file, problem, "an authority of {flag} vouches for no certificate");
    }
    Ok((Arc::new(roots), authorities))
}

/// The revocation lists of a PEM file, or the one of a DER file.
fn revocations(flag: &'static str, path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = read(flag, path)?;
    let crls = CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(flag, path, format!("is not valid PEM: {error}")))?;
    // Every DER list is an ASN.1 sequence and begins with this byte.
    match bytes.first() {
        Some(0x30) if crls.is_empty() => Ok(vec![CertificateRevocationListDer::from(bytes)]),
        _ if crls.is_empty() => Err(unusable(flag, path, "holds no revocation list, neither PEM nor DER")),
        _ => Ok(crls),
    }
}
