//! The world: members, clients, watchers and what is between them, moved on event by event.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;
use cairn_server::{log::Fault, node::core::RefusedForward, raft::Refused};
use raft::eraftpb::{Message, MessageType};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Plan,
    alarms::Alarms,
    client::{CLIENTS, Client},
    climate::Climate,
    clock::{Clock, MS, SECOND},
    consensus::Consensus,
    history::History,
    leases::Leases,
    member::{Member, Run, Setting, Started},
    network::Network,
    plant::Plant,
    report::Coverage,
    request::{Asked, Known},
    snapshots::Step,
    trace::{Keep, Trace},
    watcher::{WATCHERS, Watcher},
};

/// Microseconds between two ticks of a member.
const TICK: u64 = 100 * MS;
/// Microseconds between two turns of a member's compactor.
const COMPACT: u64 = 200 * MS;
/// So many times as often as a sync, a start meets a power failure: it writes more.
const STARTS_FAIL: f64 = 10.0;
/// How many runs have members of an earlier build, which know nothing of the terms of forwarded commands.
const MIXED: f64 = 0.25;
/// Members that a cluster may come to have.
const MEMBERS_MAX: u64 = 64;
/// How often a member that does not serve clients yet tries to publish its name.
const PUBLISH: u64 = 700 * MS;

/// What happens. `run` names the run of a member that it is for: it is lost if that has ended.
#[derive(Debug)]
pub(super) enum Event {
    Tick {
        at: usize,
        run: u64,
    },
    /// It goes on with what there is to do.
    Work {
        at: usize,
        run: u64,
    },
    /// Its disk is done with the write under way.
    Synced {
        at: usize,
        run: u64,
    },
    /// Its log is cut.
    Purge {
        at: usize,
        run: u64,
    },
    /// Entries that were asked for are read.
    Fetched {
        at: usize,
        run: u64,
    },
    /// Its store is flushed.
    Flush {
        at: usize,
        run: u64,
    },
    /// It hears what its store holds durably.
    Flushed {
        at: usize,
        run: u64,
        applied: u64,
    },
    /// It does something with a snapshot.
    Snapshot {
        at: usize,
        run: u64,
        step: Step,
    },
    /// Its compactor takes a step.
    Compact {
        at: usize,
        run: u64,
    },
    /// A request of a client arrives.
    Request {
        at: usize,
        run: u64,
        number: u64,
    },
    /// It makes its name known.
    Publish {
        at: usize,
        run: u64,
    },
    /// A message arrives, whichever run it was for.
    Message {
        at: usize,
        message: Box<Message>,
    },
    /// A forwarded command arrives.
    Forward {
        at: usize,
        term: u64,
        command: Bytes,
    },
    /// A member hears that a command that it had forwarded is not proposed.
    ForwardRefused {
        at: usize,
        refused: RefusedForward,
    },
    /// Another member, `by`, says that it was removed.
    Removed {
        at: usize,
        by: u64,
    },
    /// Whoever leads is asked to remove a member, again.
    Remove {
        id: u64,
    },
    /// It is started, if it does not run.
    Start {
        at: usize,
    },
    /// It ends without warning, and comes back at once.
    Crash {
        at: usize,
    },
    EndStall {
        at: usize,
    },
    EndCut,
    Chaos,
    Client {
        client: usize,
    },
    Watcher {
        watcher: usize,
    },
}

impl Event {
    /// The member whose process it needs, and the run.
    fn process(&self) -> Option<(usize, Option<u64>)> {
        match *self {
            Self::Tick { at, run }
            | Self::Work { at, run }
            | Self::Synced { at, run }
            | Self::Purge { at, run }
            | Self::Fetched { at, run }
            | Self::Flush { at, run }
            | Self::Flushed { at, run, .. }
            | Self::Snapshot { at, run, .. }
            | Self::Compact { at, run }
            | Self::Request { at, run, .. }
            | Self::Publish { at, run } => Some((at, Some(run))),
            Self::Message { at, .. }
            | Self::Forward { at, .. }
            | Self::ForwardRefused { at, .. }
            | Self::Removed { at, .. } => Some((at, None)),
            Self::Remove { .. }
            | Self::Start { .. }
            | Self::Crash { .. }
            | Self::EndStall { .. }
            | Self::EndCut
            | Self::Chaos
            | Self::Client { .. }
            | Self::Watcher { .. } => None,
        }
    }
}

