//! The table of commands and flags, in etcdctl's words.
//!
//! A command that is not there yet has its place in the table all the same ([`Action::Later`]): its name answers with a
//! clear error instead of "unknown command", and keeps short forms of its neighbours from changing meaning once it comes.

use super::flags::{Flag, Kind};
use super::long::{COMPLETION_LONG, DATASCALE_LONG, MEMBER_LIST_LONG, PUT_LONG, STATUS_LONG, TXN_LONG};

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
    /// `txn`
    Txn,
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

const fn flag(name: &'static str, short: Option<char>, kind: Kind, default: &'static str, usage: &'static str) -> Flag {
    Flag { name, short, kind, default, usage }
}

const fn command(name: &'static str, usage: &'static str, short: &'static str, action: Action) -> Command {
    Command { name, usage, short, long: "", action, flags: &[], inherited: &[], children: &[] }
}

const fn later(name: &'static str, short: &'static str) -> Command {
    command(name, name, short, Action::Later)
}

/// Flags every command has.
pub static GLOBAL: &[Flag] = &[
    flag(
        "auth-jwt-token",
        None,
        Kind::Text,
        "",
        "JWT token used for authentication (if this option is used, --user and --password should not be set)",
    ),
    flag("cacert", None, Kind::Text, "", "verify certificates of TLS-enabled secure servers using this CA bundle"),
    flag("cert", None, Kind::Text, "", "identify secure client using this TLS certificate file"),
    flag("command-timeout", None, Kind::Duration, "5s", "timeout for short running command (excluding dial timeout)"),
    flag("debug", None, Kind::Bool, "false", "print the value of every global option to standard error"),
    flag("dial-timeout", None, Kind::Duration, "2s", "dial timeout for client connections"),
    flag(
        "discovery-srv",
        Some('d'),
        Kind::Text,
        "",
        "domain name to query for SRV records describing cluster endpoints (not supported, use --endpoints)",
    ),
    flag("discovery-srv-name", None, Kind::Text, "", "service name to query when using DNS discovery (no effect)"),
    flag("endpoints", None, Kind::List, "127.0.0.1:2379", "gRPC endpoints"),
    flag("hex", None, Kind::Bool, "false", "print byte strings as hex encoded strings"),
    flag(
        "insecure-discovery",
        None,
        Kind::Bool,
        "true",
        "accept insecure SRV records describing cluster endpoints (no effect)",
    ),
    flag(
        "insecure-skip-tls-verify",
        None,
        Kind::Bool,
        "false",
        "skip server certificate verification (CAUTION: this option should be enabled only for testing purposes)",
    ),
    flag("insecure-transport", None, Kind::Bool, "true", "disable transport security for client connections"),
    flag("keepalive-time", None, Kind::Duration, "2s", "keepalive time for client connections"),
    flag("keepalive-timeout", None, Kind::Duration, "6s", "keepalive timeout for client connections"),
    flag("key", None, Kind::Text, "", "identify secure client using this TLS key file"),
    flag(
        "max-recv-bytes",
        None,
        Kind::Int,
        "0",
        "client-side response receive limit in bytes (if 0, it defaults to 2147483647)",
    ),
    flag(
        "max-request-bytes",
        None,
        Kind::Int,
        "0",
        "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * 1024))",
    ),
    flag(
        "password",
        None,
        Kind::Text,
        "",
        "password for authentication (if this option is used, --user option shouldn't include password)",
    ),
    flag("user", None, Kind::Text, "", "username[:password] for authentication (prompt if password is not supplied)"),
    flag("write-out", Some('w'), Kind::Text, "simple", "set the output format (fields, json, protobuf, simple, table)"),
];

