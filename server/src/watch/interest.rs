//! What a watcher wants to hear of.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};

use crate::state::mvcc::{index::RangeEnd, range_end};

/// The smallest key: what an empty key of a request means.
const FIRST_KEY: &[u8] = &[0];

/// Keys and kinds of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// The first key, or the only one.
    pub from: Bytes,
    /// Where the keys end.
    pub end: RangeEnd,
    /// Puts are wanted.
    pub puts: bool,
    /// Deletes are wanted.
    pub deletes: bool,
    /// With every event, the key as it was before.
    pub previous: bool,
}

impl Interest {
    /// What a request asks for.
    pub fn of(request: &WatchCreateRequest) -> Self {
        let from = if request.key.is_empty() { Bytes::from_static(FIRST_KEY) } else { request.key.clone() };
        let without = |kind: FilterType| request.filters.contains(&(kind as i32));
        Self {
            from,
            end: range_end(&request.range_end),
            puts: !without(FilterType::Noput),
            deletes: !without(FilterType::Nodelete),
            previous: request.prev_kv,
        }
    }

    /// Whether the keys end before they begin.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.from)
    }

    /// Whether events of this kind are wanted.
    pub fn wants(&self, tombstone: bool) -> bool {
        if tombstone { self.deletes } else { self.puts }
    }

    /// Whether a change is wanted.
    pub fn matches(&self, key: &[u8], tombstone: bool) -> bool {
        self.wants(tombstone) && self.end.contains(&self.from, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &'static str, range_end: &'static str) -> WatchCreateRequest {
        WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
    }

    #[test]
    fn an_empty_key_is_the_smallest_one() {
        let all = Interest::of(&request("", "\0"));
        assert!(all.matches(b"\0", false) && all.matches(b"\xff\xff", true));
        let one = Interest::of(&request("", ""));
        assert!(one.matches(b"\0", false) && !one.matches(b"a", false));
    }

    #[test]
    fn a_range_that_ends_where_it_begins_or_before_is_none() {
        assert!(Interest::of(&request("b", "a")).is_empty() && Interest::of(&request("b", "b")).is_empty());
        assert!(!Interest::of(&request("b", "b\0")).is_empty() && !Interest::of(&request("b", "")).is_empty());
    }

    #[test]
    fn filters_leave_kinds_out() {
        let of = |filters| Interest::of(&WatchCreateRequest { filters, ..request("a", "") });
        let kinds = |interest: Interest| (interest.matches(b"a", false), interest.matches(b"a", true));
        assert_eq!(kinds(of(vec![])), (true, true));
        assert_eq!(kinds(of(vec![FilterType::Noput.into()])), (false, true));
        assert_eq!(kinds(of(vec![FilterType::Nodelete.into()])), (true, false));
        assert_eq!(kinds(of(vec![0, 1, 77])), (false, false));
    }
}
