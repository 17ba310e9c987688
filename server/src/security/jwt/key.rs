//! Keys that sign and verify tokens.
//!
//! RSA, ECDSA on P-256 and P-384, Ed25519 and HMAC are ring's, as in TLS. ring has no P-521, which the method ES512
//! needs.

use std::path::Path;
use std::sync::Arc;

use p521::ecdsa::signature::{Signer as _, Verifier as _};
use ring::{hmac, signature};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519, Oid,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::JwtError;
use crate::config::{JwtConfig, JwtMethod};

/// The options that name files.
const PRIVATE: &str = "priv-key";
const PUBLIC: &str = "pub-key";
/// Bytes of a file of keys at most.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A key that signs.
pub(super) enum SigningKey {
    Secret(hmac::Key),
    /// A key of TLS, and half the length of its signatures if those are pairs of numbers.
    Pair {
        key: Arc<dyn rustls::sign::SigningKey>,
        scheme: SignatureScheme,
        half: Option<usize>,
    },
    P521(Box<p521::ecdsa::SigningKey>),
}

/// A key that verifies.
pub(super) enum VerifyingKey {
    Secret(hmac::Key),
    Public(signature::UnparsedPublicKey<Vec<u8>>),
    P521(Box<p521::ecdsa::VerifyingKey>),
}

/// What a method is made of, if it has public keys.
struct Kind {
    scheme: SignatureScheme,
    verification: &'static dyn signature::VerificationAlgorithm,
    key: Oid<'static>,
    curve: Option<Oid<'static>>,
    half: Option<usize>,
    name: &'static str,
}

