use std::time::Duration;

use super::super::log_settings::{LogLevel, LogOutput};
use super::super::settings::{AutoCompaction, Config};
use super::super::tls::{CipherSuite, TlsVersion};
use super::*;
use crate::config::Notice;
use crate::types::join;

fn parsed(text: &str) -> Result<(Config, Vec<Notice>), ConfigError> {
    let mut draft = Draft::default();
    parse(text, Path::new("x.yml"), &mut draft)?;
    draft.finish()
}

#[track_caller]
fn config(text: &str) -> Config {
    parsed(text).unwrap().0
}

#[track_caller]
fn error(text: &str) -> String {
    parsed(text).unwrap_err().to_string()
}

#[test]
fn every_key_of_a_section_names_a_flag() {
    for section in &SECTIONS {
        for (key, name) in section.keys {
            assert!(table::find(name).is_some(), "{}.{key}", section.name);
        }
    }
}

#[test]
fn keys_are_flag_names() {
    let config = config(
        "name: infra0\n\
         data-dir: /d\n\
         max-txn-ops: 7\n\
         quota-backend-bytes: -1\n\
         pre-vote: false\n\
         heartbeat-interval: 50\n\
         listen-client-urls: http://127.0.0.1:2, http://127.0.0.1:1\n\
         auto-compaction-mode: revision\n\
         auto-compaction-retention: 1000\n\
         log-level: debug\n\
         memtable-bytes: 1048576\n",
    );
    assert_eq!(config.name, "infra0");
    assert_eq!(config.data_dir, Some("/d".into()));
    assert_eq!((config.max_txn_ops, config.quota_backend_bytes, config.pre_vote), (7, -1, false));
    assert_eq!(config.heartbeat_interval, Duration::from_millis(50));
    assert_eq!(join(&config.listen_client_urls), "http://127.0.0.1:1,http://127.0.0.1:2");
    assert_eq!(config.auto_compaction, AutoCompaction::Revision(1000));
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.memtable_bytes, 1_048_576);
}

#[test]
fn durations_are_texts_or_nanoseconds() {
    assert_eq!(config("grpc-keepalive-interval: 10m").grpc_keepalive_interval, Duration::from_mins(10));
    assert_eq!(config("grpc-keepalive-interval: 600000000000").grpc_keepalive_interval, Duration::from_mins(10));
    assert_eq!(config("grpc-keepalive-interval: 0").grpc_keepalive_interval, Duration::ZERO);
}

#[test]
fn lists_are_lists_or_texts() {
    let suites = [CipherSuite::EcdheRsaAes128GcmSha256, CipherSuite::EcdheRsaAes256GcmSha384];
    let names = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
    assert_eq!(config(&format!("cipher-suites: [{names}]")).client_tls.cipher_suites, suites);
    assert_eq!(config(&format!("cipher-suites: {names}")).client_tls.cipher_suites, suites);
    assert_eq!(config("log-outputs: [stderr, /l]").log.outputs, [LogOutput::Stderr, LogOutput::File("/l".into())]);
}

#[test]
fn tls_stands_in_its_section() {
    let config = config(
        "client-transport-security:\n  cert-file: c\n  key-file: k\n  trusted-ca-file: ca\n  client-cert-auth: true\n  \
         auto-tls: true\n  allowed-hostname: [a, b]\n  crl-file: r\n\
         tls-min-version: TLS1.3\n",
    );
    let tls = config.client_tls;
    assert_eq!((tls.cert_file, tls.key_file), (Some("c".into()), Some("k".into())));
    assert_eq!((tls.trusted_ca_file, tls.client_crl_file), (Some("ca".into()), Some("r".into())));
    assert!(tls.client_cert_auth && tls.auto_tls);
    assert_eq!(tls.client_cert_allowed_hostnames, ["a", "b"]);
    assert_eq!(tls.min_version, TlsVersion::Tls13);
}

