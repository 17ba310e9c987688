//! Whom a bundle of certificates makes trustworthy: whoever an authority in it has signed, and whoever is in it.
//!
//! The second is the certificate that signs itself, which is the first one everybody makes (`openssl req -x509`). It says
//! that it is an authority, and rustls takes no authority for a server; the clients people come from do.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::time::ASN1Time;

/// Trusts whoever is signed by an authority of the bundle, or is in it.
#[derive(Debug)]
pub(crate) struct Bundle {
    signed: Arc<WebPkiServerVerifier>,
    members: Vec<CertificateDer<'static>>,
}

impl Bundle {
    pub(crate) fn new(
        roots: RootCertStore,
        members: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        Ok(Self { signed: WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?, members })
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

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let signed = self.signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if signed.is_err() && self.members.iter().any(|member| member == end_entity) {
            verify_member(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        signed
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
