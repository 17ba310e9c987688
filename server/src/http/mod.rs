//! The HTTP endpoints beside gRPC: version, health and metrics.
//!
//! What lives here: `health` (`/health`, `/livez`, `/readyz`), `metrics` (`/metrics`), `debug_vars` (`/debug/vars`) and the little around them. What may call it: connections.
//! Everything is read-only and answered from the member itself. Left out: the JSON gateway under `/v3/`, whose paths say that it is missing.

mod compression;
mod debug_vars;
mod exposition;
mod health;
mod metrics;
mod process;

use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::ApiError;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_TYPE,
        HOST, ORIGIN,
    },
};
use prometheus_client::registry::Registry;

use crate::{
    api::{Services, grpc::body::Body, metrics::ApiMetrics},
    config::Config,
    types::{API_VERSION, STORAGE_VERSION},
};

/// A set of HTTP endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    /// All of them.
    All,
    /// Metrics and health.
    Metrics,
}

/// What a request may reach, and how it came.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// The endpoints served where it came in.
    pub endpoints: Option<Endpoints>,
    /// It came over TLS.
    pub tls: bool,
}

/// Serves the HTTP endpoints.
pub struct Http {
    services: Services,
    config: Arc<Config>,
    metrics: Arc<ApiMetrics>,
    registry: Registry,
}

impl Http {
    /// Serves what `services` tell; `/metrics` shows what is in `registry` and what the member reports of itself.
    pub fn new(services: Services, config: Arc<Config>, metrics: Arc<ApiMetrics>, registry: Registry) -> Self {
        Self { services, config, metrics, registry }
    }

    /// Answers a request, whose body does not matter.
    pub async fn answer(&self, request: Request<()>, scope: Scope) -> Response<Body> {
        let Some(endpoints) = scope.endpoints else { return plain(StatusCode::NOT_FOUND, "404 page not found\n") };
        let host = request.uri().host().or_else(|| request.headers().get(HOST).and_then(|host| host.to_str().ok()));
        if !scope.tls && !self.config.allows_host(host.unwrap_or_default()) {
            return plain(StatusCode::MISDIRECTED_REQUEST, HOST_REFUSED);
        }
        let mut response = match (request.method(), request.uri().path(), endpoints) {
            (&Method::OPTIONS, ..) => Response::new(Body::Empty),
            (_, path, Endpoints::Metrics) if !serves_metrics(path) => {
                plain(StatusCode::NOT_FOUND, "404 page not found\n")
            }
            (_, "/metrics", _) => compression::compress(request.headers(), self.expose()),
            (method, path, _) => self.route(method, path, request.uri().query().unwrap_or_default()).await,
        };
        let origin = request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok());
        if let Some(allowed) = self.allowed_origin(origin) {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers
                .insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("accept, content-type, authorization"));
        }
        response
    }

    async fn route(&self, method: &Method, path: &str, query: &str) -> Response<Body> {
        match path {
            "/debug/vars" => self.debug_vars(),
            "/version" if method == Method::GET => self.version(),
            "/version" => not_allowed(),
            "/health" if method == Method::GET => self.health(query).await,
            path if path == "/health" || health::is_probe(path) => {
                if method == Method::GET {
                    self.probe(path, query).await
                } else {
                    not_allowed()
                }
            }
            path if path.starts_with("/v3/") || path.starts_with("/v3beta/") => json(
                StatusCode::NOT_IMPLEMENTED,
                "{\"code\":12,\"message\":\"the JSON gateway is not implemented by this server yet\"}",
            ),
            _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn version(&self) -> Response<Body> {
        let (cluster, storage) = (self.services.cluster.version(), STORAGE_VERSION);
        json(
            StatusCode::OK,
            format!("{{\"etcdserver\":\"{API_VERSION}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{storage}\"}}"),
        )
    }

    /// The origin that may read the answer.
    fn allowed_origin(&self, origin: Option<&str>) -> Option<HeaderValue> {
        if self.config.allows_origin("*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = origin.filter(|origin| self.config.allows_origin(origin))?;
        HeaderValue::from_str(origin).ok()
    }
}

const HOST_REFUSED: &str = "\
This server does not know the host name that the request was made to, and does not answer in order to be safe from DNS rebinding.

Use TLS, or name the host in --host-whitelist.
";

fn serves_metrics(path: &str) -> bool {
    path == "/metrics" || path == "/health" || health::is_probe(path)
}

fn respond(status: StatusCode, content: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Plain(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    respond(status, "application/json", body)
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = respond(status, "text/plain; charset=utf-8", body);
    if !status.is_success() {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    }
    response
}

fn not_allowed() -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

/// The values of a query parameter; an empty one where the parameter has none.
fn query_values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// The error of a read as health checks tell it.
fn reason(error: ApiError) -> &'static str {
    error.text()
}
