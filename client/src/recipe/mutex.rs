//! A lock that at most one session holds, as far as the cluster knows.

use bytes::Bytes;
use parking_lot::Mutex as Cell;

use super::{
    Held, RecipeError, Session,
    queue::{self, Place},
};
use crate::key::IntoBytes;

/// A lock of a name. Sessions get it in the order in which they asked.
#[derive(Debug)]
pub struct Mutex<'s> {
    session: &'s Session,
    prefix: Bytes,
    /// The place in the queue, if there may be one.
    place: Cell<Option<Place>>,
}

impl<'s> Mutex<'s> {
    /// The lock of that name. Nothing is asked for yet.
    pub fn new(session: &'s Session, name: impl IntoBytes) -> Self {
        Self { session, prefix: queue::prefix(&name.into_bytes()), place: Cell::default() }
    }

    /// Waits until this session is first.
    ///
    /// If it is given up halfway, the session keeps its place in the queue until [`unlock`](Self::unlock) or its end.
    pub async fn lock(&self) -> Result<Held, RecipeError> {
        self.session
            .alive(async {
                let place = queue::enter(self.session, &self.prefix, &Bytes::new()).await?;
                *self.place.lock() = Some(place.clone());
                queue::wait(self.session, &self.prefix, &place).await
            })
            .await
    }

    /// Takes the lock if nobody has it; `None` if somebody has.
    pub async fn try_lock(&self) -> Result<Option<Held>, RecipeError> {
        self.session
            .alive(async {
                let place = queue::enter(self.session, &self.prefix, &Bytes::new()).await?;
                if place.first {
                    *self.place.lock() = Some(place.clone());
                    return Ok(Some(Held::new(&place, place.header)));
                }
                queue::leave(self.session.client(), &place.key, place.create_revision).await?;
                Ok(None)
            })
            .await
    }

    /// Gives the lock up, or the place in its queue.
    pub async fn unlock(&self) -> Result<(), RecipeError> {
        let place = self.place.lock().clone();
        if let Some(place) = place {
            queue::leave(self.session.client(), &place.key, place.create_revision).await?;
            *self.place.lock() = None;
        }
        Ok(())
    }
}
