//! From settings and file contents to the TLS library's configuration.

use std::sync::Arc;

use cairn_tls::certified_key;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::error::TlsError;
use super::material::Material;
use super::verifier::{AllowedNames, Verifier};
use crate::config::{CipherSuite, TlsConfig, TlsVersion};

/// What may be spoken inside TLS, most wanted first: gRPC needs `h2`.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Reads all files of `tls` and builds a server's configuration of them.
pub(super) fn build(tls: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let material = Material::for_serving(tls)?;
    let provider = Arc::new(CryptoProvider { cipher_suites: suites(&tls.cipher_suites), ..ring::default_provider() });
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls.min_version, tls.max_version))
        .map_err(TlsError::Settings)?;
    let verifier = match material.roots {
        Some(roots) => client_verifier(tls, roots, material.authorities, material.crls, Arc::clone(&provider))?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let own = certified_key(material.chain, material.key, &provider).map_err(|error| pair_error(tls, error))?;
    let own = Arc::new(SingleCertAndKey::from(own));
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(own);
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// The versions from `min` to `max`.
pub(super) fn versions(min: TlsVersion, max: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    [(TlsVersion::Tls13, &version::TLS13), (TlsVersion::Tls12, &version::TLS12)]
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, supported)| supported)
        .collect()
}

/// The suites of TLS 1.3, and of TLS 1.2 those that are wanted, in the order given; all, if none is named.
pub(super) fn suites(wanted: &[CipherSuite]) -> Vec<SupportedCipherSuite> {
    let all = || CipherSuite::ALL.iter().map(|(suite, _)| *suite);
    let older: Vec<CipherSuite> = if wanted.is_empty() { all().collect() } else { wanted.to_vec() };
    let newer = all().filter(|suite| suite.is_tls13());
    newer.chain(older.into_iter().filter(|suite| !suite.is_tls13())).map(supported).collect()
}

fn supported(suite: CipherSuite) -> SupportedCipherSuite {
    use ring::cipher_suite as ring;
    match suite {
        CipherSuite::EcdheEcdsaAes128GcmSha256 => ring::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaAes256GcmSha384 => ring::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaChacha20Poly1305Sha256 => ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheRsaAes128GcmSha256 => ring::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheRsaAes256GcmSha384 => ring::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheRsaChacha20Poly1305Sha256 => ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::Aes128GcmSha256 => ring::TLS13_AES_128_GCM_SHA256,
        CipherSuite::Aes256GcmSha384 => ring::TLS13_AES_256_GCM_SHA384,
        CipherSuite::Chacha20Poly1305Sha256 => ring::TLS13_CHACHA20_POLY1305_SHA256,
    }
}

/// Checks of client certificates: a chain to a trusted authority, or one in the bundle itself, nothing on it revoked, a name that is allowed.
///
/// A certificate about which no list says anything passes, as in etcd. Unlike there, a list counts only if the authority
/// that it speaks for has signed it.
fn client_verifier(
    tls: &TlsConfig,
    roots: Arc<RootCertStore>,
    bundle: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let signed = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .with_crls(crls.clone())
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| unusable(tls, &error))?;
    let mut names = Vec::new();
    if !tls.client_cert_allowed_hostnames.is_empty() {
        names.push(AllowedNames::hosts(&tls.client_cert_allowed_hostnames, tls.flags().hostname)?);
    }
    if !tls.allowed_common_names.is_empty() {
        names.push(AllowedNames::Common(tls.allowed_common_names.clone()));
    }
    Ok(Arc::new(Verifier { signed, roots, bundle, crls, names, provider }))
}

/// What is wrong with the authorities or the lists of what they have revoked.
pub(super) fn unusable(tls: &TlsConfig, error: &VerifierBuilderError) -> TlsError {
    let (flag, file) = match error {
        VerifierBuilderError::InvalidCrl(_) => (tls.flags().crl, &tls.client_crl_file),
        _ => (tls.flags().ca, &tls.trusted_ca_file),
    };
    TlsError::Unusable { flag, path: file.clone().unwrap_or_default(), reason: format!("is unusable: {error}") }
}

/// What is wrong with certificate and key together.
pub(super) fn pair_error(tls: &TlsConfig, error: rustls::Error) -> TlsError {
    let cert = tls.cert_file.clone().unwrap_or_default();
    match error {
        // This is what the library says of a key that it cannot use.
        rustls::Error::General(_) => TlsError::Unusable {
            flag: tls.flags().key,
            path: tls.key_file.clone().unwrap_or_default(),
            reason: "is of no supported kind: make a new key, of ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits, \
                     and a certificate for it"
                .to_owned(),
        },
        rustls::Error::InconsistentKeys(_) => {
            TlsError::KeyMismatch { cert, key: tls.key_file.clone().unwrap_or_default() }
        }
        rustls::Error::InvalidCertificate(error) => {
            TlsError::Unusable { flag: tls.flags().cert, path: cert, reason: format!("is unusable: {error:?}") }
        }
        error => TlsError::Settings(error),
    }
}
