//! The health service: whether the server serves.
//!
//! One name is known, the empty one, for the server as a whole. A server that answers at all serves; whether a member has a leader, an alarm or enough
//! of its log is what `/health`, `/livez` and `/readyz` are asked for. The services of the API have no status of their own.

use std::{collections::HashMap, future::ready};

use cairn_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListResponse, health_check_response::ServingStatus,
};
use futures::{Stream, StreamExt, stream};

use crate::api::refusal::Refusal;

/// The name that stands for the server as a whole.
const SERVER: &str = "";

const fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

/// The status of a service.
///
/// # Errors
/// "Unknown service".
pub fn check(request: &HealthCheckRequest) -> Result<HealthCheckResponse, Refusal> {
    if request.service == SERVER { Ok(answer(ServingStatus::Serving)) } else { Err(Refusal::UnknownService) }
}

/// The status of a service, which never changes: the stream ends with its call.
pub fn watch(
    request: &HealthCheckRequest,
) -> impl Stream<Item = Result<HealthCheckResponse, Refusal>> + Send + 'static + use<> {
    let status = if request.service == SERVER { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
    stream::once(ready(Ok(answer(status)))).chain(stream::pending())
}

/// The status of every service.
pub fn list() -> HealthListResponse {
    HealthListResponse { statuses: HashMap::from([(SERVER.to_owned(), answer(ServingStatus::Serving))]) }
}
