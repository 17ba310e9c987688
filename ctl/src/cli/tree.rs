//! The table of commands and flags, in etcdctl's words.
//!
//! A command that is not there yet has its place in the table all the same ([`Action::Later`]): it explains itself and checks its
//! arguments, answers with a clear error instead of "unknown command", and keeps short forms of its neighbours from changing
//! meaning once it comes.

use super::flag_table::{
    CLUSTER, COMPACTION, DATASCALE, ELECT, HASHKV, KEEP_ALIVE, LOCK, MEMBER_ADD, MEMBER_UPDATE, MIRROR, PERF,
    TIME_TO_LIVE, TXN,
};
pub use super::flag_table::{DEL, GET, GLOBAL, PUT, WATCH};
use super::flags::Flag;
use super::long::{COMPLETION_LONG, DATASCALE_LONG, HELP_LONG, MEMBER_LIST_LONG, PUT_LONG, STATUS_LONG, TXN_LONG};
use super::{auth, later};

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Explains itself: a group of other commands.
    Group,
    /// Not there yet.
    Later,
    /// `alarm disarm`
    AlarmDisarm,
    /// `alarm list`
    AlarmList,
    /// `audit grep`
    AuditGrep,
    /// `auth enable`
    AuthEnable,
    /// `auth disable`
    AuthDisable,
    /// `auth status`
    AuthStatus,
    /// `check datascale`
    CheckDatascale,
    /// `check perf`
    CheckPerf,
    /// `compaction`
    Compaction,
    /// `completion`
    Completion,
    /// `defrag`
    Defrag,
    /// `del`
    Del,
    /// `elect`
    Elect,
    /// `endpoint hashkv`
    EndpointHashKv,
    /// `endpoint health`
    EndpointHealth,
    /// `endpoint status`
    EndpointStatus,
    /// `get`
    Get,
    /// `help`
    Help,
    /// `lease grant`
    LeaseGrant,
    /// `lease keep-alive`
    LeaseKeepAlive,
    /// `lease list`
    LeaseList,
    /// `lease revoke`
    LeaseRevoke,
    /// `lease timetolive`
    LeaseTimeToLive,
    /// `lock`
    Lock,
    /// `make-mirror`
    MakeMirror,
    /// `member add`
    MemberAdd,
    /// `member list`
    MemberList,
    /// `member promote`
    MemberPromote,
    /// `member remove`
    MemberRemove,
    /// `member update`
    MemberUpdate,
    /// `move-leader`
    MoveLeader,
    /// `options`
    Options,
    /// `put`
    Put,
    /// `role add`
    RoleAdd,
    /// `role delete`
    RoleDelete,
    /// `role get`
    RoleGet,
    /// `role list`
    RoleList,
    /// `role revoke-permission`
    RoleRevokePermission,
    /// `role grant-permission`
    RoleGrantPermission,
    /// `txn`
    Txn,
    /// `user add`
    UserAdd,
    /// `user delete`
    UserDelete,
    /// `user get`
    UserGet,
    /// `user list`
    UserList,
    /// `user passwd`
    UserPasswd,
    /// `user grant-role`
    UserGrantRole,
    /// `user revoke-role`
    UserRevokeRole,
    /// `version`
    Version,
    /// `watch`
    Watch,
}

/// A command or a group of commands.
#[derive(Debug)]
pub struct Command {
    /// The word that names it.
    pub name: &'static str,
    /// The word and what may follow it.
    pub usage: &'static str,
    /// What it does, in a line.
    pub short: &'static str,
    /// What it does, at length; may be empty.
    pub long: &'static str,
    /// What it does.
    pub action: Action,
    /// Its own flags, sorted by name.
    pub flags: &'static [Flag],
    /// Flags of the commands below it, sorted by name.
    pub inherited: &'static [Flag],
    /// The commands below it, in the order suggestions list them.
    pub children: &'static [Command],
}

