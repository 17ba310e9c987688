//! Objects under `/registry`: created if absent, changed only at the revision they were read at.

use std::{collections::BTreeMap, sync::Arc};

use cairn_client::{
    Client, Compare, Delete, Get, KeyRange, Put, Watcher,
    proto::{etcdserverpb::response_op::Response as Answer, mvccpb::KeyValue},
};

use super::{Result, audit::Audit, election::Term};

/// Objects of one page of a list.
const PAGE: i64 = 500;

/// What an object says, by field.
pub type Fields = BTreeMap<String, String>;

/// Fields from pairs.
pub fn fields<const N: usize>(pairs: [(&str, &str); N]) -> Fields {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub fields: Fields,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
}

impl Object {
    /// From a line per field.
    pub fn read(kv: &KeyValue) -> Self {
        let text = String::from_utf8_lossy(&kv.value);
        let fields = text.lines().filter_map(|line| line.split_once('='));
        Self {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
        }
    }

    /// A field; empty if it has none of that name.
    pub fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Its fields with one of them changed.
    pub fn with(&self, name: &str, value: &str) -> Fields {
        let mut fields = self.fields.clone();
        fields.insert(name.to_owned(), value.to_owned());
        fields
    }

    /// The part of the key behind the kind: the namespace, or the name of what has none.
    pub fn namespace(&self) -> &str {
        self.key.split('/').nth(3).unwrap_or_default()
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

fn encode(fields: &Fields) -> String {
    fields.iter().flat_map(|(name, value)| [name, "=", value, "\n"]).collect()
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is stored, at this revision.
    At(i64),
    /// Somebody else changed the object, or what the write depends on.
    Conflict,
    /// The term it was written in is over.
    Deposed,
}

/// The store.
pub struct Registry {
    pub client: Client,
    pub audit: Arc<Audit>,
}

impl Registry {
    pub fn new(endpoints: &str, audit: Arc<Audit>) -> Result<Self> {
        Ok(Self { client: Client::new(endpoints.split(','))?, audit })
    }

    /// Creates an object that must not exist, with a lease or 0, if `also` holds.
    pub async fn create(
        &self,
        term: Option<&Term>,
        key: &str,
        fields: &Fields,
        lease: i64,
        also: Option<Compare>,
    ) -> Result<Written> {
        let put = Put::new(key.to_owned(), encode(fields)).lease(lease);
        self.write(term, Compare::missing(key.to_owned()), also, put).await
    }

    /// Changes an object that must be as it was read.
    pub async fn update(&self, term: Option<&Term>, object: &Object, fields: &Fields) -> Result<Written> {
        let unchanged = Compare::mod_revision(object.key.clone()).equal_to(object.mod_revision);
        self.write(term, unchanged, None, Put::new(object.key.clone(), encode(fields))).await
    }

    /// Deletes an object that must be as it was read.
    pub async fn delete(&self, term: Option<&Term>, object: &Object) -> Result<Written> {
        let unchanged = Compare::mod_revision(object.key.clone()).equal_to(object.mod_revision);
        self.write(term, unchanged, None, Delete::new(object.key.clone())).await
    }

    async fn write(
        &self,
        term: Option<&Term>,
        condition: Compare,
        also: Option<Compare>,
        operation: impl Into<cairn_client::Op>,
    ) -> Result<Written> {
        let mut txn = self.client.txn().when(condition).then(operation);
        if let Some(also) = also {
            txn = txn.when(also);
        }
        if let Some(term) = term {
            txn = txn.when(term.holds()).otherwise(Get::new(term.key.clone()));
        }
        let answer = txn.await?;
        if answer.succeeded {
            self.audit.writes.add();
            return Ok(Written::At(answer.header.map_or(0, |header| header.revision)));
        }
        let current = match answer.responses.first().and_then(|op| op.response.as_ref()) {
            Some(Answer::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.create_revision),
            _ => 0,
        };
        if term.is_some_and(|term| term.revision != current) {
            self.audit.fenced.add();
            return Ok(Written::Deposed);
        }
        self.audit.conflicts.add();
        Ok(Written::Conflict)
    }

    /// Deletes everything below a prefix and returns how much it was.
    pub async fn delete_all(&self, prefix: &str) -> Result<i64> {
        Ok(self.client.delete(KeyRange::prefix(prefix.to_owned())).await?.deleted)
    }

    /// One object.
    pub async fn get(&self, key: &str) -> Result<Option<Object>> {
        Ok(self.client.get(key.to_owned()).await?.kvs.first().map(Object::read))
    }

    /// How many objects there were below a prefix at a revision.
    pub async fn count_at(&self, prefix: &str, revision: i64) -> Result<i64> {
        Ok(self.client.get(KeyRange::prefix(prefix.to_owned())).revision(revision).count_only().await?.count)
    }

    /// All objects below a prefix, in pages of one revision, and that revision.
    pub async fn list(&self, prefix: &str) -> Result<(Vec<Object>, i64)> {
        let mut objects: Vec<Object> = Vec::new();
        let mut revision = 0;
        let (mut from, to) = KeyRange::prefix(prefix.to_owned()).into_parts();
        loop {
            let range = KeyRange::between(from, to.clone());
            let page = self.client.get(range).limit(PAGE).revision(revision).await?;
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
            }
            objects.extend(page.kvs.iter().map(Object::read));
            let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok((objects, revision)) };
            from = [&last.key[..], b"\0"].concat().into();
        }
    }

    /// The changes below a prefix from a revision on, with what was there before each.
    pub async fn watch(&self, prefix: &str, from: i64) -> Result<Watcher> {
        Ok(self.client.watch(KeyRange::prefix(prefix.to_owned())).revision(from).prev_kv().await?)
    }
}