#[test]
fn a_tls_key_outside_its_section_is_refused() {
    assert_eq!(
        error("cert-file: c"),
        "key cert-file in config file x.yml must stand under client-transport-security, as cert-file"
    );
    assert_eq!(
        error("peer-trusted-ca-file: c"),
        "key peer-trusted-ca-file in config file x.yml must stand under peer-transport-security, as trusted-ca-file"
    );
    assert!(error("socket-reuse-port: true").contains("under socket-options, as reuse-port"));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    assert_eq!(
        error("listen-client-url: http://127.0.0.1:1"),
        "unknown key listen-client-url in config file x.yml, did you mean listen-client-urls?"
    );
    assert_eq!(
        error("client-transport-security:\n  cert_file: x"),
        "unknown key client-transport-security.cert_file in config file x.yml, \
         did you mean client-transport-security.cert-file?"
    );
    assert_eq!(
        error("client-transport-securty:\n  cert-file: x"),
        "unknown key client-transport-securty in config file x.yml, did you mean client-transport-security?"
    );
    assert!(error("config-file: y").starts_with("unknown key config-file in config file x.yml, did you mean "));
    assert!(error("nonsense: 1").starts_with("unknown key nonsense in config file x.yml"));
}

#[test]
fn a_wrong_value_names_file_and_key() {
    let text = error("max-txn-ops: many");
    assert!(text.starts_with("invalid value \"many\" for max-txn-ops in config file x.yml"), "{text}");
    let text = error("name: [a, b]");
    assert!(text.ends_with("expected a single value"), "{text}");
    let text = error("client-transport-security:\n  client-cert-auth: maybe");
    assert!(text.contains("client-transport-security.client-cert-auth in config file x.yml"), "{text}");
    assert!(error("client-transport-security: yes please").contains("must hold keys with values"));
}

#[test]
fn names_of_clients_are_checked_and_where_they_come_from_is_not() {
    let text = "client-transport-security:\n  allowed-cn: a\n  skip-client-san-verification: true";
    let (config, notices) = parsed(text).unwrap();
    assert_eq!(config.client_tls.allowed_common_names, ["a"]);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].setting, "client-transport-security.skip-client-san-verification");
    let text =
        "peer-transport-security:\n  client-cert-file: c\n  client-key-file: k\n  skip-client-san-verification: true";
    let (config, notices) = parsed(text).unwrap();
    assert!(config.peer_tls.skip_client_san_verification && notices.is_empty());
    assert_eq!(config.peer_tls.dialing_cert_file, Some("c".into()));
}

#[test]
fn what_is_not_yaml_is_refused_with_the_place() {
    assert!(error("name: [a").starts_with("cannot parse config file x.yml"));
    assert!(error("just a text").ends_with("expected keys with values"));
}

#[test]
fn of_a_key_that_is_there_twice_the_last_counts_and_its_line_is_named() {
    let (config, notices) = parsed("name: a\n# again\nmax-txn-ops: 7\nname: b").unwrap();
    assert_eq!((config.name.as_str(), config.max_txn_ops), ("b", 7));
    assert_eq!(notices[0].setting, "config file x.yml");
    assert!(notices[0].text.starts_with("line 4 sets \"name\" a second time, and the last one counts"), "{notices:?}");
    let (config, notices) = parsed("client-transport-security:\n  key-file: a\n  key-file: b").unwrap();
    assert_eq!(config.client_tls.key_file, Some("b".into()));
    assert!(notices[0].text.starts_with("line 3 sets \"key-file\" a second time"), "{notices:?}");
    assert!(error("name: a\nname: [b").starts_with("cannot parse config file x.yml"));
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(config(""), Config::default());
    assert_eq!(config("# nothing\n\n"), Config::default());
}

#[test]
fn keys_without_a_value_are_as_good_as_absent() {
    assert_eq!(config("data-dir:\ncors:\ninitial-cluster: ''\nclient-transport-security:\n"), Config::default());
}

