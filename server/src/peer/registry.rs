//! All other members, and the links to them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    peer::{ChangeRequest, Hello, RefusedCommand, peer_client::PeerClient},
};
use parking_lot::{Mutex, RwLock};
use prost_raft::Message as _;
use raft::eraftpb::Message;
use semver::Version;
use tokio::runtime;
use tonic::transport::Channel;

use super::{
    PROTOCOL, STRANGERS_MAX, Told, Untold,
    dial::Dialer,
    frame_bytes_max,
    inbound::Inbound,
    leases::Desk,
    link::Link,
    metrics::PeerMetrics,
    snapshot::{self, Pacer},
    speakers::Speakers,
};
use crate::{
    lease::{Renewal, TimeLeft},
    node::{
        Leases, Membership, NodeHandle, PeerInbox, Sent, StoreMaintenance, Transport,
        core::{ForwardRefusal, RefusedForward},
    },
    raft::{Offer, Refused},
    state::{Members, command::COMMAND_LEVEL},
    types::{API, API_VERSION},
};

/// What can be chosen about connections between members.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// Where the other members reach this one.
    pub own_urls: Vec<String>,
    /// Silence after which a connection counts as dead (`--raft-read-timeout`).
    pub read_timeout: Duration,
    /// How long a request may wait for its outcome.
    pub request_timeout: Duration,
    /// Bytes of the largest client request.
    pub request_bytes_max: usize,
    /// Bytes of snapshots that are sent in a second, to all members together (`--snapshot-send-bytes-per-second`).
    pub snapshot_bytes_per_second: u64,
}

/// The replica that the connections belong to.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) node: PeerInbox,
    pub(super) membership: Membership,
    pub(super) leases: Leases,
    pub(super) store: StoreMaintenance,
    pub(super) member: u64,
    pub(super) cluster: u64,
}

/// The connections to all other members. It has none until [`start`](Self::start).
pub struct Peers {
    options: PeerOptions,
    dialer: Arc<Dialer>,
    metrics: PeerMetrics,
    pacer: Pacer,
    /// Where the links run: beside the replica.
    runtime: runtime::Handle,
    local: RwLock<Option<Local>>,
    links: RwLock<BTreeMap<u64, Arc<Link>>>,
    leases: Desk,
    speakers: Arc<Speakers>,
    /// Which process this is, among all that were ever started with its identity.
    run: u64,
    /// Held while links come and go.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("links", &self.links.read().keys()).finish_non_exhaustive()
    }
}

impl Peers {
    /// No connections yet; those to come run on `runtime`, which should be the replica's.
    pub fn new(options: PeerOptions, dialer: Dialer, runtime: runtime::Handle) -> Arc<Self> {
        let metrics = PeerMetrics::default();
        let (leases, questions) = Desk::new(&metrics);
        let peers = Arc::new(Self {
            pacer: Pacer::new(options.snapshot_bytes_per_second),
            options,
            dialer: Arc::new(dialer),
            metrics,
            runtime,
            local: RwLock::new(None),
            links: RwLock::default(),
            leases,
            speakers: Arc::default(),
            run: rand::random_range(1..=u64::MAX),
            changing: Mutex::new(()),
        });
        peers.runtime.spawn(questions.run(Arc::downgrade(&peers)));
        peers
    }

    /// What is counted.
    pub fn metrics(&self) -> &PeerMetrics {
        &self.metrics
    }

    /// The replica's way to the other members.
    pub fn transport(self: &Arc<Self>) -> Arc<dyn Transport> {
        Arc::new(PeerTransport(Arc::clone(self)))
    }

    /// Connects to the members that `node` knows, and to those it will hear of.
    pub fn start(self: &Arc<Self>, node: &NodeHandle) {
        let status = node.status();
        *self.local.write() = Some(Local {
            node: node.peer_inbox(),
            membership: node.membership(),
            leases: node.leases(),
            store: node.store_maintenance(),
            member: status.member_id,
            cluster: status.cluster_id,
        });
        self.update(&node.members());
    }