pub(super) const fn command(name: &'static str, usage: &'static str, short: &'static str, action: Action) -> Command {
    Command { name, usage, short, long: "", action, flags: &[], inherited: &[], children: &[] }
}
static CHECK: &[Command] = &[
    Command {
        flags: PERF,
        ..command("perf", "perf [options]", "Check the performance of the etcd cluster", Action::CheckPerf)
    },
    Command {
        flags: DATASCALE,
        long: DATASCALE_LONG,
        ..command(
            "datascale",
            "datascale [options]",
            "Check the memory usage of holding data for different workloads on a given server endpoint.",
            Action::CheckDatascale,
        )
    },
];

static ALARM: &[Command] = &[
    command("disarm", "disarm", "Disarms all alarms", Action::AlarmDisarm),
    command("list", "list", "Lists all alarms", Action::AlarmList),
];

static ENDPOINT: &[Command] = &[
    command(
        "health",
        "health",
        "Checks the healthiness of endpoints specified in `--endpoints` flag",
        Action::EndpointHealth,
    ),
    Command {
        long: STATUS_LONG,
        ..command(
            "status",
            "status",
            "Prints out the status of endpoints specified in `--endpoints` flag",
            Action::EndpointStatus,
        )
    },
    Command {
        flags: HASHKV,
        ..command(
            "hashkv",
            "hashkv",
            "Prints the KV history hash for each endpoint in --endpoints",
            Action::EndpointHashKv,
        )
    },
];

static LEASE: &[Command] = &[
    command("grant", "grant <ttl>", "Creates leases", Action::LeaseGrant),
    command("revoke", "revoke <leaseID>", "Revokes leases", Action::LeaseRevoke),
    Command {
        flags: TIME_TO_LIVE,
        ..command("timetolive", "timetolive <leaseID> [options]", "Get lease information", Action::LeaseTimeToLive)
    },
    command("list", "list", "List all active leases", Action::LeaseList),
    Command {
        flags: KEEP_ALIVE,
        ..command("keep-alive", "keep-alive [options] <leaseID>", "Keeps leases alive (renew)", Action::LeaseKeepAlive)
    },
];

static MEMBER: &[Command] = &[
    Command {
        flags: MEMBER_ADD,
        ..command("add", "add <memberName> [options]", "Adds a member into the cluster", Action::MemberAdd)
    },
    command("remove", "remove <memberID>", "Removes a member from the cluster", Action::MemberRemove),
    Command {
        flags: MEMBER_UPDATE,
        ..command("update", "update <memberID> [options]", "Updates a member in the cluster", Action::MemberUpdate)
    },
    Command {
        long: MEMBER_LIST_LONG,
        ..command("list", "list", "Lists all members in the cluster", Action::MemberList)
    },
    command("promote", "promote <memberID>", "Promotes a non-voting member in the cluster", Action::MemberPromote),
];