/// The keys and values of the sample that etcd ships, without its comments.
#[test]
fn the_sample_file_of_etcd_is_accepted() {
    let sample = "
name: 'default'
data-dir:
wal-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 0
listen-peer-urls: http://localhost:2380
listen-client-urls: http://localhost:2379
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://localhost:2380
advertise-client-urls: http://localhost:2379
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster:
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
proxy-refresh-interval: 30000
proxy-dial-timeout: 1000
proxy-write-timeout: 5000
proxy-read-timeout: 0
client-transport-security: {cert-file: , key-file: , client-cert-auth: false, trusted-ca-file: , auto-tls: false}
peer-transport-security: {cert-file: , key-file: , client-cert-auth: false, trusted-ca-file: , auto-tls: false}
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: \"1\"
cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
tls-min-version: 'TLS1.2'
tls-max-version: 'TLS1.3'
";
    let (config, notices) = parsed(sample).unwrap();
    assert_eq!(config.auto_compaction, AutoCompaction::Periodic(Duration::from_hours(1)));
    assert_eq!(config.client_tls.cipher_suites.len(), 2);
    let noticed: Vec<_> = notices.iter().map(|notice| notice.setting.split(' ').next().unwrap()).collect();
    assert_eq!(noticed, ["discovery-fallback", "enable-pprof"]);
    config.validate().unwrap();
}

/// Keys whose values in the fixture change nothing, and are nothing to speak of.
const SILENT: [&str; 8] = [
    "auto-compaction-mode",
    "discovery-config.endpoints",
    "discovery-config.token",
    "discovery-srv",
    "grpc-additional-server-options",
    "log-rotation-config-json",
    "logger",
    "self-signed-cert-validity",
];

#[test]
fn every_key_of_etcd_takes_effect_or_is_accepted_with_a_warning() {
    let fixture = include_str!("../testdata/etcd-3.7-keys.txt");
    let mut silent = Vec::new();
    for line in fixture.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(" |").unwrap();
        let nested: Vec<_> =
            key.split('.').enumerate().map(|(depth, part)| format!("{}{part}:", "  ".repeat(depth))).collect();
        let (config, notices) = parsed(&format!("{}{value}", nested.join("\n"))).unwrap();
        if config == Config::default() && notices.is_empty() {
            silent.push(key);
        }
        assert!(notices.iter().all(|notice| notice.setting.trim_start_matches("--").starts_with(key)), "{notices:?}");
    }
    silent.sort_unstable();
    assert_eq!(silent, SILENT);
}

#[test]
fn discovery_is_refused_only_if_it_is_asked_for() {
    for asked in ["token: t", "endpoints: ['http://10.0.0.1:2379']"] {
        let text = error(&format!("discovery-config:\n  dial-timeout: 1000000000\n  {asked}"));
        assert!(
            text.starts_with("discovery-config.") && text.contains("is refused: discovery is not served"),
            "{text}"
        );
    }
    let idle = "discovery-config:\n  token: ''\n  endpoints: []\n  dial-timeout: 1000000000\n  secure:\n    cert: c";
    let (config, notices) = parsed(idle).unwrap();
    assert_eq!(config, Config::default());
    let noticed: Vec<_> = notices.iter().map(|notice| notice.setting.split(' ').next().unwrap()).collect();
    assert_eq!(noticed, ["discovery-config.dial-timeout", "discovery-config.secure.cert"]);
    assert!(error("discovery-config:\n  tokn: t").contains("did you mean discovery-config.token?"));
    assert_eq!(
        error("grpc-additional-server-options: [a]").split(" in ").next(),
        Some("unknown key grpc-additional-server-options")
    );
}

#[test]
fn capital_letters_in_keys_do_not_matter() {
    assert_eq!(config("Max-Txn-Ops: 7").max_txn_ops, 7);
    assert_eq!(config("Client-Transport-Security:\n  Cert-File: c").client_tls.cert_file, Some("c".into()));
}
