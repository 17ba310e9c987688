//! Signed tokens (JSON Web Tokens), interchangeable with etcd's.
//!
//! A token says who its user is, at which auth revision that was found, and until when it is good; it is good at every
//! member that verifies its signature, and no member remembers it. Only the configured method is taken, whatever a
//! token's header says.
//!
//! Keys are read again when their files change. Several public keys may be given, so that tokens of an old key are
//! taken while it is replaced.

mod error;
mod key;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

pub use self::error::{JwtError, SignError};
use self::key::{SigningKey, VerifyingKey, read_keys};
use super::reload::{Stamp, stamp};
use crate::config::JwtConfig;

/// Bytes of the longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Tokens whose signature is remembered to be right.
const VERIFIED_MAX: usize = 16 << 10;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Its user.
    pub user: Bytes,
    /// The auth revision at which it was made.
    pub revision: u64,
    /// The second since 1970 from which on it is worth nothing.
    expires: u64,
}

/// Signs and verifies tokens.
pub struct Jwt {
    config: JwtConfig,
    keys: ArcSwap<Keys>,
    /// The files as they were when last read, with or without success. Held while reading, so that one thread reads.
    seen: Mutex<[Option<Stamp>; 2]>,
}

/// The keys of one state of the files, and the tokens that they have verified.
struct Keys {
    signing: Option<SigningKey>,
    verifying: Vec<VerifyingKey>,
    verified: RwLock<HashMap<Box<[u8]>, Claims>>,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
}

#[derive(Deserialize)]
struct AnyHeader {
    alg: String,
    /// Extensions that a reader has to know. None is known.
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Serialize)]
struct OwnClaims<'a> {
    exp: u64,
    revision: u64,
    username: &'a str,
}

#[derive(Deserialize)]
struct AnyClaims {
    username: String,
    revision: serde_json::Number,
    exp: serde_json::Number,
    nbf: Option<serde_json::Number>,
}

impl Jwt {
    /// Reads the keys of `config`. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be read, does not have what the method needs, or the keys do not belong together.
    pub fn new(config: JwtConfig) -> Result<Self, JwtError> {
        // Before the files are read: a change in between is then seen at the next look.
        let seen = Mutex::new(stamps(&config));
        let keys = ArcSwap::from_pointee(Keys::read(&config)?);
        Ok(Self { config, keys, seen })
    }

    /// Reads the keys again if their files have changed. Keys that are no good are logged, and change nothing. Blocks
    /// on the disk.
    pub fn reload(&self) {
        let mut seen = self.seen.lock();
        let stamps = stamps(&self.config);
        if stamps == *seen {
            return;
        }
        *seen = stamps;
        match Keys::read(&self.config) {
            Ok(keys) => {
                self.keys.store(keys.into());
                tracing::info!("reloaded the keys of tokens");
            }
            Err(error) => {
                tracing::warn!(%error, "changed keys of tokens are unusable, going on with those loaded before");
            }
        }
    }

    /// A token for a user, whose password was right at auth revision `revision`.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, user: &str, revision: u64) -> Result<String, SignError> {
        let keys = self.keys.load();
        let key = keys.signing.as_ref().ok_or(SignError::VerifyOnly)?;
        let header = Header { alg: self.config.method.name(), typ: "JWT" };
        let claims =
            OwnClaims { username: user, revision, exp: now().saturating_add(self.config.ttl.as_secs().max(1)) };
        let mut token = format!("{}.{}", encode(&header)?, encode(&claims)?);
        let signature = key.sign(token.as_bytes()).ok_or(SignError::Failed)?;
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        Ok(token)
    }

    /// What a token says, if it is good now.
    pub fn verify(&self, token: &[u8]) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let now = now();
        let claims = self.keys.load().claims(token, self.config.method.name(), now)?;
        (now < claims.expires).then_some(claims)
    }
}

impl Keys {
    fn read(config: &JwtConfig) -> Result<Self, JwtError> {
        let (signing, verifying) = read_keys(config)?;
        Ok(Self { signing, verifying, verified: RwLock::default() })
    }

    /// What a token says, whose signature may be known to be right.
    fn claims(&self, token: &[u8], method: &str, now: u64) -> Option<Claims> {
        let known = self.verified.read().get(token).cloned();
        known.or_else(|| {
            let claims = self.verify(token, method, now)?;
            let mut verified = self.verified.write();
            if verified.len() >= VERIFIED_MAX {
                verified.clear();
            }
            verified.insert(token.into(), claims.clone());
            Some(claims)
        })
    }

    fn verify(&self, token: &[u8], method: &str, now: u64) -> Option<Claims> {
        let (message, signature) = split_last(token)?;
        let (header, claims) = split_last(message)?;
        let header: AnyHeader = decode(header)?;
        if header.alg != method || header.crit.is_some() {
            return None;
        }
        let signature = BASE64.decode(signature).ok()?;
        if !self.verifying.iter().any(|key| key.verifies(message, &signature)) {
            return None;
        }
        let claims: AnyClaims = decode(claims)?;
        if claims.nbf.is_some_and(|begin| seconds(&begin).is_none_or(|begin| now < begin)) {
            return None;
        }
        let (user, revision) = (claims.username.into(), seconds(&claims.revision)?);
        let expires = seconds(&claims.exp)?;
        (now < expires).then_some(Claims { user, revision, expires })
    }
}

fn split_last(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = text.iter().rposition(|byte| *byte == b'.')?;
    Some((text.get(..dot)?, text.get(dot + 1..)?))
}

fn encode(part: &impl Serialize) -> Result<String, SignError> {
    serde_json::to_vec(part).map(|json| BASE64.encode(json)).map_err(|_| SignError::Failed)
}

fn decode<T: for<'a> Deserialize<'a>>(part: &[u8]) -> Option<T> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}

/// A number of JSON, which may be written with a fraction, as a whole one.
fn seconds(number: &serde_json::Number) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in the range of u64")]
    let whole = |number: f64| (0.0..1e18).contains(&number).then_some(number as u64);
    number.as_u64().or_else(|| whole(number.as_f64()?))
}

fn stamps(config: &JwtConfig) -> [Option<Stamp>; 2] {
    [&config.private_key, &config.public_key].map(|file| file.as_deref().and_then(stamp))
}

#[expect(clippy::disallowed_methods, reason = "a token is good until a time of day")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
