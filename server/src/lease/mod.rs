//! Leases in time: how long they live.

use std::time::Duration;

/// Longest time to live that may be asked for, in seconds.
pub const TTL_MAX: i64 = 9_000_000_000;

/// The shortest time to live, in seconds: one and a half election time-outs, so that a lease outlives an election. What is asked for below it is raised
/// to it.
pub fn ttl_min(heartbeat: Duration, election: Duration) -> i64 {
    let heartbeat_ms = heartbeat.as_millis().max(1);
    let election_ticks = election.as_millis() / heartbeat_ms;
    let shortest_ms = 3 * election_ticks / 2 * heartbeat_ms;
    i64::try_from(shortest_ms.div_ceil(1000)).unwrap_or(TTL_MAX).clamp(1, TTL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlives_an_election() {
        let min = |heartbeat, election| ttl_min(Duration::from_millis(heartbeat), Duration::from_millis(election));
        assert_eq!(min(100, 1000), 2);
        assert_eq!(min(10, 50), 1);
        assert_eq!(min(1000, 50_000), 75);
        assert_eq!(min(300, 1000), 2, "three ticks are an election, four and a half of them four");
    }
}
