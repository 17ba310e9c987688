//! A queue of keys under a prefix: the one created first is first.
//!
//! Whoever waits watches the key right before its own, and nothing else, so that a departure wakes one and not all.

use bytes::Bytes;
use cairn_proto::{
    etcdserverpb::{
        self as pb,
        range_request::{SortOrder, SortTarget},
        response_op::Response,
    },
    mvccpb::{KeyValue, event::EventType},
};

use super::{RecipeError, Session};
use crate::{Client, Compare, Delete, Get, KeyRange, Put};

/// A place in a queue.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: Bytes,
    /// Which life of the key it is, and how long it has waited.
    pub(super) create_revision: i64,
    /// What the key held when it was found instead of created: this session is in the queue already.
    pub(super) found: Option<KeyValue>,
    /// From the answer that told about the place.
    pub(super) header: pb::ResponseHeader,
    /// Whether it was first from the beginning.
    pub(super) first: bool,
}

/// The first place in a queue, held.
#[derive(Debug, Clone)]
pub struct Held {
    key: Bytes,
    token: i64,
    header: pb::ResponseHeader,
}

impl Held {
    pub(super) fn new(place: &Place, header: pb::ResponseHeader) -> Self {
        Self { key: place.key.clone(), token: place.create_revision, header }
    }

    /// The key that stands for the place.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The fencing token: higher than that of every holder before. Whatever the lock protects must refuse a token lower
    /// than the highest it has seen.
    pub fn token(&self) -> i64 {
        self.token
    }

    /// A condition for transactions: this place is still held.
    pub fn is_first(&self) -> Compare {
        Compare::create_revision(&self.key).equal_to(self.token)
    }

    /// The header of the answer that told that the place is first.
    pub fn header(&self) -> &pb::ResponseHeader {
        &self.header
    }
}

/// The prefix of a queue's keys.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of a session's place.
fn key(prefix: &[u8], session: &Session) -> Bytes {
    [prefix, format!("{:x}", session.lease()).as_bytes()].concat().into()
}

/// The first of a queue.
pub(super) fn first(prefix: &Bytes) -> Get {
    Get::new(KeyRange::prefix(prefix)).sort(SortTarget::Create, SortOrder::Ascend).limit(1)
}

/// Queues up with `value`, or finds the place that this session has already.
pub(super) async fn enter(session: &Session, prefix: &Bytes, value: &Bytes) -> Result<Place, RecipeError> {
    let key = key(prefix, session);
    let answer = session
        .client()
        .txn()
        .when(Compare::create_revision(&key).equal_to(0))
        .then(Put::new(&key, value).lease(session.lease()))
        .then(first(prefix))
        .otherwise(Get::new(&key))
        .otherwise(first(prefix))
        .await?;
    let header = answer.header.unwrap_or_default();
    let mut ranges = answer.responses.into_iter().filter_map(|operation| match operation.response {
        Some(Response::ResponseRange(range)) => Some(range),
        _ => None,
    });
    let found = if answer.succeeded { None } else { ranges.next().and_then(|range| range.kvs.into_iter().next()) };
    let create_revision = found.as_ref().map_or(header.revision, |kv| kv.create_revision);
    let owner = ranges.next().and_then(|range| range.kvs.into_iter().next());
    let first = owner.is_none_or(|owner| owner.create_revision == create_revision);
    Ok(Place { key, create_revision, found, header, first })
}

/// Waits until everybody before the place has gone.
pub(super) async fn wait(session: &Session, prefix: &Bytes, place: &Place) -> Result<Held, RecipeError> {
    if place.first {
        return Ok(Held::new(place, place.header));
    }
    let client = session.client();
    loop {
        let before = client
            .get(KeyRange::prefix(prefix))
            .created(..place.create_revision)
            .sort(SortTarget::Create, SortOrder::Descend)
            .limit(1)
            .await?;
        let revision = before.header.unwrap_or_default().revision;
        let Some(previous) = before.kvs.into_iter().next() else { break };
        until_deleted(client, &previous.key, revision).await?;
    }
    // The wait may have been long enough for the place to be lost with its lease.
    let own = client.get(&place.key).await?;
    if own.kvs.first().is_none_or(|kv| kv.create_revision != place.create_revision) {
        return Err(RecipeError::PlaceLost);
    }
    Ok(Held::new(place, own.header.unwrap_or_default()))
}

/// Waits until the key, which was there at `revision`, is deleted.
async fn until_deleted(client: &Client, key: &Bytes, revision: i64) -> Result<(), RecipeError> {
    let mut watch = client.watch(key).revision(revision.saturating_add(1)).no_puts().await?;
    loop {
        let answer = watch.next().await?;
        if answer.events.iter().any(|event| event.r#type() == EventType::Delete) {
            return Ok(());
        }
    }
}

/// Gives the place up. Nothing happens if it is somebody else's by now.
pub(super) async fn leave(client: &Client, key: &Bytes, create_revision: i64) -> Result<(), RecipeError> {
    let still = Compare::create_revision(key).equal_to(create_revision);
    client.txn().when(still).then(Delete::new(key)).await?;
    Ok(())
}
