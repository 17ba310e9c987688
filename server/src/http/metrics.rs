//! `/metrics`: what the member reports of itself, under etcd's names.

use std::fmt::Write as _;

use http::{HeaderValue, Response, header::CONTENT_TYPE};
use prometheus_client::encoding::text;

use super::{Http, exposition, process};
use crate::{api::grpc::body::Body, types::API_VERSION};

/// Metrics text under construction: one family after the other, each declared once.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Adds a value that may go up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.sample(name, "gauge", help, "", value);
    }

    /// Adds a value that only rises.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.sample(name, "counter", help, "", value);
    }

    /// Adds a gauge of 1 whose label says something.
    pub(super) fn info(&mut self, name: &str, help: &str, label: &str, value: &str) {
        self.sample(name, "gauge", help, &format!("{{{label}=\"{value}\"}}"), 1.0);
    }

    /// Adds a gauge that has a value for each set of labels, which are written as in the text.
    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (String, bool)>) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in values {
            let _ = writeln!(self.0, "{name}{{{labels}}} {}", u8::from(value));
        }
    }

    fn sample(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: f64) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}");
    }
}

impl Http {
    pub(super) fn expose(&self) -> Response<Body> {
        self.metrics.scrapes_in_flight.inc();
        let mut page = Page::default();
        self.expose_member(&mut page);
        process::expose(&mut page);
        process::expose_runtime(&mut page);
        let mut registered = String::new();
        if text::encode_registry(&mut registered, &self.registry).is_ok() {
            page.0.push_str(&exposition::from_openmetrics(&registered));
        }
        self.metrics.scrapes_in_flight.dec();
        self.metrics.scrapes.inc();
        let mut response = Response::new(Body::Plain(page.0.into()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
        response
    }

    fn expose_member(&self, page: &mut Page) {
        let node = &self.services.node;
        let (status, reader) = (node.status(), node.reader());
        let running = "Which version is running. 1 for";
        let server = format!("{running} 'server_version' label with current version");
        page.info("etcd_server_version", &server, "server_version", API_VERSION);
        let cluster = format!("{running} 'cluster_version' label with current cluster version");
        // As etcd, without the patch level.
        let cluster_minor = node
            .cluster_version()
            .map_or_else(|| self.services.cluster.version(), |version| format!("{}.{}", version.major, version.minor));
        page.info("etcd_cluster_version", &cluster, "cluster_version", &cluster_minor);
        let id = "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID";
        page.info("etcd_server_id", id, "server_id", &format!("{:x}", status.member_id));
        let members = node.members();
        let local = status.member_id;
        let peers = members.members.keys().map(|id| (format!("Local=\"{local:x}\",Remote=\"{id:x}\""), true));
        page.gauges("etcd_network_known_peers", "The current number of known peers", peers);
        let gates = [
            ("CompactHashCheck", self.config.compact_hash_check),
            ("InitialCorruptCheck", self.config.initial_corrupt_check),
        ];
        let gates = gates.map(|(name, open)| (format!("name=\"{name}\",stage=\"ALPHA\""), open));
        page.gauges(
            "etcd_server_feature_enabled",
            "Whether or not a feature is enabled. 1 is enabled, 0 is not",
            gates,
        );
        let level = "Highest level of commands that all members of the cluster apply";
        let auth_revision = node.auth_revision() as f64;
        page.gauge("etcd_debugging_auth_revision", "The current revision of auth store.", auth_revision);
        page.gauge("cairn_command_level", level, f64::from(node.command_level()));
        let quota = self.config.quota_bytes().map_or(0.0, |bytes| bytes as f64);
        page.gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes", quota);
        let open = "The number of currently open read transactions";
        page.gauge("etcd_mvcc_db_open_read_transactions", open, reader.open_reads() as f64);
        // Before, it may be older than what an earlier run has shown.
        if node.serves() {
            let current = "The current revision of store";
            page.gauge("etcd_debugging_mvcc_current_revision", current, reader.revision() as f64);
            let compacted = "The revision of the last compaction in store";
            page.gauge("etcd_debugging_mvcc_compact_revision", compacted, reader.compacted() as f64);
            page.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys", reader.live_keys() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_declared_and_written_plainly() {
        let mut page = Page::default();
        page.gauge("a_bytes", "Bytes of a", 1_500_000_000.0);
        page.info("b", "Which b", "name", "x");
        let expected = "# HELP a_bytes Bytes of a\n# TYPE a_bytes gauge\na_bytes 1500000000\n\
                        # HELP b Which b\n# TYPE b gauge\nb{name=\"x\"} 1\n";
        assert_eq!(page.0, expected);
    }
}
