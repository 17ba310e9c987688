//! Whom to trust: anybody, or whoever a bundle of certificates makes trustworthy, which is whom an authority in it has signed and
//! who is in it.
//!
//! The last is the certificate that signs itself, which is the first one everybody makes (`openssl req -x509`). It says
//! that it is an authority, and rustls takes no authority for a server; the clients people come from do.

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
use x509_parser::time::ASN1Time;

/// Decides about servers' certificates.
#[derive(Debug)]
pub(crate) struct Trust {
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
    pub(crate) fn anybody(provider: Arc<CryptoProvider>) -> Self {
        Self { whom: Whom::Anybody, provider }
    }

    pub(crate) fn bundle(
        roots: RootCertStore,
        members: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        Ok(Self { whom: Whom::Bundle { signed, members }, provider })
    }
}

/// Nobody has to sign a member of the bundle, but it has to be for this server and for this time.
fn verify_member(member: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    verify_server_name(&ParsedCertificate::try_from(member)?, name)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(member).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    let now = now.ok_or(CertificateError::BadEncoding)?;
    if now < parsed.validity().not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > parsed.validity().not_after {
        return Err(CertificateError::Expired.into());
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
            verify_member(end_entity, server_name, now)?;
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