/// Flags of `get`, also inside a transaction.
pub static GET: &[Flag] = &[
    flag("consistency", None, Kind::Text, "l", "Linearizable(l) or Serializable(s)"),
    flag("count-only", None, Kind::Bool, "false", "Get only the count"),
    flag(
        "from-key",
        None,
        Kind::Bool,
        "false",
        "Get keys that are greater than or equal to the given key using byte compare",
    ),
    flag("keys-only", None, Kind::Bool, "false", "Get only the keys"),
    flag("limit", None, Kind::Int, "0", "Maximum number of results"),
    flag("max-create-rev", None, Kind::Int, "0", "Maximum create revision"),
    flag("max-mod-rev", None, Kind::Int, "0", "Maximum modification revision"),
    flag("min-create-rev", None, Kind::Int, "0", "Minimum create revision"),
    flag("min-mod-rev", None, Kind::Int, "0", "Minimum modification revision"),
    flag("order", None, Kind::Text, "", "Order of results; ASCEND or DESCEND (ASCEND by default)"),
    flag("prefix", None, Kind::Bool, "false", "Get keys with matching prefix"),
    flag("print-value-only", None, Kind::Bool, "false", "Only write values when using the \"simple\" output format"),
    flag("rev", None, Kind::Int, "0", "Specify the kv revision"),
    flag("sort-by", None, Kind::Text, "", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"),
    flag("stream", None, Kind::Bool, "false", "Get the keys in pieces, for ranges too large for one answer"),
];

/// Flags of `put`, also inside a transaction.
pub static PUT: &[Flag] = &[
    flag("ignore-lease", None, Kind::Bool, "false", "updates the key using its current lease"),
    flag("ignore-value", None, Kind::Bool, "false", "updates the key using its current value"),
    flag("lease", None, Kind::Text, "0", "lease ID (in hexadecimal) to attach to the key"),
    flag("prev-kv", None, Kind::Bool, "false", "return the previous key-value pair before modification"),
];

/// Flags of `del`, also inside a transaction.
pub static DEL: &[Flag] = &[
    flag(
        "from-key",
        None,
        Kind::Bool,
        "false",
        "delete keys that are greater than or equal to the given key using byte compare",
    ),
    flag("prefix", None, Kind::Bool, "false", "delete keys with matching prefix"),
    flag("prev-kv", None, Kind::Bool, "false", "return deleted key-value pairs"),
    flag("range", None, Kind::Bool, "false", "delete range of keys without delay"),
];

/// Flags of `txn`.
static TXN: &[Flag] = &[flag("interactive", Some('i'), Kind::Bool, "false", "Input transaction in interactive mode")];

/// Flags of `compaction`.
static COMPACTION: &[Flag] = &[flag(
    "physical",
    None,
    Kind::Bool,
    "false",
    "'true' to wait for compaction to physically remove all old revisions",
)];

/// Flags of `defrag` and of the commands below `endpoint`.
static CLUSTER: &[Flag] =
    &[flag("cluster", None, Kind::Bool, "false", "use all endpoints from the cluster member list")];

/// Flags of `endpoint hashkv`.
static HASHKV: &[Flag] = &[flag("rev", None, Kind::Int, "0", "maximum revision to hash (default: all revisions)")];

/// Flags of `lease timetolive`.
static TIME_TO_LIVE: &[Flag] = &[flag("keys", None, Kind::Bool, "false", "Get keys attached to this lease")];

/// Flags of `lease keep-alive`.
static KEEP_ALIVE: &[Flag] = &[flag(
    "once",
    None,
    Kind::Bool,
    "false",
    "Resets the keep-alive time to its original value and exits immediately",
)];

/// Flags of `watch`, also of one in the interactive mode.
pub static WATCH: &[Flag] = &[
    flag("interactive", Some('i'), Kind::Bool, "false", "Interactive mode"),
    flag("prefix", None, Kind::Bool, "false", "Watch on a prefix if prefix is set"),
    flag("prev-kv", None, Kind::Bool, "false", "get the previous key-value pair before the event happens"),
    flag("progress-notify", None, Kind::Bool, "false", "get periodic watch progress notification from server"),
    flag("rev", None, Kind::Int, "0", "Revision to start watching"),
];

/// Flags of `lock`.
static LOCK: &[Flag] = &[flag("ttl", None, Kind::Int, "10", "timeout for session")];

/// Flags of `elect`.
static ELECT: &[Flag] = &[flag("listen", Some('l'), Kind::Bool, "false", "observation mode")];

/// Flags of `make-mirror`.
static MIRROR: &[Flag] = &[
    flag("dest-cacert", None, Kind::Text, "", "Verify certificates of TLS enabled secure servers using this CA bundle"),
    flag(
        "dest-cert",
        None,
        Kind::Text,
        "",
        "Identify secure client using this TLS certificate file for the destination cluster",
    ),
    flag("dest-insecure-transport", None, Kind::Bool, "true", "Disable transport security for client connections"),
    flag("dest-key", None, Kind::Text, "", "Identify secure client using this TLS key file"),
    flag(
        "dest-password",
        None,
        Kind::Text,
        "",
        "Destination password for authentication (if this option is used, --user option shouldn't include password)",
    ),
    flag(
        "dest-prefix",
        None,
        Kind::Text,
        "",
        "destination prefix to mirror a prefix to a different prefix in the destination cluster",
    ),
    flag(
        "dest-user",
        None,
        Kind::Text,
        "",
        "Destination username[:password] for authentication (prompt if password is not supplied)",
    ),
    flag(
        "max-txn-ops",
        None,
        Kind::Int,
        "128",
        "Maximum number of operations permitted in a transaction during syncing updates.",
    ),
    flag("no-dest-prefix", None, Kind::Bool, "false", "mirror key-values to the root of the destination cluster"),
    flag("prefix", None, Kind::Text, "", "Key-value prefix to mirror"),
    flag("rev", None, Kind::Int, "0", "Specify the kv revision to start to mirror"),
];

const AUTO_COMPACT: Flag =
    flag("auto-compact", None, Kind::Bool, "false", "Compact storage with last revision after test is finished.");

const AUTO_DEFRAG: Flag = flag("auto-defrag", None, Kind::Bool, "false", "Defragment storage after test is finished.");

/// Flags of `check datascale`.
static DATASCALE: &[Flag] = &[
    AUTO_COMPACT,
    AUTO_DEFRAG,
    flag(
        "load",
        None,
        Kind::Text,
        "s",
        "The datascale check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge)",
    ),
    flag("prefix", None, Kind::Text, "/etcdctl-check-datascale/", "The prefix for writing the datascale check's keys."),
];

/// Flags of `check perf`.
static PERF: &[Flag] = &[
    AUTO_COMPACT,
    AUTO_DEFRAG,
    flag(
        "load",
        None,
        Kind::Text,
        "s",
        "The performance check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge)",
    ),
    flag("prefix", None, Kind::Text, "/etcdctl-check-perf/", "The prefix for writing the performance check's keys."),
];

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

/// Flags of `member add`.
static MEMBER_ADD: &[Flag] = &[
    flag("learner", None, Kind::Bool, "false", "indicates if the new member is raft learner"),
    flag("peer-urls", None, Kind::Text, "", "comma separated peer URLs for the new member."),
];

/// Flags of `member update`.
static MEMBER_UPDATE: &[Flag] =
    &[flag("peer-urls", None, Kind::Text, "", "comma separated peer URLs for the updated member.")];

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
    later("snapshot", "Manages etcd node snapshots"),
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
    later("auth", "Enable or disable authentication"),
    later("user", "User related commands"),
    later("role", "Role related commands"),
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
    later("downgrade", "Downgrade related commands"),
    command("options", "options", "Show the global command-line flags", Action::Options),
    command("help", "help [command]", "Help about any command", Action::Help),
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