    /// Ends all connections.
    pub fn stop(&self) {
        let _changing = self.changing.lock();
        *self.local.write() = None;
        for link in std::mem::take(&mut *self.links.write()).into_values() {
            link.stop();
        }
    }

    /// The highest API version that every member of the cluster serves, as far as it is known: `None` while one was not
    /// heard of yet.
    pub fn common_version(&self) -> Option<Version> {
        let local = self.local()?;
        let links = self.links.read();
        let mut lowest = API;
        for &member in local.node.members().members.keys().filter(|&&member| member != local.member) {
            lowest = lowest.min(Version::parse(&links.get(&member)?.version()?).ok()?);
        }
        Some(Version::new(lowest.major, lowest.minor, 0))
    }

    /// The highest command level that every member of the cluster applies: `None` while this one is not connected to another
    /// one, which may be starting with an older program.
    pub fn common_command_level(&self) -> Option<u32> {
        let local = self.local()?;
        let links = self.links.read();
        let members = local.node.members();
        let others = members.members.keys().filter(|&&member| member != local.member);
        others
            .map(|member| links.get(member)?.command_level())
            .try_fold(COMMAND_LEVEL, |lowest, level| Some(lowest.min(level?)))
    }

    /// Has member `leader` change the membership.
    ///
    /// # Errors
    /// The leader's, or that it could not be asked in time. [`ApiError::NotLeader`] without a connection to it, on which this
    /// member is introduced: it was not asked then.
    pub async fn change(&self, leader: u64, change: Bytes) -> Result<(), tonic::Status> {
        let Some(local) = self.local() else { return Err(ApiError::Stopped.into()) };
        let Some(mut client) = self.client_of(leader) else { return Err(ApiError::NotLeader.into()) };
        let request = ChangeRequest { cluster_id: local.cluster, change, from: local.member, run: self.run };
        client.change(request).await.map(drop)
    }

    /// Has the leader renew a lease, after a read index asked for after this call.
    ///
    /// # Errors
    /// The leader could not be asked. It may have renewed the lease all the same.
    pub async fn renew_lease(&self, id: i64) -> Result<Told<Renewal>, Untold> {
        self.leases.renew(id).await
    }

    /// Asks the leader how long a lease has left, if it exists.
    ///
    /// # Errors
    /// The leader could not be asked.
    pub async fn lease_time_left(&self, id: i64) -> Result<Told<Option<TimeLeft>>, Untold> {
        self.leases.time_left(id).await
    }

    /// Asks the leader for all leases, the one that runs out first first.
    ///
    /// # Errors
    /// The leader could not be asked.
    pub async fn leases(&self) -> Result<Told<Vec<i64>>, Untold> {
        self.leases.list(self).await
    }

    /// Calls a member, if there is a connection to it.
    pub(super) fn client_of(&self, member: u64) -> Option<PeerClient<Channel>> {
        self.links.read().get(&member)?.client()
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.options.request_timeout
    }

    pub(super) fn local(&self) -> Option<Local> {
        self.local.read().clone()
    }

    /// What this member says about itself to `to`.
    pub(super) fn hello(&self, local: &Local, to: u64) -> Hello {
        Hello {
            protocol: PROTOCOL,
            version: API_VERSION.to_owned(),
            cluster_id: local.cluster,
            from: local.member,
            to,
            peer_urls: self.options.own_urls.clone(),
            blank: local.node.is_blank(),
            run: self.run,
            command_level: COMMAND_LEVEL,
            heeds_terms: true,
        }
    }

    pub(super) fn read_timeout(&self) -> Duration {
        self.options.read_timeout
    }

    pub(super) fn frame_bytes_max(&self) -> usize {
        frame_bytes_max(self.options.request_bytes_max)
    }

