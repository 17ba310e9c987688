//! Readable traces (testdata): what happens to a few groups in, what they do and say out. `UPDATE_GOLDENFILES=1` writes
//! what happens now.
//!
//! ```text
//! cluster VOTER… [learners="ID …"]    members of a new cluster; `start ID` makes one more, which knows only of these
//! tick ID COUNT                       time passes on one member       campaign ID      it campaigns at once
//! propose ID DATA                     an entry, from the leader       read ID CONTEXT  asks for a read index
//! change ID CHANGE…                   a membership change: add=ID, learner=ID, remove=ID; several make it a joint one;
//!                                     none ends a joint one           transfer ID TO
//! deliver                             the messages on their way, once around; what follows is on its way then
//! settle                              the same until nothing is left  lose ID…         what is on its way to them is lost
//! cut ID…, mend                       members that hear and are heard by nobody
//! hold ID…, sync ID…                  their writes stay unsynced; are synced
//! crash ID, start ID                  what is not synced is lost; what was flushed is applied, the rest applied again
//! flush ID                            what is applied now survives a crash
//! purge ID                            the log is cut behind what is flushed
//! snapshot ID                         it has a snapshot of what is applied for whoever needs one
//! install ID                          it has fetched what it was offered: that takes the state's place, and the log begins anew
//! unfetched ID MEMBER                 a leader gives up on a member that does not fetch
//! log ID                              what its log holds, synced or not
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt::Write as _,
};

use goldenscript::{Argument, Context};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType,
};

use super::*;
use crate::{
    golden::golden,
    log::{EntryId, Terms},
};

type Told = Result<String, Box<dyn Error>>;

/// Rounds after which a cluster that does not come to rest has failed.
const ROUNDS_MAX: usize = 100;

/// What a member's disks hold.
#[derive(Clone)]
struct Disk {
    /// The entry before the log's first one.
    base: EntryId,
    entries: Vec<Entry>,
    hard_state: HardState,
    flushed: EntryId,
    conf: ConfState,
}

struct Member {
    disk: Disk,
    running: Option<Running>,
}

struct Running {
    group: Group,
    applied: u64,
    conf: ConfState,
    unsynced: Vec<InFlight>,
    standing: Standing,
    offer: Option<Offer>,
}

#[derive(Default)]
struct Scene {
    initial: ConfState,
    members: BTreeMap<u64, Member>,
    held: BTreeSet<u64>,
    cut: BTreeSet<u64>,
    sent: Vec<Message>,
    snapshots: BTreeMap<u64, SnapshotMeta>,
    out: String,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn show_entry(entry: &Entry) -> String {
    let at = format!("{}/{}", entry.index, entry.term);
    match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => at,
        EntryType::EntryNormal => format!("{at} {}", text(&entry.data)),
        _ => format!("{at} change"),
    }
}

fn show_entries(entries: &[Entry]) -> String {
    entries.iter().map(show_entry).collect::<Vec<_>>().join(", ")
}

fn show_message(message: &Message) -> String {
    let kind = format!("{:?}", message.get_msg_type());
    let mut out = format!("{}>{} {} term {}", message.from, message.to, kind.trim_start_matches("Msg"), message.term);
    if message.index > 0 {
        let _ = write!(out, " at {}/{}", message.index, message.log_term);
    }
    if !message.entries.is_empty() {
        let _ = write!(out, " [{}]", show_entries(&message.entries));
    }
    if message.commit > 0 {
        let _ = write!(out, " commit {}", message.commit);
    }
    if let Some(meta) = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()) {
        let _ = write!(out, " up to {}/{}", meta.index, meta.term);
    }
    if !message.context.is_empty() {
        let _ = write!(out, " for {}", text(&message.context));
    }
    if message.reject {
        let _ = write!(out, " rejected, try {}", message.reject_hint);
    }
    out
}

fn show_conf(conf: &ConfState) -> String {
    let ids = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
    };
    let mut out = format!("voters {}", ids(&conf.voters));
    for (name, members) in
        [("outgoing", &conf.voters_outgoing), ("learners", &conf.learners), ("learners next", &conf.learners_next)]
    {
        if !members.is_empty() {
            let _ = write!(out, ", {name} {}", ids(members));
        }
    }
    out
}

