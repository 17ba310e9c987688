//! Whether the member is healthy, for people (`/health`) and for probes (`/livez`, `/readyz`).

use std::fmt::Write as _;

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmType},
};
use http::{Response, StatusCode};

use super::{Http, plain, query_values, reason};
use crate::api::grpc::body::Body;

/// A check of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    LinearizableRead,
    NonLearner,
    SerializableRead,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
            Self::SerializableRead => "serializable_read",
        }
    }
}

/// Why a member that starts is not ready, though reads that ask the leader may be possible.
const NOT_SERVING: &str = "the member does not serve clients yet";

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] = &[Check::DataCorruption, Check::LinearizableRead, Check::NonLearner, Check::SerializableRead];

/// The checks that a path asks for, and whether it is that of a whole probe.
fn checks_of(path: &str) -> Option<(&'static [Check], bool)> {
    let (probe, check) = match path.strip_prefix('/')?.split_once('/') {
        None => (path.strip_prefix('/')?, None),
        Some((probe, check)) => (probe, Some(check)),
    };
    let checks = match probe {
        "livez" => LIVEZ,
        "readyz" => READYZ,
        _ => return None,
    };
    let Some(check) = check else { return Some((checks, true)) };
    let at = checks.iter().position(|known| known.name() == check)?;
    Some((&checks[at..=at], false))
}

/// Whether `path` is a probe's or one of its checks'.
pub(super) fn is_probe(path: &str) -> bool {
    checks_of(path).is_some()
}

impl Http {
    /// `/health`: alarms, leader, a read. `exclude=ALARM` leaves an alarm out, `serializable=true` asks for this member only.
    pub(super) async fn health(&self, query: &str) -> Response<Body> {
        let serializable = query_values(query, "serializable").next() == Some("true");
        match self.ailment(query, serializable).await {
            None => {
                self.metrics.health_success.inc();
                plain(StatusCode::OK, health_text(true, ""))
            }
            Some(ailment) => {
                self.metrics.health_failures.inc();
                tracing::warn!(reason = ailment, "serving /health false");
                plain(StatusCode::SERVICE_UNAVAILABLE, health_text(false, &ailment) + "\n")
            }
        }
    }

    async fn ailment(&self, query: &str, serializable: bool) -> Option<String> {
        let excluded: Vec<_> = query_values(query, "exclude").collect();
        let alarms = self.services.maintenance.alarms();
        let alarm = alarms.iter().map(pb::AlarmMember::alarm).find(|alarm| !excluded.contains(&alarm.as_str_name()));
        if let Some(alarm) = alarm {
            return Some(match alarm {
                AlarmType::Nospace => "ALARM NOSPACE".into(),
                AlarmType::Corrupt => "ALARM CORRUPT".into(),
                AlarmType::None => "ALARM UNKNOWN".into(),
            });
        }
        if !serializable && self.services.node.status().leader == 0 {
            return Some("RAFT NO LEADER".into());
        }
        self.services.kv.probe(serializable).await.err().map(|error| format!("RANGE ERROR:{}", reason(error)))
    }

    /// `/livez`, `/readyz` and their checks.
    pub(super) async fn probe(&self, path: &str, query: &str) -> Response<Body> {
        let Some((checks, whole)) = checks_of(path) else {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        let excluded: Vec<_> = if whole { query_values(query, "exclude").collect() } else { Vec::new() };
        let (mut report, mut healthy) = (String::new(), true);
        for check in checks.iter().filter(|check| !excluded.contains(&check.name())) {
            // Writing to a String cannot fail.
            let _ = match self.check(*check).await {
                Ok(()) => writeln!(report, "[+]{} ok", check.name()),
                Err(error) => {
                    healthy = false;
                    writeln!(report, "[-]{} failed: {error}", check.name())
                }
            };
        }
        if !healthy {
            tracing::warn!(path, report, "health check failed");
            return plain(StatusCode::SERVICE_UNAVAILABLE, report + "\n");
        }
        if query_values(query, "verbose").next().is_none() {
            report.clear();
        }
        plain(StatusCode::OK, report + "ok\n")
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        let read = |result: Result<(), ApiError>| result.map_err(|error| reason(error).to_owned());
        match check {
            Check::SerializableRead => read(self.services.kv.probe(true).await),
            Check::LinearizableRead if !self.services.node.serves() => Err(NOT_SERVING.into()),
            Check::LinearizableRead => read(self.services.kv.probe(false).await),
            Check::NonLearner if self.services.node.status().is_learner => {
                Err(ApiError::NotSupportedForLearner.text().into())
            }
            Check::NonLearner => Ok(()),
            Check::DataCorruption => {
                let corrupt =
                    self.services.maintenance.alarms().iter().any(|alarm| alarm.alarm() == AlarmType::Corrupt);
                if corrupt { Err("alarm activated: CORRUPT".into()) } else { Ok(()) }
            }
        }
    }
}

fn health_text(healthy: bool, reason: &str) -> String {
    let reason = reason.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{{\"health\":\"{healthy}\",\"reason\":\"{reason}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_have_the_checks_of_the_contract() {
        let names = |path| {
            checks_of(path).map(|(checks, whole)| (checks.iter().map(|check| check.name()).collect::<Vec<_>>(), whole))
        };
        assert_eq!(names("/livez"), Some((vec!["serializable_read"], true)));
        assert_eq!(
            names("/readyz"),
            Some((vec!["data_corruption", "linearizable_read", "non_learner", "serializable_read"], true))
        );
        assert_eq!(names("/readyz/linearizable_read"), Some((vec!["linearizable_read"], false)));
        for unknown in ["/livez/linearizable_read", "/readyz/", "/readyz/x", "/health", "", "/"] {
            assert_eq!(names(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_health_text_is_json_without_a_newline() {
        assert_eq!(health_text(true, ""), "{\"health\":\"true\",\"reason\":\"\"}");
        assert_eq!(
            health_text(false, "RANGE ERROR:\"x\""),
            "{\"health\":\"false\",\"reason\":\"RANGE ERROR:\\\"x\\\"\"}"
        );
    }

    #[test]
    fn query_values_are_found_by_name() {
        let values = |query: &str| query_values(query, "exclude").map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(values("exclude=A&exclude=B&x=C"), ["A", "B"]);
        assert_eq!(values("exclude"), [""]);
        assert!(values("").is_empty());
    }
}
