//! What the peer port answers beside the streams of members: what people and tools look for there.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use tonic::body::Body;

use super::registry::Peers;
use crate::{api::maintenance::STORAGE_VERSION, config::API_VERSION, node::NodeHandle};

/// Answers `/version` and `/members`; everything else is not found.
pub(super) fn answer<B>(peers: &Peers, request: &Request<B>) -> Response<Body> {
    let Some(local) = peers.local() else { return respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "") };
    let cluster = format!("{:x}", local.cluster);
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/version") => respond(StatusCode::OK, "application/json", version(&local.node)),
        (&Method::GET, "/members") => respond(StatusCode::OK, "application/json", members(&local.node)),
        (_, "/version" | "/members") => {
            respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "Method Not Allowed\n")
        }
        _ => respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"),
    };
    if let Ok(cluster) = HeaderValue::from_str(&cluster) {
        response.headers_mut().insert("x-etcd-cluster-id", cluster);
    }
    response
}

fn version(node: &NodeHandle) -> String {
    let cluster = node.cluster_version().map_or_else(|| "not_decided".to_owned(), |version| version.to_string());
    format!("{{\"etcdserver\":\"{API_VERSION}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{STORAGE_VERSION}\"}}")
}

fn members(node: &NodeHandle) -> String {
    let members: Vec<_> = node
        .members()
        .members
        .values()
        .map(|member| {
            let mut json = serde_json::json!({ "id": member.id, "peerURLs": member.peer_urls });
            if !member.name.is_empty() {
                json["name"] = member.name.clone().into();
            }
            if !member.client_urls.is_empty() {
                json["clientURLs"] = member.client_urls.clone().into();
            }
            if member.is_learner {
                json["isLearner"] = true.into();
            }
            json
        })
        .collect();
    serde_json::Value::from(members).to_string() + "\n"
}

fn respond(status: StatusCode, content: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}
