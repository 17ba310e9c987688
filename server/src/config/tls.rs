//! TLS settings as the configuration states them; `security/` makes a running acceptor of them.

use std::fmt;
use std::path::PathBuf;

use super::value::{Value, comma_list};

/// The flags that a [`TlsConfig`] is read from, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlsFlags {
    pub(crate) cert: &'static str,
    pub(crate) key: &'static str,
    pub(crate) ca: &'static str,
    pub(crate) client_cert_auth: &'static str,
    pub(crate) crl: &'static str,
    pub(crate) hostname: &'static str,
    pub(crate) common_name: &'static str,
    pub(crate) auto: &'static str,
    pub(crate) dialing_cert: &'static str,
    pub(crate) dialing_key: &'static str,
}

const CLIENT_FLAGS: TlsFlags = TlsFlags {
    cert: "--cert-file",
    key: "--key-file",
    ca: "--trusted-ca-file",
    client_cert_auth: "--client-cert-auth",
    crl: "--client-crl-file",
    hostname: "--client-cert-allowed-hostname",
    common_name: "--client-cert-allowed-cn",
    auto: "--auto-tls",
    dialing_cert: "--client-cert-file",
    dialing_key: "--client-key-file",
};
const PEER_FLAGS: TlsFlags = TlsFlags {
    cert: "--peer-cert-file",
    key: "--peer-key-file",
    ca: "--peer-trusted-ca-file",
    client_cert_auth: "--peer-client-cert-auth",
    crl: "--peer-crl-file",
    hostname: "--peer-cert-allowed-hostname",
    common_name: "--peer-cert-allowed-cn",
    auto: "--peer-auto-tls",
    dialing_cert: "--peer-client-cert-file",
    dialing_key: "--peer-client-key-file",
};

/// TLS on the client port, or between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file of the server's certificate followed by its intermediates. Default none.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the private key of `cert_file` (PKCS#8, PKCS#1 or SEC1). Default none.
    pub key_file: Option<PathBuf>,
    /// PEM file of the certificate that this member shows where it connects to another one, followed by its
    /// intermediates. Default none: that of `cert_file`. Not for clients.
    pub dialing_cert_file: Option<PathBuf>,
    /// PEM file of the private key of `dialing_cert_file`. Default none.
    pub dialing_key_file: Option<PathBuf>,
    /// PEM file of the authorities that client certificates must come from. Naming one makes a client certificate
    /// required, with or without `client_cert_auth`, as in etcd. Default none.
    pub trusted_ca_file: Option<PathBuf>,
    /// Require a client certificate signed by `trusted_ca_file`. Default false.
    pub client_cert_auth: bool,
    /// PEM or DER file of revoked client certificates, signed by their authority. Default none.
    pub client_crl_file: Option<PathBuf>,
    /// Of these common names a client certificate must have one. Default empty: any.
    pub allowed_common_names: Vec<String>,
    /// Take a certificate of another member wherever it comes from, whatever address or name it is for. Default false.
    /// Not for clients.
    pub skip_client_san_verification: bool,
    /// Whether this is about connections between members.
    pub between_members: bool,
    /// Of these host names or addresses a client certificate must carry at least one. Default empty: any.
    pub client_cert_allowed_hostnames: Vec<String>,
    /// Serve TLS with a self-signed certificate made in `<data-dir>/fixtures/client` when none is given. Default false.
    pub auto_tls: bool,
    /// How long a certificate of `auto_tls` is valid, in years of 365 days. Default 1.
    pub self_signed_cert_validity_years: u32,
    /// The TLS 1.2 cipher suites to offer, in this order. Default empty: all that are supported.
    /// TLS 1.3 has its own suites, which are not configurable.
    pub cipher_suites: Vec<CipherSuite>,
    /// The lowest version to accept. Default TLS 1.2.
    pub min_version: TlsVersion,
    /// The highest version to accept. Default TLS 1.3.
    pub max_version: TlsVersion,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            cert_file: None,
            key_file: None,
            dialing_cert_file: None,
            dialing_key_file: None,
            trusted_ca_file: None,
            client_cert_auth: false,
            client_crl_file: None,
            client_cert_allowed_hostnames: Vec::new(),
            allowed_common_names: Vec::new(),
            skip_client_san_verification: false,
            between_members: false,
            auto_tls: false,
            self_signed_cert_validity_years: 1,
            cipher_suites: Vec::new(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
        }
    }
}

impl TlsConfig {
    /// The defaults for connections between members.
    pub fn between_members() -> Self {
        Self { between_members: true, ..Self::default() }
    }

    pub(crate) fn flags(&self) -> &'static TlsFlags {
        if self.between_members { &PEER_FLAGS } else { &CLIENT_FLAGS }
    }

    /// Whether a certificate was given, so that `auto_tls` has nothing to do.
    pub fn has_files(&self) -> bool {
        self.cert_file.is_some() || self.key_file.is_some()
    }

    /// Whether TLS can be served at all.
    pub fn is_configured(&self) -> bool {
        self.has_files() || self.auto_tls
    }

    /// Whether clients must present a certificate.
    pub fn requires_client_cert(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS1.2",
            Self::Tls13 => "TLS1.3",
        })
    }
}

