//! What the peer port answers beside the streams of members: what people and tools look for there.

use std::time::SystemTime;

use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::Full;
use serde::Serialize;
use tonic::body::Body;

use super::registry::Peers;
use crate::{
    node::ReplicaView,
    types::{API_VERSION, STORAGE_VERSION},
};

/// What probes and the tools of etcd ask for; everything else is not found.
pub(super) fn answer<B>(peers: &Peers, request: &Request<B>) -> Response<Body> {
    const JSON: &str = "application/json";
    const TEXT: &str = "text/plain; charset=utf-8";
    let Some(local) = peers.local() else { return respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "") };
    let (method, path) = (request.method(), request.uri().path());
    let mut response = match path {
        // Whatever the method.
        "/raft/probing" => return respond(StatusCode::OK, TEXT, probing()),
        "/version" | "/members" | "/downgrade/enabled" if method != Method::GET => {
            let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            refused
        }
        "/version" => respond(StatusCode::OK, JSON, version(&local.node)),
        "/members" => respond(StatusCode::OK, JSON, members(&local.node)),
        // A cluster of ours has no downgrade under way.
        "/downgrade/enabled" => respond(StatusCode::OK, "text/plain", "false"),
        _ => respond(StatusCode::NOT_FOUND, TEXT, "404 page not found\n"),
    };
    if let Ok(cluster) = HeaderValue::from_str(&format!("{:x}", local.cluster)) {
        response.headers_mut().insert("x-etcd-cluster-id", cluster);
    }
    response
}

/// That the member lives, and the time that it has.
fn probing() -> String {
    format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", humantime::format_rfc3339_nanos(SystemTime::now()))
}

fn version(node: &ReplicaView) -> String {
    let cluster = node.cluster_version().map_or_else(|| "not_decided".to_owned(), |version| version.to_string());
    format!("{{\"etcdserver\":\"{API_VERSION}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{STORAGE_VERSION}\"}}")
}

/// A member with the keys of etcd's, in their order.
#[derive(Serialize)]
struct Member<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

impl<'a> From<&'a pb::Member> for Member<'a> {
    fn from(member: &'a pb::Member) -> Self {
        let pb::Member { id, name, peer_urls, client_urls, is_learner } = member;
        Self { id: *id, peer_urls, is_learner: *is_learner, name, client_urls }
    }
}

fn members(node: &ReplicaView) -> String {
    let members = node.members();
    let listed: Vec<_> = members.members.values().map(Member::from).collect();
    // Text and numbers always have a form in JSON.
    serde_json::to_string(&listed).unwrap_or_default() + "\n"
}

fn respond(status: StatusCode, content: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_told_with_etcds_keys_in_etcds_order_and_without_what_is_empty() {
        let json = |member: &pb::Member| serde_json::to_string(&Member::from(member)).expect("it has a form");
        let unstarted = pb::Member { id: 7, peer_urls: vec!["http://a:1".into()], ..pb::Member::default() };
        assert_eq!(json(&unstarted), r#"{"id":7,"peerURLs":["http://a:1"]}"#);
        let learner =
            pb::Member { name: "b".into(), client_urls: vec!["http://b:2".into()], is_learner: true, ..unstarted };
        let expected = r#"{"id":7,"peerURLs":["http://a:1"],"isLearner":true,"name":"b","clientURLs":["http://b:2"]}"#;
        assert_eq!(json(&learner), expected);
    }
}
