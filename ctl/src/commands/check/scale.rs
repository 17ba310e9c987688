//! The load of `check datascale`: so many keys, as fast as they go, and what they cost the member in memory.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cairn_client::Client;

use super::load::{Workers, random_put};
use super::report::Results;
use crate::connection::error_text;

/// The length of a key behind the prefix, and of a value, in bytes.
const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 512;
/// Of the page of metrics.
const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Keys.
    pub keys: u64,
    /// Connections.
    pub clients: usize,
}

impl Scale {
    /// The workload of that name.
    pub fn named(name: &str) -> Option<Self> {
        let (keys, clients) = match name {
            "s" | "small" => (10_000, 50),
            "m" | "medium" => (100_000, 200),
            "l" | "large" => (1_000_000, 500),
            "xl" | "xLarge" => (3_000_000, 1_000),
            _ => return None,
        };
        Some(Self { keys, clients })
    }

    /// How the check begins.
    pub fn announcement(&self) -> String {
        let (keys, clients, bytes) = (self.keys, self.clients, KEY_BYTES + VALUE_BYTES);
        format!(
            "Start data scale check for work load [{keys} key-value pairs, {bytes} bytes per key-value, \
             {clients} concurrent clients].\n"
        )
    }

    /// Writes all keys; counts them in `answered`.
    pub async fn run(&self, clients: Vec<Client>, prefix: &[u8], answered: &Arc<AtomicU64>) -> Results {
        let (sender, workers) = Workers::start(clients, answered);
        for _ in 0..self.keys {
            if sender.send(random_put(prefix, KEY_BYTES, VALUE_BYTES)).await.is_err() {
                break;
            }
        }
        drop(sender);
        workers.results().await
    }
}

/// The memory that the member at the first endpoint of `client` takes, in bytes, or what there is to say about it.
pub async fn resident_memory(client: &Client) -> Result<f64, String> {
    let Some(member) = client.each().next() else { return Err("fetch error: no endpoint".to_owned()) };
    let page = member.metrics().await.map_err(|error| format!("fetch error: {}", error_text(&error)))?;
    resident(&page).ok_or_else(|| format!("could not find: {RESIDENT_MEMORY}"))
}

fn resident(page: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(RESIDENT_MEMORY)?.trim().parse().ok()).filter(|bytes| *bytes > 0.0)
}

/// How much more there is behind the load than before, in etcdctl's words.
pub fn verdict(before: f64, after: f64) -> String {
    format!("PASS: Approximate system memory used : {:.2} MB.\n", (after - before) / f64::from(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_found_among_other_metrics_in_either_notation() {
        let page = "# HELP process_resident_memory_bytes Resident memory size in bytes.\n\
                    process_resident_memory_bytes 2.5141248e+07\nother 1\n";
        assert_eq!(resident(page), Some(25_141_248.0));
        assert_eq!(resident("process_resident_memory_bytes 1048576"), Some(1_048_576.0));
        assert_eq!(resident("process_resident_memory_bytes_other 1\n"), None);
        assert_eq!(resident("process_resident_memory_bytes 0\n"), None);
    }

    #[tokio::test]
    async fn a_member_whose_metrics_cannot_be_read_is_told_of() {
        let client = Client::new(["127.0.0.1:1"]).expect("an endpoint");
        let complaint = resident_memory(&client).await.expect_err("nobody listens there");
        assert!(complaint.starts_with("fetch error: cannot reach 127.0.0.1:1"), "{complaint}");
    }

    #[test]
    fn memory_is_told_in_megabytes() {
        assert_eq!(verdict(1_048_576.0, 3_670_016.0), "PASS: Approximate system memory used : 2.50 MB.\n");
        assert_eq!(verdict(2_097_152.0, 1_048_576.0), "PASS: Approximate system memory used : -1.00 MB.\n");
    }

    #[test]
    fn workloads_have_short_and_long_names() {
        for names in [["s", "small"], ["m", "medium"], ["l", "large"], ["xl", "xLarge"]] {
            assert_eq!(Scale::named(names[0]), Scale::named(names[1]));
            assert!(Scale::named(names[0]).is_some());
        }
        assert_eq!(Scale::named("XL"), None);
    }
}
