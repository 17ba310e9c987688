//! Carries snapshots from member to member, beside the streams of messages.
//!
//! The member that was offered a snapshot fetches it, and fetches on where it was when the connection breaks. The files are
//! read and written where waiting for the disk is allowed; on either side there is one piece in memory at a time, and what
//! the connection's window lets through. All that a member sends keeps to one rate, however many fetch.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use cairn_proto::peer::{
    SnapshotData, SnapshotFile as WireFile, SnapshotPiece, SnapshotRequest, peer_client::PeerClient,
};
use futures::{Stream, stream};
use parking_lot::Mutex;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tonic::{Code, Status, Streaming};

use super::{dial::DialError, metrics::Transfer, registry::Peers};
use crate::{
    node::{
        PeerInbox,
        snapshot::{Held, Incoming, Piece, Reading, SnapshotError, SnapshotFile},
    },
    raft::Offer,
};

/// Bytes of a piece.
const PIECE_BYTES: usize = 512 << 10;
/// How often a sender that waits for the receiver to install the snapshot gives a sign of life.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits.
const INSTALL_TIME_MAX: Duration = Duration::from_mins(30);
/// Attempts in a row that bring nothing, after which a snapshot is given up.
const ATTEMPTS_MAX: u32 = 5;
/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(300);

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("it is not known where the member is reached")]
    Unknown,
    #[error("the sender says: {}", .0.message())]
    Failed(#[from] Status),
    #[error("nothing was heard for too long")]
    Silent,
    #[error("the connection ended early")]
    Closed,
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the disk's thread ended unexpectedly")]
    Panicked,
}

impl FetchError {
    /// Whether trying again is of no use.
    fn is_final(&self) -> bool {
        match self {
            Self::Failed(status) => {
                matches!(status.code(), Code::NotFound | Code::FailedPrecondition | Code::Unimplemented)
            }
            Self::Panicked => true,
            _ => false,
        }
    }
}

/// Lets bytes go at a rate: each caller is told when its turn is.
#[derive(Debug)]
pub(super) struct Pacer {
    bytes_per_second: u64,
    free_at: Mutex<Option<Instant>>,
}

impl Pacer {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::default() }
    }

    /// When `bytes` may be sent, if it is `now`.
    fn turn(&self, bytes: usize, now: Instant) -> Instant {
        let nanos = (bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second)).min(u128::from(u64::MAX));
        let takes = Duration::from_nanos(nanos as u64);
        let mut free_at = self.free_at.lock();
        let turn = free_at.map_or(now, |free_at| free_at.max(now));
        *free_at = Some(turn + takes);
        turn
    }
}

/// What is left to be sent of a snapshot.
struct Sending {
    peers: Arc<Peers>,
    node: PeerInbox,
    member: u64,
    id: u64,
    reading: Option<Reading>,
    /// When the last piece was sent.
    sent_all: Option<Instant>,
    begun: bool,
    /// Until the last piece was sent.
    transfer: Option<Transfer>,
}

