//! Clients that see a part of the key space.

use cairn_client::{
    Client, Compare, Delete, Get, KeyRange, Put, Txn,
    proto::{
        ApiError,
        etcdserverpb::response_op::Response,
        mvccpb::{KeyValue, event::EventType},
    },
};

use crate::{cluster::Cluster, soon};

/// A store with keys around and in `app/`, and the client that sees what is in it.
async fn filled(cluster: &Cluster) -> (Client, Client) {
    let whole = cluster.client();
    for key in ["a", "app", "app/", "app0", "b"] {
        whole.put(key, "outside").await.unwrap();
    }
    let inside = whole.namespaced("app/");
    for key in ["a", "b", "c"] {
        inside.put(key, key).await.unwrap();
    }
    (whole, inside)
}

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

async fn seen(client: &Client, range: KeyRange) -> Vec<String> {
    let answer = client.get(range).await.unwrap();
    keys(&answer.kvs).into_iter().map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn keys_inside_have_their_own_names_and_nothing_else_is_there() {
    let cluster = Cluster::of(1).await;
    let (whole, inside) = filled(&cluster).await;
    assert_eq!(seen(&whole, KeyRange::prefix("app/")).await, ["app/", "app/a", "app/b", "app/c"]);
    assert_eq!(seen(&inside, KeyRange::all()).await, ["a", "b", "c"]);
    assert_eq!(seen(&inside, KeyRange::prefix("")).await, ["a", "b", "c"]);
    assert_eq!(seen(&inside, KeyRange::from_key("b")).await, ["b", "c"]);
    assert_eq!(seen(&inside, KeyRange::between("a", "c")).await, ["a", "b"]);
    assert_eq!(seen(&inside, KeyRange::between("a", "\0")).await, ["a", "b", "c"]);
    assert_eq!(seen(&inside, KeyRange::key("b")).await, ["b"]);
    assert!(seen(&inside, KeyRange::key("app0")).await.is_empty());
    let mut pieces = inside.get(KeyRange::all()).stream().await.unwrap();
    let mut streamed = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        streamed.extend(piece.range_response.unwrap().kvs);
    }
    assert_eq!(keys(&streamed), ["a", "b", "c"]);

    let put = inside.put("a", "2").prev_kv().await.unwrap();
    assert_eq!(put.prev_kv.unwrap().key, "a");
    let deleted = inside.delete(KeyRange::from_key("b")).prev_kv().await.unwrap();
    assert_eq!((deleted.deleted, keys(&deleted.prev_kvs)), (2, vec!["b", "c"]));
    assert_eq!(seen(&whole, KeyRange::all()).await, ["a", "app", "app/", "app/a", "app0", "b"]);
    inside.delete(KeyRange::all()).await.unwrap();
    assert_eq!(seen(&whole, KeyRange::all()).await, ["a", "app", "app/", "app0", "b"]);
}

#[tokio::test]
async fn a_prefix_of_the_last_keys_of_all_ends_with_the_key_space() {
    let cluster = Cluster::of(1).await;
    let whole = cluster.client();
    let (last, before) = (whole.namespaced(b"\xff"), whole.namespaced(b"a\xff"));
    for key in [&b"\xff1"[..], b"\xff2", b"a\xff1", b"b"] {
        whole.put(key, "v").await.unwrap();
    }
    assert_eq!(seen(&last, KeyRange::from_key("1")).await, ["1", "2"]);
    assert_eq!(seen(&before, KeyRange::all()).await, ["1"], "the key behind the prefix is outside");
    assert_eq!(whole.namespaced("").get(KeyRange::all()).await.unwrap().count, 4, "no prefix, no limits");
}

#[tokio::test]
async fn the_empty_key_is_refused_and_is_not_the_prefix() {
    let cluster = Cluster::of(1).await;
    let (_whole, inside) = filled(&cluster).await;
    let refused = [
        inside.get("").await.unwrap_err(),
        inside.put("", "v").await.unwrap_err(),
        inside.delete("").await.unwrap_err(),
        inside.get(KeyRange::between("", "b")).await.unwrap_err(),
        inside.txn().when(Compare::missing("")).await.unwrap_err(),
        inside.txn().then(Put::new("", "v")).await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.api_error(), Some(ApiError::EmptyKey), "{error}");
    }
}

