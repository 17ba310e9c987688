//! Why TLS cannot be set up.

use std::io;
use std::path::PathBuf;

/// Why TLS cannot be set up, or set up anew after a change of files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {} of {flag}: {source}", path.display())]
    Read {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What reading answered.
        source: io::Error,
    },
    /// A file is not what its flag says.
    #[error("{} of {flag} {reason}", path.display())]
    Unusable {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key are not a pair.
    #[error("the private key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A name that certificates must be for is no name.
    #[error("{name:?} of {flag} is neither a host name nor an address")]
    BadHostname {
        /// The flag that gives it.
        flag: &'static str,
        /// What it gives.
        name: String,
    },
    /// Neither files nor a generated certificate; the flag that is missing first.
    #[error("TLS needs {0} and its key, or a generated certificate")]
    NotConfigured(&'static str),
    /// The library refuses the settings.
    #[error("TLS settings do not fit together: {0}")]
    Settings(rustls::Error),
    /// A self-signed certificate cannot be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Generate(rcgen::Error),
    /// A self-signed certificate cannot be kept.
    #[error("cannot keep the self-signed certificate at {}: {source}", path.display())]
    Keep {
        /// File or directory.
        path: PathBuf,
        /// What writing answered.
        source: io::Error,
    },
}
