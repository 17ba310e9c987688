//! One direction of one connection: a reader and a writer with what is under way between them.

use std::{io, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    CHUNK_BYTES, PIPE_CHUNKS_MAX,
    way::{Traffic, Way, Ways},
};

/// Bytes, and when they arrive.
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

/// Takes bytes until there are no more.
pub(super) struct Reader {
    half: OwnedReadHalf,
    chunks: mpsc::Sender<Chunk>,
    watched: Watched,
    random: StdRng,
    /// Which share of [`Way::Late`]'s time is this connection's.
    lateness: f64,
}

/// Delivers them.
pub(super) struct Writer {
    half: OwnedWriteHalf,
    chunks: mpsc::Receiver<Chunk>,
    watched: Watched,
}

/// What carries bytes from `reader` to `writer`, as `watched` says.
pub(super) fn pipe(
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    watched: Watched,
    seed: u64,
    lateness: f64,
) -> (Reader, Writer) {
    let (sender, receiver) = mpsc::channel(PIPE_CHUNKS_MAX);
    let random = StdRng::seed_from_u64(seed);
    let reader = Reader { half: reader, chunks: sender, watched: watched.clone(), random, lateness };
    (reader, Writer { half: writer, chunks: receiver, watched })
}

impl Reader {
    /// Until the end of the stream; an error if the connection has to end.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let mut lost = false;
        let mut due = Instant::now();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = tokio::select! {
                count = self.half.read(&mut buffer) => count?,
                found = self.watched.until(|way| way != Way::Lost), if lost => {
                    found?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            };
            if count == 0 {
                // The writer goes on with what is under way, and then ends, too.
                return Ok(());
            }
            let delay = match self.watched.way() {
                Way::Lost => {
                    lost = true;
                    continue;
                }
                _ if lost => return Err(io::ErrorKind::ConnectionAborted.into()),
                Way::Slow(most) => most.mul_f64(self.random.random()),
                Way::Late(most) => most.mul_f64(self.lateness),
                Way::Open | Way::Held | Way::Closed => Duration::ZERO,
            };
            // Never before what was sent before.
            due = due.max(Instant::now() + delay);
            if self.chunks.send(Chunk { due, bytes: buffer[..count].to_vec() }).await.is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }
}

impl Writer {
    /// Until everything is delivered, and no more can come.
    pub(super) async fn run(mut self, traffic: &Traffic) -> io::Result<()> {
        while let Some(chunk) = self.chunks.recv().await {
            tokio::time::sleep_until(chunk.due).await;
            self.watched.until(|way| way != Way::Held).await?;
            self.half.write_all(&chunk.bytes).await?;
            traffic.count(self.watched.from, self.watched.to, chunk.bytes.len());
        }
        self.half.shutdown().await
    }
}

/// A way, while it changes.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) ways: watch::Receiver<Ways>,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Watched {
    /// What it is now.
    pub(super) fn way(&mut self) -> Way {
        self.ways.borrow_and_update().get(self.from, self.to)
    }

    /// Waits until it is one for which `holds`. An error if the network is gone.
    async fn until(&mut self, holds: impl Fn(Way) -> bool) -> io::Result<()> {
        while !holds(self.way()) {
            self.ways.changed().await.map_err(|_| io::ErrorKind::ConnectionReset)?;
        }
        Ok(())
    }
}