/// The pieces of a snapshot, for a member that has some of it already.
pub(super) fn send(
    peers: Arc<Peers>,
    node: PeerInbox,
    request: &SnapshotRequest,
) -> Result<impl Stream<Item = Result<SnapshotPiece, Status>> + Send + use<>, Status> {
    let held = |file: &WireFile| Held {
        file: SnapshotFile { name: file.name.clone(), bytes: file.bytes },
        complete: file.complete,
    };
    let held: Vec<Held> = request.held.iter().map(held).collect();
    let (member, id) = (request.from, request.snapshot);
    let reading =
        node.read_snapshot(id, &held).ok_or_else(|| Status::not_found("there is no such snapshot any more"))?;
    tracing::info!(to = format_args!("{member:x}"), files = reading.files().len(), "sending a snapshot");
    let transfer = Some(peers.metrics().send_snapshot(member));
    let sending = Sending { peers, node, member, id, reading: Some(reading), sent_all: None, begun: false, transfer };
    Ok(stream::unfold(Some(sending), |sending| async move {
        let mut sending = sending?;
        match sending.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(sending))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Sending {
    async fn next(&mut self) -> Result<Option<SnapshotPiece>, Status> {
        self.node.snapshot_heard(self.member, self.id);
        if let Some(sent_all) = self.sent_all {
            if sent_all.elapsed() > INSTALL_TIME_MAX {
                return Ok(None);
            }
            tokio::time::sleep(ALIVE_INTERVAL).await;
            return Ok(Some(SnapshotPiece::default()));
        }
        let Some(mut reading) = self.reading.take() else { return Ok(None) };
        if !std::mem::replace(&mut self.begun, true) {
            let wire = |file: &SnapshotFile| WireFile { name: file.name.clone(), bytes: file.bytes, complete: true };
            let files = reading.files().iter().map(wire).collect();
            self.reading = Some(reading);
            return Ok(Some(SnapshotPiece { files, ..SnapshotPiece::default() }));
        }
        let read = spawn_blocking(move || reading.next_piece(PIECE_BYTES).map(|piece| (reading, piece))).await;
        let (reading, piece) = read
            .map_err(|_| Status::internal("the disk's thread ended unexpectedly"))?
            .map_err(|error| Status::internal(error.to_string()))?;
        let Some(Piece { file, offset, data, crc }) = piece else {
            self.sent_all = Some(Instant::now());
            if let Some(transfer) = self.transfer.take() {
                transfer.succeeded();
            }
            return Ok(Some(SnapshotPiece { last: true, ..SnapshotPiece::default() }));
        };
        self.reading = Some(reading);
        tokio::time::sleep_until(self.peers.pacer().turn(data.len(), Instant::now())).await;
        let file = u32::try_from(file).map_err(|_| Status::internal("too many files"))?;
        Ok(Some(SnapshotPiece {
            data: Some(SnapshotData { file, offset, bytes: data, crc }),
            ..SnapshotPiece::default()
        }))
    }
}

/// Fetches a snapshot that was offered, and hands it to the replica.
pub(super) async fn fetch(peers: Weak<Peers>, offer: Offer) {
    let from = format!("{:x}", offer.from);
    let mut in_vain = 0;
    while in_vain < ATTEMPTS_MAX {
        let Some(peers) = peers.upgrade() else { return };
        let Some(local) = peers.local() else { return };
        let mut came = false;
        let transfer = peers.metrics().receive_snapshot(offer.from);
        let attempt = fetch_once(&peers, &local.node, local.cluster, local.member, offer, &mut came).await;
        let Err(error) = attempt else { return transfer.succeeded() };
        tracing::warn!(from, index = offer.last.index, %error, "a snapshot did not arrive");
        drop(transfer);
        in_vain = if came { 0 } else { in_vain + 1 };
        if error.is_final() {
            break;
        }
        drop(peers);
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(local) = peers.upgrade().and_then(|peers| peers.local()) {
        local.node.snapshot_failed(offer.id);
    }
}

/// Runs something that waits for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, FetchError> {
    Ok(spawn_blocking(work).await.map_err(|_| FetchError::Panicked)??)
}

async fn fetch_once(
    peers: &Peers,
    node: &PeerInbox,
    cluster: u64,
    member: u64,
    offer: Offer,
    came: &mut bool,
) -> Result<(), FetchError> {
    let urls = peers.urls_of(offer.from).ok_or(FetchError::Unknown)?;
    let begins = node.clone();
    let (mut incoming, held) = on_disk(move || {
        let incoming = begins.begin_snapshot(offer)?;
        let held = incoming.held()?;
        Ok((incoming, held))
    })
    .await?;
    let channel = peers.dialer().connect(&urls).await?;
    let wire = |held: Held| WireFile { name: held.file.name, bytes: held.file.bytes, complete: held.complete };
    let request = SnapshotRequest {
        cluster_id: cluster,
        from: member,
        snapshot: offer.id,
        held: held.into_iter().map(wire).collect(),
    };
    let mut client = PeerClient::new(channel).max_decoding_message_size(peers.frame_bytes_max());
    let silence_max = peers.read_timeout();
    let call = timeout(silence_max, client.snapshot(request)).await.map_err(|_| FetchError::Silent)??;
    let mut pieces = call.into_inner();
    loop {
        let piece = next(&mut pieces, silence_max).await?;
        if piece.last {
            break;
        }
        let brings = piece.data.is_some();
        incoming = on_disk(move || take(incoming, piece)).await?;
        *came |= brings;
    }
    tracing::info!(index = offer.last.index, "a snapshot has arrived; opening it");
    let takes = node.clone();
    let mut install = std::pin::pin!(on_disk(move || takes.take_snapshot(incoming)));
    // As long as the sender hears of this member, it keeps the snapshot and asks for no other.
    let mut listening = true;
    loop {
        tokio::select! {
            installed = &mut install => return installed,
            piece = pieces.message(), if listening => listening = matches!(piece, Ok(Some(_))),
        }
    }
}

async fn next(pieces: &mut Streaming<SnapshotPiece>, silence_max: Duration) -> Result<SnapshotPiece, FetchError> {
    timeout(silence_max, pieces.message()).await.map_err(|_| FetchError::Silent)??.ok_or(FetchError::Closed)
}

fn take(mut incoming: Incoming, piece: SnapshotPiece) -> Result<Incoming, SnapshotError> {
    if !piece.files.is_empty() {
        let file = |file: WireFile| SnapshotFile { name: file.name, bytes: file.bytes };
        incoming.expect(piece.files.into_iter().map(file).collect())?;
    }
    if let Some(SnapshotData { file, offset, bytes, crc }) = piece.data {
        incoming.take(&Piece { file: file as usize, offset, data: bytes, crc })?;
    }
    Ok(incoming)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_keeps_to_the_rate_and_a_pause_is_not_made_up_for() {
        let pacer = Pacer::new(1000);
        let began = Instant::now();
        let turns: Vec<_> = (0..3).map(|_| pacer.turn(500, began) - began).collect();
        assert_eq!(turns, [0, 500, 1000].map(Duration::from_millis));
        let later = began + Duration::from_secs(10);
        assert_eq!(pacer.turn(500, later), later);
        assert_eq!(pacer.turn(500, later), later + Duration::from_millis(500));
    }
}
