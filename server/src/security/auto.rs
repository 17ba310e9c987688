//! `--auto-tls`: a self-signed certificate, made once and kept.
//!
//! It encrypts but proves nothing: a client must be told to trust this very certificate, or not to check at all.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::error::TlsError;
use super::server_config::build;
use crate::config::TlsConfig;

/// A year of `--self-signed-cert-validity`.
const YEAR: Duration = Duration::from_hours(365 * 24);

/// Where certificate and key are.
pub(super) struct Pair {
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
}

/// The certificate and key in `directory`, made for `hosts` if there are none, they are no pair, or the certificate has
/// run out.
#[expect(clippy::disallowed_methods, reason = "a certificate is valid from now on")]
pub(super) fn ensure_self_signed(directory: &Path, hosts: &BTreeSet<&str>, years: u32) -> Result<Pair, TlsError> {
    let pair = Pair { cert_file: directory.join("cert.pem"), key_file: directory.join("key.pem") };
    if is_usable(&pair) {
        return Ok(pair);
    }
    let not_before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::new(names(hosts)).map_err(TlsError::Generate)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "cairn");
    params.not_before = epoch + not_before;
    params.not_after = epoch + not_before + YEAR * years;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(TlsError::Generate)?;
    let cert = params.self_signed(&key).map_err(TlsError::Generate)?;

    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| TlsError::Keep { path: directory.to_owned(), source })?;
    write(&pair.key_file, &key.serialize_pem(), 0o600)?;
    write(&pair.cert_file, &cert.pem(), 0o644)?;
    tracing::warn!(path = %pair.cert_file.display(), validity_years = years, "automatically generated a certificate");
    Ok(pair)
}

/// Whether the files hold a pair that is valid now.
fn is_usable(pair: &Pair) -> bool {
    let tls = TlsConfig {
        cert_file: Some(pair.cert_file.clone()),
        key_file: Some(pair.key_file.clone()),
        ..TlsConfig::default()
    };
    let in_time = || {
        let cert = CertificateDer::from_pem_file(&pair.cert_file).ok()?;
        let (_, cert) = x509_parser::parse_x509_certificate(&cert).ok()?;
        Some(cert.validity().is_valid())
    };
    build(&tls).is_ok() && in_time() == Some(true)
}

/// What the certificate is for. Who listens everywhere is reached locally at least.
fn names(hosts: &BTreeSet<&str>) -> Vec<String> {
    let mut names: BTreeSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    if hosts.iter().any(|host| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())) {
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    }
    names.into_iter().collect()
}

/// Writes a file with these permissions, whatever was there before.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let keep = |source| TlsError::Keep { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(keep(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(keep)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_gets_a_certificate_for_localhost() {
        assert_eq!(names(&BTreeSet::from(["0.0.0.0"])), ["0.0.0.0", "127.0.0.1", "::1", "localhost"]);
        assert_eq!(names(&BTreeSet::from(["node1"])), ["node1"]);
    }

    #[test]
    fn a_certificate_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("fixtures/client");
        let hosts = BTreeSet::from(["127.0.0.1", "node1"]);
        let pair = ensure_self_signed(&directory, &hosts, 2).unwrap();
        let first = fs::read(&pair.cert_file).unwrap();
        ensure_self_signed(&directory, &hosts, 2).unwrap();
        assert_eq!(fs::read(&pair.cert_file).unwrap(), first);

        let der = CertificateDer::from_pem_file(&pair.cert_file).unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
        let validity = cert.validity();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 2 * 365 * 24 * 3600);
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&pair.key_file).unwrap()) & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_that_is_no_good_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = BTreeSet::from(["localhost"]);
        let pair = ensure_self_signed(dir.path(), &hosts, 1).unwrap();
        // A crash while writing, a key of another certificate.
        for damage in ["-----BEGIN CERT", &KeyPair::generate().unwrap().serialize_pem()] {
            fs::write(&pair.key_file, damage).unwrap();
            assert!(!is_usable(&pair));
            ensure_self_signed(dir.path(), &hosts, 1).unwrap();
            assert!(is_usable(&pair));
        }
        // One that has run out.
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        fs::write(&pair.cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&pair.key_file, key.serialize_pem()).unwrap();
        assert!(!is_usable(&pair));
    }
}
