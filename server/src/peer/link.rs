//! The link to one other member: a task that connects, and connects again.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_proto::peer::{Answer, Hello, RefusedCommand, peer_client::PeerClient, refusal::Reason};
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    HELLO_TIMEOUT, PING_INTERVAL, PROTOCOL,
    dial::DialError,
    metrics::LinkMetrics,
    queue::Queue,
    registry::{Local, Peers},
    seldom::Seldom,
    service::{has_lost_everything, lost_everything},
    versions,
};
use crate::node::{NodeError, Sent};

/// The pause before a second attempt to connect; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause after a refusal: only an operator can change what it is about.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// How long a link to a removed member stays, so that it learns of its removal.
const RETIRE_AFTER: Duration = Duration::from_secs(2);
/// Complaints of the member that are logged, a minute. It keeps to less by itself.
const COMPLAINTS_PER_MINUTE: u32 = 4;
/// Characters of one of them.
const COMPLAINT_CHARS_MAX: usize = 1000;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("it did not answer in time")]
    Silent,
    #[error("it refuses this member: {0}")]
    Refused(String),
    #[error("{0}")]
    NotWhom(String),
    #[error("it could not make sense of this member: {0}")]
    Nonsense(String),
    #[error("the connection failed: {}", .0.message())]
    Failed(tonic::Status),
    #[error("it closed the connection")]
    Closed,
}

impl From<tonic::Status> for LinkError {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::InvalidArgument => Self::Nonsense(status.message().to_owned()),
            _ => Self::Failed(status),
        }
    }
}

/// The link to one member.
#[derive(Debug)]
pub(super) struct Link {
    member: u64,
    urls: Mutex<Vec<String>>,
    /// Where the member says that it is reached: what the log says may not have arrived here.
    hinted: Mutex<Vec<String>>,
    queue: Arc<Queue>,
    metrics: LinkMetrics,
    state: Mutex<State>,
    complaints: Mutex<Seldom>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    connected_at: Option<Instant>,
    version: Option<String>,
    command_level: u32,
    /// For calls beside the stream, on the same connection.
    client: Option<PeerClient<Channel>>,
    /// What was last logged about not being connected.
    trouble: Option<String>,
}

impl Link {
    pub(super) fn new(member: u64, urls: Vec<String>, metrics: LinkMetrics) -> Self {
        Self {
            member,
            urls: Mutex::new(urls),
            hinted: Mutex::default(),
            queue: Arc::default(),
            metrics,
            state: Mutex::default(),
            complaints: Mutex::new(Seldom::new(COMPLAINTS_PER_MINUTE)),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn urls(&self) -> Vec<String> {
        let mut urls = self.urls.lock().clone();
        let hinted = self.hinted.lock();
        let new: Vec<_> = hinted.iter().filter(|hint| !urls.contains(hint)).cloned().collect();
        urls.extend(new);
        urls
    }

    /// Where the member itself says that it is reached.
    pub(super) fn hint(&self, urls: &[String]) {
        urls.clone_into(&mut self.hinted.lock());
    }

    /// Where the member is reached from now on; a connection that there is stays.
    pub(super) fn set_urls(&self, urls: &[String]) {
        urls.clone_into(&mut self.urls.lock());
    }

    /// Ends the link.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends the link a little later.
    pub(super) fn retire(self: &Arc<Self>) {
        let link = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(RETIRE_AFTER).await;
            link.stop();
        });
    }

    /// For how long there has been a connection.
    pub(super) fn connected_for(&self) -> Option<Duration> {
        self.state.lock().connected_at.map(|at| at.elapsed())
    }

    /// The API version that the member serves, once it has said so.
    pub(super) fn version(&self) -> Option<String> {
        self.state.lock().version.clone()
    }

    /// The command level that the member has stated, while there is a connection to it.
    pub(super) fn command_level(&self) -> Option<u32> {
        let state = self.state.lock();
        state.connected_at.map(|_| state.command_level)
    }

    /// Calls the member on the connection that there is.
    pub(super) fn client(&self) -> Option<PeerClient<Channel>> {
        self.state.lock().client.clone()
    }

    /// Takes a message, which is encoded only if there is a connection.
    pub(super) fn send(&self, encode: impl FnOnce() -> Bytes) -> bool {
        if !self.queue.is_open() {
            self.metrics.unconnected.inc();
            return false;
        }
        let message = encode();
        let bytes = message.len();
        let taken = self.queue.push_message(message);
        self.count(bytes, taken)
    }

    /// Takes an encoded command to be proposed in a term.
    pub(super) fn forward(&self, term: u64, command: Bytes) -> Sent {
        let bytes = command.len();
        let sent = self.queue.push_command(term, command);
        self.count(bytes, sent != Sent::Unsent);
        sent
    }

    /// Tells the member that a command that it had forwarded is not proposed.
    pub(super) fn refuse_forward(&self, refused: RefusedCommand) {
        let taken = self.queue.push_refused(refused);
        self.count(0, taken);
    }

    /// Tells the member that a snapshot that it has offered did not come.
    pub(super) fn snapshot_failed(&self, id: u64) {
        self.queue.snapshot_failed(id);
    }

    fn count(&self, bytes: usize, taken: bool) -> bool {
        if taken {
            self.metrics.sent_bytes.inc_by(bytes as u64);
        } else {
            self.metrics.sent_failures.inc();
            let open = self.queue.is_open();
            if open { &self.metrics.queue_full } else { &self.metrics.unconnected }.inc();
        }
        taken
    }

