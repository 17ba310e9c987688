//! What arrives from one member: every byte is checked before it goes any further.

use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    peer::{Frame, RefusedCommand},
};
use prost_raft::Message as _;
use raft::eraftpb::Message;
use semver::Version;

use super::{COMMAND_OVERHEAD_BYTES, metrics::InboundMetrics, registry::Local, speakers::Speakers};
use crate::{
    node::core::{ANY_TERM, ForwardRefusal, RefusedForward},
    state::command::{
        self, Request,
        rules::{self, Broken},
    },
    types::{API, understands},
};

/// Why a frame is not taken; the stream ends with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadFrame {
    #[error("a message of raft does not decode: {0}")]
    Message(String),
    #[error("a message names member {named:x} as its sender, on the stream of member {from:x}")]
    Sender { named: u64, from: u64 },
    #[error("a forwarded command does not decode: {0}")]
    Command(String),
    #[error("a forwarded command raises the cluster's version to {version}, above the {own} that this member serves")]
    Version { version: Version, own: Version },
    #[error("{terms} terms come with {commands} forwarded commands")]
    Terms { terms: usize, commands: usize },
    #[error("a command of member {named:x} is forwarded in a term, on the stream of member {from:x}")]
    NotOwn { named: u64, from: u64 },
    #[error("a second introduction")]
    Hello,
}

/// What was in a frame.
struct Checked {
    /// With the bytes that each had.
    messages: Vec<(Message, usize)>,
    /// With the term of each.
    commands: Vec<(u64, Result<Bytes, Broken>)>,
}

/// What arrives from one member.
pub(super) struct Inbound {
    local: Local,
    from: u64,
    metrics: InboundMetrics,
    speakers: Arc<Speakers>,
    /// Bytes of the largest command to take.
    command_bytes_max: usize,
}

impl Inbound {
    /// What arrives where clients may send `request_bytes_max`.
    pub(super) fn new(
        local: Local,
        from: u64,
        metrics: InboundMetrics,
        speakers: Arc<Speakers>,
        request_bytes_max: usize,
    ) -> Self {
        let command_bytes_max = request_bytes_max.saturating_add(COMMAND_OVERHEAD_BYTES);
        Self { local, from, metrics, speakers, command_bytes_max }
    }

    /// The member that speaks.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// Whether the member that speaks was removed from the cluster.
    pub(super) fn is_removed(&self) -> bool {
        self.local.node.members().removed.contains(&self.from)
    }

    /// Hands what is in a frame to the replica, in order. Waits while too much waits there.
    pub(super) async fn take(&self, mut frame: Frame) -> Result<(), BadFrame> {
        let snapshot_failed = frame.snapshot_failed;
        let refused = std::mem::take(&mut frame.refused_commands);
        let Checked { messages, commands } = self.check(frame).inspect_err(|_| {
            self.metrics.received_failures.inc();
        })?;
        if snapshot_failed != 0 {
            self.local.node.snapshot_unfetched(self.from, snapshot_failed);
        }
        for (message, bytes) in messages {
            self.metrics.received_bytes.inc_by(bytes as u64);
            self.local.node.step(message, bytes).await;
        }
        if !refused.is_empty() {
            self.local.node.forwards_refused(refused.into_iter().map(refused_forward).collect()).await;
        }
        for (term, command) in commands {
            let command = match command {
                Ok(command) => command,
                Err(broken) => {
                    self.refuse(&broken);
                    continue;
                }
            };
            self.metrics.received_bytes.inc_by(command.len() as u64);
            self.local.node.forwarded(term, command).await;
        }
        Ok(())
    }

    /// Drops a command that must not be proposed, and has its sender told.
    fn refuse(&self, broken: &Broken) {
        self.metrics.received_failures.inc();
        let text = format!("a forwarded command breaks the rules: {broken}");
        if let Some(withheld) = self.speakers.refused(self.from, &text) {
            let member = format!("{:x}", self.from);
            tracing::warn!(member, reason = text, withheld, "refused a command of a member");
        }
    }

    /// What is in a frame, if all of it makes sense.
    fn check(&self, frame: Frame) -> Result<Checked, BadFrame> {
        if frame.hello.is_some() {
            return Err(BadFrame::Hello);
        }
        let from = self.from;
        let message = |bytes: Bytes| {
            let message = Message::decode(&bytes[..]).map_err(|error| BadFrame::Message(error.to_string()))?;
            if message.from != from {
                return Err(BadFrame::Sender { named: message.from, from });
            }
            Ok((message, bytes.len()))
        };
        let (terms, commands) = (frame.command_terms, frame.commands.len());
        if !terms.is_empty() && terms.len() != commands {
            return Err(BadFrame::Terms { terms: terms.len(), commands });
        }
        let command = |(number, bytes): (usize, Bytes)| {
            let term = terms.get(number).copied().unwrap_or(ANY_TERM);
            // Once in the log, a command that does not decode would end every member.
            let command = command::decode(bytes.clone()).map_err(|error| BadFrame::Command(error.to_string()))?;
            if term != ANY_TERM && command.id.member != from {
                return Err(BadFrame::NotOwn { named: command.id.member, from });
            }
            let checked = match &command.request {
                Request::ClusterVersion(version) if !understands(&API, version) => {
                    return Err(BadFrame::Version { version: version.clone(), own: API });
                }
                _ if bytes.len() > self.command_bytes_max => Err(ApiError::RequestTooLarge.into()),
                _ => rules::check(&command).map(|()| bytes),
            };
            Ok((term, checked))
        };
        let messages = frame.messages.into_iter().map(message).collect::<Result<_, _>>()?;
        let commands = frame.commands.into_iter().enumerate().map(command).collect::<Result<_, _>>()?;
        Ok(Checked { messages, commands })
    }
}

fn refused_forward(refused: RefusedCommand) -> RefusedForward {
    let RefusedCommand { nonce, counter, term, busy } = refused;
    let why = if busy { ForwardRefusal::Busy } else { ForwardRefusal::NotLeading };
    RefusedForward { nonce, counter, term, why }
}
