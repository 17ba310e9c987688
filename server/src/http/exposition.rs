//! Metrics as Prometheus has always read them.
//!
//! The metrics library writes OpenMetrics, where a counter is declared without the `_total` that its samples carry, and where a counter must have it.
//! etcd's dashboards and alerts know the older text format and names that break that rule. The differences are small enough to be undone line by line.

/// What `/metrics` is served as.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters whose name does not end in `_total`.
const BARE_COUNTERS: &[&str] = &[
    "etcd_server_health_success",
    "etcd_server_health_failures",
    "etcd_server_learner_promote_successes",
    "etcd_network_snapshot_send_success",
    "etcd_network_snapshot_send_failures",
    "etcd_network_snapshot_receive_success",
    "etcd_network_snapshot_receive_failures",
];

/// Rewrites OpenMetrics text as Prometheus text 0.0.4.
pub(super) fn from_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1024);
    // HELP comes before TYPE, which decides the name.
    let mut help: Option<(&str, &str)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" && !BARE_COUNTERS.contains(&name) { "_total" } else { "" };
            if let Some((_, text)) = help.take() {
                line_of(&mut out, &["# HELP ", name, suffix, " ", text]);
            }
            line_of(&mut out, &["# TYPE ", name, suffix, " ", if kind == "unknown" { "untyped" } else { kind }]);
        } else if line.starts_with('#') {
            // UNIT and EOF are unknown to the older format.
        } else {
            let end = line.find(['{', ' ']).unwrap_or(line.len());
            let (name, rest) = line.split_at(end);
            let name = name.strip_suffix("_total").filter(|bare| BARE_COUNTERS.contains(bare)).unwrap_or(name);
            line_of(&mut out, &[name, rest]);
        }
    }
    out
}

fn line_of(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_declared_by_the_name_of_their_samples() {
        let openmetrics = "\
# HELP etcd_mvcc_put Total number of puts seen by this member.
# TYPE etcd_mvcc_put counter
etcd_mvcc_put_total 3
# HELP etcd_server_health_success The total number of successful health checks.
# TYPE etcd_server_health_success counter
etcd_server_health_success_total 1
# HELP etcd_server_proposals_committed_total The total number of consensus proposals committed.
# TYPE etcd_server_proposals_committed_total gauge
etcd_server_proposals_committed_total 4
# TYPE wait histogram
# UNIT wait seconds
wait_bucket{le=\"0.1\"} 1
# EOF
";
        let expected = "\
# HELP etcd_mvcc_put_total Total number of puts seen by this member.
# TYPE etcd_mvcc_put_total counter
etcd_mvcc_put_total 3
# HELP etcd_server_health_success The total number of successful health checks.
# TYPE etcd_server_health_success counter
etcd_server_health_success 1
# HELP etcd_server_proposals_committed_total The total number of consensus proposals committed.
# TYPE etcd_server_proposals_committed_total gauge
etcd_server_proposals_committed_total 4
# TYPE wait histogram
wait_bucket{le=\"0.1\"} 1
";
        assert_eq!(from_openmetrics(openmetrics), expected);
    }
}
