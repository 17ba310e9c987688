//! A network between members that can be disturbed, without touching the system's tables: by proxies, which needs no rights,
//! and, as [`namespaces`] tells, by network namespaces of the harness's own.
//!
//! ```text
//!   n1 --connects to n2's peer URL--> proxy of n2 --connects--> where n2 really listens
//!                                       |
//!                                       who: the process that owns the other end of the socket is n1
//!                                       way n1 -> n2: what becomes of the bytes that n1 sends
//!                                       way n2 -> n1: what becomes of those that it is answered
//! ```
//! Each member advertises the address of a proxy as its peer URL and listens somewhere else; there is one proxy for each
//! member, and all members are given the same URLs, so ids are what they would be without. Whoever connects is told apart
//! by the process that owns the socket, which the system's list of sockets tells; bytes are never looked at, so this
//! works with TLS as well.
//!
//! What lives here: [`Network`], the proxies of all members on a thread of their own (a network does not stand still while
//! a test waits for something); [`Way`] and [`Ways`], what becomes of bytes from one member to another; `proxy`
//! (connections), `pipe` (one direction of one), `who` (who connects).
//!
//! The one invariant: bytes of one direction of a connection arrive in order and without a gap, as TCP has it, or the
//! connection ends. What is reordered are connections: see [`Way::Late`]. Everything is bounded: connections by
//! `CONNECTIONS_MAX`, bytes under way in a direction by `PIPE_CHUNKS_MAX` times `CHUNK_BYTES`.

pub mod namespaces;
mod pipe;
mod proxy;
mod way;
mod who;

use std::{
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use tokio::sync::{oneshot, watch};

pub use self::way::{Way, Ways};
use self::{proxy::Proxy, way::Traffic};

/// Connections that one proxy has open; the next ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that are under way in one direction of a connection; then nothing more is read.
const PIPE_CHUNKS_MAX: usize = 64;

/// Where a proxy stands.
#[derive(Debug)]
pub struct Place {
    /// The socket of the address that the member advertises.
    pub listener: TcpListener,
    /// The loopback port that the member listens on.
    pub target_port: u16,
}

/// Process ids of the members that run, by their number.
type Processes = Arc<Mutex<Vec<Option<u32>>>>;

/// The proxies of all members. Dropping it ends them and every connection.
pub struct Network {
    ways: watch::Sender<Ways>,
    traffic: Arc<Traffic>,
    processes: Processes,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Proxies at these places, one for each member, all ways open. `seed` draws delays.
    pub fn start(places: Vec<Place>, seed: u64) -> Result<Self> {
        let count = places.len();
        let ways = watch::Sender::new(Ways::open(count));
        let traffic = Arc::new(Traffic::new(count));
        let processes = Processes::new(Mutex::new(vec![None; count]));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let proxies = places.into_iter().enumerate().map(|(member, place)| {
            place.listener.set_nonblocking(true)?;
            Ok(Proxy {
                member,
                place,
                ways: ways.subscribe(),
                traffic: Arc::clone(&traffic),
                processes: Arc::clone(&processes),
                seed: seed ^ (member as u64) << 48,
            })
        });
        let proxies: Vec<Proxy> = proxies.collect::<Result<_>>()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || {
            runtime.block_on(async {
                for proxy in proxies {
                    tokio::spawn(proxy.run());
                }
                // Dropped or told to: it is the end.
                let _ = stopped.await;
            });
        });
        let thread = Some(thread.context("start the network's thread")?);
        Ok(Self { ways, traffic, processes, stop: Some(stop), thread })
    }

    /// Tells which process a member is. Connections of others are closed.
    pub fn set_process(&self, member: usize, pid: Option<u32>) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)[member] = pid;
    }

    /// Changes what becomes of bytes.
    pub fn change(&self, change: impl FnOnce(&mut Ways)) {
        self.ways.send_modify(change);
    }

    /// Opens all ways again.
    pub fn heal(&self) {
        self.change(|ways| *ways = Ways::open(ways.len()));
    }

    /// Ends every connection that there is now.
    pub fn reset(&self) {
        self.change(Ways::reset);
    }

    /// Bytes of `from` that have reached `to` so far.
    pub fn delivered(&self, from: usize, to: usize) -> u64 {
        self.traffic.delivered(from, to)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
