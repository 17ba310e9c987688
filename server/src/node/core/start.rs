//! Whether log and state belong together, and the log of a cluster that begins.
//!
//! All initial members of a cluster start as if each had received the same snapshot: index 1, term 1, the initial
//! membership. The log begins after it.

use raft::eraftpb::HardState;

use crate::{
    log::{EntryId, LogError, LogStore, Recovered, Terms},
    node::error::Unfit,
    raft::LogStart,
};

/// Index and term of the snapshot from which every initial member starts.
pub const FIRST_SNAPSHOT: EntryId = EntryId { index: 1, term: 1 };

/// The log of a member of a new cluster.
pub fn log_of_new_cluster() -> LogStart {
    let EntryId { index, term } = FIRST_SNAPSHOT;
    LogStart {
        hard_state: HardState { term, vote: 0, commit: index },
        terms: Terms::new(FIRST_SNAPSHOT),
        entries: Vec::new(),
    }
}

/// The log of a member that was started before. If its process was killed while it installed a snapshot, the state is that of
/// entry `installing`, and the log may not have been reset to it.
pub fn log_of_member(
    log: &mut dyn LogStore,
    recovered: Recovered,
    installing: Option<EntryId>,
) -> Result<LogStart, LogError> {
    let Recovered { mut hard_state, entries, terms, .. } = recovered;
    let Some(last) = installing else { return Ok(LogStart { hard_state, terms, entries }) };
    let ends_before = terms.last().index < last.index;
    let is_another = terms.term(last.index).is_some_and(|term| term != last.term);
    if !ends_before && !is_another {
        return Ok(LogStart { hard_state, terms, entries });
    }
    tracing::info!(index = last.index, term = last.term, "finishing the installation of a snapshot");
    if hard_state.term < last.term {
        // Whoever has not heard of a term has not voted in it.
        (hard_state.term, hard_state.vote) = (last.term, 0);
    }
    hard_state.commit = last.index;
    log.reset(last, Some(&hard_state))?;
    Ok(LogStart { hard_state, terms: Terms::new(last), entries: Vec::new() })
}

/// Whether a replica can start from a state that has applied `applied` and the log.
///
/// Raises the log's term and commit index to what is applied: a commit index that moved alone is not synced, while the
/// store may well have flushed what was applied because of it.
pub fn check_fit(applied: EntryId, log: &mut LogStart) -> Result<(), Unfit> {
    let last = log.terms.last();
    if applied.index < log.terms.base().index {
        return Err(Unfit::LogBeginsTooLate { applied: applied.index, first: log.terms.first_index() });
    }
    match log.terms.term(applied.index) {
        Some(in_log) if in_log == applied.term => {}
        Some(in_log) => return Err(Unfit::Terms { index: applied.index, in_log, in_state: applied.term }),
        None => return Err(Unfit::LogTooShort { applied: applied.index, last: last.index }),
    }
    let held = |entry: Option<&raft::eraftpb::Entry>, index| {
        entry.map_or(last.index == applied.index, |entry| entry.index == index)
    };
    if !held(log.entries.first(), applied.index + 1) || !held(log.entries.last(), last.index) {
        return Err(Unfit::LogBeginsTooLate {
            applied: applied.index,
            first: log.entries.first().map_or(last.index, |entry| entry.index),
        });
    }
    if log.hard_state.term < last.term {
        return Err(Unfit::HardState { hard_state: log.hard_state.term, last: last.term });
    }
    log.hard_state.commit = log.hard_state.commit.max(applied.index);
    if log.hard_state.commit > last.index {
        return Err(Unfit::Commit { commit: log.hard_state.commit, last: last.index });
    }
    Ok(())
}
