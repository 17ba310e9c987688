//! Conditions of transactions.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    self as pb,
    compare::{CompareResult, CompareTarget, TargetUnion},
};

use crate::key::{IntoBytes, KeyRange};

/// A condition on a key, or on every key of a range.
///
/// A key that does not exist has version, revisions and lease 0, and no value: no condition on its value holds.
#[derive(Debug, Clone)]
pub struct Compare(pb::Compare);

/// A property of a key, still to be compared with something: numbers with `V = i64`, values with `V = Bytes`.
#[derive(Debug, Clone)]
#[must_use = "a property is no condition until it is compared"]
pub struct Property<V> {
    keys: KeyRange,
    target: CompareTarget,
    given: fn(V) -> TargetUnion,
}

impl Compare {
    /// How often the key was written in its present life.
    pub fn version(keys: impl Into<KeyRange>) -> Property<i64> {
        Property { keys: keys.into(), target: CompareTarget::Version, given: TargetUnion::Version }
    }

    /// The revision that created the key.
    pub fn create_revision(keys: impl Into<KeyRange>) -> Property<i64> {
        Property { keys: keys.into(), target: CompareTarget::Create, given: TargetUnion::CreateRevision }
    }

    /// The revision that last wrote the key.
    pub fn mod_revision(keys: impl Into<KeyRange>) -> Property<i64> {
        Property { keys: keys.into(), target: CompareTarget::Mod, given: TargetUnion::ModRevision }
    }

    /// The lease the key is attached to.
    pub fn lease(keys: impl Into<KeyRange>) -> Property<i64> {
        Property { keys: keys.into(), target: CompareTarget::Lease, given: TargetUnion::Lease }
    }

    /// The value.
    pub fn value(keys: impl Into<KeyRange>) -> Property<Bytes> {
        Property { keys: keys.into(), target: CompareTarget::Value, given: TargetUnion::Value }
    }

    /// The key exists.
    pub fn exists(key: impl IntoBytes) -> Self {
        Self::version(KeyRange::key(key)).greater_than(0)
    }

    /// The key does not exist.
    pub fn missing(key: impl IntoBytes) -> Self {
        Self::version(KeyRange::key(key)).equal_to(0)
    }

    /// The condition as it would be sent.
    pub fn into_request(self) -> pb::Compare {
        self.0
    }
}

impl<V> Property<V> {
    fn compared(self, result: CompareResult, given: V) -> Compare {
        let (key, range_end) = self.keys.into_parts();
        Compare(pb::Compare {
            result: result.into(),
            target: self.target.into(),
            key,
            range_end,
            target_union: Some((self.given)(given)),
        })
    }
}

impl Property<i64> {
    /// It is this number.
    pub fn equal_to(self, given: i64) -> Compare {
        self.compared(CompareResult::Equal, given)
    }

    /// It is another number.
    pub fn not_equal_to(self, given: i64) -> Compare {
        self.compared(CompareResult::NotEqual, given)
    }

    /// It is a higher number.
    pub fn greater_than(self, given: i64) -> Compare {
        self.compared(CompareResult::Greater, given)
    }

    /// It is a lower number.
    pub fn less_than(self, given: i64) -> Compare {
        self.compared(CompareResult::Less, given)
    }
}

impl Property<Bytes> {
    /// It is these bytes.
    pub fn equal_to(self, given: impl IntoBytes) -> Compare {
        self.compared(CompareResult::Equal, given.into_bytes())
    }

    /// It is other bytes.
    pub fn not_equal_to(self, given: impl IntoBytes) -> Compare {
        self.compared(CompareResult::NotEqual, given.into_bytes())
    }

    /// It comes after these bytes.
    pub fn greater_than(self, given: impl IntoBytes) -> Compare {
        self.compared(CompareResult::Greater, given.into_bytes())
    }

    /// It comes before these bytes.
    pub fn less_than(self, given: impl IntoBytes) -> Compare {
        self.compared(CompareResult::Less, given.into_bytes())
    }
}

impl From<pb::Compare> for Compare {
    fn from(compare: pb::Compare) -> Self {
        Self(compare)
    }
}