#[tokio::test]
async fn transactions_stay_inside_with_their_conditions_and_nested_ones() {
    let cluster = Cluster::of(1).await;
    let (whole, inside) = filled(&cluster).await;
    let nested = Txn::new()
        .when(Compare::value("b").equal_to("b"))
        .then(Delete::new(KeyRange::from_key("b")).prev_kv())
        .otherwise(Get::new("app0"));
    let answer = inside
        .txn()
        .when(Compare::missing("app0"))
        .when(Compare::create_revision(KeyRange::all()).greater_than(6))
        .then(Get::new(KeyRange::all()))
        .then(Put::new("a", "2").prev_kv())
        .then(nested)
        .await
        .unwrap();
    assert!(answer.succeeded, "conditions that nothing outside touches");
    let mut told = answer.responses.into_iter().map(|operation| operation.response.unwrap());
    let Some(Response::ResponseRange(range)) = told.next() else { panic!("a range") };
    assert_eq!(keys(&range.kvs), ["a", "b", "c"]);
    let Some(Response::ResponsePut(put)) = told.next() else { panic!("a put") };
    assert_eq!(put.prev_kv.unwrap().key, "a");
    let Some(Response::ResponseTxn(nested)) = told.next() else { panic!("a nested txn") };
    let Some(Response::ResponseDeleteRange(deleted)) = &nested.responses[0].response else { panic!("a delete") };
    assert_eq!(keys(&deleted.prev_kvs), ["b", "c"]);
    assert_eq!(seen(&whole, KeyRange::prefix("app")).await, ["app", "app/", "app/a", "app0"]);

    let refused = inside.txn().when(Compare::exists("zz")).otherwise(Get::new(KeyRange::all())).await.unwrap();
    let Some(Response::ResponseRange(range)) = &refused.responses[0].response else { panic!("a range") };
    assert_eq!((refused.succeeded, keys(&range.kvs)), (false, vec!["a"]));
}

#[tokio::test]
async fn watches_tell_of_what_is_inside_by_its_own_names() {
    let cluster = Cluster::of(1).await;
    let (whole, inside) = filled(&cluster).await;
    let mut all = inside.watch(KeyRange::all()).prev_kv().await.unwrap();
    let mut from_nothing = inside.watch(KeyRange::between("", "\0")).await.unwrap();
    let mut one = inside.watch("b").await.unwrap();
    for key in ["app/", "app0", "zz"] {
        whole.put(key, "unseen").await.unwrap();
    }
    inside.put("b", "2").await.unwrap();
    whole.delete("app/c").await.unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(soon("an event", all.next()).await.unwrap().events);
    }
    let [put, delete] = &told[..] else { panic!("{told:?}") };
    assert_eq!((put.r#type(), &put.kv.as_ref().unwrap().key[..]), (EventType::Put, &b"b"[..]));
    assert_eq!(
        (&put.prev_kv.as_ref().unwrap().key[..], &put.prev_kv.as_ref().unwrap().value[..]),
        (&b"b"[..], &b"b"[..])
    );
    assert_eq!((delete.r#type(), &delete.kv.as_ref().unwrap().key[..]), (EventType::Delete, &b"c"[..]));
    assert_eq!(delete.prev_kv.as_ref().unwrap().key, "c");
    let first = soon("the first event", from_nothing.next()).await.unwrap();
    assert_eq!(first.events[0].kv.as_ref().unwrap().key, "b");
    let answer = soon("the event of one key", one.next()).await.unwrap();
    assert_eq!((answer.events.len(), &answer.events[0].kv.as_ref().unwrap().key[..]), (1, &b"b"[..]));
}

#[tokio::test]
async fn leases_are_shared_and_tell_only_the_keys_inside() {
    let cluster = Cluster::of(1).await;
    let (whole, inside) = filled(&cluster).await;
    let lease = inside.lease_grant(600, 0).await.unwrap().id;
    inside.put("leased", "v").lease(lease).await.unwrap();
    whole.put("other", "v").lease(lease).await.unwrap();
    let mut all = whole.lease_time_to_live(lease, true).await.unwrap().keys;
    all.sort();
    assert_eq!(all, ["app/leased", "other"]);
    assert_eq!(inside.lease_time_to_live(lease, true).await.unwrap().keys, ["leased"]);
    inside.lease_revoke(lease).await.unwrap();
    assert!(seen(&whole, KeyRange::key("other")).await.is_empty());
}

#[tokio::test]
async fn a_namespace_may_lie_in_another_one() {
    let cluster = Cluster::of(1).await;
    let whole = cluster.client();
    let inner = whole.namespaced("a/").namespaced("b/");
    inner.put("k", "v").await.unwrap();
    assert_eq!(seen(&whole, KeyRange::all()).await, ["a/b/k"]);
    assert_eq!(seen(&whole.namespaced("a/"), KeyRange::all()).await, ["b/k"]);
    assert_eq!(seen(&inner, KeyRange::all()).await, ["k"]);
}
