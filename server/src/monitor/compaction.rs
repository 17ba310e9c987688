//! Drops old history without being asked (`--auto-compaction-mode`, `--auto-compaction-retention`).
//!
//! Only the leader compacts. The policies are pure: they are told the time and the revision and say what to compact; [`run`] asks them and proposes.
//!
//! * **Periodic**, retention R: the revision is noted every tenth of R (of an hour, if R is longer). Once R has passed, and then every R (every hour, if R
//!   is longer), history older than R is dropped.
//! * **Revision**, retention N: every five minutes everything but the last N revisions is dropped.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use cairn_proto::{ApiError, etcdserverpb::CompactionRequest};

use super::Turns;
use crate::{
    api::{kv::Kv, refusal::Refusal},
    config::AutoCompaction,
    node::ReplicaView,
    state::auth::Principal,
};

/// The longest time between compactions of the periodic kind.
const PERIOD_MAX: Duration = Duration::from_hours(1);
/// Revisions are noted this often within a period.
const NOTES_PER_PERIOD: u32 = 10;
/// Time between compactions of the revision kind.
const REVISION_INTERVAL: Duration = Duration::from_mins(5);

/// Compacts as configured.
pub async fn run(mode: AutoCompaction, node: ReplicaView, kv: Kv, turns: Turns) {
    let policy = match mode {
        AutoCompaction::Off => return,
        AutoCompaction::Periodic(retention) => Policy::Periodic(Periodic::new(retention, Instant::now())),
        AutoCompaction::Revision(retention) => Policy::Revision(ByRevision::new(retention, REVISION_INTERVAL)),
    };
    follow(policy, node, kv, turns).await;
}

async fn follow(mut policy: Policy, node: ReplicaView, kv: Kv, turns: Turns) {
    loop {
        policy.note(node.reader().revision());
        if !turns.after(policy.interval()).await {
            return;
        }
        let status = node.status();
        if status.leader != status.member_id {
            continue;
        }
        let Some(revision) = policy.due(Instant::now(), node.reader().revision()) else { continue };
        let request = CompactionRequest { revision, physical: false };
        match kv.compact(&Principal::Server, request).await {
            Ok(_) | Err(Refusal::Api(ApiError::Compacted)) => {
                policy.compacted(Instant::now(), revision);
                tracing::info!(revision, "completed auto compaction");
            }
            Err(error) => tracing::warn!(revision, %error, "failed auto compaction; it will be tried again"),
        }
    }
}

enum Policy {
    Periodic(Periodic),
    Revision(ByRevision),
}

impl Policy {
    fn note(&mut self, revision: i64) {
        if let Self::Periodic(periodic) = self {
            periodic.note(revision);
        }
    }

    fn interval(&self) -> Duration {
        match self {
            Self::Periodic(periodic) => periodic.interval(),
            Self::Revision(by_revision) => by_revision.interval,
        }
    }

    fn due(&self, now: Instant, revision: i64) -> Option<i64> {
        match self {
            Self::Periodic(periodic) => periodic.due(now),
            Self::Revision(by_revision) => by_revision.due(revision),
        }
    }

    fn compacted(&mut self, now: Instant, revision: i64) {
        match self {
            Self::Periodic(periodic) => periodic.compacted(now, revision),
            Self::Revision(by_revision) => by_revision.last = revision,
        }
    }
}

/// Keeps the history of a time.
struct Periodic {
    retention: Duration,
    /// The revisions noted within the retention, oldest first.
    noted: VecDeque<i64>,
    last: i64,
    last_time: Instant,
    /// How long after `last_time` the next compaction is due: the whole retention before the first.
    pause: Duration,
}

impl Periodic {
    fn new(retention: Duration, now: Instant) -> Self {
        Self { retention, noted: VecDeque::new(), last: 0, last_time: now, pause: retention }
    }

    fn period(&self) -> Duration {
        self.retention.min(PERIOD_MAX)
    }

    fn interval(&self) -> Duration {
        self.period() / NOTES_PER_PERIOD
    }

    fn note(&mut self, revision: i64) {
        let notes_max = (self.retention.as_secs_f64() / self.interval().as_secs_f64()) as usize + 1;
        self.noted.push_back(revision);
        if self.noted.len() > notes_max {
            self.noted.pop_front();
        }
    }

