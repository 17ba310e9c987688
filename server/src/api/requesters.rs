//! Requests by the version of the library that sends them.
//!
//! Clients say their version in a header, so it is bytes from anyone: a few versions are counted on their own, all others together. Once a version is
//! known, counting takes neither a lock nor memory.

use std::sync::OnceLock;

use cairn_proto::rpc::Kind;
use http::{HeaderMap, HeaderName};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

const CLIENT_API_VERSION: HeaderName = HeaderName::from_static("client-api-version");
/// Versions that are counted on their own; what comes after them counts as unknown.
const VERSIONS_MAX: usize = 16;
/// Bytes of a version; what is longer counts as unknown.
const VERSION_BYTES_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    r#type: &'static str,
    client_api_version: String,
}

/// `etcd_server_client_requests_total`.
pub(super) type Requests = Family<Labels, Counter>;

/// Counters of one version, looked up once.
struct Version {
    name: Box<[u8]>,
    unary: Counter,
    stream: Counter,
}

impl Version {
    fn new(requests: &Requests, name: &str) -> Self {
        let of = |kind| requests.get_or_create_owned(&Labels { r#type: kind, client_api_version: name.to_owned() });
        Self { name: name.as_bytes().into(), unary: of("unary"), stream: of("stream") }
    }
}

/// Counts requests by version.
pub(super) struct Requesters {
    requests: Requests,
    unknown: Version,
    /// Filled from the front.
    known: [OnceLock<Version>; VERSIONS_MAX],
}

impl Requesters {
    pub(super) fn new() -> Self {
        let requests = Requests::default();
        Self { unknown: Version::new(&requests, "unknown"), known: Default::default(), requests }
    }

    pub(super) fn family(&self) -> Requests {
        self.requests.clone()
    }

    /// A request with these headers came.
    pub(super) fn count(&self, kind: Kind, headers: &HeaderMap) {
        let version = headers.get(CLIENT_API_VERSION).map_or(&self.unknown, |name| self.version(name.as_bytes()));
        let counter = if kind == Kind::Unary { &version.unary } else { &version.stream };
        counter.inc();
    }

    fn version(&self, name: &[u8]) -> &Version {
        let mut known = self.known.iter().map_while(OnceLock::get);
        known.find(|known| *known.name == *name).unwrap_or_else(|| self.first_seen(name))
    }

    #[cold]
    fn first_seen(&self, name: &[u8]) -> &Version {
        let Some(name) = str::from_utf8(name).ok().filter(|name| is_version(name)) else { return &self.unknown };
        // Somebody else may be the first in any of these places.
        let mut places = self.known.iter().map(|place| place.get_or_init(|| Version::new(&self.requests, name)));
        places.find(|known| *known.name == *name.as_bytes()).unwrap_or(&self.unknown)
    }
}

fn is_version(name: &str) -> bool {
    (1..=VERSION_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn count(requesters: &Requesters, version: &str) {
        let value = HeaderValue::from_str(version).unwrap();
        requesters.count(Kind::Unary, &HeaderMap::from_iter([(CLIENT_API_VERSION, value)]));
    }

    fn counted(requesters: &Requesters, kind: &'static str, version: &str) -> Option<u64> {
        let labels = Labels { r#type: kind, client_api_version: version.to_owned() };
        requesters.requests.get(&labels).map(|counter| counter.get())
    }

    #[test]
    fn requests_are_counted_by_version_and_kind() {
        let requesters = Requesters::new();
        for version in ["3.5.1", "3.5.1", "3.6.0"] {
            count(&requesters, version);
        }
        requesters.count(Kind::BidiStream, &HeaderMap::new());
        assert_eq!(counted(&requesters, "unary", "3.5.1"), Some(2));
        assert_eq!(counted(&requesters, "unary", "3.6.0"), Some(1));
        assert_eq!(counted(&requesters, "stream", "unknown"), Some(1));
        assert_eq!(counted(&requesters, "unary", "unknown"), Some(0));
    }

    #[test]
    fn what_is_no_version_and_what_comes_too_late_counts_as_unknown() {
        let requesters = Requesters::new();
        for odd in ["", "a\"b", "3 5", &"9".repeat(VERSION_BYTES_MAX + 1)] {
            count(&requesters, odd);
        }
        for n in 0..VERSIONS_MAX + 3 {
            count(&requesters, &format!("3.{n}"));
        }
        assert_eq!(counted(&requesters, "unary", "unknown"), Some(4 + 3));
        assert_eq!(counted(&requesters, "unary", &format!("3.{}", VERSIONS_MAX - 1)), Some(1));
        assert_eq!(counted(&requesters, "unary", &format!("3.{VERSIONS_MAX}")), None);
    }
}
