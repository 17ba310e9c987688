//! Authorities and certificates for tests.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsConfig;

/// A certificate authority.
pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
pub(super) struct Signed {
    pub(super) cert: String,
    pub(super) key: String,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    pub(super) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// The authority's own certificate, for clients, and its key.
    pub(super) fn itself(&self) -> Signed {
        Signed { cert: self.pem(), key: self.0.key().serialize_pem() }
    }

    /// A server's certificate for localhost.
    pub(super) fn server(&self, serial: u64) -> Signed {
        self.sign("server", &["localhost", "127.0.0.1"], serial, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate.
    pub(super) fn client(&self, common_name: &str, names: &[&str], serial: u64) -> Signed {
        self.sign(common_name, names, serial, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, common_name: &str, names: &[&str], serial: u64, usage: ExtendedKeyUsagePurpose) -> Signed {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A list that revokes these serial numbers, DER.
    pub(super) fn revoke(&self, serials: &[u64]) -> rcgen::CertificateRevocationList {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 2, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.0)
        .unwrap()
    }
}

impl Signed {
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()]
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A directory with the files of a TLS configuration.
pub(super) struct Files {
    directory: tempfile::TempDir,
    pub(super) tls: TlsConfig,
}

impl Files {
    /// A directory with a server's certificate.
    pub(super) fn new(server: &Signed) -> Self {
        let mut files = Self { directory: tempfile::tempdir().unwrap(), tls: TlsConfig::default() };
        files.put_server(server);
        files.tls.cert_file = Some(files.path("cert.pem"));
        files.tls.key_file = Some(files.path("key.pem"));
        files
    }

    /// With authorities that clients must come from.
    pub(super) fn trusting(mut self, pem: &str) -> Self {
        self.tls.trusted_ca_file = Some(self.put("ca.pem", pem));
        self
    }

    pub(super) fn put_server(&mut self, server: &Signed) {
        self.put("cert.pem", &server.cert);
        self.put("key.pem", &server.key);
    }

    /// Replaces a file as whole, as renewing programs do.
    pub(super) fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let next = self.path("next");
        std::fs::write(&next, content).unwrap();
        std::fs::rename(&next, &path).unwrap();
        path
    }

    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
