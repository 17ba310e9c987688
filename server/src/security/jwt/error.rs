//! Why tokens cannot be signed or verified.

use std::io;
use std::path::PathBuf;

/// Why the keys of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// A file cannot be read.
    #[error("cannot read {} of --auth-token {option}: {source}", path.display())]
    Read {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What reading answered.
        source: io::Error,
    },
    /// A file does not have what the method needs.
    #[error("{} of --auth-token {option} {reason}", path.display())]
    Unusable {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key's own tokens would not be taken.
    #[error("--auth-token: the key in {} is not among the public keys in {}", private.display(), public.display())]
    Mismatch {
        /// The private key's file.
        private: PathBuf,
        /// The public keys' file.
        public: PathBuf,
    },
}

/// Why a token is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// There is no private key.
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    /// The key fails.
    #[error("a token cannot be signed")]
    Failed,
}
