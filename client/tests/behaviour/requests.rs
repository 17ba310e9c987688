//! Requests of every shape, and answers of every size.

use cairn_client::{
    BuildError, Client, Compare, Get, KeyRange, Put,
    proto::etcdserverpb::{self as pb},
};
use tonic::Code;

use crate::{
    member::{LARGE_KEY, LARGE_VALUE_BYTES, Member},
    network::Network,
};

#[tokio::test]
async fn an_answer_above_four_megabytes_arrives() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let answer = client.get(LARGE_KEY).await.unwrap();
    assert_eq!(answer.kvs[0].value.len(), LARGE_VALUE_BYTES);
}

#[tokio::test]
async fn a_limit_on_answers_and_requests_is_kept() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).answer_bytes_max(1 << 20).request_bytes_max(1 << 10).build().unwrap();
    let error = client.get(LARGE_KEY).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
    let error = client.put("k", vec![0; 1 << 11]).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    assert!(!error.may_have_happened());
    client.put("k", vec![0; 1 << 9]).await.unwrap();
    assert_eq!(member.seen(), ["range", "put"]);
}

#[tokio::test]
async fn a_token_goes_with_every_request_of_the_client_that_has_it() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let known = client.with_token("simple.7").unwrap();
    known.put("k", "v").await.unwrap();
    client.put("k", "v").await.unwrap();
    let elsewhere = known.with_endpoints(known.endpoints()).unwrap();
    elsewhere.each().next().unwrap().status().await.unwrap();
    let token = Some("simple.7".to_owned());
    assert_eq!(member.tokens(), [token.clone(), None, token]);
    assert!(matches!(client.with_token("two\nlines"), Err(BuildError::Token)));
}

#[tokio::test]
async fn a_range_arrives_in_pieces() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let mut pieces = client.get(KeyRange::all()).stream().await.unwrap();
    assert_eq!(pieces.endpoint().as_str(), "a");
    let mut keys = Vec::new();
    let mut last = None;
    while let Some(piece) = pieces.next().await.unwrap() {
        let range = piece.range_response.unwrap();
        keys.extend(range.kvs.into_iter().map(|kv| kv.key));
        last = range.header;
    }
    assert_eq!(keys, ["a", "b", "c"]);
    assert_eq!(last.unwrap().member_id, 1);
}

#[tokio::test]
async fn any_request_of_the_api_can_be_sent_as_it_is() {
    let (network, member) = (Network::new(), Member::new(7));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let answer = client.call(pb::RangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    assert_eq!(answer.kvs[0].value, "value");
    let error = client.call(pb::LeaseGrantRequest { ttl: 5, id: 0 }).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.to_string().starts_with("rpc error: code = Unimplemented desc ="), "{error}");
}

#[tokio::test]
async fn requests_ask_for_a_leader_only_if_told_to() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    network.client(["a"]).build().unwrap().get("k").await.unwrap();
    network.client(["a"]).require_leader().build().unwrap().get("k").await.unwrap();
    assert_eq!(member.leader_requirements(), [false, true]);
}

#[tokio::test]
async fn a_service_of_this_process_is_reached_without_a_connection() {
    let member = Member::new(1);
    let client = Client::in_process(member.routes());
    client.put("k", "v").await.unwrap();
    let txn = client.txn().when(Compare::exists("k")).then(Put::new("k", "w")).otherwise(Get::new("k"));
    assert!(txn.await.unwrap().succeeded);
    let mut pieces = client.get(KeyRange::all()).stream().await.unwrap();
    while pieces.next().await.unwrap().is_some() {}
    assert_eq!(client.get(LARGE_KEY).await.unwrap().kvs[0].value.len(), LARGE_VALUE_BYTES);
    assert_eq!(member.seen(), ["put", "txn", "range_stream", "range"]);
}

#[tokio::test]
async fn a_client_for_other_endpoints_keeps_the_options() {
    let network = Network::new();
    let members = [Member::new(1), Member::new(2)];
    network.accept("a", &members[0]);
    network.accept("b", &members[1]);
    let client = network.client(["a"]).require_leader().build().unwrap();
    let other = client.with_endpoints(["b".parse().unwrap()]).unwrap();
    other.get("k").await.unwrap();
    assert_eq!(members[1].leader_requirements(), [true]);
    assert_eq!(other.endpoints().iter().map(ToString::to_string).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_client_does_not_start_without_endpoints_or_with_wrong_ones() {
    assert!(matches!(Client::new([] as [&str; 0]), Err(BuildError::NoEndpoint)));
    let error = Client::new(["10.0.0.1:2379", "ftp://host:1"]).unwrap_err();
    assert!(error.to_string().contains("ftp://host:1"), "{error}");
}

#[test]
fn a_client_does_not_start_outside_a_runtime() {
    assert!(matches!(Client::new(["a"]), Err(BuildError::NoRuntime)));
}
