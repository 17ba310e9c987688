//! An election: the first of a queue leads, and tells everybody something.

use std::collections::VecDeque;

use bytes::Bytes;
use cairn_proto::{
    etcdserverpb as pb,
    mvccpb::{KeyValue, event::EventType},
};
use parking_lot::Mutex as Cell;

use super::{
    Held, RecipeError, Session,
    queue::{self, Place},
};
use crate::{Client, Compare, KeyRange, Put, Watcher, key::IntoBytes};

/// An election of a name, seen from one session.
#[derive(Debug)]
pub struct Election<'s> {
    session: &'s Session,
    prefix: Bytes,
    place: Cell<Option<Place>>,
}

impl<'s> Election<'s> {
    /// The election of that name. Nobody stands for it yet.
    pub fn new(session: &'s Session, name: impl IntoBytes) -> Self {
        Self { session, prefix: queue::prefix(&name.into_bytes()), place: Cell::default() }
    }

    /// Stands for election with a value, and waits until it is won.
    ///
    /// If it is given up halfway, the session still stands until [`resign`](Self::resign) or its end.
    pub async fn campaign(&self, value: impl IntoBytes) -> Result<Held, RecipeError> {
        let value = value.into_bytes();
        self.session
            .alive(async {
                let place = queue::enter(self.session, &self.prefix, &value).await?;
                *self.place.lock() = Some(place.clone());
                if place.found.as_ref().is_some_and(|known| known.value != value) {
                    self.proclaim(value.clone()).await?;
                }
                queue::wait(self.session, &self.prefix, &place).await
            })
            .await
    }

    /// Changes the value without another election.
    pub async fn proclaim(&self, value: impl IntoBytes) -> Result<(), RecipeError> {
        let Some(place) = self.place.lock().clone() else { return Err(RecipeError::NotLeader) };
        let answer = self
            .session
            .client()
            .txn()
            .when(Compare::create_revision(&place.key).equal_to(place.create_revision))
            .then(Put::new(&place.key, value.into_bytes()).lease(self.session.lease()))
            .await?;
        if answer.succeeded { Ok(()) } else { Err(RecipeError::NotLeader) }
    }

    /// Gives the leadership up, or the place among those who stand.
    pub async fn resign(&self) -> Result<(), RecipeError> {
        let place = self.place.lock().clone();
        if let Some(place) = place {
            queue::leave(self.session.client(), &place.key, place.create_revision).await?;
            *self.place.lock() = None;
        }
        Ok(())
    }

    /// Who leads now, if anybody does.
    pub async fn leader(&self) -> Result<Option<KeyValue>, RecipeError> {
        let answer = self.session.client().call(queue::first(&self.prefix).into_request()).await?;
        Ok(answer.kvs.into_iter().next())
    }
}

/// Tells who leads, from now on.
#[derive(Debug)]
pub struct Observer {
    client: Client,
    prefix: Bytes,
    /// Changes of the leader's key, while there is a leader.
    leader: Option<Watcher>,
    /// What one answer told and has not been asked for yet.
    news: VecDeque<(pb::ResponseHeader, KeyValue)>,
}

impl Observer {
    /// Observes the election of that name. It takes no session.
    pub fn new(client: &Client, name: impl IntoBytes) -> Self {
        let prefix = queue::prefix(&name.into_bytes());
        Self { client: client.clone(), prefix, leader: None, news: VecDeque::new() }
    }

    /// Waits for the next leader, or for the next value of the present one. Leaders that led only between two questions may
    /// be left out.
    pub async fn next(&mut self) -> Result<(pb::ResponseHeader, KeyValue), RecipeError> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            let Some(leader) = &mut self.leader else {
                let (header, kv) = self.first().await?;
                let from = header.revision.saturating_add(1);
                self.leader = Some(self.client.watch(&kv.key).revision(from).await?);
                return Ok((header, kv));
            };
            let answer = leader.next().await?;
            for event in answer.events {
                let told = event.kv.clone().filter(|_| event.r#type() == EventType::Put);
                let Some(kv) = told else {
                    self.leader = None;
                    break;
                };
                self.news.push_back((answer.header, kv));
            }
        }
    }

    /// The leader, as soon as there is one.
    async fn first(&self) -> Result<(pb::ResponseHeader, KeyValue), RecipeError> {
        let answer = self.client.call(queue::first(&self.prefix).into_request()).await?;
        let header = answer.header.unwrap_or_default();
        if let Some(kv) = answer.kvs.into_iter().next() {
            return Ok((header, kv));
        }
        let from = header.revision.saturating_add(1);
        let mut watch = self.client.watch(KeyRange::prefix(&self.prefix)).revision(from).no_deletes().await?;
        loop {
            let answer = watch.next().await?;
            // The answer may hold several revisions; the leader is the one of the first, as of then.
            if let Some(kv) = answer.events.into_iter().find_map(|event| event.kv) {
                return Ok((pb::ResponseHeader { revision: kv.mod_revision, ..answer.header }, kv));
            }
        }
    }
}
