//! TLS files that are read again when they change.
//!
//! Who renews certificates writes several files, one after the other, or swings a symbolic link. So a change is anything
//! that a `stat` of any file shows, the files are always read all together, and a state in between (a new certificate with
//! an old key, a file missing) fails, is logged once, and leaves the configuration as it was until the files change again.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};

use super::client_config::build_client;
use super::error::TlsError;
use super::server_config::build;
use crate::config::TlsConfig;

/// How often, at most, the files are looked at. They are looked at only when someone connects.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the files and makes a configuration of them.
type Build<C> = fn(&TlsConfig) -> Result<Arc<C>, TlsError>;

/// The TLS configuration made of a set of files, kept up to date.
#[derive(Debug)]
pub struct TlsReloader<C = ServerConfig> {
    tls: TlsConfig,
    interval: Duration,
    build: Build<C>,
    current: ArcSwap<C>,
    next_look: Mutex<Instant>,
    /// The files as they were when last read, with or without success. Held while reading, so that one thread reads.
    seen: Mutex<Stamps>,
    reloads: AtomicU64,
    failures: AtomicU64,
}

impl TlsReloader {
    /// What a server needs. Reads the files of `tls` for the first time, and at most every `interval` again. Blocks on the
    /// disk.
    pub fn new(tls: TlsConfig, interval: Duration) -> Result<Self, TlsError> {
        Self::of(build, tls, interval)
    }
}

impl TlsReloader<ClientConfig> {
    /// What a member needs that connects to others, kept up to date likewise.
    pub fn for_dialing(tls: TlsConfig, interval: Duration) -> Result<Self, TlsError> {
        Self::of(build_client, tls, interval)
    }
}

impl<C: Send + Sync + 'static> TlsReloader<C> {
    #[expect(clippy::disallowed_methods, reason = "files are looked at by the clock")]
    fn of(build: Build<C>, tls: TlsConfig, interval: Duration) -> Result<Self, TlsError> {
        // Before the files are read: a change in between is then seen at the next look.
        let stamps = Stamps::of(&tls);
        let current = ArcSwap::new(build(&tls)?);
        Ok(Self {
            tls,
            interval,
            build,
            current,
            next_look: Mutex::new(Instant::now() + interval),
            seen: Mutex::new(stamps),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// The configuration for a new connection, after a look at the files if none was taken lately.
    /// The disk is touched on the blocking pool.
    pub async fn current(self: &Arc<Self>) -> Arc<C> {
        if self.is_due() {
            let this = Arc::clone(self);
            // It fails only if the runtime is shutting down, and then what was loaded last will do.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
        self.current.load_full()
    }

    /// How often new files were taken.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often changed files were no good.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether it is time for a look; says so to only one caller.
    #[expect(clippy::disallowed_methods, reason = "files are looked at by the clock")]
    fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut next = self.next_look.lock();
        let due = now >= *next;
        if due {
            *next = now + self.interval;
        }
        due
    }

    /// Reads the files again if they changed.
    fn look(&self) {
        let mut seen = self.seen.lock();
        let stamps = Stamps::of(&self.tls);
        if stamps == *seen {
            return;
        }
        *seen = stamps;
        match (self.build)(&self.tls) {
            Ok(config) => {
                self.current.store(config);
                self.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!("reloaded TLS files");
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "changed TLS files are unusable, going on with those loaded before");
            }
        }
    }
}

/// What `stat` says about one file: device, inode, size, times of last change of content and of inode.
pub(super) type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// The stamps of all files of a configuration, in a fixed order; none for a file that is not there.
#[derive(Debug, PartialEq, Eq)]
struct Stamps([Option<Stamp>; 6]);

impl Stamps {
    fn of(tls: &TlsConfig) -> Self {
        let TlsConfig {
            cert_file,
            key_file,
            dialing_cert_file,
            dialing_key_file,
            trusted_ca_file,
            client_crl_file,
            ..
        } = tls;
        let files = [cert_file, key_file, dialing_cert_file, dialing_key_file, trusted_ca_file, client_crl_file];
        Self(files.map(|file| file.as_deref().and_then(stamp)))
    }
}

/// The stamp of a file, if it is there.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()))
}
