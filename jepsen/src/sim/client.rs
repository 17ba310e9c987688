//! Clients: each sends one request at a time, to any member that runs, and waits for what becomes of it.

use anyhow::Result;
use bytes::Bytes;
use cairn_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use cairn_server::{
    lease::Renewal,
    node::{ProposeError, ReadIndexError},
    raft::Role,
    state::{
        Answer,
        auth::Actor,
        command::{Command, Request, RequestId, encode},
    },
};
use rand::Rng;

use super::{
    history::FIRST_REVISION,
    leases::TTL,
    request::{Ask, Asked, Known},
    world::{Event, World},
};

/// Clients in a run.
pub(super) const CLIENTS: usize = 4;

/// What a client remembers.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    /// Leases it asked for.
    leases: Vec<i64>,
}

impl World {
    fn key(&mut self) -> Bytes {
        key(self.random.random_range(0..self.setting.climate.keys))
    }

    /// A key, some keys or all of them.
    fn keys(&mut self) -> (Bytes, Bytes) {
        match self.random.random_range(0..4) {
            0 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            1 => {
                let from = self.random.random_range(0..self.setting.climate.keys);
                (key(from), key(from + self.random.random_range(1..4)))
            }
            _ => (self.key(), Bytes::new()),
        }
    }

    /// A client's turn: it sends its next request.
    pub(super) fn client_turn(&mut self, client: usize) -> Result<()> {
        if self.healing {
            return Ok(());
        }
        let at = self.random.random_range(0..self.members.len());
        if !self.serves(at) {
            self.client_waits(client);
            return Ok(());
        }
        let ask = self.draw(client);
        self.ask(Some(client), at, ask)
    }

    /// A client thinks about its next request.
    fn client_waits(&mut self, client: usize) {
        let pause = self.random.random_range(0..self.setting.climate.think_max);
        self.clock.after(pause, Event::Client { client });
    }

    fn draw(&mut self, client: usize) -> Ask {
        let newest = self.history.newest();
        if self.setting.climate.alarms {
            match self.random.random_range(0..300) {
                0..2 => return Ask::Alarm { raises: true },
                2..22 => return Ask::Alarm { raises: false },
                _ => {}
            }
        }
        let lease = |world: &mut Self| {
            let leases = &world.clients[client].leases;
            let recent = leases.len().saturating_sub(2);
            leases.get(world.random.random_range(recent..=leases.len())).copied()
        };
        match self.random.random_range(0..100) {
            0..25 => Ask::Put {
                key: self.key(),
                lease: if self.random.random_bool(0.2) { lease(self).unwrap_or(0) } else { 0 },
                previous: self.random.random_bool(0.3),
            },
            25..30 => {
                let from = self.random.random_range(0..self.setting.climate.keys);
                Ask::Puts { keys: (from..from + self.random.random_range(1..4)).map(key).collect() }
            }
            30..37 => {
                let (key, end) = self.keys();
                Ask::Delete { key, end }
            }
            37..50 => {
                let key = self.key();
                let stale = self.random.random_range(0..4) == 0;
                let at = if stale { self.random.random_range(FIRST_REVISION..=newest) } else { newest };
                let modified = self.history.living(at, &key, b"").remove(&key).map_or(0, |kv| kv.mod_revision);
                Ask::Swap { key, modified }
            }
            50..78 => {
                let (key, end) = self.keys();
                let old = self.random.random_range(0..5) == 0;
                let revision = if old { self.random.random_range(FIRST_REVISION..=newest) } else { 0 };
                Ask::Read { key, end, revision, serializable: self.random.random_range(0..6) == 0 }
            }
            78..80 => {
                let revision = self.random.random_range((newest - 30).max(FIRST_REVISION)..=newest);
                self.history.compaction = self.history.compaction.max(revision);
                Ask::Compact { revision }
            }
            80..85 => {
                let id = self.asked.len() as i64 + 1;
                self.clients[client].leases.push(id);
                Ask::Grant { id, ttl: self.random.random_range(TTL) }
            }
            85..95 => match lease(self) {
                Some(id) => Ask::KeepAlive { id },
                None => Ask::Put { key: self.key(), lease: 0, previous: true },
            },
            95..98 => Ask::TimeToLive { id: lease(self).unwrap_or(i64::MAX) },
            _ => match lease(self) {
                Some(id) => {
                    self.leases.revoke_asked(id);
                    Ask::Revoke { id }
                }
                None => Ask::Put { key: self.key(), lease: 0, previous: true },
            },
        }
    }

    /// Sends a request to a member that runs.
    pub(super) fn ask(&mut self, client: Option<usize>, at: usize, ask: Ask) -> Result<()> {
        let run = self.running(at)?.number;
        let bytes = if self.random.random_range(0..10) == 0 { self.random.random_range(0..1500) } else { 0 };
        let number = self.asked.len() as u64;
        let floor = self.history.newest();
        note!(self, "ask {number} at {}: {ask:?}", at + 1);
        let sent = self.clock.now();
        if let Ask::Alarm { raises } = ask {
            self.alarms.asked(number, raises, sent);
        }
        self.asked.push(Asked { ask, client, member: at, at: sent, floor, bytes, known: Known::Open });
        self.clock.after(0, Event::Request { at, run, number });
        Ok(())
    }

