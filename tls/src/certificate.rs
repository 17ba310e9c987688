//! Certificates that are sound but that the TLS library does not take for what they are: of X.509 version 1, which
//! `openssl x509 -req` makes without a file of extensions, and for any usage.
//!
//! The library's checks come first and stay as they are; what is here looks again only at what they refused. Neither a
//! signature, a date, a name nor a revocation is passed over. A certificate of version 1 has to be signed by an
//! authority of the bundle itself: it says nothing from which a longer chain could be judged. It has no names either,
//! so that no server is known by it.

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore,
    client::danger::HandshakeSignatureValid,
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature as library_tls12,
        verify_tls13_signature as library_tls13, verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, SubjectPublicKeyInfoDer, UnixTime},
    sign::CertifiedKey,
};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId,
    KeyPurposeIdIter, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::{
    asn1_rs::{Any, FromDer},
    certificate::X509Certificate,
    public_key::PublicKey,
    revocation_list::RevokedCertificate,
    x509::X509Version,
};

use crate::{Role, check_dates, check_usage};

/// The smallest RSA key that is taken, in bits.
const RSA_BITS_MIN: usize = 2048;

/// Whom a certificate may have been signed by, and what they have revoked.
#[derive(Debug)]
pub struct Signers<'a> {
    /// The authorities, ready for use.
    pub roots: &'a RootCertStore,
    /// Their certificates.
    pub authorities: &'a [CertificateDer<'static>],
    /// What is revoked.
    pub crls: &'a [CertificateRevocationListDer<'static>],
}

fn bad_encoding() -> Error {
    CertificateError::BadEncoding.into()
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    x509_parser::parse_x509_certificate(certificate).map(|(_, certificate)| certificate).map_err(|_| bad_encoding())
}

/// Whether a certificate is of a version that the library does not read.
fn is_old(certificate: &X509Certificate<'_>) -> bool {
    certificate.version() != X509Version::V3
}

/// Whether a certificate is of a version that has no names.
pub(crate) fn is_of_version_1(certificate: &CertificateDer<'_>) -> bool {
    parse(certificate).is_ok_and(|certificate| is_old(&certificate))
}

/// Looks again at a certificate that the library `refused`.
///
/// # Errors
/// It is refused with reason: with the library's, or one that says what to do.
pub fn look_again(
    refused: Error,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    signers: &Signers<'_>,
    role: Role,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    let algorithms = &provider.signature_verification_algorithms;
    let certificate = parse(end_entity)?;
    if is_old(&certificate) {
        return check_old(&certificate, end_entity, signers, role, now, algorithms);
    }
    match refused {
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => check_any_usage(end_entity, intermediates, signers, role, now, algorithms).map_err(|()| refused),
        refused => Err(refused),
    }
}

/// Whether a certificate of version 1 is signed by an authority of the bundle, valid now and not revoked.
fn check_old(
    certificate: &X509Certificate<'_>,
    der: &CertificateDer<'_>,
    signers: &Signers<'_>,
    role: Role,
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    check_dates(certificate, now)?;
    let signed_by = |authority: &CertificateDer<'_>| {
        let Ok(authority) = parse(authority) else { return false };
        authority.subject().as_raw() == certificate.issuer().as_raw()
            && may_sign(&authority, role)
            && check_dates(&authority, now).is_ok()
            && is_signed_by(der, certificate, &authority, algorithms).is_some()
    };
    if !signers.authorities.iter().any(signed_by) {
        return Err(CertificateError::UnknownIssuer.into());
    }
    check_revoked(certificate, signers.crls)
}

