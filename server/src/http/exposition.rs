//! Metrics as Prometheus has always read them.
//!
//! The metrics library writes OpenMetrics, where a counter is declared without the `_total` that its samples carry, and where a counter must have it.
//! etcd's dashboards and alerts know the older text format and names that break that rule. The differences are small enough to be undone line by line.

use std::borrow::Cow;

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

/// What the labels of a bucket begin with.
const LE: &str = "{le=\"";
/// Whole numbers of so many digits are written with an exponent.
const EXPONENT_DIGITS_MIN: usize = 7;

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
            match rest.strip_prefix(LE).and_then(|rest| rest.split_once('"')) {
                Some((bound, rest)) => line_of(&mut out, &[name, LE, &bound_as_go(bound), "\"", rest]),
                None => line_of(&mut out, &[name, rest]),
            }
        }
    }
    out
}

/// A bucket's bound as a program in Go writes it: queries select by the text.
fn bound_as_go(bound: &str) -> Cow<'_, str> {
    let bound = bound.strip_suffix(".0").unwrap_or(bound);
    if bound.len() < EXPONENT_DIGITS_MIN || !bound.bytes().all(|byte| byte.is_ascii_digit()) {
        return Cow::Borrowed(bound);
    }
    let (first, rest) = bound.split_at(1);
    let rest = rest.trim_end_matches('0');
    let point = if rest.is_empty() { "" } else { "." };
    Cow::Owned(format!("{first}{point}{rest}e+{:02}", bound.len() - 1))
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
    fn counters_are_declared_by_the_name_of_their_samples_and_bounds_are_written_as_in_go() {
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
wait_bucket{le=\"1.0\"} 1
wait_bucket{le=\"524288.0\",a=\"1.0\"} 1
wait_bucket{le=\"8388608.0\"} 1
wait_bucket{le=\"1000000.0\"} 1
wait_bucket{le=\"+Inf\"} 1
wait_sum 3.0
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
wait_bucket{le=\"1\"} 1
wait_bucket{le=\"524288\",a=\"1.0\"} 1
wait_bucket{le=\"8.388608e+06\"} 1
wait_bucket{le=\"1e+06\"} 1
wait_bucket{le=\"+Inf\"} 1
wait_sum 3.0
";
        assert_eq!(from_openmetrics(openmetrics), expected);
    }
}
