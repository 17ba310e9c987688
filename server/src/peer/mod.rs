//! The connections between members.
//!
//! ```text
//!   replica task --Transport--> Peers: a Link for each other member
//!                                 |  queue (bounded) -> one gRPC stream, in order: messages, forwarded commands, pings
//!                                 v
//!   the other member's peer port: Listener -> Gate -> Inbound: checks every frame -> NodeHandle -> its replica task
//! ```
//!
//! What lives here: [`Peers`], which has a link to each other member and is the replica's
//! [`Transport`](crate::node::Transport); `link` (connects, and connects again), `queue` (what waits to be sent),
//! `inbound` (what arrives), `versions` (whose program is new enough), `speakers` (who is heard, and what it is told), `leases` (what clients of a follower want to know of the leader), `hashes` (of another
//! member's keys), `snapshot` (files of snapshots), `service` (the RPCs of `cairn.peer.Peer`), `gate` and `plain` (the
//! peer port), `dial` (TCP and TLS towards other members), [`join`] (what a new member has to learn before it starts). What
//! may call it: the server, and `api/` where a request is the leader's business. It knows `node/`, `security/` and
//! `config/`.
//!
//! The one invariant: nothing reaches raft that was not checked, and nothing here makes raft wait. A queue that is full
//! or has no connection drops what it is given and says so; raft then probes until it gets through.
//!
//! # A stream
//!
//! Between two members there are two streams, one each way, each opened by the side that sends on it. The first frame
//! introduces the caller: version of the protocol and of the program, cluster, who it is, whom it wants. The other side
//! answers with the same about itself, or with a refusal in words, which both sides log. Members of another cluster, of
//! another protocol, or at an address that is somebody else's now, never get further than that.
//!
//! The replica's task puts encoded messages into the link's queue and wakes the connection's task, which takes whatever
//! is there as one frame: the more waits, the fewer frames. Both run on the same thread, as do the receiving connection
//! and the replica that it feeds, so a message changes threads nowhere.
//!
//! The caller sends a ping every second, and the answers measure the round trip. Whoever hears nothing for
//! `--raft-read-timeout` takes the connection for dead and closes it, even if the kernel still believes in it.
//!
//! # Members that are not known
//!
//! A member that has just joined is led by members that it has not read about in the log yet. So a caller that is not
//! among the members known here is let in as long as its cluster is the right one and its id was not removed; it says
//! where it is reached, and gets a link until the log tells more. There are at most [`STRANGERS_MAX`] of them.
//!
//! # Members that have lost everything
//!
//! A member that starts again with an empty data directory has the id that it had before, and would vote again in a term in
//! which it had voted, or deny entries that it had acknowledged. So a caller says whether its log is empty, and is refused if
//! it has a name already: a member publishes its name only after it has applied something. It ends when it hears of that.
//!
//! # Nonsense
//!
//! A frame that does not decode, or says that it is of somebody else, ends its stream, and the caller comes again only after
//! a while. A message that decodes and that raft must not see, or whose entries could not be applied, is dropped alone by the
//! replica: see `speakers`, which has the sender told. It tells two processes with one identity apart, too.
//!
//! # What is handed on
//!
//! A follower hands commands and membership changes of its clients on to the leader. A command goes with the term in
//! which the leader may propose it, and the leader says on its own stream to the follower what it does not propose:
//! `node/core/forwards` says why. A member says in its introduction whether it heeds terms, and is sent none if it does
//! not. That it let its clients ask for nothing that breaks the rules is not taken on trust: commands are judged when
//! they arrive, by the rules that are for clients, and one that breaks them is dropped and complained of like a
//! message. A membership change is taken only from a member that is heard on a stream, and judged where it is proposed.
//!
//! # Snapshots
//!
//! Raft only says that there is a snapshot. Its files go through an RPC of their own, beside the streams, so that neither
//! waits for the other: see `snapshot`.

mod dial;
mod gate;
mod hashes;
mod inbound;
pub mod join;
mod leases;
mod link;
mod metrics;
mod plain;
mod queue;
mod registry;
mod seldom;
mod service;
mod snapshot;
mod source;
mod speakers;
mod versions;

use std::time::Duration;

pub use self::{
    dial::{DialError, Dialer},
    gate::Gate,
    hashes::{HashError, HashQuestion, HashTold},
    leases::{Told, Untold},
    metrics::PeerMetrics,
    registry::{PeerOptions, Peers},
};

/// The version of what members say to each other.
pub const PROTOCOL: u32 = 1;
/// Links to members that are not known to be any.
pub const STRANGERS_MAX: usize = 16;
/// How often the other side is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long the first answer on a connection may take.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of messages and commands that may wait for one member.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Messages and commands that may wait for one member.
const QUEUE_COUNT_MAX: usize = 16 << 10;
/// A frame is closed when it has this many bytes; one message more than that may go over it.
const FRAME_BYTES: usize = 1 << 20;
/// What a frame may have beyond the largest client request: an append of several entries, packing, and the frame itself.
const FRAME_OVERHEAD_BYTES: usize = 8 << 20;
/// What a forwarded command may have beyond the largest client request here: members may be told different limits, and the
/// leader has to get it to the others in a frame.
const COMMAND_OVERHEAD_BYTES: usize = FRAME_OVERHEAD_BYTES / 2;
/// Bytes that may be under way on a stream.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for a connection: a stream whose bytes are not read does not hold the others up. Half of it is the HTTP/2 library's budget for what small frames
/// cost that are not read yet; above it the library ends the connection. A whole window of one stream in frames of 32 bytes takes 56 MiB of it.
const CONNECTION_WINDOW_BYTES: u32 = 16 * STREAM_WINDOW_BYTES;
/// Calls that were reset before they were accepted, as they come when this member was paused; more end the connection.
const PENDING_RESETS_MAX: usize = 4096;
/// Streams that this member reset by itself over a connection's life; more end the connection. While they are not sent, each takes about 600 bytes.
const LOCAL_RESETS_MAX: usize = 64 << 10;

/// The largest frame to take, in bytes, where a client's request has at most `request_bytes`.
const fn frame_bytes_max(request_bytes: usize) -> usize {
    request_bytes.saturating_add(FRAME_OVERHEAD_BYTES)
}