static COMMANDS: &[Command] = &[
    Command {
        flags: GET,
        ..command("get", "get [options] <key> [range_end]", "Gets the key or a range of keys", Action::Get)
    },
    Command {
        flags: PUT,
        long: PUT_LONG,
        ..command(
            "put",
            "put [options] <key> <value> (<value> can also be given from stdin)",
            "Puts the given key into the store",
            Action::Put,
        )
    },
    Command {
        flags: DEL,
        ..command(
            "del",
            "del [options] <key> [range_end]",
            "Removes the specified key or range of keys [key, range_end)",
            Action::Del,
        )
    },
    Command {
        flags: TXN,
        long: TXN_LONG,
        ..command("txn", "txn [options]", "Txn processes all the requests in one transaction", Action::Txn)
    },
    Command {
        flags: COMPACTION,
        ..command(
            "compaction",
            "compaction [options] <revision>",
            "Compacts the event history in etcd",
            Action::Compaction,
        )
    },
    Command { children: ALARM, ..command("alarm", "alarm <subcommand>", "Alarm related commands", Action::Group) },
    Command {
        inherited: CLUSTER,
        ..command(
            "defrag",
            "defrag",
            "Defragments the storage of the etcd members with given endpoints",
            Action::Defrag,
        )
    },
    Command {
        inherited: CLUSTER,
        children: ENDPOINT,
        ..command("endpoint", "endpoint <subcommand>", "Endpoint related commands", Action::Group)
    },
    command(
        "move-leader",
        "move-leader <transferee-member-id>",
        "Transfers leadership to another etcd cluster member.",
        Action::MoveLeader,
    ),
    Command {
        flags: WATCH,
        ..command(
            "watch",
            "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
            "Watches events stream on keys or prefixes",
            Action::Watch,
        )
    },
    command("version", "version", "Prints the version of etcdctl", Action::Version),
    Command { children: LEASE, ..command("lease", "lease <subcommand>", "Lease related commands", Action::Group) },
    Command {
        children: MEMBER,
        ..command("member", "member <subcommand>", "Membership related commands", Action::Group)
    },
    Command {
        children: later::SNAPSHOT,
        ..command("snapshot", "snapshot <subcommand>", "Manages etcd node snapshots", Action::Group)
    },
    Command {
        flags: MIRROR,
        ..command(
            "make-mirror",
            "make-mirror [options] <destination>",
            "Makes a mirror at the destination etcd cluster",
            Action::MakeMirror,
        )
    },
    Command {
        flags: LOCK,
        ..command("lock", "lock <lockname> [exec-command arg1 arg2 ...]", "Acquires a named lock", Action::Lock)
    },
    Command {
        flags: ELECT,
        ..command(
            "elect",
            "elect <election-name> [proposal]",
            "Observes and participates in leader election",
            Action::Elect,
        )
    },
    Command {
        children: auth::AUTH,
        ..command("auth", "auth <enable or disable>", "Enable or disable authentication", Action::Group)
    },
    Command {
        children: auth::AUDIT,
        ..command("audit", "audit <subcommand>", "Records of calls related commands", Action::Group)
    },
    Command { children: auth::USER, ..command("user", "user <subcommand>", "User related commands", Action::Group) },
    Command { children: auth::ROLE, ..command("role", "role <subcommand>", "Role related commands", Action::Group) },
    Command {
        children: CHECK,
        ..command("check", "check <subcommand>", "commands for checking properties of the etcd cluster", Action::Group)
    },
    Command {
        long: COMPLETION_LONG,
        ..command(
            "completion",
            "completion [bash|zsh|fish|powershell]",
            "Generate completion script",
            Action::Completion,
        )
    },
    Command {
        children: later::DOWNGRADE,
        ..command("downgrade", "downgrade <TARGET_VERSION>", "Downgrade related commands", Action::Group)
    },
    command("options", "options", "Show the global command-line flags", Action::Options),
    Command { long: HELP_LONG, ..command("help", "help [command]", "Help about any command", Action::Help) },
];

/// The program itself, above all commands.
pub static ROOT: Command = Command {
    inherited: GLOBAL,
    children: COMMANDS,
    ..command("cairnctl", "cairnctl", "A simple command line client for Cairn and etcd3.", Action::Group)
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Flags;

    fn visit(
        command: &'static Command,
        above: &[&'static Flag],
        look: &mut impl FnMut(&'static Command, &[&'static Flag]),
    ) {
        let mut known: Vec<&'static Flag> = above.to_vec();
        known.extend(command.inherited);
        known.extend(command.flags);
        look(command, &known);
        known.truncate(above.len() + command.inherited.len());
        for child in command.children {
            visit(child, &known, look);
        }
    }

    #[test]
    fn every_default_can_be_read_and_no_flag_is_there_twice() {
        visit(&ROOT, &[], &mut |command, known| {
            let (flags, args) = Flags::read(known, &[]).expect("no words, no error");
            assert!(args.is_empty() && !flags.given("hex"));
            let mut names: Vec<_> = known.iter().map(|flag| flag.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), known.len(), "{}", command.name);
        });
    }

    #[test]
    fn tables_are_sorted_as_help_prints_them() {
        visit(&ROOT, &[], &mut |command, _| {
            assert!(command.flags.is_sorted_by_key(|flag| flag.name), "{}", command.name);
            assert!(command.inherited.is_sorted_by_key(|flag| flag.name), "{}", command.name);
        });
    }
}
