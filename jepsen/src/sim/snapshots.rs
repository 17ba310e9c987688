//! Snapshots between members, around what the core decides of them: made, fetched piece by piece, opened, put in the
//! state's place, told to the core.
//!
//! The pieces stand for the files and their parts: a snapshot has from one to five of them, fetched over a connection that
//! breaks with the links, the sender's run, and whatever the network loses, and goes on where it was. What came survives the
//! receiver's crashes, but for what a power failure takes; the sender's snapshots go with its run. Each step takes its time,
//! and the receiver may crash at any of them, also between the state's being replaced, the core's hearing of it, the log's
//! being reset and the state's forgetting that it was being installed.

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use cairn_server::{
    node::core::Outputs,
    raft::{Offer, SnapshotMeta},
    state::{
        INDEX_IMAGE, State, StateError, identify, mark_installed, mark_installing,
        record::applied::{self, Applied},
    },
    store::{Batch, MemStore, Store, Table},
};
use rand::Rng;

use super::{
    clock::{MS, SECOND},
    member::{CLUSTER, state_options},
    plant::Plant,
    world::{Event, World},
};

/// Attempts in a row that bring nothing, after which a snapshot is given up; as in the real transport.
const ATTEMPTS_MAX: u32 = 5;
/// The pause before the next attempt.
const PAUSE: u64 = 300 * MS;
/// How long it takes until a leader hears that its snapshot did not come.
const REPORT: u64 = MS;
/// Pieces of a snapshot, at most.
const PIECES_MAX: u64 = 5;

/// What a member does next with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes one for others.
    Make,
    /// Hears that a member could not take this one.
    Unfetched { member: u64, id: u64 },
    /// Fetches a piece of this one, or connects to its owner.
    Fetch(u64),
    /// Opens it, as all of it is there.
    Open(u64),
    /// Lets it take the state's place on the disk.
    Switch(u64),
    /// Tells the core that it did.
    Switched(u64),
    /// Lets the state forget that it was being installed.
    Settle,
}

/// A snapshot on its way in.
struct Fetching {
    offer: Offer,
    in_vain: u32,
    /// The owner's run and the snapshot that it reads, while there is a connection.
    connection: Option<(u64, Arc<MemStore>)>,
}

/// One that is here and opened, until it is installed.
struct Received {
    id: u64,
    store: Arc<MemStore>,
    state: State,
}

/// What of a snapshot lies on the disk.
pub(super) struct Incoming {
    id: u64,
    content: Arc<MemStore>,
    pub(super) pieces: u64,
}

/// The snapshots' part of a run.
#[derive(Default)]
pub(super) struct Snapshots {
    /// For others, by number.
    made: BTreeMap<u64, Arc<MemStore>>,
    fetching: Option<Fetching>,
    received: Option<Received>,
    /// One is about to take the state's place, and raft counts with it already.
    pub(super) installing: bool,
    /// The state is to forget that it was being installed up to here.
    settle: Option<cairn_server::log::EntryId>,
}

/// What an attempt to fetch brought.
enum Brought {
    Piece,
    Everything,
    Nothing,
    /// The owner has no such snapshot any more.
    Gone,
}

/// Where a store keeps a snapshot.
fn path_of(id: u64) -> PathBuf {
    id.to_string().into()
}

fn pieces_of(id: u64) -> u64 {
    1 + id % PIECES_MAX
}