/// What the methods with ring's public keys are made of.
fn kind(method: JwtMethod) -> Option<Kind> {
    let rsa = |scheme, verification| Kind {
        scheme,
        verification,
        key: OID_PKCS1_RSAENCRYPTION,
        curve: None,
        half: None,
        name: "RSA, of 2048 bits at least",
    };
    let ecdsa = |scheme, verification, curve, half, name| Kind {
        scheme,
        verification,
        key: OID_KEY_TYPE_EC_PUBLIC_KEY,
        curve: Some(curve),
        half: Some(half),
        name,
    };
    Some(match method {
        JwtMethod::Rs256 => rsa(SignatureScheme::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256),
        JwtMethod::Rs384 => rsa(SignatureScheme::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384),
        JwtMethod::Rs512 => rsa(SignatureScheme::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512),
        JwtMethod::Ps256 => rsa(SignatureScheme::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
        JwtMethod::Ps384 => rsa(SignatureScheme::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
        JwtMethod::Ps512 => rsa(SignatureScheme::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
        JwtMethod::Es256 => {
            let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
            ecdsa(scheme, &signature::ECDSA_P256_SHA256_FIXED, OID_EC_P256, 32, "ECDSA on P-256")
        }
        JwtMethod::Es384 => {
            let scheme = SignatureScheme::ECDSA_NISTP384_SHA384;
            ecdsa(scheme, &signature::ECDSA_P384_SHA384_FIXED, OID_NIST_EC_P384, 48, "ECDSA on P-384")
        }
        JwtMethod::EdDsa => Kind {
            scheme: SignatureScheme::ED25519,
            verification: &signature::ED25519,
            key: OID_SIG_ED25519,
            curve: None,
            half: None,
            name: "Ed25519",
        },
        JwtMethod::Es512 | JwtMethod::Hs256 | JwtMethod::Hs384 | JwtMethod::Hs512 => return None,
    })
}

fn hmac_of(method: JwtMethod) -> Option<hmac::Algorithm> {
    match method {
        JwtMethod::Hs256 => Some(hmac::HMAC_SHA256),
        JwtMethod::Hs384 => Some(hmac::HMAC_SHA384),
        JwtMethod::Hs512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// The key that signs, if there is one, and those that verify.
pub(super) fn read_keys(config: &JwtConfig) -> Result<(Option<SigningKey>, Vec<VerifyingKey>), JwtError> {
    let (private, public) = (config.private_key.as_deref(), config.public_key.as_deref());
    let private_bytes = private.map(|path| read(PRIVATE, path)).transpose()?;
    let public_bytes = public.map(|path| read(PUBLIC, path)).transpose()?;
    if let Some(algorithm) = hmac_of(config.method) {
        let secrets = private_bytes.iter().chain(&public_bytes);
        let verifying = secrets.map(|secret| VerifyingKey::Secret(hmac::Key::new(algorithm, secret))).collect();
        let signing = private_bytes.map(|secret| SigningKey::Secret(hmac::Key::new(algorithm, &secret)));
        return Ok((signing, verifying));
    }
    let signing =
        private.zip(private_bytes).map(|(path, bytes)| read_private(config.method, path, &bytes)).transpose()?;
    let mut verifying = Vec::new();
    if let Some((path, bytes)) = public.zip(public_bytes) {
        verifying = read_public(config.method, path, &bytes)?;
    }
    let own = signing.as_ref().map(|(_, own)| own);
    if let Some((own, path)) = own.zip(private) {
        match public {
            Some(public) if !verifying.iter().any(|(known, _)| known == own) => {
                return Err(JwtError::Mismatch { private: path.to_owned(), public: public.to_owned() });
            }
            Some(_) => {}
            None => {
                let key = verifying_key(config.method, own).map_err(|reason| unusable(PRIVATE, path, reason))?;
                verifying.push((own.clone(), key));
            }
        }
    }
    Ok((signing.map(|(key, _)| key), verifying.into_iter().map(|(_, key)| key).collect()))
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, JwtError> {
    let read = std::fs::read(path).map_err(|source| JwtError::Read { option, path: path.to_owned(), source })?;
    match read.len() {
        0 => Err(unusable(option, path, "is empty")),
        bytes if bytes > FILE_BYTES_MAX => Err(unusable(option, path, "is larger than 1 MiB")),
        _ => Ok(read),
    }
}

fn unusable(option: &'static str, path: &Path, reason: impl Into<String>) -> JwtError {
    JwtError::Unusable { option, path: path.to_owned(), reason: reason.into() }
}

/// A private key with its public one, as it stands in a certificate.
fn read_private(method: JwtMethod, path: &Path, bytes: &[u8]) -> Result<(SigningKey, Vec<u8>), JwtError> {
    let der = PrivateKeyDer::from_pem_slice(bytes)
        .map_err(|_| unusable(PRIVATE, path, "holds no unencrypted PEM private key (PKCS#8, PKCS#1 or SEC1)"))?;
    let wrong = |name: &str| unusable(PRIVATE, path, format!("holds no key of {name}, which {} needs", method.name()));
    let Some(kind) = kind(method) else {
        let key = p521_secret(&der).ok_or_else(|| wrong("ECDSA on P-521"))?;
        let point = key.public_key().to_sec1_bytes().to_vec();
        return Ok((SigningKey::P521(Box::new(key.into())), point));
    };
    let key = any_supported_type(&der).map_err(|_| wrong(kind.name))?;
    let public = key.public_key().filter(|_| key.choose_scheme(&[kind.scheme]).is_some());
    let spki = public.ok_or_else(|| wrong(kind.name))?;
    let point = key_bits(method, &spki).ok_or_else(|| wrong(kind.name))?;
    Ok((SigningKey::Pair { key, scheme: kind.scheme, half: kind.half }, point))
}

fn p521_secret(der: &PrivateKeyDer<'_>) -> Option<p521::SecretKey> {
    use p521::pkcs8::DecodePrivateKey as _;
    match der {
        PrivateKeyDer::Pkcs8(der) => p521::SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Sec1(der) => p521::SecretKey::from_sec1_der(der.secret_sec1_der()).ok(),
        _ => None,
    }
}

/// The key in a `SubjectPublicKeyInfo`, if it is one that the method uses.
fn key_bits(method: JwtMethod, spki: &[u8]) -> Option<Vec<u8>> {
    let (_, spki) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    let curve = spki.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    let (key, wanted) =
        kind(method).map_or((OID_KEY_TYPE_EC_PUBLIC_KEY, Some(OID_NIST_EC_P521)), |kind| (kind.key, kind.curve));
    let fits = spki.algorithm.algorithm == key && (wanted.is_none() || curve == wanted);
    fits.then(|| spki.subject_public_key.data.to_vec())
}

/// Every public key of a PEM file: as such, in a certificate, or in RSA's own format. Each with its bytes.
fn read_public(method: JwtMethod, path: &Path, bytes: &[u8]) -> Result<Vec<(Vec<u8>, VerifyingKey)>, JwtError> {
    let mut keys = Vec::new();
    for pem in Pem::iter_from_buffer(bytes) {
        let pem = pem.map_err(|_| unusable(PUBLIC, path, "is not valid PEM"))?;
        let bits = match &*pem.label {
            "PUBLIC KEY" => key_bits(method, &pem.contents),
            "CERTIFICATE" => X509Certificate::from_der(&pem.contents)
                .ok()
                .and_then(|(_, cert)| key_bits(method, cert.public_key().raw)),
            "RSA PUBLIC KEY" => {
                kind(method).filter(|kind| kind.key == OID_PKCS1_RSAENCRYPTION).map(|_| pem.contents.clone())
            }
            _ => continue,
        };
        let wrong = || unusable(PUBLIC, path, format!("holds a key that {} cannot use", method.name()));
        let bits = bits.ok_or_else(wrong)?;
        let key = verifying_key(method, &bits).map_err(|reason| unusable(PUBLIC, path, reason))?;
        keys.push((bits, key));
    }
    if keys.is_empty() { Err(unusable(PUBLIC, path, "holds no PEM public key or certificate")) } else { Ok(keys) }
}

fn verifying_key(method: JwtMethod, bits: &[u8]) -> Result<VerifyingKey, String> {
    match kind(method) {
        Some(kind) => Ok(VerifyingKey::Public(signature::UnparsedPublicKey::new(kind.verification, bits.to_vec()))),
        None => p521::ecdsa::VerifyingKey::from_sec1_bytes(bits)
            .map(|key| VerifyingKey::P521(Box::new(key)))
            .map_err(|_| "holds no point of P-521".to_owned()),
    }
}

impl SigningKey {
    /// The signature as a token has it.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Secret(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Self::Pair { key, scheme, half } => {
                let signature = key.choose_scheme(&[*scheme])?.sign(message).ok()?;
                match half {
                    None => Some(signature),
                    Some(half) => fixed(&signature, *half),
                }
            }
            Self::P521(key) => {
                let signature: p521::ecdsa::Signature = key.try_sign(message).ok()?;
                Some(signature.to_bytes().to_vec())
            }
        }
    }
}

impl VerifyingKey {
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify(message, signature).is_ok(),
            Self::P521(key) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// A signature of TLS, which is a DER sequence of two integers, as two numbers of a fixed length.
fn fixed(der: &[u8], half: usize) -> Option<Vec<u8>> {
    let [0x30, length, integers @ ..] = der else { return None };
    let mut rest = integers;
    let mut out = Vec::with_capacity(2 * half);
    for _ in 0..2 {
        let [0x02, length, tail @ ..] = rest else { return None };
        let (number, tail) = tail.split_at_checked(usize::from(*length))?;
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        out.resize(out.len() + half.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
        rest = tail;
    }
    (rest.is_empty() && integers.len() == usize::from(*length)).then_some(out)
}
