//! The RPCs of `cairn.peer.Peer`, as the other members call them.

use std::{pin::Pin, sync::Arc};

use cairn_proto::{
    ApiError,
    peer::{
        Answer, ChangeRequest, ChangeResponse, Frame, HashRequest, HashResponse, Hello, LeasesRequest, LeasesResponse,
        MembersRequest, MembersResponse, Refusal, SnapshotPiece, SnapshotRequest, peer_server::Peer, refusal::Reason,
    },
};
use futures::{Stream, StreamExt, stream};
use prost::Message as _;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    HELLO_TIMEOUT, PROTOCOL,
    gate::Address,
    hashes,
    inbound::Inbound,
    leases,
    registry::{Local, Peers},
    snapshot,
    speakers::Speaking,
    versions,
};
use crate::{
    node::{
        ProposeError,
        membership::form::{CHANGE_BYTES_MAX, PEER_URL_BYTES_MAX, PEER_URLS_MAX},
        snapshot::FILES_MAX,
    },
    state::{MemberChange, Members},
};

/// Serves the other members.
#[derive(Clone)]
pub(super) struct Service {
    peers: Arc<Peers>,
}

impl Service {
    pub(super) fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }

    fn local(&self) -> Result<Local, Status> {
        self.peers.local().ok_or_else(|| ApiError::Stopped.into())
    }

    /// Whether a caller is a member, and the process that speaks for it. Without TLS anybody may say that it is.
    fn is_introduced(&self, local: &Local, member: u64, run: u64) -> bool {
        local.node.members().members.contains_key(&member) && self.peers.speakers().hears(member, run)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;
type Pieces = Pin<Box<dyn Stream<Item = Result<SnapshotPiece, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Service {
    type StreamStream = Answers;
    type SnapshotStream = Pieces;

    async fn stream(&self, request: Request<Streaming<Frame>>) -> Result<Response<Answers>, Status> {
        let local = self.local()?;
        let address = request.extensions().get::<Address>().and_then(|address| address.0);
        let mut frames = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, frames.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no introduction came"))??;
        let hello = first
            .and_then(|frame| frame.hello)
            .ok_or_else(|| Status::invalid_argument("the first frame has to be an introduction"))?;
        let admitted = match judge(&local, &hello) {
            Ok(()) => self.peers.speakers().admit(&hello, address).await.map_err(other_reason),
            Err(refusal) => Err(refusal),
        };
        let speaking = match admitted {
            Ok(speaking) => speaking,
            Err(refusal) => {
                let member = format!("{:x}", hello.from);
                tracing::warn!(member, ?address, reason = refusal.text, "refused a member");
                return Ok(Response::new(stream::once(async { Ok(refused(refusal)) }).boxed()));
            }
        };
        let urls = hello.peer_urls.iter().take(PEER_URLS_MAX).filter(|url| url.len() <= PEER_URL_BYTES_MAX).cloned();
        self.peers.meet(&local, hello.from, &urls.collect::<Vec<_>>());
        let welcome = Answer { welcome: Some(self.peers.hello(&local, hello.from)), ..Answer::default() };
        tracing::info!(member = format_args!("{:x}", hello.from), version = hello.version, "a member connected");
        let inbound = self.peers.inbound(local, hello.from);
        let heard = Heard { inbound, frames, speaking, silence_max: self.peers.read_timeout(), ended: false };
        let answers = stream::once(async { Ok(welcome) }).chain(stream::unfold(heard, Heard::next));
        Ok(Response::new(answers.boxed()))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersResponse>, Status> {
        let local = self.local()?;
        let history = local.node.history();
        let members = local.node.members();
        Ok(Response::new(MembersResponse {
            cluster_id: local.cluster,
            members: members.members.values().map(|member| member.encode_to_vec().into()).collect(),
            initial: history.initial.iter().map(|member| member.encode_to_vec().into()).collect(),
            first_index: history.first_index,
        }))
    }

    async fn change(&self, request: Request<ChangeRequest>) -> Result<Response<ChangeResponse>, Status> {
        let local = self.local()?;
        let request = request.into_inner();
        if request.cluster_id != local.cluster {
            return Err(Status::failed_precondition(other_cluster(request.cluster_id, local.cluster)));
        }
        if !self.is_introduced(&local, request.from, request.run) {
            let text = format!("member {:x} is none that this member hears: only members may ask", request.from);
            tracing::warn!(text, "refused a membership change");
            return Err(Status::permission_denied(text));
        }
        if request.change.len() > CHANGE_BYTES_MAX {
            return Err(Status::invalid_argument(format!("a change of {} bytes is too large", request.change.len())));
        }
        let change = MemberChange::decode(request.change)
            .map_err(|error| Status::invalid_argument(format!("the change does not decode: {error}")))?
            .1;
        match local.membership.change_members(change).await {
            Ok(()) => Ok(Response::new(ChangeResponse {})),
            Err(error @ ProposeError::Malformed(_)) => Err(Status::invalid_argument(error.to_string())),
            Err(error) => Err(ApiError::from(error).into()),
        }
    }

    async fn snapshot(&self, request: Request<SnapshotRequest>) -> Result<Response<Pieces>, Status> {
        let local = self.local()?;
        let request = request.into_inner();
        if request.cluster_id != local.cluster {
            return Err(Status::failed_precondition(other_cluster(request.cluster_id, local.cluster)));
        }
        if request.held.len() > FILES_MAX {
            return Err(Status::invalid_argument("too many files"));
        }
        Ok(Response::new(snapshot::send(Arc::clone(&self.peers), local.node, &request)?.boxed()))
    }

    async fn leases(&self, request: Request<LeasesRequest>) -> Result<Response<LeasesResponse>, Status> {
        let local = self.local()?;
        let request = request.into_inner();
        if request.cluster_id != local.cluster {
            return Err(Status::failed_precondition(other_cluster(request.cluster_id, local.cluster)));
        }
        leases::answer(&local.leases, request).await.map(Response::new)
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let local = self.local()?;
        let request = request.into_inner();
        if request.cluster_id != local.cluster {
            return Err(Status::failed_precondition(other_cluster(request.cluster_id, local.cluster)));
        }
        hashes::answer(&local.store, &request).await.map(Response::new)
    }
}

fn other_cluster(theirs: u64, ours: u64) -> String {
    format!(
        "it is of cluster {theirs:x}, this member of {ours:x}: check --initial-cluster and --initial-cluster-token, or \
         whose data directory it was started with"
    )
}

fn other_reason(text: String) -> Refusal {
    Refusal { reason: Reason::Other.into(), text }
}

fn refused(refusal: Refusal) -> Answer {
    Answer { refusal: Some(refusal), ..Answer::default() }
}

/// Whether a caller is to be listened to.
fn judge(local: &Local, hello: &Hello) -> Result<(), Refusal> {
    let refuse = |text| Err(other_reason(text));
    if hello.protocol != PROTOCOL {
        return refuse(format!("it speaks protocol {}, this member {PROTOCOL}", hello.protocol));
    }
    if let Err(text) = versions::check(hello, &local.node) {
        return refuse(text);
    }
    if hello.cluster_id != local.cluster {
        return refuse(other_cluster(hello.cluster_id, local.cluster));
    }
    if hello.to != local.member {
        return refuse(format!(
            "it wants member {:x}, this is member {:x}: one of them has the other's peer URL",
            hello.to, local.member
        ));
    }
    if hello.from == 0 || hello.from == local.member {
        return refuse("it says that it is this member: two were started with the same identity".to_owned());
    }
    if local.node.members().removed.contains(&hello.from) {
        let text = format!("member {:x} was removed from the cluster", hello.from);
        return Err(Refusal { reason: Reason::Removed.into(), text });
    }
    if has_lost_everything(local, hello) {
        return Err(Refusal { reason: Reason::Blank.into(), text: lost_everything(hello.from) });
    }
    Ok(())
}

/// Whether a member that has nothing of the log is known to have had some: it published its name only after it had applied
/// an entry. What it had promised, a vote or to have stored an entry, it does not know any more.
pub(super) fn has_lost_everything(local: &Local, hello: &Hello) -> bool {
    let had_begun = |members: &Members| members.members.get(&hello.from).is_some_and(|member| !member.name.is_empty());
    hello.blank && had_begun(&local.node.members())
}

/// What both sides log about it.
pub(super) fn lost_everything(member: u64) -> String {
    format!(
        "member {member:x} has been part of the cluster before, and comes with an empty data directory: put that back, or \
         remove the member and add it anew"
    )
}

fn too_large(error: &Status) -> String {
    format!("a frame is too large; all members should have the same --max-request-bytes: {}", error.message())
}

/// A stream of a member that was let in.
struct Heard {
    inbound: Inbound,
    frames: Streaming<Frame>,
    speaking: Speaking,
    silence_max: std::time::Duration,
    ended: bool,
}

impl Heard {
    /// Takes frames until one of them has to be answered, or there is something to be said.
    async fn next(mut self) -> Option<(Result<Answer, Status>, Self)> {
        while !self.ended {
            let heard = tokio::select! {
                biased;
                word = self.speaking.next_word() => return Some((Ok(word), self)),
                heard = timeout(self.silence_max, self.frames.message()) => heard,
            };
            let Ok(frame) = heard else {
                self.ended = true;
                return Some((Err(Status::deadline_exceeded("nothing was heard for too long")), self));
            };
            // How a connection ends is of no interest: the other side connects again, or does not.
            let frame = match frame {
                Ok(frame) => frame?,
                Err(error) if error.code() == Code::OutOfRange => {
                    let member = format!("{:x}", self.inbound.from());
                    tracing::warn!(member, %error, "a frame of a member is too large; closing its stream");
                    self.ended = true;
                    return Some((Err(Status::invalid_argument(too_large(&error))), self));
                }
                Err(_) => return None,
            };
            if self.inbound.is_removed() {
                self.ended = true;
                let text = format!("member {:x} was removed from the cluster", self.inbound.from());
                return Some((Ok(refused(Refusal { reason: Reason::Removed.into(), text })), self));
            }
            if let Some(text) = self.speaking.replaced() {
                self.ended = true;
                return Some((Ok(refused(other_reason(text))), self));
            }
            self.speaking.alive(frame.alive);
            let ping = frame.ping;
            if let Err(error) = self.inbound.take(frame).await {
                let member = format!("{:x}", self.inbound.from());
                tracing::warn!(member, %error, "a frame of a member makes no sense; closing its stream");
                self.ended = true;
                return Some((Err(Status::invalid_argument(error.to_string())), self));
            }
            if ping != 0 {
                return Some((Ok(Answer { pong: ping, ..Answer::default() }), self));
            }
        }
        None
    }
}
