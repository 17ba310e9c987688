//! Ranges: every option of a RangeRequest, at one point of history.
//!
//! ```text
//! keys that live there, in key order  ->  revision filters  ->  sort  ->  limit
//!                                \-> count: all of them, whatever filters and limit do
//! ```
//! The natural order (ascending by key) needs no sorting and stops at the limit. Any other order looks at all keys of
//! the range first, but keeps no more candidates than the limit asks for, and reads values only of what is answered (or
//! of everything, when values decide the order).
//!
//! A sort target without an order sorts ascending, but *after* the limit has cut, in key order, to one row more than
//! asked for. For rows that sort equal see `order`; it needs all candidates at once, so beyond [`EXACT_ROWS_MAX`] rows
//! or [`EXACT_BYTES_MAX`] bytes of values only the best are kept while looking, and equal rows then stay in key order.

use std::{cmp::Ordering, ops::ControlFlow};

use bytes::{Bytes, BytesMut};
use cairn_proto::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};

use super::{
    index::{KeyMeta, RangeEnd, Visited},
    order,
    revision::Revision,
    value,
    view::{INLINE_ROWS_MAX, PAGE_KEYS, Unread, View},
};

/// Values read at once for an answer that holds them all anyway: the more, the better can the store be read in its own order.
const READ_AT_ONCE_MAX: usize = 1 << 20;
/// Rows up to which equal ones come in the very order of [`order`].
const EXACT_ROWS_MAX: usize = 1 << 16;
/// The same for the bytes of values, if they decide.
const EXACT_BYTES_MAX: usize = 64 << 20;

/// What a range answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// Keys in the whole range, whatever limit and filters took away.
    pub count: i64,
    /// The limit cut keys off.
    pub more: bool,
    /// Encoded `mvccpb.KeyValue`s.
    pub kvs: Vec<Bytes>,
}

/// The end of a range as requests write it: empty for the single key, "\0" for the end of the key space.
pub(crate) fn range_end(range_end: &Bytes) -> RangeEnd {
    match &range_end[..] {
        [] => RangeEnd::Single,
        [0] => RangeEnd::Unbounded,
        _ => RangeEnd::Before(range_end.clone()),
    }
}

/// How rows are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Ascending by key: as they come.
    Natural,
    /// By a target; `late` if the limit cuts before the sort.
    Sorted { target: SortTarget, descending: bool, late: bool },
}

impl Order {
    pub(super) fn of(request: &RangeRequest) -> Self {
        // Values that do not exist are refused before a request gets here.
        let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
        match SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None) {
            SortOrder::None | SortOrder::Ascend if target == SortTarget::Key => Self::Natural,
            SortOrder::None => Self::Sorted { target, descending: false, late: true },
            SortOrder::Ascend => Self::Sorted { target, descending: false, late: false },
            SortOrder::Descend => Self::Sorted { target, descending: true, late: false },
        }
    }

    fn by_value(self) -> bool {
        matches!(self, Self::Sorted { target: SortTarget::Value, .. })
    }
}

/// Bounds of revisions; 0 is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filters {
    modified: (i64, i64),
    created: (i64, i64),
}

impl Filters {
    pub(super) fn of(request: &RangeRequest) -> Self {
        Self {
            modified: (request.min_mod_revision, request.max_mod_revision),
            created: (request.min_create_revision, request.max_create_revision),
        }
    }

    fn any(self) -> bool {
        self.modified != (0, 0) || self.created != (0, 0)
    }

    fn pass(self, meta: &KeyMeta) -> bool {
        let within =
            |(min, max): (i64, i64), revision: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
        within(self.modified, meta.modified.main) && within(self.created, meta.created)
    }
}

/// The rows of `request` in `view`; the revision in the request was judged before.
pub(super) fn rows(view: &View<'_>, request: &RangeRequest) -> Result<Rows, Unread> {
    let end = range_end(&request.range_end);
    let filters = Filters::of(request);
    if end == RangeEnd::Single && !request.count_only {
        return single(view, request, filters);
    }
    let count = view.count(&request.key, &end)?;
    if request.count_only || count == 0 {
        return Ok(Rows { count: count as i64, ..Rows::default() });
    }
    let order = Order::of(request);
    let limit = limit(request);
    if view.is_inline() && is_long(request, order, limit, count) {
        return Err(Unread::NotNow);
    }
    let mut scan = Scan { view, request, end, filters, from: request.key.clone() };
    let mut rows = match order {
        Order::Natural => natural(&mut scan, limit, count)?,
        Order::Sorted { target, descending, late } => sorted(&mut scan, limit, Sort { target, descending, late })?,
    };
    rows.count = count as i64;
    Ok(rows)
}

