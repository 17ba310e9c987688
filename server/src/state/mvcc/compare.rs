//! Compares: the conditions of a txn.
//!
//! A compare of a range must hold for every key that lives in it. Where no key lives, the compare sees 0 for version,
//! create and mod revision and lease, and a compare of values is false whatever it asks.

use std::{cmp::Ordering, ops::ControlFlow};

use cairn_proto::etcdserverpb::{
    Compare,
    compare::{CompareResult, CompareTarget, TargetUnion},
};

use super::{
    index::{KeyMeta, RangeEnd, Visited},
    range::range_end,
    value,
    view::{Unread, View},
};

/// Whether `compare` holds in `view`.
pub(super) fn holds(view: &View<'_>, compare: &Compare) -> Result<bool, Unread> {
    let end = range_end(&compare.range_end);
    if end == RangeEnd::Single {
        return match view.get(&compare.key)? {
            Some(meta) => holds_for(view, compare, &meta),
            None => Ok(holds_for_none(compare)),
        };
    }
    let by_value = needs_value(view, compare);
    let mut from = compare.key.clone();
    let mut any = false;
    loop {
        let mut page = Vec::new();
        let mut holds = true;
        let visited = view.page(&from, &end, &mut |_, meta| {
            any = true;
            if by_value {
                page.push(meta);
            } else if !holds_with(compare, &Seen::of(&meta)) {
                holds = false;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        for meta in page {
            if !holds_for(view, compare, &meta)? {
                return Ok(false);
            }
        }
        match visited {
            Visited::More(next) if holds => from = next,
            _ if any => return Ok(holds),
            _ => return Ok(holds_for_none(compare)),
        }
    }
}

fn target(compare: &Compare) -> Option<CompareTarget> {
    CompareTarget::try_from(compare.target).ok()
}

fn needs_value(view: &View<'_>, compare: &Compare) -> bool {
    match target(compare) {
        Some(CompareTarget::Value) => true,
        Some(CompareTarget::Lease) => !view.knows_leases(),
        _ => false,
    }
}

fn holds_for(view: &View<'_>, compare: &Compare, meta: &KeyMeta) -> Result<bool, Unread> {
    if !needs_value(view, compare) {
        return Ok(holds_with(compare, &Seen::of(meta)));
    }
    let kv = value::decode(meta.modified, view.value(meta.modified)?)?;
    Ok(holds_with(compare, &Seen { value: &kv.value, lease: kv.lease, ..Seen::of(meta) }))
}

fn holds_for_none(compare: &Compare) -> bool {
    target(compare) != Some(CompareTarget::Value) && holds_with(compare, &Seen::default())
}

/// What a compare may look at.
#[derive(Default)]
struct Seen<'a> {
    version: i64,
    created: i64,
    modified: i64,
    lease: i64,
    value: &'a [u8],
}

impl Seen<'_> {
    fn of(meta: &KeyMeta) -> Self {
        Self {
            version: meta.version,
            created: meta.created,
            modified: meta.modified.main,
            lease: meta.lease,
            value: b"",
        }
    }
}

fn holds_with(compare: &Compare, seen: &Seen<'_>) -> bool {
    // A union of another kind than the target counts as not given: 0 or empty.
    let union = compare.target_union.as_ref();
    let ordering = match target(compare) {
        Some(CompareTarget::Version) => {
            seen.version.cmp(&if let Some(TargetUnion::Version(version)) = union { *version } else { 0 })
        }
        Some(CompareTarget::Create) => {
            seen.created.cmp(&if let Some(TargetUnion::CreateRevision(revision)) = union { *revision } else { 0 })
        }
        Some(CompareTarget::Mod) => {
            seen.modified.cmp(&if let Some(TargetUnion::ModRevision(revision)) = union { *revision } else { 0 })
        }
        Some(CompareTarget::Lease) => {
            seen.lease.cmp(&if let Some(TargetUnion::Lease(lease)) = union { *lease } else { 0 })
        }
        Some(CompareTarget::Value) => {
            seen.value.cmp(if let Some(TargetUnion::Value(value)) = union { value } else { b"" })
        }
        None => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