impl World {
    /// Begins what the core wants done with snapshots.
    pub(super) fn order_snapshots(&mut self, at: usize, out: &mut Outputs<u64, u64>) -> Result<()> {
        if out.checkpoint {
            self.snapshot_step(at, 60 * MS, Step::Make)?;
        }
        if let Some(offer) = out.receive {
            note!(self, "snapshot {} receives {offer:?}", at + 1);
            self.running(at)?.snapshots.fetching = Some(Fetching { offer, in_vain: 0, connection: None });
            self.snapshot_step(at, 20 * MS, Step::Fetch(offer.id))?;
        }
        if let Some((leader, id)) = out.snapshot_failed {
            self.report_failure(at, leader, id)?;
        }
        let run = self.running(at)?;
        let has = |run: &super::member::Run, id| run.snapshots.received.as_ref().is_some_and(|known| known.id == id);
        if let Some(id) = out.install {
            ensure!(has(run, id), "member {} is to install a snapshot that it does not have", at + 1);
            run.snapshots.installing = true;
            self.begin_install(at, id)?;
        }
        let run = self.running(at)?;
        if let Some(id) = out.abandon
            && has(run, id)
        {
            run.snapshots.received = None;
            self.coverage.abandoned += 1;
        }
        let run = self.running(at)?;
        for id in &out.discard {
            run.snapshots.made.remove(id);
        }
        if out.settled.is_some() {
            run.snapshots.settle = out.settled;
            self.snapshot_step(at, self.setting.climate.settle_max, Step::Settle)?;
        }
        Ok(())
    }

    /// Has a leader hear that a member could not take its snapshot, if it can be reached.
    fn report_failure(&mut self, at: usize, leader: u64, id: u64) -> Result<()> {
        let member = self.members[at].id;
        let to = leader as usize - 1;
        let run = self.members.get(to).context("an offer comes from a member")?.run.as_ref().map(|run| run.number);
        if let Some(run) = run.filter(|_| !self.network.is_cut(member, leader)) {
            self.clock.after(REPORT, Event::Snapshot { at: to, run, step: Step::Unfetched { member, id } });
        }
        Ok(())
    }

    /// Schedules a step, and perhaps a crash around it.
    fn snapshot_step(&mut self, at: usize, takes_max: u64, step: Step) -> Result<()> {
        let takes = self.random.random_range(50..takes_max);
        let run = self.running(at)?.number;
        self.clock.after(takes, Event::Snapshot { at, run, step });
        let crashes = step != Step::Make && self.random.random_bool(self.setting.climate.crash_installing);
        if crashes && !self.healing {
            self.clock.after(self.random.random_range(0..2 * takes), Event::Crash { at });
        }
        Ok(())
    }

    /// Takes a step.
    pub(super) fn move_snapshot(&mut self, at: usize, step: Step) -> Result<()> {
        match step {
            Step::Make => self.make_snapshot(at),
            Step::Unfetched { member, id } => {
                self.running(at)?.core.snapshot_unfetched(member, id);
                self.work(at)
            }
            Step::Fetch(id) => self.fetch_snapshot(at, id),
            Step::Open(id) => self.open_snapshot(at, id),
            Step::Switch(id) => self.switch_state(at, id),
            Step::Switched(id) => self.finish_install(at, id),
            Step::Settle => self.settle_state(at),
        }
    }

    fn make_snapshot(&mut self, at: usize) -> Result<()> {
        let (id, fails) = (self.random.random(), !self.healing && self.random.random_range(0..20) == 0);
        let plant = self.setting.plant;
        let run = self.running(at)?;
        if fails {
            run.core.checkpointed(None);
            return self.work(at);
        }
        run.store.checkpoint(&path_of(id), &[INDEX_IMAGE])?;
        let content = Arc::new(run.store.open_checkpoint(&path_of(id)).context("it was just made")?);
        falsify(&content, plant)?;
        content.checkpoint(&path_of(id), &[INDEX_IMAGE])?;
        let (last, conf_state, _) = identify(content.as_ref())?;
        run.core.checkpointed(Some(&SnapshotMeta { id, last, conf_state }));
        run.snapshots.made.insert(id, content);
        note!(self, "snapshot {} makes {id} up to {last:?}", at + 1);
        self.coverage.snapshots += 1;
        self.work(at)
    }