/// Whether a range reads more than a thread that must not wait should.
fn is_long(request: &RangeRequest, order: Order, limit: usize, count: u64) -> bool {
    let answered = count.min(limit as u64);
    (order.by_value() && count > INLINE_ROWS_MAX as u64)
        || (!request.keys_only && answered > INLINE_ROWS_MAX as u64)
        || (request.keys_only && answered > PAGE_KEYS as u64)
}

/// The commonest request: one look into the index, one into the store.
fn single(view: &View<'_>, request: &RangeRequest, filters: Filters) -> Result<Rows, Unread> {
    let Some(meta) = view.get(&request.key)? else { return Ok(Rows::default()) };
    let mut rows = Rows { count: 1, ..Rows::default() };
    if filters.pass(&meta) {
        rows.kvs.push(if !request.keys_only {
            view.value(meta.modified)?
        } else if Order::of(request).by_value() {
            without_value(meta.modified, view.value(meta.modified)?)?
        } else {
            let mut out = BytesMut::new();
            value::encode_put(&mut out, &request.key, &KeyMeta { lease: 0, ..meta }, b"");
            out.freeze()
        });
    }
    Ok(rows)
}

/// A walk over the keys of a range that pass the filters.
pub(super) struct Scan<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) request: &'a RangeRequest,
    pub(super) end: RangeEnd,
    pub(super) filters: Filters,
    pub(super) from: Bytes,
}

impl Scan<'_> {
    /// Walks one page; `false` when the range is done or the visitor broke.
    pub(super) fn page(&mut self, visit: &mut dyn FnMut(&[u8], KeyMeta) -> ControlFlow<()>) -> Result<bool, Unread> {
        let filters = self.filters;
        let visited = self.view.page(&self.from, &self.end, &mut |key, meta| {
            if filters.pass(&meta) { visit(key, meta) } else { ControlFlow::Continue(()) }
        })?;
        Ok(match visited {
            Visited::More(next) => {
                self.from = next;
                true
            }
            Visited::Finished | Visited::Stopped => false,
        })
    }
}

