//! gRPC on the [router](super::router): from a request's head and body to a call, and from what the call gave to the body of
//! the answer.
//!
//! ```text
//!   path, metadata ─▶ Call ─┐
//!   body ─▶ Messages ───────┴─▶ Router ─▶ Framed ─▶ Body
//! ```
//!
//! [`message`] takes requests' messages out of their frames, [`encoding`] decompresses some of them, `drained` receives
//! those of a stream before they are asked for, [`body`] sends answers and how the call ended. Tonic's own machinery
//! serves reflection only: doing the few steps here spares copies of large answers and gives refusals the texts that
//! clients know.
//!
//! The one invariant: this folder decides nothing about a call. What it calls can be called without gRPC.

pub mod body;
pub mod drained;
pub mod encoding;
pub mod message;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::rpc::{self, Kind, Method};
use futures::stream;
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use hyper::body::Incoming;
use tonic::{Code, Status};
use tower::{Service, util::BoxCloneSyncService};

use self::{
    body::Body,
    drained::{Drained, Waiting},
    encoding::Encoding,
    message::Messages,
};
use super::router::{Call, Origin, Router, Served};
use crate::state::auth::Principal;

/// One of tonic's own services.
type TonicService = BoxCloneSyncService<Request<Incoming>, Response<tonic::body::Body>, std::convert::Infallible>;

/// What the calls of one connection have in common.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Bytes that its calls have received ahead.
    pub waiting: Waiting,
    /// Where they come from.
    pub origin: Arc<Origin>,
}

/// Serves gRPC requests of any connection.
pub struct Grpc {
    router: Arc<Router>,
    max_receive_bytes: usize,
    reflection: TonicService,
    reflection_alpha: TonicService,
}

impl Grpc {
    /// Calls `router`, receiving messages of at most `max_receive_bytes`.
    pub fn new(router: Arc<Router>, max_receive_bytes: usize) -> Self {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(cairn_proto::FILE_DESCRIPTOR_SET)
        };
        let reason = "the descriptor set is generated and complete";
        Self {
            router,
            max_receive_bytes,
            reflection: BoxCloneSyncService::new(reflection().build_v1().expect(reason)),
            reflection_alpha: BoxCloneSyncService::new(reflection().build_v1alpha().expect(reason)),
        }
    }

    /// Serves one request of a connection.
    pub async fn call(&self, request: Request<Incoming>, connection: &Connection) -> Response<Body> {
        let Some(method) = Method::of_path(request.uri().path()) else {
            return refused(&Status::unimplemented(rpc::unknown(request.uri().path())));
        };
        self.router.metrics().requested(method.kind(), request.headers());
        match method {
            Method::Reflection => return self.reflect(&self.reflection, method, request).await,
            Method::ReflectionAlpha => return self.reflect(&self.reflection_alpha, method, request).await,
            _ => {}
        }
        let headers = request.headers();
        let encoding = match Encoding::of(headers) {
            Ok(encoding) => encoding,
            Err(status) => {
                self.router.open_call(method).end(status.code());
                return refused(&status);
            }
        };
        let call = Call {
            method,
            principal: principal_of(headers, &connection.origin),
            origin: connection.origin.clone(),
            timeout: timeout_of(headers),
            wants_leader: wants_leader(headers),
        };
        let body = request.into_body();
        let served = if method.kind() == Kind::BidiStream {
            let body = Drained::new(body, connection.waiting.clone());
            let messages = Messages::new(body, encoding, self.max_receive_bytes);
            let messages = stream::try_unfold(messages, async |mut messages| {
                Ok(messages.next().await?.map(|message| (message, messages)))
            });
            self.router.stream(&call, Box::pin(messages)).map(Served::Stream)
        } else {
            let mut messages = Messages::new(body, encoding, self.max_receive_bytes);
            self.router.call(&call, async move { Ok(messages.only().await?) }).await
        };
        match served {
            Ok(Served::Message(framed)) => answered(Body::Unary(framed)),
            Ok(Served::Stream(answers)) => answered(Body::Stream(answers, None)),
            Err(refusal) => refused(&refusal.into()),
        }
    }

    async fn reflect(&self, service: &TonicService, method: Method, request: Request<Incoming>) -> Response<Body> {
        let open = self.router.open_call(method);
        let Ok(response) = service.clone().call(request).await;
        open.end(Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code()));
        response.map(Body::Tonic)
    }
}

/// Whether a request is meant for gRPC.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request.version() == http::Version::HTTP_2
        && request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

const GRPC_CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");

fn answered(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT);
    response
}

/// An answer that is only a status.
fn refused(status: &Status) -> Response<Body> {
    let mut response = answered(Body::Empty);
    if status.add_header(response.headers_mut()).is_err() {
        response.headers_mut().insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    response
}

/// Who calls: the holder of a token, else the subject of the connection's certificate.
fn principal_of(headers: &HeaderMap, origin: &Origin) -> Principal {
    let token = headers.get("token").or_else(|| headers.get(AUTHORIZATION));
    match (token, &origin.common_name) {
        (Some(token), _) => {
            let token = token.as_bytes();
            Principal::Token(Bytes::copy_from_slice(token.strip_prefix(b"Bearer ").unwrap_or(token)))
        }
        (None, Some(name)) => Principal::Certificate(name.clone()),
        (None, None) => Principal::Anonymous,
    }
}

/// Whether a client would rather have its call fail than served without a leader.
fn wants_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

/// What a client allows its call to take: up to eight digits and a unit.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(amount)),
        "M" => Some(Duration::from_mins(amount)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_str(text).expect("a header value"));
            timeout_of(&headers)
        };
        assert_eq!(of("5S"), Some(Duration::from_secs(5)));
        assert_eq!(of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(of("2H"), Some(Duration::from_hours(2)));
        for bad in ["", "5", "S", "5x", "123456789S", "-1S", "5 S", "ä"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), None);
    }

    #[test]
    fn only_http2_requests_with_grpc_content_are_grpc() {
        let request = |version, content: &str| {
            let mut request = Request::new(());
            *request.version_mut() = version;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(content).expect("a header value"));
            request
        };
        assert!(is_grpc(&request(http::Version::HTTP_2, "application/grpc+proto")));
        assert!(!is_grpc(&request(http::Version::HTTP_11, "application/grpc")));
        assert!(!is_grpc(&request(http::Version::HTTP_2, "application/json")));
    }
}
