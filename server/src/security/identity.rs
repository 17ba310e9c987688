//! Who a client is, by its certificate.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// The names in a client certificate that has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The common name of the subject: the user, where certificates authenticate users. Of several, the last.
    pub common_name: Option<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
}

impl PeerIdentity {
    /// The names in `certificate`. What cannot be read is left out: the certificate has been verified by a stricter parser.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
            return Self::default();
        };
        let mut identity = Self {
            common_name: certificate
                .subject()
                .iter_common_name()
                .last()
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
            ..Self::default()
        };
        let Ok(Some(names)) = certificate.subject_alternative_name() else {
            return identity;
        };
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => identity.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => identity.ip_addresses.extend(address(bytes)),
                _ => {}
            }
        }
        identity
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(params: &CertificateParams) -> CertificateDer<'static> {
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names_of_every_kind_are_found() {
        let mut params =
            CertificateParams::new(vec!["node1".to_owned(), "10.0.0.1".to_owned(), "::1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://cluster/ns".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let identity = PeerIdentity::from_certificate(&certificate(&params));
        assert_eq!(identity.common_name.as_deref(), Some("kube-apiserver"));
        assert_eq!(identity.dns_names, ["node1"]);
        assert_eq!(identity.ip_addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(identity.uris, ["spiffe://cluster/ns"]);
    }

    #[test]
    fn a_certificate_without_names_has_none() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        assert_eq!(PeerIdentity::from_certificate(&certificate(&params)), PeerIdentity::default());
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        assert_eq!(PeerIdentity::from_certificate(&CertificateDer::from(vec![1, 2, 3])), PeerIdentity::default());
    }
}
