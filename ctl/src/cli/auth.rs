//! The commands about users, roles and authentication.

use super::flag_table::flag;
use super::flags::{Flag, Kind};
use super::tree::{Action, Command, command};

const fn switch(name: &'static str, default: &'static str, usage: &'static str) -> Flag {
    flag(name, None, Kind::Bool, default, usage)
}

/// Below `auth`.
pub(super) static AUTH: &[Command] = &[
    command("enable", "enable", "Enables authentication", Action::AuthEnable),
    command("disable", "disable", "Disables authentication", Action::AuthDisable),
    command("status", "status", "Returns authentication status", Action::AuthStatus),
];

/// `--key` is one of the global flags, whose file is of no use here.
static AUDIT_GREP: &[Flag] =
    &[flag("rev", None, Kind::Int, "0", "Show who wrote what the key of --key is at this revision")];

/// Below `audit`.
pub(super) static AUDIT: &[Command] = &[Command {
    flags: AUDIT_GREP,
    ..command("grep", "grep --key KEY [--rev N] FILE...", "Finds calls in files of --audit-log", Action::AuditGrep)
}];

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
    Command {
        flags: USER_ADD,
        ..command("add", "add <user name or user:password> [options]", "Adds a new user", Action::UserAdd)
    },
    command("delete", "delete <user name>", "Deletes a user", Action::UserDelete),
    Command {
        flags: USER_GET,
        ..command("get", "get <user name> [options]", "Gets detailed information of a user", Action::UserGet)
    },
    command("list", "list", "Lists all users", Action::UserList),
    Command {
        flags: USER_PASSWD,
        ..command("passwd", "passwd <user name> [options]", "Changes password of user", Action::UserPasswd)
    },
    command("grant-role", "grant-role <user name> <role name>", "Grants a role to a user", Action::UserGrantRole),
    command("revoke-role", "revoke-role <user name> <role name>", "Revokes a role from a user", Action::UserRevokeRole),
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
    command("add", "add <role name>", "Adds a new role", Action::RoleAdd),
    command("delete", "delete <role name>", "Deletes a role", Action::RoleDelete),
    command("get", "get <role name>", "Gets detailed information of a role", Action::RoleGet),
    command("list", "list", "Lists all roles", Action::RoleList),
    Command {
        flags: ROLE_REVOKE,
        ..command(
            "revoke-permission",
            "revoke-permission <role name> <key> [endkey]",
            "Revokes a key from a role",
            Action::RoleRevokePermission,
        )
    },
    Command {
        flags: ROLE_GRANT,
        ..command(
            "grant-permission",
            "grant-permission [options] <role name> <permission type> <key> [endkey]",
            "Grants a key to a role",
            Action::RoleGrantPermission,
        )
    },
];