    /// Connects again and again, until the link is stopped or there are no [`Peers`] any more.
    pub(super) async fn run(self: Arc<Self>, peers: Weak<Peers>) {
        let mut failures = 0;
        while let Some(peers) = peers.upgrade() {
            let result = tokio::select! {
                () = self.stop.cancelled() => break,
                result = self.converse(&peers) => result,
            };
            drop(peers);
            let pause = match &result {
                Err(LinkError::Refused(_) | LinkError::NotWhom(_) | LinkError::Nonsense(_)) => REFUSED_PAUSE,
                _ => PAUSE_MAX.min(PAUSE_MIN * 2_u32.pow(failures)),
            };
            failures = if self.disconnected(&result) { 0 } else { (failures + 1).min(8) };
            // Members that restart together should not come all at the same moment.
            let pause = pause.mul_f64(rand::rng().random_range(0.75..1.0));
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.disconnected(&Ok(()));
    }

    /// Notes that there is no connection. Whether there was one.
    fn disconnected(&self, result: &Result<(), LinkError>) -> bool {
        self.metrics.disconnected_with.inc_by(self.queue.close() as u64);
        let mut state = self.state.lock();
        let was_connected = state.connected_at.take().is_some();
        state.client = None;
        if was_connected {
            self.metrics.active.dec();
            self.metrics.disconnected.inc();
        }
        if let Err(error) = result {
            let text = error.to_string();
            if state.trouble.as_ref() != Some(&text) {
                let (member, urls) = (format!("{:x}", self.member), self.urls());
                tracing::warn!(member, ?urls, error = text, "no connection to a member");
                state.trouble = Some(text);
            }
        }
        was_connected
    }

    fn connected(&self, welcome: &Hello, client: PeerClient<Channel>) {
        self.queue.open(welcome.heeds_terms);
        self.metrics.active.inc();
        let mut state = self.state.lock();
        state.connected_at = Some(Instant::now());
        state.version = Some(welcome.version.clone());
        state.command_level = versions::command_level(welcome);
        state.client = Some(client);
        state.trouble = None;
        tracing::info!(member = format_args!("{:x}", self.member), version = welcome.version, "connected to a member");
    }

    /// The member says that something is wrong with this one.
    fn hear_complaint(&self, complaint: &str) {
        if let Some(withheld) = self.complaints.lock().permits(Instant::now()) {
            let text: String = complaint.chars().take(COMPLAINT_CHARS_MAX).collect();
            tracing::warn!(
                member = format_args!("{:x}", self.member),
                text,
                withheld,
                "a member complains of this one"
            );
        }
    }

    /// One connection, from dialling to its end.
    async fn converse(&self, peers: &Arc<Peers>) -> Result<(), LinkError> {
        let Some(local) = peers.local() else { return Err(LinkError::Closed) };
        let channel = peers.dialer().connect(&self.urls()).await?;
        let hello = peers.hello(&local, self.member);
        // A list of a million leases is larger than tonic takes by itself.
        let mut client =
            PeerClient::new(channel).max_encoding_message_size(usize::MAX).max_decoding_message_size(usize::MAX);
        let frames = self.queue.connect(hello.clone());
        let mut answers =
            timeout(HELLO_TIMEOUT, client.stream(frames)).await.map_err(|_| LinkError::Silent)??.into_inner();
        let first = timeout(HELLO_TIMEOUT, answers.message()).await.map_err(|_| LinkError::Silent)??;
        let first = first.ok_or(LinkError::Closed)?;
        check_refusal(&local, self.member, &first)?;
        let welcome = first.welcome.ok_or_else(|| LinkError::NotWhom("it did not introduce itself".to_owned()))?;
        check_welcome(&hello, &welcome).map_err(LinkError::NotWhom)?;
        versions::check(&welcome, &local.node).map_err(LinkError::NotWhom)?;
        if has_lost_everything(&local, &welcome) {
            return Err(LinkError::NotWhom(lost_everything(welcome.from)));
        }
        self.connected(&welcome, client);

        let mut pings = tokio::time::interval(PING_INTERVAL);
        let (mut number, mut asked, mut heard) = (0, Instant::now(), Instant::now());
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer?.ok_or(LinkError::Closed)?;
                    check_refusal(&local, self.member, &answer)?;
                    heard = Instant::now();
                    if answer.probe != 0 {
                        self.queue.alive(answer.probe);
                    }
                    if !answer.complaint.is_empty() {
                        self.hear_complaint(&answer.complaint);
                    }
                    if answer.pong == number && number != 0 {
                        self.metrics.round_trip.observe(asked.elapsed().as_secs_f64());
                    }
                }
                _ = pings.tick() => {
                    if heard.elapsed() > peers.read_timeout() {
                        return Err(LinkError::Silent);
                    }
                    number += 1;
                    asked = Instant::now();
                    self.queue.ping(number);
                }
            }
        }
    }
}

/// Whether the one who answers is the one who was called.
fn check_welcome(own: &Hello, welcome: &Hello) -> Result<(), String> {
    if welcome.protocol != PROTOCOL {
        return Err(format!("it speaks protocol {}, this member {PROTOCOL}", welcome.protocol));
    }
    if welcome.cluster_id != own.cluster_id {
        return Err(format!("it is of cluster {:x}, this member of {:x}", welcome.cluster_id, own.cluster_id));
    }
    if welcome.from != own.to {
        return Err(format!("member {:x} answers where member {:x} should be", welcome.from, own.to));
    }
    Ok(())
}

/// A refusal is the end; one because of a removal, or because everything was lost, is the end of this member.
fn check_refusal(local: &Local, by: u64, answer: &Answer) -> Result<(), LinkError> {
    let Some(refusal) = &answer.refusal else { return Ok(()) };
    match refusal.reason() {
        Reason::Removed => local.node.removed(by),
        Reason::Blank => local.node.fail(NodeError::Blank { member: local.member }),
        Reason::Other => {}
    }
    Err(LinkError::Refused(refusal.text.clone()))
}
