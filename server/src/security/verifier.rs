//! Client certificates beyond what the TLS library checks.
//!
//! A certificate must also be for one of some names (`--client-cert-allowed-hostname`, `--peer-cert-allowed-cn` and their like). And one that signs
//! itself, which is the first one everybody makes (`openssl req -x509`), is good when it is in the bundle of authorities: it says that it is an
//! authority, and the library takes no authority for a client; etcd does.

use std::sync::Arc;

use cairn_tls::{Role, Signers};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::error::TlsError;
use super::identity::PeerIdentity;

/// The names of which a certificate must have one.
#[derive(Debug)]
pub(super) enum AllowedNames {
    /// It is valid for a host of these.
    Hosts(Vec<ServerName<'static>>),
    /// Its subject has a common name of these.
    Common(Vec<String>),
}

impl AllowedNames {
    /// Names of hosts, as `flag` gives them.
    pub(super) fn hosts(names: &[String], flag: &'static str) -> Result<Self, TlsError> {
        let name = |name: &String| {
            ServerName::try_from(name.clone()).map_err(|_| TlsError::BadHostname { flag, name: name.clone() })
        };
        Ok(Self::Hosts(names.iter().map(name).collect::<Result<_, _>>()?))
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match self {
            Self::Hosts(names) => {
                let certificate = ParsedCertificate::try_from(certificate)?;
                let mut last = Error::General("no host name is allowed".to_owned());
                for name in names {
                    match verify_server_name(&certificate, name) {
                        Ok(()) => return Ok(()),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Self::Common(names) => {
                let name = PeerIdentity::from_certificate(certificate).common_name.unwrap_or_default();
                if names.contains(&name) {
                    return Ok(());
                }
                Err(Error::General(format!("the common name {name:?} is not among those that are allowed")))
            }
        }
    }
}

/// Passes certificates that the library passes, or that are in the bundle themselves, and that have the allowed names.
#[derive(Debug)]
pub(super) struct Verifier {
    /// The library's.
    pub(super) signed: Arc<dyn ClientCertVerifier>,
    /// The authorities of the bundle.
    pub(super) roots: Arc<RootCertStore>,
    /// The certificates of the bundle.
    pub(super) bundle: Vec<CertificateDer<'static>>,
    /// What is revoked.
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
    /// Names, of each of which a certificate must have one.
    pub(super) names: Vec<AllowedNames>,
    /// Checks signatures.
    pub(super) provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Whether a certificate of the bundle, which nobody has to sign, is good for a client now, and not revoked.
    fn check_member(&self, member: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        cairn_tls::check_member(member, Role::Client, now)?;
        let (_, member) = x509_parser::parse_x509_certificate(member).map_err(|_| CertificateError::BadEncoding)?;
        cairn_tls::check_revoked(&member, &self.crls)
    }
}

impl ClientCertVerifier for Verifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        cairn_tls::check_key(end_entity)?;
        match self.signed.verify_client_cert(end_entity, intermediates, now) {
            Ok(_) => {}
            Err(_) if self.bundle.iter().any(|member| member == end_entity) => self.check_member(end_entity, now)?,
            Err(refused) => {
                let signers = Signers { roots: &self.roots, authorities: &self.bundle, crls: &self.crls };
                let role = Role::Client;
                cairn_tls::look_again(refused, end_entity, intermediates, &signers, role, now, &self.provider)?;
            }
        }
        for names in &self.names {
            names.check(end_entity)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn offer_client_auth(&self) -> bool {
        self.signed.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.signed.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        cairn_tls::verify_tls12_signature(message, cert, dss, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        cairn_tls::verify_tls13_signature(message, cert, dss, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
