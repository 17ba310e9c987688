//! The flags of the table of commands, in etcdctl's words.

use super::flags::{Flag, Kind};

pub(super) const fn flag(
    name: &'static str,
    short: Option<char>,
    kind: Kind,
    default: &'static str,
    usage: &'static str,
) -> Flag {
    Flag { name, short, kind, default, usage }
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
pub(super) static TXN: &[Flag] =
    &[flag("interactive", Some('i'), Kind::Bool, "false", "Input transaction in interactive mode")];

/// Flags of `compaction`.
pub(super) static COMPACTION: &[Flag] = &[flag(
    "physical",
    None,
    Kind::Bool,
    "false",
    "'true' to wait for compaction to physically remove all old revisions",
)];

/// Flags of `defrag` and of the commands below `endpoint`.
pub(super) static CLUSTER: &[Flag] =
    &[flag("cluster", None, Kind::Bool, "false", "use all endpoints from the cluster member list")];

/// Flags of `endpoint hashkv`.
pub(super) static HASHKV: &[Flag] =
    &[flag("rev", None, Kind::Int, "0", "maximum revision to hash (default: all revisions)")];

/// Flags of `lease timetolive`.
pub(super) static TIME_TO_LIVE: &[Flag] = &[flag("keys", None, Kind::Bool, "false", "Get keys attached to this lease")];

/// Flags of `lease keep-alive`.
pub(super) static KEEP_ALIVE: &[Flag] = &[flag(
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
pub(super) static LOCK: &[Flag] = &[flag("ttl", None, Kind::Int, "10", "timeout for session")];

/// Flags of `elect`.
pub(super) static ELECT: &[Flag] = &[flag("listen", Some('l'), Kind::Bool, "false", "observation mode")];

/// Flags of `make-mirror`.
pub(super) static MIRROR: &[Flag] = &[
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
pub(super) static DATASCALE: &[Flag] = &[
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
pub(super) static PERF: &[Flag] = &[
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
/// Flags of `member add`.
pub(super) static MEMBER_ADD: &[Flag] = &[
    flag("learner", None, Kind::Bool, "false", "indicates if the new member is raft learner"),
    flag("peer-urls", None, Kind::Text, "", "comma separated peer URLs for the new member."),
];

/// Flags of `member update`.
pub(super) static MEMBER_UPDATE: &[Flag] =
    &[flag("peer-urls", None, Kind::Text, "", "comma separated peer URLs for the updated member.")];
