//! Commands that are not there yet: what they are called, what they take, and nothing behind it.

use super::tree::{Action, Command, command};

const fn later(name: &'static str, usage: &'static str, short: &'static str) -> Command {
    command(name, usage, short, Action::Later)
}

/// Below `snapshot`.
pub(super) static SNAPSHOT: &[Command] =
    &[later("save", "save <filename>", "Stores an etcd node backend snapshot to a given file")];

/// Below `downgrade`.
pub(super) static DOWNGRADE: &[Command] = &[
    later("validate", "validate <TARGET_VERSION>", "Validate downgrade capability before starting downgrade"),
    later("enable", "enable <TARGET_VERSION>", "Start a downgrade action to cluster"),
    later("cancel", "cancel", "Cancel the ongoing downgrade action to cluster"),
];
