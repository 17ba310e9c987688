//! What runs covered, and what is said when one fails.

use std::{any::Any, cell::Cell, fmt, panic};

use super::{Plan, STEPS, Zone};

macro_rules! coverage {
    ($($field:ident: $name:literal,)*) => {
        /// What happened in one run or several, so that none can pass by doing nothing.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Coverage {
            $(#[doc = concat!("How many ", $name, ".")] pub $field: u64,)*
        }

        impl Coverage {
            /// Adds what another run covered.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }

        impl fmt::Display for Coverage {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let told = [$(format!("{} {}", self.$field, $name)),*];
                f.write_str(&told.join(", "))
            }
        }
    };
}

coverage! {
    happened: "events",
    seconds: "simulated seconds",
    starts: "starts of members",
    crashes: "crashes",
    disk_faults: "disk faults",
    pauses: "pauses",
    partitions: "cuts of the network",
    elections: "elections",
    transfers: "transfers of leadership",
    changes: "membership changes proposed",
    members: "members added",
    promoted: "learners promoted",
    removed: "members removed",
    leaders_removed: "of them leaders",
    handed_over: "hand-overs by leaders to be removed",
    parted: "removals of one of two voters proposed",
    fetched: "fetches from logs",
    forwarded: "commands forwarded",
    forwards_refused: "forwarded commands refused",
    snapshots: "snapshots made",
    pieces: "pieces of snapshots fetched",
    installed: "snapshots installed",
    finished: "installations finished by a start",
    abandoned: "snapshots abandoned",
    answered: "requests answered",
    refused: "requests refused",
    unknown: "requests of unknown fate",
    no_space: "requests refused for the alarm",
    reads: "reads judged",
    revisions: "revisions",
    renewed: "leases renewed",
    expired: "leases expired",
    watches: "watches",
    catch_ups: "pieces of the past read for watches",
    told: "events told",
    bookmarks: "bookmarks",
    compacted: "watches ended by compaction",
}

/// A run that broke a promise.
#[derive(Debug)]
pub struct Failure {
    /// The run.
    pub plan: Plan,
    /// What was found.
    pub what: String,
    /// The last lines of its history.
    pub lines: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{}", self.what)?;
        write!(f, "again: {} --trace", self.plan)
    }
}

impl std::error::Error for Failure {}

/// The command that repeats a run.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cairn-jepsen sim --members {} --first-seed {} --seeds 1", self.members, self.seed)?;
        if self.steps != STEPS {
            write!(f, " --steps {}", self.steps)?;
        }
        if self.zone != Zone::Usual {
            write!(f, " --climate {}", self.zone)?;
        }
        self.plant.map_or(Ok(()), |plant| write!(f, " --plant {plant}"))
    }
}

thread_local! {
    /// What the panic under way says, on threads that catch it.
    static SAID: Cell<Option<String>> = const { Cell::new(None) };
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Runs something in which a panic is a finding like any other, and not printed.
pub(super) fn catching<T>(run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHES.get() {
                SAID.set(Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
    CATCHES.set(true);
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(run));
    CATCHES.set(false);
    outcome.unwrap_or_else(|_: Box<dyn Any + Send>| {
        Err(anyhow::anyhow!("a panic: {}", SAID.take().unwrap_or_else(|| "it says nothing".to_owned())))
    })
}