    fn fetch_snapshot(&mut self, at: usize, id: u64) -> Result<()> {
        let fetching = &mut self.running(at)?.snapshots.fetching;
        let Some(mut fetching) = fetching.take_if(|fetching| fetching.offer.id == id) else { return Ok(()) };
        let brought = self.fetch_piece(at, &mut fetching)?;
        let (next, takes_max) = match brought {
            Brought::Piece => (Step::Fetch(id), self.setting.climate.piece_max),
            Brought::Everything => (Step::Open(id), self.setting.climate.piece_max),
            Brought::Nothing if fetching.in_vain + 1 < ATTEMPTS_MAX => (Step::Fetch(id), PAUSE),
            Brought::Nothing | Brought::Gone => {
                note!(self, "snapshot {} gives up on {id}", at + 1);
                self.running(at)?.core.received(id, None);
                return self.work(at);
            }
        };
        fetching.in_vain = if matches!(brought, Brought::Nothing) { fetching.in_vain + 1 } else { 0 };
        self.running(at)?.snapshots.fetching = Some(fetching);
        self.snapshot_step(at, takes_max, next)
    }

    fn fetch_piece(&mut self, at: usize, fetching: &mut Fetching) -> Result<Brought> {
        let Offer { from, id, .. } = fetching.offer;
        let own = self.members[at].id;
        let cut = self.network.is_cut(own, from) || self.network.is_cut(from, own);
        let lost = self.random.random_bool(self.network.weather.loss);
        let now = self.clock.now();
        let owner = self.members.get_mut(from as usize - 1).context("an offer comes from a member")?;
        let answers = !cut && !lost && owner.paused_until <= now;
        let Some(run) = owner.run.as_mut().filter(|_| answers) else {
            fetching.connection = None;
            return Ok(Brought::Nothing);
        };
        let content = match fetching.connection.take().filter(|(known, _)| *known == run.number) {
            Some((_, content)) => content,
            None => match run.snapshots.made.get(&id) {
                Some(content) => Arc::clone(content),
                None => return Ok(Brought::Gone),
            },
        };
        run.core.snapshot_heard(own, id);
        fetching.connection = Some((run.number, Arc::clone(&content)));
        let incoming = self.members[at].incoming.take().filter(|incoming| incoming.id == id);
        let mut incoming = incoming.unwrap_or(Incoming { id, content, pieces: 0 });
        incoming.pieces = (incoming.pieces + 1).min(pieces_of(id));
        let everything = incoming.pieces == pieces_of(id);
        self.members[at].incoming = Some(incoming);
        self.coverage.pieces += 1;
        Ok(if everything { Brought::Everything } else { Brought::Piece })
    }

    fn open_snapshot(&mut self, at: usize, id: u64) -> Result<()> {
        let (plant, seed, own) = (self.setting.plant, self.random.random(), self.members[at].id);
        let flush_one_in = self.setting.climate.flush_one_in;
        let run = self.running(at)?;
        let Some(Fetching { offer, .. }) = run.snapshots.fetching.take_if(|fetching| fetching.offer.id == id) else {
            return Ok(());
        };
        let nonce = run.number;
        let incoming = self.members[at].incoming.take().filter(|incoming| incoming.id == id);
        let incoming = incoming.context("a snapshot is opened that is not there")?;
        let copy = incoming.content.open_checkpoint(&path_of(id)).context("a snapshot without its content")?;
        let store = Arc::new(copy.flushing(seed, flush_one_in));
        let (last, mut conf_state, cluster) = identify(store.as_ref())?;
        ensure!((last, cluster) == (offer.last, CLUSTER), "{offer:?} brought {last:?} of cluster {cluster:x}");
        if plant != Some(Plant::InstallNotMarked) {
            mark_installing(store.as_ref(), last)?;
        }
        let options = state_options(own, nonce, &self.setting.climate);
        let state = State::open(Arc::clone(&store) as Arc<dyn Store>, options)?;
        let about = || format!("a snapshot up to {last:?} that member {own} received");
        self.consensus.applied(own, &state).with_context(about)?;
        let (revision, compacted) = (state.reader().revision(), state.reader().compacted());
        ensure!(revision <= self.history.newest(), "{}: it is at revision {revision}, which never was", about());
        self.history.check_stored(store.as_ref(), revision, compacted).with_context(about)?;
        self.check_index(state.reader()).with_context(about)?;
        let run = self.running(at)?;
        if plant == Some(Plant::SnapshotMembershipIgnored) {
            conf_state.clone_from(run.core.state().conf_state());
        }
        run.snapshots.received = Some(Received { id, store, state });
        run.core.received(id, Some(SnapshotMeta { id, last, conf_state }));
        note!(self, "snapshot {} has opened {id}", at + 1);
        self.work(at)
    }