/// See the module's text.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) setting: Setting,
    pub(super) random: StdRng,
    pub(super) clock: Clock<Event>,
    pub(super) network: Network,
    pub(super) members: Vec<Member>,
    pub(super) clients: Vec<Client>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) asked: Vec<Asked>,
    pub(super) consensus: Consensus,
    pub(super) history: History,
    pub(super) leases: Leases,
    pub(super) alarms: Alarms,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    /// Nothing is disturbed any more, and clients send nothing new.
    pub(super) healing: bool,
}

/// The members of an earlier build in a run; all of them where the seeds of [`regression`](super::regression) are run.
/// They are drawn by themselves: what else is drawn stays as it is.
fn earlier_builds(plan: &Plan) -> Vec<u64> {
    let mut random = StdRng::seed_from_u64(!plan.seed);
    let mixed = random.random_bool(MIXED);
    let share = match (plan.ungated, mixed) {
        (true, _) => 1.0,
        (false, true) => random.random_range(0.0..1.0),
        (false, false) => 0.0,
    };
    (1..=MEMBERS_MAX).filter(|_| random.random_bool(share)).collect()
}

impl World {
    pub(super) fn new(plan: &Plan, keep: Keep) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(plan.seed);
        let climate = Climate::draw(&mut random, plan.zone);
        let member = |id| pb::Member {
            id,
            name: format!("m{id}"),
            peer_urls: vec![format!("http://m{id}:2380")],
            ..pb::Member::default()
        };
        let members =
            (1..=plan.members).map(|id| Member::new(id, random.random(), random.random(), &climate)).collect();
        let mut world = Self {
            plan: plan.clone(),
            network: Network::new(climate.weather),
            setting: Setting {
                initial: (1..=plan.members).map(member).collect(),
                climate,
                plant: plan.plant,
                ungated: plan.ungated,
                earlier: earlier_builds(plan),
            },
            random,
            clock: Clock::new(),
            members,
            clients: vec![Client::default(); CLIENTS],
            watchers: (0..WATCHERS).map(|_| Watcher::default()).collect(),
            asked: Vec::new(),
            consensus: Consensus::default(),
            history: History::new(),
            leases: Leases::default(),
            alarms: Alarms::default(),
            trace: Trace::new(keep),
            coverage: Coverage::default(),
            healing: false,
        };
        note!(world, "{:?}", world.setting.climate);
        for at in 0..world.members.len() {
            world.start(at)?;
        }
        (0..CLIENTS).for_each(|client| world.clock.after(SECOND, Event::Client { client }));
        (0..WATCHERS).for_each(|watcher| world.clock.after(SECOND, Event::Watcher { watcher }));
        world.clock.after(2 * SECOND, Event::Chaos);
        Ok(world)
    }

    /// A member's run, which it must have.
    pub(super) fn running(&mut self, at: usize) -> Result<&mut Run> {
        self.members[at].run.as_mut().with_context(|| format!("member {} does not run", at + 1))
    }

    /// Starts a member, if it does not run and belongs to the cluster.
    pub(super) fn start(&mut self, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        if member.run.is_some() || member.gone || !member.joined {
            return Ok(());
        }
        let seed = self.random.random();
        if !self.healing && self.random.random_bool(self.setting.climate.disk_faults * STARTS_FAIL) {
            member.doom(Fault::PowerCut, self.random.random_range(1..10));
        }
        let started = match member.start(&self.setting, self.clock.now(), self.history.newest(), seed) {
            Ok(started) => started,
            Err(error) => return self.fail_start(at, error),
        };
        note!(self, "start {} {started:?}", at + 1);
        let Started::Runs { run, finished, settles } = started else {
            self.members[at].gone = true;
            return Ok(());
        };
        self.coverage.starts += 1;
        self.coverage.finished += u64::from(finished);
        self.check_start(at)?;
        if settles {
            // Nobody else gets a word in before what is known of the membership is applied.
            let settled =
                self.running(at)?.core.settle().with_context(|| format!("member {} cannot settle", at + 1))?;
            ensure!(settled, "the store of member {} asks to wait at its start", at + 1);
        }
        let in_step = self.setting.climate.in_step;
        let jitter = if in_step { TICK - self.clock.now() % TICK } else { self.random.random_range(0..TICK) };
        self.clock.after(jitter, Event::Tick { at, run });
        self.clock.after(jitter, Event::Compact { at, run });
        self.clock.after(if self.setting.ungated { PUBLISH } else { jitter }, Event::Publish { at, run });
        self.work(at)
    }

    /// A member did not start, which it must unless its disk fails.
    fn fail_start(&mut self, at: usize, error: anyhow::Error) -> Result<()> {
        let Some(doom) = self.members[at].doom else { return Err(error) };
        note!(self, "the disk of {} fails at its start: {error:#}", at + 1);
        self.coverage.disk_faults += 1;
        self.members[at].crash(doom.power);
        let pause = self.random.random_range(20 * MS..SECOND);
        self.clock.after(pause, Event::Start { at });
        Ok(())
    }

    /// Ends a member's run without warning.
    pub(super) fn end_run(&mut self, at: usize, power: bool, why: &str) -> Result<()> {
        if self.members[at].run.is_none() {
            return Ok(());
        }
        note!(self, "{why} {} power {power}", at + 1);
        self.coverage.crashes += 1;
        let member = &mut self.members[at];
        member.crash(power);
        member.paused_until = 0;
        if let Some(incoming) = member.incoming.as_mut().filter(|_| power) {
            incoming.pieces = self.random.random_range(0..=incoming.pieces);
        }
        self.close_watches_of(at)?;
        let of_run = |asked: &Asked| asked.member == at && asked.known == Known::Open;
        let open: Vec<usize> = (0..self.asked.len()).filter(|&number| of_run(&self.asked[number])).collect();
        for number in open {
            self.ended(number as u64, Known::Nothing);
        }
        Ok(())
    }

    /// Lets the next thing happen.
    pub(super) fn step(&mut self) -> Result<()> {
        let event = self.clock.next().context("nothing is left to happen")?;
        self.coverage.happened += 1;
        if let Some((at, run)) = event.process() {
            let member = &self.members[at];
            if member.run.as_ref().is_none_or(|now| run.is_some_and(|run| run != now.number)) {
                return Ok(());
            }
            if member.paused_until > self.clock.now() {
                self.clock.at(member.paused_until, event);
                return Ok(());
            }
        }
        match event {
            Event::Tick { at, run } => self.tick(at, run),
            Event::Work { at, .. } => {
                self.running(at)?.work_due = false;
                self.work(at)
            }
            Event::Synced { at, .. } => self.synced(at),
            Event::Purge { at, .. } => self.purge(at),
            Event::Fetched { at, .. } => self.fetched(at),
            Event::Flush { at, run } => self.flush(at, run),
            Event::Flushed { at, applied, .. } => {
                self.running(at)?.core.flushed(applied);
                self.work(at)
            }
            Event::Snapshot { at, step, .. } => self.move_snapshot(at, step),
            Event::Compact { at, run } => {
                self.clock.after(COMPACT, Event::Compact { at, run });
                self.compact(at)
            }
            Event::Request { at, number, .. } => self.take_request(at, number),
            Event::Publish { at, run } => self.publish(at, run),
            Event::Message { at, message } => self.message(at, *message),
            Event::Forward { at, term, command } => {
                self.running(at)?.core.forwarded(term, command);
                self.work(at)
            }
            Event::ForwardRefused { at, refused } => {
                self.running(at)?.core.forward_refused(refused);
                self.work(at)
            }
            Event::Removed { at, by } => {
                let run = self.running(at)?;
                if run.core.may_leave(by) {
                    run.leaving.get_or_insert(super::LEAVE_TICKS);
                }
                Ok(())
            }
            Event::Remove { id } => self.remove_again(id),
            Event::Start { at } => self.start(at),
            Event::Crash { at } => {
                self.clock.after(self.random.random_range(50..3 * MS), Event::Start { at });
                self.end_run(at, true, "crash")
            }
            Event::EndStall { at } => {
                self.members[at].store.set_stalled(false);
                Ok(())
            }
            Event::EndCut => {
                note!(self, "mend");
                self.network.mend();
                Ok(())
            }
            Event::Chaos => self.disturb(),
            Event::Client { client } => self.client_turn(client),
            Event::Watcher { watcher } => self.watcher_turn(watcher),
        }
    }

    fn tick(&mut self, at: usize, run: u64) -> Result<()> {
        let now = self.clock.now();
        let jitter = if self.setting.climate.in_step { 0 } else { self.random.random_range(0..3 * MS) };
        self.clock.after(TICK + jitter, Event::Tick { at, run });
        let running = self.running(at)?;
        running.core.time_is(running.uptime(now));
        running.core.tick();
        if let Some(left) = &mut running.leaving {
            *left -= 1;
            if *left == 0 {
                self.members[at].gone = true;
                return self.end_run(at, false, "leave");
            }
        }
        if self.setting.plant == Some(Plant::DeposedLeaderRevokes) {
            self.revoke_from_memory(at)?;
        }
        self.work(at)
    }

    fn message(&mut self, at: usize, mut message: Message) -> Result<()> {
        let from = message.from;
        if self.running(at)?.core.state().members().removed.contains(&from) {
            let (at, by) = (from as usize - 1, at as u64 + 1);
            self.clock.after(MS, Event::Removed { at, by });
            return Ok(());
        }
        if self.setting.plant == Some(Plant::ReadContextReused) {
            self.running(at)?.answer_latest(&mut message);
        }
        note!(
            self,
            "message {from} {} {:?} term {} log {}/{} commit {} entries {} reject {}",
            at + 1,
            message.get_msg_type(),
            message.term,
            message.index,
            message.log_term,
            message.commit,
            message.entries.len(),
            message.reject
        );
        // A follower hands a request for a read index on in the name of the one who asked, which may lead by now.
        let own_question = from == at as u64 + 1 && message.get_msg_type() == MessageType::MsgReadIndex;
        match self.running(at)?.core.step(message) {
            // Who restarted may hear from a member before it has applied again that it was added, or after its removal.
            Ok(()) | Err(Refused::NotTaken { .. }) => {}
            Err(_) if own_question => {}
            Err(refused) => bail!("member {} refuses a message of member {from}: {refused}", at + 1),
        }
        if self.random.random_range(0..6) == 0 {
            return self.work_later(at);
        }
        self.work(at)
    }

    /// A member publishes its name, as each does after its start until it serves clients.
    fn publish(&mut self, at: usize, run: u64) -> Result<()> {
        let id = self.members[at].id;
        let core = &self.running(at)?.core;
        let (serves, members) = (core.status().serves, core.state().members());
        let named = members.members.get(&id).is_none_or(|member| !member.name.is_empty());
        if if self.setting.ungated { self.healing || named } else { serves } {
            return Ok(());
        }
        self.clock.after(if self.setting.ungated { 4 * PUBLISH } else { PUBLISH }, Event::Publish { at, run });
        self.ask(None, at, super::request::Ask::Publish { member: id })
    }

    /// Whether clients are served by a member.
    pub(super) fn serves(&self, at: usize) -> bool {
        let at_once = self.setting.ungated || self.setting.plant == Some(Plant::ServesAtOnce);
        self.members[at].run.as_ref().is_some_and(|run| at_once || run.core.status().serves)
    }

    /// A client sees the revision that a member is at: it never falls, over restarts either, and is not older than what
    /// any member had published when this one started.
    pub(super) fn revision_seen(&mut self, at: usize) -> Result<()> {
        if self.setting.ungated {
            return Ok(());
        }
        let run = self.running(at)?;
        let (revision, floor) = (run.core.state().reader().revision(), run.newest_at_start);
        let member = &mut self.members[at];
        ensure!(
            revision >= floor.max(member.shown),
            "member {} shows revision {revision}, it has shown {}, and {floor} was there when it started",
            at + 1,
            member.shown
        );
        member.shown = revision;
        Ok(())
    }

    fn compact(&mut self, at: usize) -> Result<()> {
        let now = std::time::Duration::from_micros(self.clock.now());
        let (steps, looks) = (self.random.random_range(0..4), self.random.random_range(0..8) == 0);
        let run = self.running(at)?;
        (0..steps).try_for_each(|_| run.compactor.step(now).map(drop))?;
        if let Some(next) = run.next_compactor.take() {
            run.compactor = next;
        }
        // It may have flushed by itself.
        if looks { self.tell_flushed(at) } else { Ok(()) }
    }

    /// Runs the plan's steps, heals everything and judges the end.
    pub(super) fn run(&mut self) -> Result<()> {
        for _ in 0..self.plan.steps {
            self.step()?;
        }
        self.heal()?;
        self.judge_end()
    }
}
