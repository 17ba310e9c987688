//! TLS on the client port and between members, and the keys of signed tokens.
//!
//! ```text
//!   accept loop ──▶ Acceptor::accept(TcpStream) ──▶ MaybeTlsStream ──▶ HTTP
//!                        │   bounded, timed
//!                        ▼
//!                   TlsReloader ──▶ current ServerConfig      files: certificate, key, authorities, revocations
//!                        └── looks at the files, at most once a second, when someone connects
//! ```
//!
//! * [`client_tls`] makes a [`TlsReloader`] of the configuration, with a self-signed certificate if asked (`--auto-tls`).
//! * A [`TlsReloader`] holds the TLS configuration made of the files as they were last read without an error. A change
//!   replaces the configuration whole: certificate, authorities and revocations never mix, and a session ticket of the old
//!   one is worth nothing with the new one. Connections that exist are left alone.
//! * An [`Acceptor`] takes one accepted connection through the handshake, in the caller's task, which must not be the
//!   accept loop. [`Acceptor::ready`] holds the accept loop back while too many handshakes are under way.
//! * A [`MaybeTlsStream`] is what is served; it knows the [`PeerIdentity`] of a client that showed a certificate.
//!
//! Knows `config/`. Its one invariant: **a connection that comes out of an acceptor has passed every check of the
//! configuration current when its handshake began.** A file that cannot be read or used changes nothing but a log line.
//!
//! * Between members both sides show a certificate: [`peer_tls`] makes what either side needs of the same files.
//!
//! * A [`Jwt`] signs and verifies tokens, with keys that are read again when their files change.
//!
//! Left out: the metrics of certificates about to expire.

mod acceptor;
mod auto;
mod client_config;
mod error;
mod identity;
mod jwt;
mod material;
mod reload;
mod server_config;
mod stream;
mod verifier;

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::config::{AuthToken, Config, TlsConfig, Url};

pub use acceptor::{AcceptError, AcceptLimits, AcceptStats, Acceptor, Callers};
pub use error::TlsError;
pub use identity::PeerIdentity;
pub use jwt::{Claims, Jwt, JwtError, SignError};
pub use reload::{RELOAD_INTERVAL, TlsReloader};
pub use stream::MaybeTlsStream;

/// Sets up TLS for the client URLs of a valid configuration: reads the files, or makes and keeps a certificate under the
/// data directory. None if no client URL is https. Blocks on the disk.
pub fn client_tls(config: &Config) -> Result<Option<Arc<TlsReloader>>, TlsError> {
    if !config.serves_tls() {
        return Ok(None);
    }
    let mut tls = config.client_tls.clone();
    let urls = config.client_urls().chain(&config.advertise_client_urls);
    ensure_certificate(&mut tls, config, "client", urls)?;
    TlsReloader::new(tls, RELOAD_INTERVAL).map(|reloader| Some(Arc::new(reloader)))
}

/// Reads the keys that tokens are signed and verified with, if tokens are signed. Blocks on the disk.
pub fn jwt(config: &Config) -> Result<Option<Arc<Jwt>>, JwtError> {
    match &config.auth_token {
        AuthToken::Simple => Ok(None),
        AuthToken::Jwt(jwt) => Jwt::new(jwt.clone()).map(|jwt| Some(Arc::new(jwt))),
    }
}

/// TLS between members, for either side of a connection.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// For connections of other members.
    pub serving: Arc<TlsReloader>,
    /// For connections to other members.
    pub dialing: Arc<TlsReloader<rustls::ClientConfig>>,
}

/// Sets up TLS between members, likewise. None if no certificate is configured.
pub fn peer_tls(config: &Config) -> Result<Option<PeerTls>, TlsError> {
    let mut tls = config.peer_tls();
    if !tls.is_configured() {
        return Ok(None);
    }
    let urls = config.listen_peer_urls.iter().chain(&config.initial_advertise_peer_urls);
    ensure_certificate(&mut tls, config, "peer", urls)?;
    Ok(Some(PeerTls {
        serving: Arc::new(TlsReloader::new(tls.clone(), RELOAD_INTERVAL)?),
        dialing: Arc::new(TlsReloader::for_dialing(tls, RELOAD_INTERVAL)?),
    }))
}

/// Makes a certificate for the hosts of `urls` under the data directory, unless files are given.
fn ensure_certificate<'a>(
    tls: &mut TlsConfig,
    config: &Config,
    port: &str,
    urls: impl Iterator<Item = &'a Url>,
) -> Result<(), TlsError> {
    if !tls.is_configured() {
        return Err(TlsError::NotConfigured(tls.flags().cert));
    }
    if tls.has_files() {
        // The files that are given count.
        tls.auto_tls = false;
    } else {
        let directory = config.data_dir().join("fixtures").join(port);
        // The file of a socket may have any name.
        let is_name = |host: &&str| ServerName::try_from(*host).is_ok();
        let hosts: BTreeSet<&str> = urls.map(Url::host).filter(is_name).collect();
        let pair = auto::ensure_self_signed(&directory, &hosts, tls.self_signed_cert_validity_years)?;
        tls.cert_file = Some(pair.cert_file);
        tls.key_file = Some(pair.key_file);
    }
    Ok(())
}

#[cfg(test)]
mod test_certs;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the server under test runs beside its clients")]
mod tests;
