//! What carries a request to one endpoint.
//!
//! [`dial`] makes connections: TCP, a socket in the file system, or whatever a connector of the user gives, with TLS on
//! top where the endpoint wants it; the server has begun to speak when they are handed on ([`greeting`]).
//! [`Transport`] is the gRPC service at the other end: an HTTP/2 channel over such connections, which connects on first use
//! and again after a loss, or a service of this process. [`Link`] knows whether there can be a connection at all. None knows about other endpoints, retries or deadlines.

mod dial;
mod greeting;
mod link;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint as Http2},
};
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};

pub(crate) use dial::{BoxFuture, BoxIo, Connect, Dialer};
pub(crate) use link::Link;

use crate::{
    endpoint::Endpoint,
    options::{KEEP_ALIVE_INTERVAL_MIN, Options},
};

/// Bytes of answers on all streams that wait to be read: no more than HTTP/2 has words for. What bounds them is the streams' own windows, 2 MiB each. Half of it
/// is the HTTP/2 library's budget for what small frames cost that are not read yet, above which it ends the connection with every call on it.
const CONNECTION_WINDOW_BYTES: u32 = i32::MAX as u32;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The gRPC service of one endpoint. Cloning is cheap; clones share the connection.
#[derive(Clone)]
pub(crate) enum Transport {
    Http2(Channel),
    InProcess(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>),
}

impl Transport {
    /// A channel to `endpoint`. Connects on first use; must be called inside a tokio runtime.
    pub(crate) fn http2(endpoint: &Endpoint, link: &Arc<Link>, dialer: &Dialer, options: &Options) -> Self {
        let uri = |scheme: &str| {
            let uri = Uri::builder().scheme(scheme).authority(endpoint.authority()).path_and_query("/");
            uri.build().expect("scheme and authority of a parsed endpoint are valid")
        };
        // The channel believes in plain text, because TLS is the dialer's affair; only the requests' scheme tells.
        let origin = if endpoint.uses_tls(dialer.has_tls()) { "https" } else { "http" };
        let mut http2 = Http2::from(uri("http"))
            .origin(uri(origin))
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            // The library counts each answer that comes after its call was given up, over the connection's life, and would end it.
            .http2_max_local_error_reset_streams(None);
        if let Some(keep_alive) = options.keep_alive {
            http2 = http2
                .http2_keep_alive_interval(keep_alive.interval.max(KEEP_ALIVE_INTERVAL_MIN))
                .keep_alive_timeout(keep_alive.timeout);
        }
        let (link, dialer, endpoint) = (Arc::clone(link), dialer.clone(), endpoint.clone());
        let connector = service_fn(move |_: Uri| {
            let (link, dialer, endpoint) = (Arc::clone(&link), dialer.clone(), endpoint.clone());
            async move { link.dial(&dialer, &endpoint).await.map(TokioIo::new) }
        });
        Self::Http2(http2.connect_with_connector_lazy(connector))
    }

    /// A service of this process, called without any connection in between.
    pub(crate) fn in_process<S, B>(service: S) -> Self
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = service.map_response(|response| response.map(Body::new)).map_err(Into::into);
        Self::InProcess(BoxCloneSyncService::new(service))
    }
}

impl tower::Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Http2(channel) => channel.poll_ready(context).map_err(Into::into),
            Self::InProcess(service) => service.poll_ready(context),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::Http2(channel) => {
                let response = channel.call(request);
                Box::pin(async move { response.await.map_err(Into::into).and_then(of_grpc) })
            }
            Self::InProcess(service) => service.call(request),
        }
    }
}

/// Passes what speaks gRPC. The rest comes from a port for something else, or from a proxy: its text would be taken for a message.
fn of_grpc(response: http::Response<Body>) -> Result<http::Response<Body>, BoxError> {
    let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if kind.starts_with(b"application/grpc") {
        return Ok(response);
    }
    let status = response.status();
    // As gRPC maps them (doc/http-grpc-status-mapping.md).
    let code = match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    // The words of clients in Go.
    let text = format!(
        "{}: HTTP status code {}; transport: received the unexpected content-type {:?}",
        status.canonical_reason().unwrap_or_default(),
        status.as_u16(),
        String::from_utf8_lossy(kind)
    );
    Err(Status::new(code, text).into())
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http2(_) => "Http2",
            Self::InProcess(_) => "InProcess",
        })
    }
}
