//! What a member shows and checks when it connects to another one.

use std::sync::Arc;

use cairn_tls::{Trust, certified_key};
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::SingleCertAndKey;

use super::error::TlsError;
use super::material::Material;
use super::server_config::{pair_error, suites, unusable, versions};
use crate::config::TlsConfig;

/// Reads all files of `tls` and builds the configuration of connections to other members: this member's certificate is
/// shown, the other one's has to come from a trusted authority, or to be in the bundle of
/// authorities itself. Certificates that members made themselves
/// (`--peer-auto-tls`) are taken as they come. Without authorities those of the system are trusted.
pub(super) fn build_client(tls: &TlsConfig) -> Result<Arc<ClientConfig>, TlsError> {
    let material = Material::for_dialing(tls)?;
    let provider = Arc::new(CryptoProvider { cipher_suites: suites(&tls.cipher_suites), ..ring::default_provider() });
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls.min_version, tls.max_version))
        .map_err(TlsError::Settings)?;
    let trust = match material.roots {
        Some(roots) => {
            Trust::bundle(roots, material.authorities, Arc::clone(&provider)).map_err(|error| unusable(tls, &error))?
        }
        None if tls.auto_tls => Trust::anybody(Arc::clone(&provider)),
        None => Trust::system(Arc::clone(&provider)),
    };
    let own = certified_key(material.chain, material.key, &provider).map_err(|error| pair_error(tls, error))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(trust));
    let mut config = builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
