//! Reading and writing keys.
//!
//! Each request is a builder. It comes in two kinds: `Put::new("k", "v")` stands for itself, to be an operation of a
//! transaction; `client.put("k", "v")` knows who sends it and is sent by awaiting it. Options are the same for both, which is
//! why the types have the sender as a parameter: `Put<()>` and `Put<Client>`.

mod compact;
mod compare;
mod delete;
mod get;
mod put;
mod txn;

pub use compact::Compact;
pub use compare::{Compare, Property};
pub use delete::Delete;
pub use get::Get;
pub use put::Put;
pub use txn::{Op, Txn};

use crate::{
    client::Client,
    key::{IntoBytes, KeyRange},
};

impl Client {
    /// Reads a key or a range of keys.
    pub fn get(&self, keys: impl Into<KeyRange>) -> Get<Client> {
        Get::of(self.clone(), keys.into())
    }

    /// Creates or overwrites a key.
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) -> Put<Client> {
        Put::of(self.clone(), key.into_bytes(), value.into_bytes())
    }

    /// Deletes a key or a range of keys.
    pub fn delete(&self, keys: impl Into<KeyRange>) -> Delete<Client> {
        Delete::of(self.clone(), keys.into())
    }

    /// Compares, then runs one of two lists of operations, all at one revision.
    pub fn txn(&self) -> Txn<Client> {
        Txn::of(self.clone())
    }

    /// Gives up the history below `revision`, which becomes the lowest that can be read.
    pub fn compact(&self, revision: i64) -> Compact<Client> {
        Compact::of(self.clone(), revision)
    }
}

/// Awaiting a builder with a client sends its request.
macro_rules! sent_when_awaited {
    ($builder:ident => $answer:ty) => {
        impl $builder<$crate::Client> {
            /// Sends the request; the same as awaiting the builder.
            pub async fn send(self) -> Result<$answer, $crate::Error> {
                self.sender.call(self.request).await
            }
        }

        impl std::future::IntoFuture for $builder<$crate::Client> {
            type Output = Result<$answer, $crate::Error>;
            type IntoFuture = std::pin::Pin<Box<dyn std::future::Future<Output = Self::Output> + Send>>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}
use sent_when_awaited;
