//! Whom to trust: anybody, or whoever a bundle of certificates makes trustworthy, which is whom an authority in it has signed and
//! who is in it.
//!
//! The last is the certificate that signs itself, which is the first one everybody makes (`openssl req -x509`). It says
//! that it is an authority, and rustls takes no authority for a server or a client; the programs people come from do.
//!
//! The client and the members use [`Trust`] where they connect; who connects to a member is judged by the server, which
//! uses [`check_member`].

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::{extensions::ExtendedKeyUsage, time::ASN1Time};

/// Decides about servers' certificates.
#[derive(Debug)]
pub struct Trust {
    whom: Whom,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Whom {
    /// Signatures are looked at, since a handshake needs them, but no name, date or authority.
    Anybody,
    /// Whoever is signed by an authority of the bundle, or is in it.
    Bundle { signed: Arc<WebPkiServerVerifier>, members: Vec<CertificateDer<'static>> },
}

impl Trust {
    /// Trusts every server: the connection is encrypted, and nothing is proven.
    pub fn anybody(provider: Arc<CryptoProvider>) -> Self {
        Self { whom: Whom::Anybody, provider }
    }

    /// Trusts whoever an authority in `roots` has signed, and `members` for themselves.
    ///
    /// # Errors
    /// There is no authority.
    pub fn bundle(
        roots: Arc<RootCertStore>,
        members: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let signed = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        Ok(Self { whom: Whom::Bundle { signed, members }, provider })
    }
}

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To be a server.
    Server,
    /// To be a client.
    Client,
}

/// Whether a certificate of a bundle is good for `role` at this time. Nobody has to sign it. Its names, and whether it is
/// revoked, are the caller's business.
///
/// # Errors
/// It is not.
pub fn check_member(member: &CertificateDer<'_>, role: Role, now: UnixTime) -> Result<(), rustls::Error> {
    let unreadable = || rustls::Error::from(CertificateError::BadEncoding);
    let (_, member) = x509_parser::parse_x509_certificate(member).map_err(|_| unreadable())?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    let now = now.ok_or_else(unreadable)?;
    if now < member.validity().not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > member.validity().not_after {
        return Err(CertificateError::Expired.into());
    }
    let uses = member.extended_key_usage().map_err(|_| unreadable())?;
    let is_for = |uses: &ExtendedKeyUsage<'_>| match role {
        Role::Server => uses.server_auth,
        Role::Client => uses.client_auth,
    };
    if uses.is_some_and(|uses| !is_for(uses.value) && !uses.value.any) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Whom::Bundle { signed, members } = &self.whom else { return Ok(ServerCertVerified::assertion()) };
        let verified = signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if verified.is_err() && members.iter().any(|member| member == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            check_member(end_entity, Role::Server, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