impl Running {
    fn start(member: u64, disk: &Disk) -> Result<Self, Box<dyn Error>> {
        let mut terms = Terms::new(disk.base);
        disk.entries.iter().for_each(|entry| terms.append(EntryId::new(entry.index, entry.term)));
        let flushed = disk.flushed.index;
        let entries = disk.entries.iter().filter(|entry| entry.index > flushed).cloned().collect();
        let hard_state = HardState { commit: disk.hard_state.commit.max(flushed), ..disk.hard_state.clone() };
        let log = LogStart { hard_state, terms, entries };
        let group = Group::start(&RaftOptions::new(member, member), flushed, &disk.conf, log)?;
        let standing = group.standing();
        let conf = disk.conf.clone();
        Ok(Self { group, applied: flushed, conf, unsynced: Vec::new(), standing, offer: None })
    }
}

impl Disk {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.base.index, |entry| entry.index)
    }

    fn reset(&mut self, to: EntryId) {
        self.entries.clear();
        self.base = to;
    }

    fn write(&mut self, write: &InFlight) {
        if let Some(to) = write.reset {
            self.reset(to);
        }
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        self.entries.extend_from_slice(&write.entries);
        if let Some(hard_state) = &write.hard_state {
            self.hard_state = hard_state.clone();
        }
    }
}

