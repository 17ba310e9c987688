use super::*;
use crate::types::Url;

fn load_from(args: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
    load(args.iter().map(OsString::from), environment.iter().map(|(name, value)| (name.into(), value.into())))
}

#[track_caller]
fn loaded(args: &[&str], environment: &[(&str, &str)]) -> Loaded {
    match load_from(args, environment).unwrap() {
        Invocation::Start(loaded) => *loaded,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn error(args: &[&str], environment: &[(&str, &str)]) -> String {
    load_from(args, environment).unwrap_err().to_string()
}

#[test]
fn values_stand_after_a_blank_or_an_equals_sign_behind_one_dash_or_two() {
    for args in [["--name", "a"].as_slice(), &["-name", "a"], &["--name=a"], &["-name=a"]] {
        assert_eq!(loaded(args, &[]).config.name, "a", "{args:?}");
    }
    assert_eq!(loaded(&["--initial-cluster-token", "a=b"], &[]).config.initial_cluster_token, "a=b");
    assert_eq!(loaded(&["--initial-cluster-token=a=b"], &[]).config.initial_cluster_token, "a=b");
    assert_eq!(loaded(&["--quota-backend-bytes", "-1"], &[]).config.quota_backend_bytes, -1);
}

#[test]
fn booleans_take_their_value_only_after_an_equals_sign() {
    assert!(loaded(&["--socket-reuse-port"], &[]).config.socket_reuse_port);
    assert!(loaded(&["--socket-reuse-port=true"], &[]).config.socket_reuse_port);
    assert!(!loaded(&["--pre-vote=false"], &[]).config.pre_vote);
    assert_eq!(error(&["--pre-vote", "false"], &[]), "\"false\" is not a valid flag");
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    assert_eq!(loaded(&["--name", "a", "--name", "b"], &[]).config.name, "b");
}

#[test]
fn an_unknown_flag_is_refused_with_the_nearest_name() {
    assert_eq!(error(&["--nme", "x"], &[]), "unknown flag --nme, did you mean --name?; --help lists the flags");
    assert!(error(&["--listen-client-url=x"], &[]).contains("did you mean --listen-client-urls?"));
    assert!(error(&["--frobnicate"], &[]).starts_with("unknown flag --frobnicate, did you mean --"));
}

#[test]
fn what_is_no_flag_is_refused() {
    assert_eq!(error(&["start"], &[]), "\"start\" is not a valid flag");
    assert_eq!(error(&["-"], &[]), "\"-\" is not a valid flag");
    assert_eq!(error(&["--", "x"], &[]), "\"x\" is not a valid flag");
    assert_eq!(loaded(&["--name", "a", "--"], &[]).config.name, "a");
}

#[test]
fn a_missing_or_bad_value_names_its_flag() {
    assert_eq!(error(&["--name"], &[]), "flag --name needs a value");
    let text = error(&["--max-txn-ops", "many"], &[]);
    assert!(text.starts_with("invalid value \"many\" for --max-txn-ops: expected a whole number"), "{text}");
    let text = error(&["--election-timeout", "1s"], &[]);
    assert!(text.starts_with("invalid value \"1s\" for --election-timeout"), "{text}");
    assert!(error(&["--max-wals", "x"], &[]).contains("--max-wals"), "ignored flags are checked too");
}

#[test]
fn help_and_version_come_before_everything_else() {
    for args in [["--help"].as_slice(), &["-h"], &["--name", "a", "-help"]] {
        assert!(matches!(load_from(args, &[]), Ok(Invocation::Help)), "{args:?}");
    }
    assert!(matches!(load_from(&["--version"], &[("ETCD_NAME", "x")]), Ok(Invocation::Version)));
    assert!(matches!(load_from(&["--version=false"], &[]), Ok(Invocation::Start(_))));
}

#[test]
fn variables_fill_in_what_no_flag_says() {
    let config = loaded(
        &["--name", "a"],
        &[("ETCD_MAX_TXN_OPS", "7"), ("ETCD_DATA_DIR", "/d"), ("ETCD_PRE_VOTE", "false"), ("PATH", "/bin")],
    );
    assert_eq!((config.config.name.as_str(), config.config.max_txn_ops, config.config.pre_vote), ("a", 7, false));
    assert_eq!(config.config.data_dir, Some("/d".into()));
    assert_eq!(config.notices, []);
}

#[test]
fn every_flag_has_its_variable() {
    for flag in table::flags().filter(|flag| matches!(flag.class, Class::Effect(_))) {
        let value = if flag.default.is_empty() { continue } else { flag.default };
        let variable = flag.variable();
        let result = load_from(&["--advertise-client-urls=http://localhost:2379"], &[(variable.as_str(), value)]);
        assert!(result.is_ok(), "{variable}: {result:?}");
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    assert_eq!(loaded(&["--name", "a"], &[("ETCD_NAME", ""), ("ETCD_MAX_TXN_OPS", "")]).config.name, "a");
}

#[test]
fn a_bad_variable_is_named() {
    assert!(error(&[], &[("ETCD_MAX_TXN_OPS", "x")]).starts_with("invalid value \"x\" for ETCD_MAX_TXN_OPS"));
}

#[test]
fn a_flag_and_its_variable_together_are_refused_as_in_etcd() {
    assert_eq!(
        error(&["--name", "a"], &[("ETCD_NAME", "b")]),
        "environment variable ETCD_NAME is shadowed by the flag --name: unset the variable or drop the flag"
    );
}

#[test]
fn unknown_variables_are_warned_about() {
    let loaded = loaded(&[], &[("ETCD_NMAE", "x"), ("ETCD_VERSION", "3.5"), ("ETCDCTL_API", "3")]);
    let settings: Vec<_> = loaded.notices.iter().map(|notice| notice.setting.as_str()).collect();
    assert_eq!(settings, ["ETCD_NMAE", "ETCD_VERSION"]);
}

#[test]
fn explicit_listen_urls_need_explicit_advertised_ones() {
    let text = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
    assert_eq!(error(&["--listen-client-urls", "http://127.0.0.1:1"], &[]), text);
    assert_eq!(error(&[], &[("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")]), text);
    let args = ["--listen-client-urls", "http://127.0.0.1:1"];
    let loaded = loaded(&args, &[("ETCD_ADVERTISE_CLIENT_URLS", "http://h:1")]);
    assert_eq!(loaded.config.advertise_client_urls, [Url::parse("http://h:1").unwrap()]);
}

#[test]
fn flags_without_effect_are_accepted_with_the_reason() {
    let loaded = loaded(&["--max-wals=9", "--feature-gates=LeaseCheckpoint=true"], &[]);
    assert_eq!(loaded.notices.len(), 2);
    assert_eq!(loaded.notices[0].setting, "--max-wals");
    assert!(loaded.notices[0].text.starts_with("accepted, but without effect: log segments are recycled"));
}

#[test]
fn a_flag_without_effect_at_its_default_is_nothing_to_say_about() {
    let args = ["--max-wals=5", "--logger=zap", "--auth-token=simple", "--enable-v2=false", "--proxy=off"];
    assert_eq!(loaded(&args, &[]).notices, []);
}

#[test]
fn flags_that_must_not_be_ignored_are_refused() {
    assert!(error(&["--discovery-token=x"], &[]).contains("is refused"));
    assert!(error(&[], &[("ETCD_DISCOVERY_SRV", "a.b")]).starts_with("ETCD_DISCOVERY_SRV=a.b is refused"));
}

#[test]
fn what_no_current_release_knows_is_refused_as_a_flag_and_warned_about_where_it_was_left_over() {
    let dropped: Vec<_> = table::flags().filter(|flag| matches!(flag.class, Class::Dropped)).collect();
    assert!(dropped.iter().any(|flag| flag.name == "enable-v2"));
    let dir = tempfile::tempdir().unwrap();
    for flag in dropped {
        assert!(error(&[&format!("--{}=true", flag.name)], &[]).contains("is refused"), "{}", flag.name);
        let variable = flag.variable();
        let by_variable = loaded(&[], &[(&variable, "true")]);
        let path = dir.path().join("cairn.yml");
        std::fs::write(&path, format!("{}: true\n", flag.name)).unwrap();
        let by_file = loaded(&["--config-file", path.to_str().unwrap()], &[]);
        for loaded in [by_variable, by_file] {
            assert_eq!(loaded.config, Config::default());
            let texts: Vec<_> = loaded.notices.iter().map(|notice| notice.text.as_str()).collect();
            assert!(matches!(texts[..], [text] if text.starts_with("no current release knows it")), "{texts:?}");
        }
    }
}

#[test]
fn what_test_frameworks_pass_to_be_faster_is_accepted_without_effect() {
    let loaded = loaded(&["--unsafe-no-fsync=true"], &[]);
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.notices.len(), 1);
    assert!(crate::config::help_text().contains("--unsafe-no-fsync"));
}

#[test]
fn values_below_their_minimum_are_raised_and_warned_about() {
    let loaded = loaded(&["--raft-read-timeout=1ms"], &[]);
    assert_eq!(loaded.config.peer_read_timeout(), std::time::Duration::from_secs(3));
    assert!(loaded.notices[0].text.contains("raised to 3s"), "{:?}", loaded.notices);
}

#[test]
fn stages_of_the_v2_store_are_those_of_the_current_release() {
    for stage in ["write-only", "write-only-drop-data", "gone"] {
        assert_eq!(loaded(&[&format!("--v2-deprecation={stage}")], &[]).notices, []);
    }
    assert!(error(&["--v2-deprecation=not-yet"], &[]).contains("expected write-only"));
}

#[test]
fn unsupported_cipher_suites_are_left_out_with_a_warning() {
    let suites = "--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    let loaded = loaded(&[suites], &[]);
    assert_eq!(loaded.config.client_tls.cipher_suites.len(), 1);
    let expected = Notice::new("--cipher-suites", "not supported, and left out: TLS_RSA_WITH_AES_128_CBC_SHA");
    assert_eq!(loaded.notices, [expected]);
    assert!(error(&["--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA"], &[]).contains("none of these cipher suites"));
}

#[test]
fn an_older_name_works_and_is_warned_about() {
    let loaded = loaded(&["--experimental-compaction-batch-limit=7"], &[]);
    assert_eq!(loaded.config.compaction_batch_limit, 7);
    assert_eq!(loaded.notices.len(), 1);
    assert_eq!(loaded.notices[0].text, "an older name, use --compaction-batch-limit instead");
}

#[test]
fn old_and_new_name_together_are_refused() {
    for args in [
        ["--compaction-batch-limit=7", "--experimental-compaction-batch-limit=8"],
        ["--experimental-compaction-batch-limit=8", "--compaction-batch-limit=7"],
    ] {
        assert!(error(&args, &[]).ends_with("set the same thing: keep one of the two"));
    }
}

#[test]
fn an_invalid_combination_is_refused() {
    assert!(error(&["--election-timeout=100"], &[]).contains("at least as 5 times"));
    let text = error(&["--auto-compaction-mode=revision", "--auto-compaction-retention=5m"], &[]);
    assert_eq!(text, "invalid value \"5m\" for --auto-compaction-retention: expected a number of revisions");
}

#[test]
fn with_a_config_file_flags_and_variables_are_ignored_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cairn.yml");
    std::fs::write(&path, "name: from-file\n").unwrap();
    let file = path.to_str().unwrap();
    for (args, environment) in [
        (vec!["--config-file", file, "--name", "a"], vec![("ETCD_NAME", "b"), ("ETCD_DATA_DIR", "/d")]),
        (vec!["--name", "a"], vec![("ETCD_CONFIG_FILE", file), ("ETCD_DATA_DIR", "/d"), ("ETCD_NAME", "b")]),
    ] {
        let loaded = loaded(&args, &environment);
        assert_eq!((loaded.config.name.as_str(), loaded.config.data_dir), ("from-file", None));
        assert_eq!(loaded.config_file, Some(path.clone()));
        let notice = &loaded.notices[0];
        assert!(notice.text.ends_with("are ignored: --name, ETCD_DATA_DIR, ETCD_NAME"), "{notice:?}");
    }
}

#[test]
fn a_config_file_that_is_not_there_is_named() {
    assert!(
        error(&["--config-file", "/nonexistent/x.yml"], &[]).starts_with("cannot read config file /nonexistent/x.yml")
    );
}
