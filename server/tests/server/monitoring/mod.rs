//! The dashboard and the alerts of `docs/monitoring`, held against a live cluster by a real Prometheus: every
//! expression has data, no alert fires while all is well, and those about lost members fire when members are killed.

mod files;
mod prometheus;
mod traffic;

use std::{collections::BTreeSet, time::Duration};

use tempfile::TempDir;

use self::{
    files::{Alert, Dashboard, Target, alerts, alerts_tested, margin, path, read, selectors},
    prometheus::{Prometheus, command},
    traffic::{Traffic, lag_until_a_snapshot},
};
use super::{
    process::Process,
    support::{certs, eventually, http},
    trio::Places,
};

/// How long Prometheus and the cluster may take to come to what is waited for, on a busy machine.
const WITHIN: Duration = Duration::from_mins(1);
/// How often that is looked at: all expressions are evaluated each time.
const POLL: Duration = Duration::from_millis(250);
/// How far back a panel looks.
const SHOWN: &str = "30s";

/// Waits until a list is empty.
async fn becomes_empty(what: &str, mut check: impl AsyncFnMut() -> Vec<String>) {
    let mut last = Vec::new();
    let waited = async {
        loop {
            last = check().await;
            if last.is_empty() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let outcome = tokio::time::timeout(WITHIN, waited).await;
    assert!(outcome.is_ok(), "{what}:\n{}", last.join("\n"));
}

/// An expression as Grafana sends it, for scrapes that come twice a second.
fn substituted(expr: &str) -> String {
    let values = [("$__rate_interval", "5s"), ("$__range", "1m"), ("$job", "cairn"), ("$instance", ".+")];
    let sent = values.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
    assert!(!sent.contains('$'), "an unknown variable: {sent}");
    sent
}

async fn has_data(prometheus: &Prometheus, expression: &str) -> bool {
    prometheus.values(expression).await.iter().any(|value| value.is_finite())
}

/// What is asked of Prometheus for a panel.
fn asked(target: &Target) -> String {
    let expr = substituted(&target.expr);
    if target.instant { expr } else { format!("({expr})[{SHOWN}:1s]") }
}

/// The expressions of panels and alerts that have no data.
async fn without_data(prometheus: &Prometheus, targets: &[Target], alerts: &[Alert]) -> Vec<String> {
    let mut found = Vec::new();
    for target in targets {
        if !has_data(prometheus, &asked(target)).await {
            found.push(format!("panel {:?}: {}", target.panel, target.expr));
        }
    }
    for alert in alerts {
        if !has_data(prometheus, &margin(&alert.expr)).await {
            found.push(format!("{}: {}", alert.name, alert.expr));
        }
    }
    found
}

/// The alerts whose condition holds, but for those that measure how fast this machine is.
async fn holding(prometheus: &Prometheus, alerts: &[Alert]) -> BTreeSet<String> {
    let mut holding = BTreeSet::new();
    for alert in alerts.iter().filter(|alert| alert.labels.area != "performance") {
        if !prometheus.values(&alert.expr).await.is_empty() {
            holding.insert(alert.name.clone());
        }
    }
    holding
}

/// The example's configuration for these members, at twice a second, and with a second job that asks over TLS.
fn configuration(members: &[&Process; 3]) -> String {
    let mut config = read("prometheus.yml").replace("15s", "500ms");
    for (at, member) in members.iter().enumerate() {
        config = config.replace(&format!("10.0.0.{}:2381", at + 1), &member.addrs[1].to_string());
    }
    let rules = path("alerts.yaml");
    config = config.replace("alerts.yaml", rules.to_str().expect("a path in UTF-8"));
    let file = |name: &str| certs().path(name).display().to_string();
    let (ca, certificate, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let target = members[0].addrs[2];
    config
        + &format!(
            "  - job_name: tls\n    scheme: https\n    tls_config: {{ca_file: {ca}, cert_file: {certificate}, key_file: {key}}}\n    \
             static_configs: [{{targets: [\"{target}\"]}}]\n"
        )
}

/// Names of samples that expressions use and no member shows.
async fn names_not_shown(members: &[&Process; 3], expressions: &[&str]) -> Vec<String> {
    let mut shown = BTreeSet::new();
    for member in members {
        let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let page = http(member.addrs[1], request).await.body;
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        shown.extend(samples.filter_map(|line| Some(line.split(['{', ' ']).next()?.to_owned())));
    }
    let used: BTreeSet<_> = expressions.iter().flat_map(|expr| selectors(expr)).map(|(name, _)| name).collect();
    used.into_iter().filter(|name| *name != "up" && !shown.contains(*name)).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_expression_has_data_on_a_live_cluster_and_lost_members_raise_alerts() {
    let (dashboard, alerts, dir) = (Dashboard::read(), alerts(), TempDir::new().expect("a temporary directory"));
    let targets = dashboard.targets();
    let file = |flag: &str, name: &str| format!("{flag}={}", certs().path(name).display());
    let flags = [
        "--snapshot-count=100".to_owned(),
        "--snapshot-catchup-entries=50".to_owned(),
        "--listen-metrics-urls=http://127.0.0.1:0,https://127.0.0.1:0".to_owned(),
        "--client-cert-auth".to_owned(),
        file("--cert-file", "server.crt"),
        file("--key-file", "server.key"),
        file("--trusted-ca-file", "ca.crt"),
    ];
    let flags = flags.each_ref().map(String::as_str);
    let places = Places::new("http");
    let [first, second, third] = places.start(&flags);
    let third = lag_until_a_snapshot(&places, &flags, &first, third).await;
    let members = [&first, &second, &third];
    let traffic = Traffic::start(members).await;
    let prometheus = Prometheus::start(dir.path(), &configuration(&members)).await;

    becomes_empty("without data", async || without_data(&prometheus, &targets, &alerts).await).await;
    // It is noticed if a family is not there, if nothing has its labels, and if all is divided by nothing.
    for planted in ["etcd_no_such{job=\"cairn\"}", "up{job=\"no such\"}", "0 * up{job=\"cairn\"} / 0"] {
        for instant in [true, false] {
            let target = Target { panel: "planted".into(), expr: planted.into(), instant };
            assert_eq!(without_data(&prometheus, &[target], &[]).await.len(), 1, "{planted}");
        }
        assert!(!has_data(&prometheus, &margin(&format!("{planted} > 1"))).await, "{planted}");
    }
    let panels = targets.iter().map(|target| &target.expr[..]);
    let expressions: Vec<_> = panels.chain(alerts.iter().map(|alert| &alert.expr[..])).collect();
    assert_eq!(names_not_shown(&members, &expressions).await, [""; 0]);
    assert_eq!(names_not_shown(&members, &["etcd_no_such{}"]).await, ["etcd_no_such"]);
    for variable in dashboard.variables() {
        let values = prometheus.label_values(&variable.label, &substituted(&variable.selector)).await;
        let wanted = if variable.name == "job" {
            vec!["cairn".to_owned()]
        } else {
            members.map(|one| one.addrs[1].to_string()).into()
        };
        assert!(wanted.iter().all(|value| values.contains(value)), "{}: {values:?}", variable.name);
    }
    let over_tls = async || prometheus.values("up{job=\"tls\"} == 1").await.first().map(|_| ());
    eventually("a scrape over TLS succeeds", over_tls).await;

    traffic.stop();
    let all_is_well = async || holding(&prometheus, &alerts).await.into_iter().collect();
    becomes_empty("alerts that hold on a healthy cluster", all_is_well).await;
    let fails = |(_, health, error): &(String, String, serde_json::Value)| health != "ok" || !error.is_null();
    becomes_empty("rules that fail", async || {
        let rules = prometheus.rules().await;
        assert_eq!(rules.len(), alerts.len());
        rules.iter().filter(|rule| fails(rule)).map(|rule| format!("{rule:?}")).collect()
    })
    .await;

    third.kill();
    let expect = async |wanted: &[&str]| {
        let what = format!("alerts that hold, other than {wanted:?}, or the wanted ones that do not");
        let wanted: BTreeSet<_> = wanted.iter().map(|&name| name.to_owned()).collect();
        let differ = async || holding(&prometheus, &alerts).await.symmetric_difference(&wanted).cloned().collect();
        becomes_empty(&what, differ).await;
    };
    expect(&["CairnMembersDown", "CairnNoSpareMember"]).await;
    second.kill();
    expect(&["CairnMembersDown", "CairnNoLeader", "CairnNoSpareMember"]).await;
    let texts = eventually("Prometheus itself says so", async || {
        let texts = prometheus.annotations_of_active_alerts().await;
        texts.iter().any(|text| text.contains("2 members are down")).then_some(texts)
    })
    .await;
    assert!(texts.iter().all(|text| !text.contains("error expanding template")), "{texts:?}");
    first.kill();
    expect(&["CairnAllMembersDown"]).await;
}

#[test]
fn promtool_takes_the_files_and_each_alert_fires_when_it_should_and_only_then() {
    let check = |arguments: &[&str], file: &str| {
        let output = command("promtool").args(arguments).arg(path(file)).output().expect("promtool runs");
        let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} {file}:\n{told}{errors}");
    };
    check(&["check", "rules"], "alerts.yaml");
    check(&["check", "config"], "prometheus.yml");
    check(&["test", "rules"], "alerts_test.yaml");
    let tested = alerts_tested();
    for Alert { name, .. } in alerts() {
        assert!(tested.iter().any(|firing| firing.contains(&name)), "{name} is never expected to fire");
    }
    assert!(tested.iter().any(Vec::is_empty), "a healthy cluster is expected to raise nothing");
}

#[test]
fn alerts_say_what_to_do_and_the_docs_name_each() {
    let docs = read("README.md");
    let alerts = alerts();
    let mut names = BTreeSet::new();
    for Alert { name, expr, held, labels, annotations } in &alerts {
        assert!(names.insert(name), "{name} is there twice");
        assert!(docs.contains(&format!("| `{name}` |")), "{name} is not in README.md");
        assert!(held.ends_with(['m', 'h']), "{name} fires at once");
        assert!(["critical", "warning", "info"].contains(&&labels.severity[..]), "{name}: {}", labels.severity);
        assert!(!annotations.summary.is_empty() && annotations.description.ends_with('.'), "{name}");
        assert!(!selectors(expr).is_empty(), "{name} asks for nothing");
        let of_the_job = selectors(expr).iter().all(|(_, labels)| labels.contains("job=\"cairn\""));
        assert!(of_the_job, "{name} asks for series of other jobs: {expr}");
    }
    let listed = docs.lines().filter(|line| line.starts_with("| `Cairn")).count();
    assert_eq!(listed, alerts.len(), "README.md lists alerts that there are not");
}

#[test]
fn panels_have_places_and_queries_of_their_own() {
    let dashboard = Dashboard::read();
    let number = |place: &serde_json::Value, name: &str| place[name].as_u64().expect("a number");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard.panels() {
        let (title, place) = (&panel["title"], &panel["gridPos"]);
        assert!(ids.insert(number(panel, "id")), "{title} has the id of another panel");
        for x in number(place, "x")..number(place, "x") + number(place, "w") {
            for y in number(place, "y")..number(place, "y") + number(place, "h") {
                assert!(x < 24 && taken.insert((x, y)), "{title} stands on another panel, or outside");
            }
        }
        if panel["type"] != "row" {
            assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{title} asks nothing");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(panel["description"].is_string(), "{title} does not say what it shows");
        }
    }
    for Target { panel, expr, .. } in dashboard.targets() {
        let of_the_job = selectors(&expr).iter().all(|(_, labels)| labels.contains("job=\"$job\""));
        assert!(of_the_job && !selectors(&expr).is_empty(), "{panel}: {expr}");
    }
}
