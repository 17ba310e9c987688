//! Reading keys.

use std::ops::{Bound, RangeBounds};

use cairn_proto::etcdserverpb::{
    self as pb,
    range_request::{SortOrder, SortTarget},
};

use super::sent_when_awaited;
use crate::{call::Answers, client::Client, error::Error, key::KeyRange};

/// Reads a key or a range of keys.
#[derive(Debug, Clone)]
#[must_use = "a request is sent when it is awaited, or is an operation of a transaction"]
pub struct Get<S = ()> {
    sender: S,
    request: pb::RangeRequest,
}

impl Get {
    /// A read to be an operation of a transaction.
    pub fn new(keys: impl Into<KeyRange>) -> Self {
        Self::of((), keys.into())
    }
}

impl<S> Get<S> {
    pub(super) fn of(sender: S, keys: KeyRange) -> Self {
        let (key, range_end) = keys.into_parts();
        Self { sender, request: pb::RangeRequest { key, range_end, ..Default::default() } }
    }

    /// Returns at most this many keys.
    pub fn limit(mut self, keys: i64) -> Self {
        self.request.limit = keys;
        self
    }

    /// Reads the keys as they were at this revision, which must not be compacted.
    pub fn revision(mut self, revision: i64) -> Self {
        self.request.revision = revision;
        self
    }

    /// Sorts the answer. With an order, everything is sorted before a limit cuts; see the API for the rest.
    pub fn sort(mut self, target: SortTarget, order: SortOrder) -> Self {
        self.request.set_sort_target(target);
        self.request.set_sort_order(order);
        self
    }

    /// Reads what the member asked has, without asking the others: faster, works without a leader, may be old.
    pub fn serializable(mut self) -> Self {
        self.request.serializable = true;
        self
    }

    /// Leaves the values out.
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// Returns only the number of keys.
    pub fn count_only(mut self) -> Self {
        self.request.count_only = true;
        self
    }

    /// Returns only keys last written within these revisions.
    pub fn modified(mut self, revisions: impl RangeBounds<i64>) -> Self {
        (self.request.min_mod_revision, self.request.max_mod_revision) = bounds(&revisions);
        self
    }

    /// Returns only keys created within these revisions.
    pub fn created(mut self, revisions: impl RangeBounds<i64>) -> Self {
        (self.request.min_create_revision, self.request.max_create_revision) = bounds(&revisions);
        self
    }

    /// The request as it would be sent.
    pub fn into_request(self) -> pb::RangeRequest {
        self.request
    }
}

sent_when_awaited!(Get => pb::RangeResponse);

impl Get<Client> {
    /// Reads the range in pieces, for ranges too large to hold in one answer.
    ///
    /// The pieces are disjoint and in key order; only the last has the header and the count. Servers that cannot stream
    /// answer `Unimplemented`, and so do servers asked to sort or to filter by revision.
    pub async fn stream(self) -> Result<Answers<pb::RangeStreamResponse>, Error> {
        self.sender.stream(self.request).await
    }
}

/// Lowest and highest, 0 for a side without a bound.
fn bounds(revisions: &impl RangeBounds<i64>) -> (i64, i64) {
    let lowest = match revisions.start_bound() {
        Bound::Unbounded => 0,
        Bound::Included(lowest) => *lowest,
        Bound::Excluded(below) => below.saturating_add(1),
    };
    let highest = match revisions.end_bound() {
        Bound::Unbounded => 0,
        Bound::Included(highest) => *highest,
        Bound::Excluded(above) => above.saturating_sub(1),
    };
    (lowest, highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_filters_take_any_kind_of_range() {
        assert_eq!(bounds(&(3..=8)), (3, 8));
        assert_eq!(bounds(&(3..8)), (3, 7));
        assert_eq!(bounds(&(3..)), (3, 0));
        assert_eq!(bounds(&(..)), (0, 0));
        assert_eq!(bounds(&(Bound::Excluded(3), Bound::Unbounded)), (4, 0));
    }

    #[test]
    fn every_option_lands_in_its_field() {
        let request = Get::new(KeyRange::prefix("k"))
            .limit(5)
            .revision(7)
            .sort(SortTarget::Value, SortOrder::Descend)
            .serializable()
            .keys_only()
            .count_only()
            .modified(1..=2)
            .created(3..=4)
            .into_request();
        let wanted = pb::RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            limit: 5,
            revision: 7,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Value.into(),
            serializable: true,
            keys_only: true,
            count_only: true,
            min_mod_revision: 1,
            max_mod_revision: 2,
            min_create_revision: 3,
            max_create_revision: 4,
        };
        assert_eq!(request, wanted);
    }
}