/// Whether an authority may vouch for certificates of version 1.
fn may_sign(authority: &X509Certificate<'_>, role: Role) -> bool {
    if is_old(authority) {
        return true;
    }
    let is_authority = matches!(authority.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    let signs = authority.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    // Which names it may vouch for does not matter to a certificate without names; but that is not what was meant.
    let constrained = !matches!(authority.name_constraints(), Ok(None));
    is_authority && signs && !constrained && check_usage(authority, role).is_ok()
}

/// Whether the key of `authority` has signed `certificate`, whose bytes are `der`.
fn is_signed_by(
    der: &CertificateDer<'_>,
    certificate: &X509Certificate<'_>,
    authority: &X509Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Option<()> {
    let (_, whole) = Any::from_der(der).ok()?;
    let (rest, _signed) = Any::from_der(whole.data).ok()?;
    let (_, algorithm) = Any::from_der(rest).ok()?;
    let (_, key) = Any::from_der(authority.public_key().raw).ok()?;
    let (_, key_algorithm) = Any::from_der(key.data).ok()?;
    let (key, signature) = (&authority.public_key().subject_public_key.data, &certificate.signature_value.data);
    let verifies = algorithms.all.iter().any(|candidate| {
        candidate.signature_alg_id().as_ref() == algorithm.data
            && candidate.public_key_alg_id().as_ref() == key_algorithm.data
            && candidate.verify_signature(key, certificate.tbs_certificate.as_ref(), signature).is_ok()
    });
    verifies.then_some(())
}

/// Whether a list of the issuer's says that a certificate is revoked.
///
/// # Errors
/// It is.
pub fn check_revoked(
    certificate: &X509Certificate<'_>,
    crls: &[CertificateRevocationListDer<'static>],
) -> Result<(), Error> {
    for list in crls {
        let (_, list) = x509_parser::parse_x509_crl(list).map_err(|_| bad_encoding())?;
        let mut revoked = list.iter_revoked_certificates().map(RevokedCertificate::raw_serial);
        if list.issuer().as_raw() == certificate.issuer().as_raw()
            && revoked.any(|serial| serial == certificate.raw_serial())
        {
            return Err(CertificateError::Revoked.into());
        }
    }
    Ok(())
}

/// The usages that a role takes: its own, and any.
struct Usages([KeyPurposeId<'static>; 2]);

/// `anyExtendedKeyUsage`, 2.5.29.37.0.
const ANY: KeyPurposeId<'static> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0x00]);
/// `id-kp-serverAuth`, 1.3.6.1.5.5.7.3.1.
const SERVER: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
/// `id-kp-clientAuth`, 1.3.6.1.5.5.7.3.2.
const CLIENT: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);

impl ExtendedKeyUsageValidator for Usages {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut any_at_all = false;
        for usage in usages {
            let usage = usage?;
            if self.0.contains(&usage) {
                return Ok(());
            }
            any_at_all = true;
        }
        if any_at_all { Err(webpki::Error::UnsupportedCriticalExtension) } else { Ok(()) }
    }
}

/// The library's checks, with a usage of any taken for the one that is wanted.
fn check_any_usage(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    signers: &Signers<'_>,
    role: Role,
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), ()> {
    let wanted = match role {
        Role::Server => SERVER,
        Role::Client => CLIENT,
    };
    let lists =
        signers.crls.iter().map(|list| BorrowedCertRevocationList::from_der(list).map(CertRevocationList::from));
    let lists = lists.collect::<Result<Vec<_>, _>>().map_err(drop)?;
    let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok();
    let revocation = revocation.map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
    let certificate = EndEntityCert::try_from(end_entity).map_err(drop)?;
    let usages = Usages([wanted, ANY]);
    let roots = &signers.roots.roots;
    certificate
        .verify_for_usage(algorithms.all, roots, intermediates, now, usages, revocation, None)
        .map(drop)
        .map_err(drop)
}

/// Whether the key of a certificate is of a kind that handshakes are done with.
///
/// # Errors
/// It is not; the text says what to do.
pub fn check_key(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    // What is wrong with one that does not parse is said elsewhere.
    let Ok(certificate) = parse(certificate) else { return Ok(()) };
    key_problem(&certificate).map_or(Ok(()), |text| Err(Error::General(text)))
}

/// The authorities that can vouch for no certificate, with what is wrong with the key of each.
pub fn unusable_authorities<'a>(
    authorities: &'a [CertificateDer<'static>],
) -> impl Iterator<Item = (String, String)> + 'a {
    authorities.iter().filter_map(|authority| {
        let authority = parse(authority).ok()?;
        Some((authority.subject().to_string(), key_problem(&authority)?))
    })
}

fn key_problem(certificate: &X509Certificate<'_>) -> Option<String> {
    const INSTEAD: &str =
        "make a new key, of ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits, and a certificate for it";
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < RSA_BITS_MIN => {
            Some(format!("a key of RSA with {} bits is too weak: {INSTEAD}", key.key_size()))
        }
        Ok(PublicKey::EC(point)) if point.key_size() > 384 => {
            Some(format!("a key of ECDSA P-521 is not supported: {INSTEAD}"))
        }
        _ => None,
    }
}

/// Certificates and the key of the first, to be shown in handshakes.
///
/// # Errors
/// They do not belong together, or cannot be used.
pub fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let Some(own) = chain.first() else { return Err(Error::NoCertificatesPresented) };
    let own = parse(own)?;
    if !is_old(&own) {
        return CertifiedKey::from_der(chain, key, provider);
    }
    let key = provider.key_provider.load_private_key(key)?;
    if key.public_key().is_some_and(|public| &*public != own.public_key().raw) {
        return Err(rustls::InconsistentKeys::KeyMismatch.into());
    }
    Ok(CertifiedKey::new(chain, key))
}

/// Checks that the key of a certificate, of whatever version, has signed a handshake of TLS 1.2.
///
/// # Errors
/// It has not.
pub fn verify_tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    let parsed = parse(certificate)?;
    if !is_old(&parsed) {
        return library_tls12(message, certificate, signed, algorithms);
    }
    let (_, key) = Any::from_der(parsed.public_key().raw).map_err(|_| bad_encoding())?;
    let (_, key_algorithm) = Any::from_der(key.data).map_err(|_| bad_encoding())?;
    let mut candidates =
        algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme).flat_map(|(_, all)| *all);
    let verifies = candidates.any(|candidate| {
        candidate.public_key_alg_id().as_ref() == key_algorithm.data
            && candidate
                .verify_signature(&parsed.public_key().subject_public_key.data, message, signed.signature())
                .is_ok()
    });
    if verifies { Ok(HandshakeSignatureValid::assertion()) } else { Err(CertificateError::BadSignature.into()) }
}

/// Checks that the key of a certificate, of whatever version, has signed a handshake of TLS 1.3.
///
/// # Errors
/// It has not.
pub fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    let parsed = parse(certificate)?;
    if !is_old(&parsed) {
        return library_tls13(message, certificate, signed, algorithms);
    }
    let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
    verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}
