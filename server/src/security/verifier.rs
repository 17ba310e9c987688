//! `--client-cert-allowed-hostname`, `--peer-cert-allowed-cn` and their like: a client certificate must also be for one of some
//! names.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

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

/// Passes certificates that another verifier passes and that have an allowed name.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) names: AllowedNames,
}

impl ClientCertVerifier for Named {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        self.names.check(end_entity)?;
        Ok(verified)
    }

    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