fn natural(scan: &mut Scan<'_>, limit: usize, count: u64) -> Result<Rows, Unread> {
    let expected = limit.min(usize::try_from(count).unwrap_or(usize::MAX));
    let mut rows = Rows { kvs: Vec::with_capacity(expected.min(PAGE_KEYS)), ..Rows::default() };
    // Without filters the count says whether there is more; with them the next passing key does.
    let filtered = scan.filters.any();
    let keys_only = scan.request.keys_only;
    let mut taken = 0;
    let mut page = Vec::with_capacity(if keys_only { 0 } else { expected.min(PAGE_KEYS) });
    let mut bare = BareRows::default();
    loop {
        let on = scan.page(&mut |key, meta| {
            if taken == limit {
                rows.more = true;
                return ControlFlow::Break(());
            }
            if keys_only {
                bare.push(key, meta);
            } else {
                page.push(meta.modified);
            }
            taken += 1;
            if taken == limit && !filtered { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if keys_only {
            bare.drain_into(&mut rows.kvs);
        } else if !on || page.len() >= READ_AT_ONCE_MAX {
            scan.view.values(&page, &mut rows.kvs)?;
            page.clear();
        }
        if !on {
            break;
        }
    }
    if !filtered {
        rows.more = count > taken as u64;
    }
    Ok(rows)
}

/// Rows without values, made from the index. The lease stays 0, as in the store this API comes from.
#[derive(Default)]
struct BareRows {
    out: BytesMut,
    ends: Vec<usize>,
}

impl BareRows {
    fn push(&mut self, key: &[u8], meta: KeyMeta) {
        value::encode_put(&mut self.out, key, &KeyMeta { lease: 0, ..meta }, b"");
        self.ends.push(self.out.len());
    }

    fn drain_into(&mut self, kvs: &mut Vec<Bytes>) {
        let all = self.out.split().freeze();
        let mut start = 0;
        kvs.extend(self.ends.drain(..).map(|end| all.slice(std::mem::replace(&mut start, end)..end)));
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sort {
    pub(super) target: SortTarget,
    pub(super) descending: bool,
    pub(super) late: bool,
}

/// A row that may be answered.
struct Candidate {
    /// Filled when rows are made of it.
    key: Bytes,
    meta: KeyMeta,
    /// The stored value and the part of it to sort by, filled when values decide.
    stored: Bytes,
    value: Bytes,
    /// Its place in key order.
    place: usize,
}

impl Sort {
    fn compare(self, a: &Candidate, b: &Candidate) -> Ordering {
        let ascending = match self.target {
            SortTarget::Key => a.place.cmp(&b.place),
            SortTarget::Version => a.meta.version.cmp(&b.meta.version),
            SortTarget::Create => a.meta.created.cmp(&b.meta.created),
            SortTarget::Mod => a.meta.modified.main.cmp(&b.meta.modified.main),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if self.descending { ascending.reverse() } else { ascending }
    }

    /// Keeps the best `limit` of `candidates`, which are all there are, in the order of the answer.
    fn exactly(self, candidates: &mut Vec<Candidate>, limit: usize) {
        order::sort(candidates, |a, b| self.compare(a, b).is_lt());
        candidates.truncate(limit);
    }

    /// Keeps the best `limit` of those `candidates` seen so far; equal ones stay in key order.
    fn best(self, candidates: &mut Vec<Candidate>, limit: usize) {
        candidates.sort_unstable_by(|a, b| self.compare(a, b).then(a.place.cmp(&b.place)));
        candidates.truncate(limit);
    }
}

pub(super) fn sorted(scan: &mut Scan<'_>, limit: usize, sort: Sort) -> Result<Rows, Unread> {
    let by_value = sort.target == SortTarget::Value;
    let keys_only = scan.request.keys_only;
    // A late sort sees one row more than the limit, in key order; with filters there is no early cut.
    let seen_max = if sort.late && !scan.filters.any() { limit.saturating_add(1) } else { usize::MAX };
    let (mut seen, mut bytes, mut exact) = (0, 0, true);
    let mut best: Vec<Candidate> = Vec::new();
    loop {
        let page_start = best.len();
        let on = scan.page(&mut |key, meta| {
            let key = if keys_only && !by_value { Bytes::copy_from_slice(key) } else { Bytes::new() };
            best.push(Candidate { key, meta, stored: Bytes::new(), value: Bytes::new(), place: seen });
            seen += 1;
            if seen == seen_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if by_value {
            let revisions: Vec<_> = best[page_start..].iter().map(|candidate| candidate.meta.modified).collect();
            let mut stored = Vec::with_capacity(revisions.len());
            scan.view.values(&revisions, &mut stored)?;
            for (candidate, stored) in best[page_start..].iter_mut().zip(stored) {
                candidate.value = value::decode(candidate.meta.modified, stored.clone())?.value;
                bytes += stored.len();
                candidate.stored = stored;
            }
        }
        exact &= seen <= EXACT_ROWS_MAX && bytes <= EXACT_BYTES_MAX;
        if !exact && best.len() >= limit.saturating_mul(2).saturating_add(PAGE_KEYS) {
            sort.best(&mut best, limit);
        }
        if !on {
            break;
        }
    }
    if exact {
        sort.exactly(&mut best, limit);
    } else {
        sort.best(&mut best, limit);
    }
    let mut rows = Rows { more: seen > limit, kvs: Vec::with_capacity(best.len()), ..Rows::default() };
    if by_value {
        for candidate in best {
            rows.kvs.push(if keys_only {
                without_value(candidate.meta.modified, candidate.stored)?
            } else {
                candidate.stored
            });
        }
    } else if keys_only {
        let mut bare = BareRows::default();
        for candidate in best {
            bare.push(&candidate.key, candidate.meta);
        }
        bare.drain_into(&mut rows.kvs);
    } else {
        let revisions: Vec<_> = best.iter().map(|candidate| candidate.meta.modified).collect();
        for page in revisions.chunks(READ_AT_ONCE_MAX) {
            scan.view.values(page, &mut rows.kvs)?;
        }
    }
    Ok(rows)
}

/// A stored value with its value left out and everything else, the lease too, kept.
fn without_value(at: Revision, stored: Bytes) -> Result<Bytes, Unread> {
    let kv = value::decode(at, stored)?;
    let meta = KeyMeta { modified: at, created: kv.create_revision, version: kv.version, lease: kv.lease };
    let mut out = BytesMut::new();
    value::encode_put(&mut out, &kv.key, &meta, b"");
    Ok(out.freeze())
}

/// Most rows a request wants.
pub(super) fn limit(request: &RangeRequest) -> usize {
    if request.limit > 0 { usize::try_from(request.limit).unwrap_or(usize::MAX) } else { usize::MAX }
}
