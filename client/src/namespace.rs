//! A part of the key space that is all a client sees: the keys with a prefix, called by what follows it.
//!
//! ```text
//!   in the namespace "app/"              in the store
//!   "k"                                  "app/k"
//!   "a" up to "b"                        "app/a" up to "app/b"
//!   "a" up to "\0": the end of it all    "app/a" up to "app0": the end of the prefix
//! ```
//!
//! The key that equals the prefix has no name inside: an empty key stays empty, and servers refuse it.

use bytes::Bytes;
use cairn_proto::{
    etcdserverpb::{self as pb, request_op::Request as Operation, response_op::Response as Outcome},
    mvccpb::{Event, KeyValue},
};

use crate::key::{ZERO, end_of_prefix};

/// A namespace. [`Client::namespaced`](crate::Client::namespaced) makes one; implementations of
/// [`Unary`](crate::Unary) are shown it.
#[derive(Debug, Clone)]
pub struct Namespace(Bytes);

impl Namespace {
    pub(crate) fn inside(outer: Option<&Self>, prefix: &Bytes) -> Self {
        match outer {
            Some(Self(outer)) => Self(join(outer, prefix)),
            None => Self(prefix.clone()),
        }
    }

    /// Gives a key its full name. An empty key stays empty.
    pub fn enter(&self, key: &mut Bytes) {
        if !key.is_empty() {
            *key = join(&self.0, key);
        }
    }

    /// The same for a range, whose end may be empty (one key) or a zero byte (the end of the namespace).
    pub fn enter_range(&self, key: &mut Bytes, end: &mut Bytes) {
        self.enter(key);
        if *end == ZERO {
            *end = if self.0.is_empty() { ZERO } else { end_of_prefix(&self.0) };
        } else {
            self.enter(end);
        }
    }

    /// Takes the prefix off a key; `false` if the key is not in the namespace, and then stays as it is.
    pub fn leave(&self, key: &mut Bytes) -> bool {
        let inside = key.starts_with(&self.0);
        if inside {
            *key = key.slice(self.0.len()..);
        }
        inside
    }

    /// Unlike elsewhere, an empty key is the first one of all to a watch.
    pub(crate) fn enter_watch(&self, request: &mut pb::WatchCreateRequest) {
        if request.key.is_empty() {
            request.key = ZERO;
        }
        self.enter_range(&mut request.key, &mut request.range_end);
    }

    pub(crate) fn leave_events(&self, events: &mut [Event]) {
        for kv in events.iter_mut().flat_map(|event| event.kv.iter_mut().chain(&mut event.prev_kv)) {
            self.leave(&mut kv.key);
        }
    }

    fn leave_all<'a>(&self, kvs: impl IntoIterator<Item = &'a mut KeyValue>) {
        for kv in kvs {
            self.leave(&mut kv.key);
        }
    }
}

fn join(prefix: &Bytes, name: &Bytes) -> Bytes {
    [&prefix[..], name].concat().into()
}

/// A request about keys.
pub(crate) trait Request {
    fn enter(&mut self, namespace: &Namespace);
}

/// An answer about keys.
pub(crate) trait Answer {
    fn leave(&mut self, namespace: &Namespace);
}

impl Request for pb::RangeRequest {
    fn enter(&mut self, namespace: &Namespace) {
        namespace.enter_range(&mut self.key, &mut self.range_end);
    }
}

impl Request for pb::PutRequest {
    fn enter(&mut self, namespace: &Namespace) {
        namespace.enter(&mut self.key);
    }
}

impl Request for pb::DeleteRangeRequest {
    fn enter(&mut self, namespace: &Namespace) {
        namespace.enter_range(&mut self.key, &mut self.range_end);
    }
}

impl Request for pb::TxnRequest {
    fn enter(&mut self, namespace: &Namespace) {
        for compare in &mut self.compare {
            namespace.enter_range(&mut compare.key, &mut compare.range_end);
        }
        for operation in self.success.iter_mut().chain(&mut self.failure) {
            match &mut operation.request {
                Some(Operation::RequestRange(range)) => range.enter(namespace),
                Some(Operation::RequestPut(put)) => put.enter(namespace),
                Some(Operation::RequestDeleteRange(delete)) => delete.enter(namespace),
                Some(Operation::RequestTxn(nested)) => nested.enter(namespace),
                None => {}
            }
        }
    }
}

impl Answer for pb::RangeResponse {
    fn leave(&mut self, namespace: &Namespace) {
        namespace.leave_all(&mut self.kvs);
    }
}

impl Answer for pb::PutResponse {
    fn leave(&mut self, namespace: &Namespace) {
        namespace.leave_all(&mut self.prev_kv);
    }
}

impl Answer for pb::DeleteRangeResponse {
    fn leave(&mut self, namespace: &Namespace) {
        namespace.leave_all(&mut self.prev_kvs);
    }
}

impl Answer for pb::TxnResponse {
    fn leave(&mut self, namespace: &Namespace) {
        for operation in &mut self.responses {
            match &mut operation.response {
                Some(Outcome::ResponseRange(range)) => range.leave(namespace),
                Some(Outcome::ResponsePut(put)) => put.leave(namespace),
                Some(Outcome::ResponseDeleteRange(delete)) => delete.leave(namespace),
                Some(Outcome::ResponseTxn(nested)) => nested.leave(namespace),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyRange;

    fn entered(prefix: &'static [u8], range: KeyRange) -> (Bytes, Bytes) {
        let (mut key, mut end) = range.into_parts();
        Namespace(Bytes::from_static(prefix)).enter_range(&mut key, &mut end);
        (key, end)
    }

    fn is(range: &(Bytes, Bytes), key: &[u8], end: &[u8]) -> bool {
        range.0 == key && range.1 == end
    }

    #[test]
    fn ranges_stay_inside() {
        assert!(is(&entered(b"a/", KeyRange::key("k")), b"a/k", b""));
        assert!(is(&entered(b"a/", KeyRange::between("k", "m")), b"a/k", b"a/m"));
        assert!(is(&entered(b"a/", KeyRange::prefix("k")), b"a/k", b"a/l"));
        assert!(is(&entered(b"a/", KeyRange::from_key("k")), b"a/k", b"a0"));
        assert!(is(&entered(b"a/", KeyRange::all()), b"a/\0", b"a0"));
        assert!(is(&entered(b"a\xff", KeyRange::from_key("k")), b"a\xffk", b"b"));
    }

    #[test]
    fn a_prefix_behind_which_nothing_comes_ends_with_the_key_space() {
        assert!(is(&entered(b"\xff", KeyRange::from_key("k")), b"\xffk", b"\0"));
        assert!(is(&entered(b"", KeyRange::all()), b"\0", b"\0"));
    }

    #[test]
    fn an_empty_key_stays_empty_except_to_a_watch() {
        assert!(is(&entered(b"a/", KeyRange::key("")), b"", b""));
        let mut request = pb::WatchCreateRequest { range_end: ZERO, ..Default::default() };
        Namespace(Bytes::from_static(b"a/")).enter_watch(&mut request);
        assert!(is(&(request.key, request.range_end), b"a/\0", b"a0"));
    }

    #[test]
    fn keys_outside_keep_their_names() {
        let namespace = Namespace::inside(Some(&Namespace(Bytes::from_static(b"a/"))), &Bytes::from_static(b"b/"));
        let mut key = Bytes::from_static(b"a/b/k");
        assert!(namespace.leave(&mut key) && key == "k");
        let mut other = Bytes::from_static(b"a/k");
        assert!(!namespace.leave(&mut other) && other == "a/k");
    }
}
