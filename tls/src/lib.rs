//! Whom to trust: anybody, or whoever a bundle of certificates makes trustworthy, which is whom an authority in it has signed and
//! who is in it.
//!
//! The last is the certificate that signs itself, which is the first one everybody makes (`openssl req -x509`). It says
//! that it is an authority, and rustls takes no authority for a server or a client; the programs people come from do.
//!
//! The client and the members use [`Trust`] where they connect; who connects to a member is judged by the server, which
//! uses [`check_member`].

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::{certificate::X509Certificate, extensions::ExtendedKeyUsage, time::ASN1Time};

mod certificate;

pub use certificate::{
    Signers, certified_key, check_key, check_revoked, look_again, unusable_authorities, verify_tls12_signature,
    verify_tls13_signature,
};

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
    /// No server, for want of authorities.
    None,
    /// Whoever is signed by an authority of the bundle, or is in it.
    Bundle { roots: Arc<RootCertStore>, signed: Arc<WebPkiServerVerifier>, members: Vec<CertificateDer<'static>> },
}

impl Trust {
    /// Trusts every server: the connection is encrypted, and nothing is proven.
    pub fn anybody(provider: Arc<CryptoProvider>) -> Self {
        Self { whom: Whom::Anybody, provider }
    }

    /// Trusts servers that an authority of the system has signed; none, if the system has no authorities.
    pub fn system(provider: Arc<CryptoProvider>) -> Self {
        let pem = system_roots_file().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        Self::bundle(Arc::new(roots), Vec::new(), Arc::clone(&provider)).unwrap_or(Self { whom: Whom::None, provider })
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
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        Ok(Self { whom: Whom::Bundle { roots, signed, members }, provider })
    }
}

/// Where systems keep the certificates of public authorities.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The file with the authorities that the system trusts: that of `SSL_CERT_FILE`, or where systems have it.
pub fn system_roots_file() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists()))
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
    let member = x509_parser::parse_x509_certificate(member);
    let (_, member) = member.map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
    check_dates(&member, now)?;
    check_usage(&member, role)
}

fn check_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    let now = now.ok_or_else(|| rustls::Error::from(CertificateError::BadEncoding))?;
    if now < certificate.validity().not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > certificate.validity().not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

fn check_usage(certificate: &X509Certificate<'_>, role: Role) -> Result<(), rustls::Error> {
    let uses = certificate.extended_key_usage().map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
    let is_for = |uses: &ExtendedKeyUsage<'_>| match role {
        Role::Server => uses.server_auth,
        Role::Client => uses.client_auth,
    };
    if uses.is_some_and(|uses| !is_for(uses.value) && !uses.value.any) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

/// Whether a server's certificate has its name.
fn check_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
    if certificate::is_of_version_1(certificate) {
        let text = "the server's certificate is of X.509 version 1, which has no names: make one with subjectAltName \
                    (openssl x509 -req -extfile)";
        return Err(rustls::Error::General(text.to_owned()));
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
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
        let (roots, signed, members) = match &self.whom {
            Whom::Anybody => return Ok(ServerCertVerified::assertion()),
            Whom::None => return Err(CertificateError::UnknownIssuer.into()),
            Whom::Bundle { roots, signed, members } => (roots, signed, members),
        };
        check_key(end_entity)?;
        let refused = match signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        if members.iter().any(|member| member == end_entity) {
            check_member(end_entity, Role::Server, now)?;
        } else {
            let signers = Signers { roots, authorities: members, crls: &[] };
            look_again(refused, end_entity, intermediates, &signers, Role::Server, now, &self.provider)?;
        }
        check_name(end_entity, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
