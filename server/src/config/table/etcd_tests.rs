//! Holds the table against the flags of etcd 3.7.1 (`testdata/`): what starts that starts here, or is listed with a
//! reason.

use std::{collections::BTreeMap, ffi::OsString};

use super::super::{
    flag::{Class, Kind},
    load::{Invocation, Loaded, load},
    settings::Config,
};
use super::*;

/// Flags that end a start with a value that does not end an etcd, and why.
const REFUSED: [(&str, &str); 4] = [
    ("discovery", "etcd knows it in its help alone, and ends"),
    ("discovery-endpoints", "a member that ignored it would make a cluster of its own"),
    ("discovery-token", "a member that ignored it would make a cluster of its own"),
    ("discovery-srv", "a member that ignored it would make a cluster of its own"),
];

/// Other values that end an etcd, too.
const ENDS_BOTH: [&str; 1] = ["logger"];

/// Defaults that are spelled or meant in another way.
const OTHER_DEFAULTS: [(&str, &str); 3] = [
    ("data-dir", "the directory of an etcd is never opened by chance"),
    ("initial-cluster", "made from name and peer URLs, as etcd does"),
    ("advertise-client-urls", "where clients are listened for, which is the same by default"),
];

/// Values out of range that are treated in another way than by etcd, and why.
const OTHER_RANGES: [(&str, &str); 7] = [
    ("max-request-bytes=0", "an etcd that can commit nothing starts, and never serves"),
    ("max-request-bytes=4294967296", "a message has to fit the length field of gRPC"),
    ("raft-read-timeout=1s", "members give signs of life more often"),
    ("raft-read-timeout=-1s", "members give signs of life more often"),
    ("raft-write-timeout=1s", "it has no effect"),
    ("compaction-batch-limit=-1", "etcd removes everything in one step, and stops writes meanwhile"),
    ("corrupt-check-time=-1s", "etcd compares without a pause"),
];

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('|').map(str::trim).collect())
}

/// Name, kind, default, other value, and the flags that it needs.
fn etcd_flags() -> Vec<(&'static str, &'static str, &'static str, &'static str, Vec<&'static str>)> {
    lines(include_str!("testdata/etcd-3.7.1-flags.txt"))
        .map(|line| {
            let needs = line.get(4).map_or_else(Vec::new, |needs| needs.split(' ').collect());
            (line[0], line[1], line[2], line[3], needs)
        })
        .collect()
}

