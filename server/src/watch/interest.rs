//! What a watcher wants to hear of.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};

use crate::state::mvcc::index::RangeEnd;

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
    /// What a request asks for; `None` if its range ends before it begins.
    pub fn of(request: &WatchCreateRequest) -> Option<Self> {
        let from = if request.key.is_empty() { Bytes::from_static(FIRST_KEY) } else { request.key.clone() };
        let end = match &request.range_end[..] {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            end if end <= &from[..] => return None,
            _ => RangeEnd::Before(request.range_end.clone()),
        };
        let without = |kind: FilterType| request.filters.contains(&(kind as i32));
        Some(Self {
            from,
            end,
            puts: !without(FilterType::Noput),
            deletes: !without(FilterType::Nodelete),
            previous: request.prev_kv,
        })
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
        let all = Interest::of(&request("", "\0")).unwrap();
        assert!(all.matches(b"\0", false) && all.matches(b"\xff\xff", true));
        let one = Interest::of(&request("", "")).unwrap();
        assert!(one.matches(b"\0", false) && !one.matches(b"a", false));
    }

    #[test]
    fn a_range_that_ends_where_it_begins_or_before_is_none() {
        assert_eq!(Interest::of(&request("b", "a")), None);
        assert_eq!(Interest::of(&request("b", "b")), None);
        assert!(Interest::of(&request("b", "b\0")).is_some());
    }

    #[test]
    fn filters_leave_kinds_out() {
        let of = |filters| Interest::of(&WatchCreateRequest { filters, ..request("a", "") }).unwrap();
        let kinds = |interest: Interest| (interest.matches(b"a", false), interest.matches(b"a", true));
        assert_eq!(kinds(of(vec![])), (true, true));
        assert_eq!(kinds(of(vec![FilterType::Noput.into()])), (false, true));
        assert_eq!(kinds(of(vec![FilterType::Nodelete.into()])), (true, false));
        assert_eq!(kinds(of(vec![0, 1, 77])), (false, false));
    }
}