impl Value for TlsVersion {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "TLS1.2" => Ok(Self::Tls12),
            "TLS1.3" => Ok(Self::Tls13),
            _ => Err("unexpected TLS version (must be one of: TLS1.2, TLS1.3)".to_owned()),
        }
    }
}

/// A cipher suite, under the name that Go (and therefore etcd) gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are IANA's")]
pub enum CipherSuite {
    EcdheEcdsaAes128GcmSha256,
    EcdheEcdsaAes256GcmSha384,
    EcdheEcdsaChacha20Poly1305Sha256,
    EcdheRsaAes128GcmSha256,
    EcdheRsaAes256GcmSha384,
    EcdheRsaChacha20Poly1305Sha256,
    Aes128GcmSha256,
    Aes256GcmSha384,
    Chacha20Poly1305Sha256,
}

impl CipherSuite {
    /// Every supported suite with its name, TLS 1.2 first.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::EcdheEcdsaAes128GcmSha256, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        (Self::EcdheEcdsaAes256GcmSha384, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (Self::EcdheEcdsaChacha20Poly1305Sha256, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        (Self::EcdheRsaAes128GcmSha256, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        (Self::EcdheRsaAes256GcmSha384, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        (Self::EcdheRsaChacha20Poly1305Sha256, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        (Self::Aes128GcmSha256, "TLS_AES_128_GCM_SHA256"),
        (Self::Aes256GcmSha384, "TLS_AES_256_GCM_SHA384"),
        (Self::Chacha20Poly1305Sha256, "TLS_CHACHA20_POLY1305_SHA256"),
    ];

    /// The suite's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(suite, _)| *suite == self).map_or("", |(_, name)| name)
    }

    /// Whether the suite belongs to TLS 1.3, where naming it changes nothing: those suites are always offered.
    pub fn is_tls13(self) -> bool {
        matches!(self, Self::Aes128GcmSha256 | Self::Aes256GcmSha384 | Self::Chacha20Poly1305Sha256)
    }
}

/// The suites that Go knows and that are not served: without forward secrecy, without authenticated encryption, or
/// broken.
const UNSUPPORTED_SUITES: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// What `--cipher-suites` names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedSuites {
    /// What is served of it.
    pub(crate) supported: Vec<CipherSuite>,
    /// What is a suite, but is not served.
    pub(crate) unsupported: Vec<&'static str>,
}

impl NamedSuites {
    /// Reads a comma-separated list; at least one suite of it has to be supported.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut named = Self { supported: Vec::new(), unsupported: Vec::new() };
        let listed = || CipherSuite::ALL.map(|(_, name)| name).join(", ");
        for name in comma_list(text) {
            // Go accepts the two ChaCha20 suites without their hash as well.
            let in_full =
                if name.ends_with("_WITH_CHACHA20_POLY1305") { format!("{name}_SHA256") } else { name.to_owned() };
            if let Some((suite, _)) = CipherSuite::ALL.iter().find(|(_, known)| *known == in_full) {
                named.supported.push(*suite);
            } else if let Some(name) = UNSUPPORTED_SUITES.into_iter().find(|known| *known == in_full) {
                named.unsupported.push(name);
            } else {
                return Err(format!("cipher suite {name} is unknown (supported: {})", listed()));
            }
        }
        if named.supported.is_empty() && !named.unsupported.is_empty() {
            return Err(format!("none of these cipher suites is supported (supported: {})", listed()));
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported(text: &str) -> Vec<CipherSuite> {
        let named = NamedSuites::parse(text).unwrap();
        assert_eq!(named.unsupported, [""; 0]);
        named.supported
    }

    #[test]
    fn every_suite_is_found_by_its_name() {
        for (suite, name) in CipherSuite::ALL {
            assert_eq!(supported(name), [suite]);
            assert_eq!(suite.name(), name);
            assert_eq!(suite.is_tls13(), !name.contains("_WITH_"));
        }
        assert_eq!(supported(""), []);
    }

    #[test]
    fn unsupported_suites_are_left_out_as_long_as_one_is_left() {
        for name in UNSUPPORTED_SUITES {
            let named = NamedSuites::parse(&format!("{name},TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")).unwrap();
            let expected =
                NamedSuites { supported: vec![CipherSuite::EcdheRsaAes128GcmSha256], unsupported: vec![name] };
            assert_eq!(named, expected);
            let error = NamedSuites::parse(name).unwrap_err();
            assert!(
                error.contains("none of these") && error.contains("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
                "{error}"
            );
        }
        let error = NamedSuites::parse("TLS_RSA_WITH_ROT13,TLS_AES_128_GCM_SHA256").unwrap_err();
        assert!(error.contains("TLS_RSA_WITH_ROT13 is unknown"), "{error}");
    }

    #[test]
    fn the_older_chacha_names_mean_the_same_suites() {
        assert_eq!(supported("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"), [CipherSuite::EcdheRsaChacha20Poly1305Sha256]);
    }

    #[test]
    fn an_empty_maximum_is_not_a_version() {
        assert!(TlsVersion::parse("").is_err());
        assert_eq!(TlsVersion::parse("TLS1.3"), Ok(TlsVersion::Tls13));
    }
}