    fn due(&self, now: Instant) -> Option<i64> {
        let revision = *self.noted.front()?;
        let waited = now.duration_since(self.last_time) >= self.pause;
        (waited && revision != self.last).then_some(revision)
    }

    fn compacted(&mut self, now: Instant, revision: i64) {
        self.pause = self.period();
        self.last = revision;
        self.last_time = now;
    }
}

/// Keeps a number of revisions.
struct ByRevision {
    retention: i64,
    interval: Duration,
    last: i64,
}

impl ByRevision {
    fn new(retention: u64, interval: Duration) -> Self {
        Self { retention: i64::try_from(retention).unwrap_or(i64::MAX), interval, last: 0 }
    }

    fn due(&self, revision: i64) -> Option<i64> {
        let revision = revision.saturating_sub(self.retention);
        (revision > 0 && revision != self.last).then_some(revision)
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb as pb;

    use prometheus_client::registry::Registry;
    use tokio::runtime::Handle;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        monitor::{Duty, Monitor},
        server::Server,
    };

    /// Plays a periodic policy whose store makes one revision a minute, and returns (minute, compacted revision).
    fn played(retention: Duration, minutes: i64) -> Vec<(i64, i64)> {
        let start = Instant::now();
        let mut policy = Periodic::new(retention, start);
        let step = (policy.interval().as_secs() / 60) as i64;
        let mut compactions = vec![];
        let mut minute = 0;
        while minute < minutes {
            policy.note(minute + 1);
            minute += step;
            let now = start + Duration::from_mins(minute as u64);
            if let Some(revision) = policy.due(now) {
                policy.compacted(now, revision);
                compactions.push((minute, revision));
            }
        }
        compactions
    }

    #[test]
    fn an_hour_is_kept_and_dropped_hourly() {
        assert_eq!(played(Duration::from_hours(1), 200), [(60, 1), (120, 55), (180, 115)]);
    }

    #[test]
    fn ten_hours_are_kept_and_dropped_hourly() {
        let compactions = played(Duration::from_hours(10), 800);
        assert_eq!(compactions, [(600, 1), (660, 55), (720, 115), (780, 175)]);
    }

    #[test]
    fn nothing_new_is_not_compacted_again() {
        let start = Instant::now();
        let mut policy = Periodic::new(Duration::from_mins(10), start);
        policy.note(5);
        let later = start + Duration::from_mins(10);
        assert_eq!(policy.due(later), Some(5));
        policy.compacted(later, 5);
        assert_eq!(policy.due(later + Duration::from_mins(100)), None);
    }

    #[tokio::test]
    async fn a_running_server_keeps_a_number_of_revisions() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::builder().data_dir(dir.path()).in_process_only().start().await.expect("the server starts");
        for _ in 0..20 {
            server.client().call(pb::PutRequest { key: "a".into(), ..Default::default() }).await.expect("a put");
        }
        let read = async |revision| {
            let request = pb::RangeRequest { key: "a".into(), revision, ..Default::default() };
            server.client().call(request).await
        };
        assert!(read(2).await.is_ok());
        let policy = Policy::Revision(ByRevision::new(5, Duration::from_millis(1)));
        let monitor = Monitor::new(&mut Registry::default(), CancellationToken::new());
        let (node, kv) = (server.node().view(), server.services().kv.clone());
        monitor.spawn(Duty::AutoCompaction, &Handle::current(), |turns| follow(policy, node, kv, turns));
        let compacted = async {
            while !matches!(read(15).await, Err(Refusal::Api(ApiError::Compacted))) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), compacted).await.expect("history is given up");
        assert!(read(16).await.is_ok(), "the last five revisions and the one below them are there");
        server.shutdown().await;
    }

    #[test]
    fn a_number_of_revisions_is_kept() {
        let mut policy = ByRevision::new(100, REVISION_INTERVAL);
        assert_eq!(policy.due(100), None);
        assert_eq!(policy.due(150), Some(50));
        policy.last = 50;
        assert_eq!(policy.due(150), None);
        assert_eq!(policy.due(151), Some(51));
    }
}