    pub(super) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Where a member is reached, if there is a link to it.
    pub(super) fn urls_of(&self, member: u64) -> Option<Vec<String>> {
        Some(self.links.read().get(&member)?.urls())
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The members that are heard.
    pub(super) fn speakers(&self) -> &Arc<Speakers> {
        &self.speakers
    }

    /// What arrives from a member that has introduced itself.
    pub(super) fn inbound(&self, local: Local, from: u64) -> Inbound {
        let (metrics, speakers) = (self.metrics.inbound(from), Arc::clone(&self.speakers));
        Inbound::new(local, from, metrics, speakers, self.options.request_bytes_max)
    }

    /// Notes where a caller says that it is reached, and makes sure that there is a link to one that is not known here to
    /// be a member.
    pub(super) fn meet(self: &Arc<Self>, local: &Local, from: u64, urls: &[String]) {
        let _changing = self.changing.lock();
        let members = local.node.members();
        let mut links = self.links.write();
        if let Some(link) = links.get(&from) {
            return link.hint(urls);
        }
        let strangers = links.keys().filter(|member| !members.members.contains_key(member)).count();
        if urls.is_empty() || strangers >= STRANGERS_MAX {
            return;
        }
        tracing::info!(member = format_args!("{from:x}"), ?urls, "met a member that is not in the log yet");
        links.insert(from, self.link(local, from, urls.to_vec()));
    }

    fn link(self: &Arc<Self>, local: &Local, member: u64, urls: Vec<String>) -> Arc<Link> {
        let link = Arc::new(Link::new(member, urls, self.metrics.link(local.member, member)));
        self.runtime.spawn(Arc::clone(&link).run(Arc::downgrade(self)));
        link
    }

    /// Sends something on the link to a member. Without one it is dropped.
    fn with_link<T>(&self, to: u64, otherwise: T, send: impl FnOnce(&Link) -> T) -> T {
        let links = self.links.read();
        let Some(link) = links.get(&to) else {
            self.metrics.unlinked(to);
            return otherwise;
        };
        send(link)
    }

    /// Lets the links follow the membership.
    fn update(self: &Arc<Self>, members: &Members) {
        let _changing = self.changing.lock();
        let Some(local) = self.local() else { return };
        let mut links = self.links.write();
        for (&id, member) in members.members.iter().filter(|&(&id, _)| id != local.member) {
            match links.get(&id) {
                Some(link) => link.set_urls(&member.peer_urls),
                None => drop(links.insert(id, self.link(&local, id, member.peer_urls.clone()))),
            }
        }
        links.retain(|id, link| {
            let removed = members.removed.contains(id);
            if removed {
                link.retire();
            }
            !removed
        });
    }
}

/// [`Peers`] as the replica sees them.
#[derive(Debug, Clone)]
struct PeerTransport(Arc<Peers>);

impl Transport for PeerTransport {
    fn send(&self, message: Message) -> bool {
        self.0.with_link(message.to, false, |link| link.send(|| message.encode_to_vec().into()))
    }

    fn forward(&self, to: u64, term: u64, command: &Bytes) -> Sent {
        self.0.with_link(to, Sent::Unsent, |link| link.forward(term, command.clone()))
    }

    fn refuse_forward(&self, to: u64, refused: RefusedForward) {
        let RefusedForward { nonce, counter, term, why } = refused;
        let refused = RefusedCommand { nonce, counter, term, busy: why == ForwardRefusal::Busy };
        self.0.with_link(to, (), |link| link.refuse_forward(refused));
    }

    fn refused(&self, why: &Refused) {
        let from = why.from();
        self.0.metrics.inbound(from).received_failures.inc();
        let text = why.to_string();
        if let Some(withheld) = self.0.speakers.refused(from, &text) {
            let member = format!("{from:x}");
            tracing::warn!(member, reason = text, withheld, "refused a message of a member");
        }
    }

    fn members_changed(&self, members: &Members) {
        self.0.update(members);
    }

    fn connected_for(&self, member: u64) -> Option<Duration> {
        self.0.links.read().get(&member)?.connected_for()
    }

    fn fetch_snapshot(&self, offer: Offer) {
        self.0.runtime.spawn(snapshot::fetch(Arc::downgrade(&self.0), offer));
    }

    fn snapshot_failed(&self, to: u64, id: u64) {
        if let Some(link) = self.0.links.read().get(&to) {
            link.snapshot_failed(id);
        }
    }
}