fn start(args: impl IntoIterator<Item = String>) -> Result<Loaded, String> {
    match load(args.into_iter().map(OsString::from), []) {
        Ok(Invocation::Start(loaded)) => Ok(*loaded),
        Ok(other) => panic!("it starts nothing: {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_syntax_and_default_of_each_flag_are_those_of_etcd() {
    let mut other = Vec::new();
    for (name, kind, default, ..) in etcd_flags() {
        let flag = find(name).unwrap_or_else(|| panic!("--{name} is missing"));
        let kinds: &[Kind] = match kind {
            "bool" => &[Kind::Bool],
            "uint" => &[Kind::Uint, Kind::Millis],
            "int" => &[Kind::Int, Kind::Uint],
            "duration" => &[Kind::Duration],
            "urls" => &[Kind::Urls],
            "list" => &[Kind::List, Kind::Text],
            "text" => &[Kind::Text, Kind::Gates],
            kind => panic!("no kind {kind}"),
        };
        assert!(kinds.contains(&flag.kind), "--{name} is {:?}", flag.kind);
        if !flag.kind.same(flag.default, default) {
            other.push(name);
        }
    }
    assert_eq!(other, OTHER_DEFAULTS.map(|(name, _)| name));
}

#[test]
fn each_flag_starts_with_its_default_and_with_another_value_or_is_refused_with_a_reason() {
    let (mut refused, mut silent) = (Vec::new(), Vec::new());
    for (name, kind, default, other, needs) in etcd_flags() {
        if !OTHER_DEFAULTS.iter().any(|(other, _)| *other == name) {
            let with = if name == "listen-client-urls" { "--advertise-client-urls=http://localhost:2379" } else { "" };
            let args = [format!("--{name}={default}"), with.to_owned()].into_iter().filter(|arg| !arg.is_empty());
            let loaded = start(args).unwrap_or_else(|error| panic!("--{name}={default}: {error}"));
            let loaded = Config { advertise_client_urls: Vec::new(), ..loaded.config };
            assert_eq!(loaded, Config::default(), "--{name}={default}");
        }
        assert!(
            kind == "bool" || !find(name).unwrap().kind.same(default, other),
            "--{name}: {other} is no other value"
        );
        let args = needs.iter().map(|&need| need.to_owned()).chain([format!("--{name}={other}")]);
        match start(args) {
            Ok(loaded) => {
                let without_effect = matches!(find(name).unwrap().class, Class::Ignored | Class::Pending(..));
                let said = loaded.notices.iter().any(|notice| notice.setting == format!("--{name}"));
                if without_effect && !said {
                    silent.push(name);
                }
            }
            Err(error) => {
                assert!(error.contains(name), "--{name}={other}: {error}");
                refused.push(name);
            }
        }
    }
    assert_eq!(silent, [""; 0], "what has no effect is warned about");
    let listed: BTreeMap<_, _> = REFUSED.into_iter().chain(ENDS_BOTH.map(|name| (name, ""))).collect();
    refused.sort_unstable();
    assert_eq!(refused, listed.into_keys().collect::<Vec<_>>());
}

#[test]
fn a_value_out_of_range_ends_what_it_ends_in_etcd_and_means_what_it_means_there() {
    let mut other = Vec::new();
    for line in lines(include_str!("testdata/etcd-3.7.1-ranges.txt")) {
        let (setting, expected) = (line[0], *line.last().unwrap());
        if line.len() > 2 {
            other.push(setting);
        }
        let loaded = start(setting.split(' ').map(|flag| format!("--{flag}")));
        let (name, value) = setting.split_once('=').unwrap();
        let counts = match expected.split_once(' ') {
            None if expected == "ends" => {
                let error = loaded.expect_err(setting);
                assert!(error.contains(name), "{setting}: {error}");
                continue;
            }
            None => value,
            Some((_, meaning)) => meaning,
        };
        let loaded = loaded.unwrap_or_else(|error| panic!("{setting}: {error}"));
        if let Some(effective) = effective(&loaded.config, name) {
            assert!(find(name).unwrap().kind.same(&effective, counts), "{setting} counts as {effective}, not {counts}");
        }
        if counts != value {
            let said = loaded.notices.iter().any(|notice| notice.setting == format!("--{name}"));
            assert!(said, "{setting} is replaced without a word: {:?}", loaded.notices);
        }
    }
    assert_eq!(other, OTHER_RANGES.map(|(setting, _)| setting));
}

/// What counts of a flag, where that may be something else than was given.
fn effective(config: &Config, name: &str) -> Option<String> {
    Some(match name {
        "snapshot-count" => config.snapshot_count().to_string(),
        "snapshot-catchup-entries" => config.snapshot_catchup_entries().to_string(),
        "max-request-bytes" => config.max_request_bytes().to_string(),
        "max-concurrent-streams" => config.max_concurrent_streams().to_string(),
        "compaction-batch-limit" => config.compaction_batch_limit().to_string(),
        "compaction-sleep-interval" => format!("{}ns", config.compaction_sleep_interval().as_nanos()),
        "watch-progress-notify-interval" => format!("{}ns", config.watch_progress_notify_interval().as_nanos()),
        "raft-read-timeout" => format!("{}ns", config.peer_read_timeout().as_nanos()),
        "grpc-keepalive-min-time" => format!("{}ns", config.grpc_keepalive_min_time.as_nanos()),
        "grpc-keepalive-interval" => format!("{}ns", config.grpc_keepalive_interval.as_nanos()),
        "grpc-keepalive-timeout" => format!("{}ns", config.grpc_keepalive_timeout.as_nanos()),
        "corrupt-check-time" => format!("{}ns", config.corrupt_check_time.as_nanos()),
        _ => return None,
    })
}