    fn begin_install(&mut self, at: usize, id: u64) -> Result<()> {
        if self.setting.plant == Some(Plant::ResetBeforeSwitch) {
            return self.snapshot_step(at, MS, Step::Switched(id));
        }
        self.snapshot_step(at, 60 * MS, Step::Switch(id))
    }

    fn switch_state(&mut self, at: usize, id: u64) -> Result<()> {
        let member = &mut self.members[at];
        let run = member.run.as_mut().context("a member without a run installs nothing")?;
        if self.setting.plant == Some(Plant::ResetBeforeSwitch) {
            member.store = Arc::clone(&run.store);
            return Ok(());
        }
        let received = run.snapshots.received.as_ref().filter(|received| received.id == id);
        let received = received.context("a snapshot that is being installed is gone")?;
        member.store = Arc::clone(&received.store);
        member.flushed = received.state.applied().0;
        note!(self, "snapshot {} has switched to {id}", at + 1);
        self.snapshot_step(at, 30 * MS, Step::Switched(id))
    }

    fn finish_install(&mut self, at: usize, id: u64) -> Result<()> {
        let run = self.running(at)?;
        let received = run.snapshots.received.take().filter(|received| received.id == id);
        let Received { store, state, .. } = received.context("a snapshot that is being installed is gone")?;
        run.store = store;
        drop(run.core.installed(state));
        run.next_compactor = Some(run.core.state().compactor());
        run.snapshots.installing = false;
        note!(self, "snapshot {} has installed {id}", at + 1);
        self.coverage.installed += 1;
        if self.setting.plant == Some(Plant::ResetBeforeSwitch) {
            self.snapshot_step(at, SECOND, Step::Switch(id))?;
        }
        self.look_at_state(at)?;
        self.work(at)
    }

    fn settle_state(&mut self, at: usize) -> Result<()> {
        let run = self.running(at)?;
        let Some(last) = run.snapshots.settle else { return Ok(()) };
        match mark_installed(run.store.as_ref(), last) {
            Ok(()) => run.snapshots.settle = None,
            Err(StateError::Stalled) => return self.snapshot_step(at, SECOND, Step::Settle),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// For [`Plant::SnapshotIncomplete`] and [`Plant::SnapshotMislabelled`].
fn falsify(content: &MemStore, plant: Option<Plant>) -> Result<()> {
    let mut batch = Batch::default();
    match plant {
        Some(Plant::SnapshotIncomplete) => {
            let mut last = None;
            content.scan(Table::Rev, b"", None, &mut |key, _| {
                last = Some(key.to_vec());
                ControlFlow::Continue(())
            })?;
            if let Some(last) = last {
                batch.delete(Table::Rev, last);
            }
        }
        Some(Plant::SnapshotMislabelled) => {
            let bytes = content.get(Table::Meta, applied::KEY)?.context("a state says what it has applied")?;
            let Applied { index, term } = Applied::decode(&bytes)?;
            batch.put(Table::Meta, applied::KEY, Applied { index: index + 1, term }.encode().to_vec());
        }
        _ => return Ok(()),
    }
    content.write(&batch)?;
    Ok(content.flush()?)
}