impl Scene {
    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.out, "{what}");
    }

    fn running(&mut self, member: u64) -> Result<&mut Running, Box<dyn Error>> {
        let known = self.members.get_mut(&member).ok_or("there is no such member")?;
        known.running.as_mut().ok_or_else(|| "it does not run".into())
    }

    fn start(&mut self, member: u64) -> Result<(), Box<dyn Error>> {
        let first = EntryId::new(1, 1);
        let fresh = Disk {
            base: first,
            entries: Vec::new(),
            hard_state: HardState { term: 1, vote: 0, commit: 1 },
            flushed: first,
            conf: self.initial.clone(),
        };
        let known = self.members.entry(member).or_insert(Member { disk: fresh, running: None });
        let disk = &mut known.disk;
        if disk.flushed.index > disk.last() {
            let to = disk.flushed;
            disk.reset(to);
            disk.hard_state.term = disk.hard_state.term.max(to.term);
            let _ = writeln!(self.out, "{member} resets its log to {}/{}", to.index, to.term);
        }
        known.running = Some(Running::start(member, &known.disk)?);
        self.work(member)
    }

    /// Does what a member wants done.
    fn work(&mut self, member: u64) -> Result<(), Box<dyn Error>> {
        loop {
            let held = self.held.contains(&member);
            let running = self.running(member)?;
            let wishes = running.group.snapshot_wishes();
            let mut lines: Vec<_> = wishes.iter().map(|to| format!("{member} needs a snapshot for {to}")).collect();
            let Some(work) = running.group.work() else {
                for line in lines {
                    self.tell(format_args!("{line}"));
                }
                break;
            };
            if let Some(write) = work.write {
                running.unsynced.push(write);
            }
            for (context, index) in work.reads {
                lines.push(format!("{member} may read for {} at {index}", text(&context)));
            }
            let standing = running.group.standing();
            if std::mem::replace(&mut running.standing, standing) != standing {
                let leader = if standing.leader == 0 { String::new() } else { format!(", led by {}", standing.leader) };
                lines.push(format!("{member} is a {:?} of term {}{leader}", standing.role, standing.term));
            }
            for line in lines {
                self.tell(format_args!("{line}"));
            }
            self.sent.extend(work.messages);
            if !held {
                self.sync(member)?;
            }
            self.apply(member)?;
        }
        Ok(())
    }

    fn sync(&mut self, member: u64) -> Result<(), Box<dyn Error>> {
        let writes = std::mem::take(&mut self.running(member)?.unsynced);
        for write in writes {
            if let Some(known) = self.members.get_mut(&member) {
                known.disk.write(&write);
            }
            let messages = self.running(member)?.group.synced(write.number);
            self.sent.extend(messages);
        }
        Ok(())
    }

    fn apply(&mut self, member: u64) -> Result<(), Box<dyn Error>> {
        loop {
            let running = self.running(member)?;
            if running.applied == running.group.commit() {
                return Ok(());
            }
            let entry = running.group.cache().get(running.applied + 1).ok_or("a committed entry is missing")?.clone();
            let mut line = format!("{member} applies {}", show_entry(&entry));
            if entry.get_entry_type() != EntryType::EntryNormal {
                running.conf = running.group.apply_conf_change(&Group::conf_change(&entry)?)?;
                let _ = write!(line, ": {}", show_conf(&running.conf));
            }
            running.applied = entry.index;
            running.group.applied_to(entry.index);
            self.tell(format_args!("{line}"));
        }
    }

    /// Delivers what is on its way now.
    fn deliver(&mut self) -> Result<bool, Box<dyn Error>> {
        let messages = std::mem::take(&mut self.sent);
        let any = !messages.is_empty();
        for message in messages {
            let (to, shown) = (message.to, show_message(&message));
            let runs = self.members.get(&to).is_some_and(|member| member.running.is_some());
            if !runs || self.cut.contains(&message.from) || self.cut.contains(&to) {
                // There are many of the others.
                if message.get_msg_type() != MessageType::MsgHeartbeat || !message.context.is_empty() {
                    self.tell(format_args!("{shown} is lost"));
                }
                continue;
            }
            self.tell(format_args!("{shown}"));
            let running = self.running(to)?;
            let taken = if message.get_msg_type() == MessageType::MsgSnapshot {
                running.group.offered(message).map(|offer| running.offer = offer.or(running.offer))
            } else {
                running.group.step(message)
            };
            if let Err(refused) = taken {
                self.tell(format_args!("{to} refuses it: {refused}"));
            }
            self.work(to)?;
        }
        Ok(any)
    }

    fn change(&mut self, member: u64, args: &[(Option<String>, String)]) -> Result<(), Box<dyn Error>> {
        let mut changes = Vec::new();
        for (kind, id) in args {
            let kind = match kind.as_deref() {
                Some("add") => ConfChangeType::AddNode,
                Some("learner") => ConfChangeType::AddLearnerNode,
                Some("remove") => ConfChangeType::RemoveNode,
                _ => return Err("add, learner or remove".into()),
            };
            let mut single = ConfChangeSingle { node_id: id.parse()?, ..ConfChangeSingle::default() };
            single.set_change_type(kind);
            changes.push(single);
        }
        let mut change = ConfChangeV2 { changes, ..ConfChangeV2::default() };
        if change.changes.len() > 1 {
            change.set_transition(ConfChangeTransition::Explicit);
        }
        self.running(member)?.group.propose_conf_change(change, Vec::new())?;
        Ok(())
    }

    /// Cuts the log behind what is flushed.
    fn purge(&mut self, member: u64) -> Result<(), Box<dyn Error>> {
        let known = self.members.get_mut(&member).ok_or("there is no such member")?;
        let to = known.disk.flushed;
        known.disk.entries.retain(|entry| entry.index > to.index);
        known.disk.base = to;
        self.running(member)?.group.purged_to(to.index);
        Ok(())
    }

    /// Has a snapshot of what is applied.
    fn snapshot(&mut self, member: u64) -> Result<(), Box<dyn Error>> {
        let id = self.snapshots.len() as u64 + 1;
        let running = self.running(member)?;
        let term = running.group.cache().term(running.applied).ok_or("what is applied has a term")?;
        let last = EntryId::new(running.applied, term);
        let meta = SnapshotMeta { id, last, conf_state: running.conf.clone() };
        running.group.offer_snapshot(Some(&meta));
        self.snapshots.insert(id, meta);
        Ok(())
    }

    /// Lets what was offered take the state's place, durably, and then the log begin anew.
    fn install(&mut self, member: u64) -> Result<(), Box<dyn Error>> {
        let offer = self.running(member)?.offer.take().ok_or("nothing was offered")?;
        let meta = self.snapshots.get(&offer.id).ok_or("there is no such snapshot")?.clone();
        let running = self.running(member)?;
        if !running.group.install(&meta) {
            self.tell(format_args!("{member} has no use for it"));
            return Ok(());
        }
        (running.applied, running.conf) = (meta.last.index, meta.conf_state.clone());
        let shown = show_conf(&meta.conf_state);
        if let Some(known) = self.members.get_mut(&member) {
            (known.disk.flushed, known.disk.conf) = (meta.last, meta.conf_state);
        }
        self.tell(format_args!("{member} is in the state of {}/{}: {shown}", meta.last.index, meta.last.term));
        Ok(())
    }

    fn log(&mut self, member: u64) -> Result<(), Box<dyn Error>> {
        let disk = self.members.get(&member).ok_or("there is no such member")?.disk.clone();
        let HardState { term, vote, commit } = disk.hard_state;
        let entries = show_entries(&disk.entries);
        let after =
            if disk.base.index > 1 { format!(" after {}/{}", disk.base.index, disk.base.term) } else { String::new() };
        self.tell(format_args!("{member} has synced [{entries}]{after}, term {term}, vote {vote}, commit {commit}"));
        let shown = |write: &InFlight| match write.reset {
            Some(to) => format!("a reset to {}/{}{}", to.index, to.term, show_entries(&write.entries)),
            None => show_entries(&write.entries),
        };
        let unsynced: Vec<_> = self.running(member)?.unsynced.iter().map(shown).collect();
        if !unsynced.is_empty() {
            self.tell(format_args!("{member} has not synced [{}]", unsynced.join("] [")));
        }
        Ok(())
    }

    fn act(&mut self, name: &str, args: &[(Option<String>, String)]) -> Result<(), Box<dyn Error>> {
        let ids: Vec<u64> = args.iter().filter_map(|(_, value)| value.parse().ok()).collect();
        let word = |at: usize| args.get(at).map(|(_, value)| value.clone()).ok_or("a word is missing");
        let first = || ids.first().copied().ok_or("whose id?");
        match name {
            "cluster" => {
                let of = |learners: bool| -> Vec<u64> {
                    let chosen = args.iter().filter(|(key, _)| key.is_some() == learners);
                    chosen.flat_map(|(_, value)| value.split(' ')).filter_map(|id| id.parse().ok()).collect()
                };
                self.initial = ConfState { voters: of(false), learners: of(true), ..ConfState::default() };
                let all = [of(false), of(true)].concat();
                all.into_iter().try_for_each(|member| self.start(member))?;
            }
            "tick" => (0..word(1)?.parse::<usize>()?).try_for_each(|_| {
                self.running(first()?)?.group.tick();
                self.work(first()?)
            })?,
            "campaign" => self.running(first()?)?.group.campaign()?,
            "propose" => self.running(first()?)?.group.propose(word(1)?.into_bytes())?,
            "read" => self.running(first()?)?.group.read_index(word(1)?.into_bytes()),
            "transfer" => self.running(first()?)?.group.transfer_leader(word(1)?.parse()?),
            "change" => self.change(first()?, &args[1..])?,
            "deliver" => drop(self.deliver()?),
            "settle" => {
                let mut rounds = 0;
                while self.deliver()? {
                    rounds += 1;
                    if rounds > ROUNDS_MAX {
                        return Err("it does not come to rest".into());
                    }
                }
            }
            "lose" => self.sent.retain(|message| !ids.contains(&message.to)),
            "cut" => self.cut.extend(&ids),
            "mend" => self.cut.clear(),
            "hold" => self.held.extend(&ids),
            "sync" => {
                for &member in &ids {
                    self.held.remove(&member);
                    self.sync(member)?;
                    self.work(member)?;
                }
            }
            "crash" => {
                self.members.get_mut(&first()?).ok_or("there is no such member")?.running = None;
                self.held.remove(&first()?);
            }
            "start" => self.start(first()?)?,
            "flush" => {
                let known = self.members.get_mut(&first()?).ok_or("there is no such member")?;
                let running = known.running.as_ref().ok_or("it does not run")?;
                let term = running.group.cache().term(running.applied).ok_or("what is applied has a term")?;
                (known.disk.flushed, known.disk.conf) = (EntryId::new(running.applied, term), running.conf.clone());
            }
            "purge" => self.purge(first()?)?,
            "snapshot" => self.snapshot(first()?)?,
            "install" => self.install(first()?)?,
            "unfetched" => self.running(first()?)?.group.snapshot_failed(word(1)?.parse()?),
            "log" => self.log(first()?)?,
            other => return Err(format!("unknown command {other}").into()),
        }
        if let Some(member) = ids.first().filter(|member| self.running(**member).is_ok()) {
            self.work(*member)?;
        }
        Ok(())
    }
}

impl goldenscript::Runner for Scene {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &Context) -> Told {
        let args: Vec<_> = command
            .args
            .iter()
            .map(|arg| match arg {
                Argument::KeyValue(key, value) => (Some(key.clone()), value.clone()),
                Argument::Positional(word) => (None, word.clone()),
                other => panic!("an argument of an unknown kind: {other}"),
            })
            .collect();
        self.act(&command.name, &args)?;
        Ok(std::mem::take(&mut self.out))
    }
}

golden! {
    "src/raft/testdata", Scene::default(),
    a_leader_that_crashes_in_the_middle_of_a_joint_change_does_not_stop_it
    a_leader_that_hears_nobody_steps_down
    a_learner_catches_up_and_is_promoted
    a_lone_voter_tells_learners_nothing_of_a_term_that_is_not_synced
    a_member_that_comes_back_asks_first_and_disturbs_nobody
    a_member_that_crashes_while_it_installs_a_snapshot_goes_on_from_it
    a_member_that_lags_too_far_goes_on_from_a_snapshot
    a_read_index_does_not_survive_a_change_of_leader
    what_was_never_synced_by_a_majority_is_overwritten
}