    /// A request reaches its member.
    pub(super) fn take_request(&mut self, at: usize, number: u64) -> Result<()> {
        let asked = self.asked[number as usize].clone();
        match &asked.ask {
            Ask::Read { serializable: true, .. } => {
                self.revision_seen(at)?;
                self.read(at, number)?;
                self.ended(number, Known::Answered);
                return Ok(());
            }
            Ask::Read { .. } | Ask::KeepAlive { .. } | Ask::TimeToLive { .. } => {
                let run = self.running(at)?;
                if run.core.status().reads_locally {
                    return self.take_leave(at, number, Ok(()));
                }
                run.core.read_index(number);
            }
            Ask::Change(change) => self.change_members(at, number, change)?,
            _ => {
                if let Some(request) = asked.request(number) {
                    self.propose(at, number, request)?;
                }
            }
        }
        self.work(at)
    }

    /// Names the request of a run; no run has a request 0.
    pub(super) fn request_id(&mut self, at: usize, number: u64) -> Result<RequestId> {
        Ok(RequestId { member: at as u64 + 1, nonce: self.running(at)?.number, counter: number + 1 })
    }

    fn propose(&mut self, at: usize, number: u64, request: Request) -> Result<()> {
        let id = self.request_id(at, number)?;
        let publishes = matches!(request, Request::PublishMember { .. });
        let core = &mut self.running(at)?.core;
        let command = encode(&Command { id, actor: Actor::Anonymous, request }, core.state().command_level());
        if publishes {
            core.publish(id.counter, command, number);
        } else {
            core.propose(id.counter, command, number);
        }
        Ok(())
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, number: u64, known: Known) {
        let asked = &mut self.asked[number as usize];
        if asked.known == Known::Open {
            asked.known = known;
        }
        let (client, known) = (asked.client, asked.known);
        note!(self, "ended {number} {known:?}");
        match known {
            Known::Answered => self.coverage.answered += 1,
            Known::Refused => {
                self.coverage.refused += 1;
                self.alarms.refused(number);
            }
            Known::Open | Known::Nothing => self.coverage.unknown += 1,
        }
        if let Some(client) = client {
            self.client_waits(client);
        }
    }

    /// A member tells the result of a proposal.
    pub(super) fn take_answer(&mut self, at: usize, number: u64, result: Result<Answer, ProposeError>) -> Result<()> {
        match result {
            Ok(answer) => {
                if self.asked[number as usize].client.is_some() {
                    self.revision_seen(at)?;
                }
                self.judge_write(at, number, &answer)?;
                if let (Ask::KeepAlive { .. }, true) = (&self.asked[number as usize].ask, answer.outcome.is_ok()) {
                    // The record is there; now it can be renewed.
                    self.running(at)?.core.read_index(number);
                    return Ok(());
                }
                self.ended(number, Known::Answered);
            }
            Err(
                ProposeError::TooManyRequests
                | ProposeError::LeaderChanged
                | ProposeError::NotLeader
                | ProposeError::Refused(_)
                | ProposeError::Malformed(_)
                | ProposeError::ChangePending,
            ) => self.ended(number, Known::Refused),
            Err(ProposeError::Timeout | ProposeError::TimeoutLeaderFailure | ProposeError::Stopped) => {
                self.ended(number, Known::Nothing);
            }
        }
        Ok(())
    }

    /// A member lets a reader read, or does not.
    pub(super) fn take_leave(&mut self, at: usize, number: u64, leave: Result<(), ReadIndexError>) -> Result<()> {
        if leave.is_err() {
            self.ended(number, Known::Refused);
            return Ok(());
        }
        let Asked { ask, at: sent, .. } = self.asked[number as usize].clone();
        let (now, mut known) = (self.clock.now(), Known::Answered);
        match ask {
            Ask::KeepAlive { id } => {
                let run = self.running(at)?;
                let uptime = run.uptime(now);
                let renewal = run.core.lease_clock().lock().renew(id, uptime);
                match renewal {
                    Ok(Renewal::Renewed(ttl)) => {
                        self.coverage.renewed += 1;
                        self.leases.told(id, sent, ttl as u64 * 1000)?;
                    }
                    Ok(Renewal::Unknown) => self.leases.told_gone(id)?,
                    Ok(Renewal::Recorded) => {
                        let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl: 0 }];
                        let record = Request::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints });
                        return self.propose(at, number, record);
                    }
                    Ok(Renewal::Expired) | Err(_) => known = Known::Refused,
                }
            }
            Ask::TimeToLive { id } => {
                let run = self.running(at)?;
                let uptime = run.uptime(now);
                let left = run.core.lease_clock().lock().time_left(id, uptime);
                match left {
                    Ok(Some(left)) => {
                        // The clock goes in whole milliseconds, of which the one that has begun does not count.
                        let left_ms = left.left_ms.min(left.ttl as u64 * 1000).saturating_sub(1);
                        self.leases.told(id, sent, left_ms)?;
                    }
                    Ok(None) => self.leases.told_gone(id)?,
                    Err(_) => known = Known::Refused,
                }
            }
            _ => {
                self.revision_seen(at)?;
                self.read(at, number)?;
            }
        }
        self.ended(number, known);
        Ok(())
    }

    /// The member that leads in the highest term, if there is one that runs.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = self.members.iter().enumerate().filter_map(|(at, member)| {
            let standing = member.run.as_ref()?.core.status().standing;
            (standing.role == Role::Leader).then_some((standing.term, at))
        });
        leads.max().map(|(_, at)| at)
    }
}

pub(super) fn key(number: u32) -> Bytes {
    format!("k{number:02}").into()
}
