//! Commands that are not there yet: what they are called, what they take, and nothing behind it.

use super::flag_table::flag;
use super::flags::{Flag, Kind};
use super::tree::{Action, Command, command};

const fn later(name: &'static str, usage: &'static str, short: &'static str) -> Command {
    command(name, usage, short, Action::Later)
}

const fn switch(name: &'static str, default: &'static str, usage: &'static str) -> Flag {
    flag(name, None, Kind::Bool, default, usage)
}

/// Below `auth`.
pub(super) static AUTH: &[Command] = &[
    later("enable", "enable", "Enables authentication"),
    later("disable", "disable", "Disables authentication"),
    later("status", "status", "Returns authentication status"),
];

static USER_ADD: &[Flag] = &[
    switch("interactive", "true", "Read password from stdin instead of interactive terminal"),
    flag("new-user-password", None, Kind::Text, "", "Supply password from the command line flag"),
    switch("no-password", "false", "Create a user without password (CN based auth only)"),
];

static USER_GET: &[Flag] = &[switch("detail", "false", "Show permissions of roles granted to the user")];

static USER_PASSWD: &[Flag] =
    &[switch("interactive", "true", "If true, read password from stdin instead of interactive terminal")];

/// Below `user`.
pub(super) static USER: &[Command] = &[
    Command { flags: USER_ADD, ..later("add", "add <user name or user:password> [options]", "Adds a new user") },
    later("delete", "delete <user name>", "Deletes a user"),
    Command { flags: USER_GET, ..later("get", "get <user name> [options]", "Gets detailed information of a user") },
    later("list", "list", "Lists all users"),
    Command { flags: USER_PASSWD, ..later("passwd", "passwd <user name> [options]", "Changes password of user") },
    later("grant-role", "grant-role <user name> <role name>", "Grants a role to a user"),
    later("revoke-role", "revoke-role <user name> <role name>", "Revokes a role from a user"),
];

static ROLE_GRANT: &[Flag] = &[
    switch(
        "from-key",
        "false",
        "grant a permission of keys that are greater than or equal to the given key using byte compare",
    ),
    switch("prefix", "false", "grant a prefix permission"),
];

static ROLE_REVOKE: &[Flag] = &[
    switch(
        "from-key",
        "false",
        "revoke a permission of keys that are greater than or equal to the given key using byte compare",
    ),
    switch("prefix", "false", "revoke a prefix permission"),
];

/// Below `role`.
pub(super) static ROLE: &[Command] = &[
    later("add", "add <role name>", "Adds a new role"),
    later("delete", "delete <role name>", "Deletes a role"),
    later("get", "get <role name>", "Gets detailed information of a role"),
    later("list", "list", "Lists all roles"),
    Command {
        flags: ROLE_REVOKE,
        ..later("revoke-permission", "revoke-permission <role name> <key> [endkey]", "Revokes a key from a role")
    },
    Command {
        flags: ROLE_GRANT,
        ..later(
            "grant-permission",
            "grant-permission [options] <role name> <permission type> <key> [endkey]",
            "Grants a key to a role",
        )
    },
];

/// Below `snapshot`.
pub(super) static SNAPSHOT: &[Command] =
    &[later("save", "save <filename>", "Stores an etcd node backend snapshot to a given file")];

/// Below `downgrade`.
pub(super) static DOWNGRADE: &[Command] = &[
    later("validate", "validate <TARGET_VERSION>", "Validate downgrade capability before starting downgrade"),
    later("enable", "enable <TARGET_VERSION>", "Start a downgrade action to cluster"),
    later("cancel", "cancel", "Cancel the ongoing downgrade action to cluster"),
];
