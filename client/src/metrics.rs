//! A member's page of metrics, which is HTTP/1.1 and not gRPC.

use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tonic::{Status, body::Body};

use crate::{
    deadline::until,
    error::Error,
    maintenance::EndpointClient,
    transport::{BoxError, Dialer},
};

const PATH: &str = "/metrics";

impl EndpointClient {
    /// What the member measures, in the text form that Prometheus reads. Asked for on the client port, over a connection of
    /// its own.
    ///
    /// A service of this process has no such page: [`Unimplemented`](tonic::Code::Unimplemented).
    pub async fn metrics(&self) -> Result<String, Error> {
        let endpoint = self.endpoint().clone();
        let Some(dialer) = self.client().dialer() else {
            let status = Box::new(Status::unimplemented("a service of this process has no page of metrics"));
            return Err(Error::Answered { endpoint, status });
        };
        let Some(limit) = self.client().timeout() else { return self.fetch(dialer).await };
        until(Instant::now() + limit, self.fetch(dialer))
            .await
            .unwrap_or_else(|| Err(Error::DeadlineExceeded { timeout: limit, endpoint: Some(endpoint), last: None }))
    }

    async fn fetch(&self, dialer: &Dialer) -> Result<String, Error> {
        let endpoint = self.endpoint();
        let lost =
            |error: BoxError| Error::Lost { endpoint: endpoint.clone(), status: Box::new(Status::from_error(error)) };
        let tls = dialer.tls.as_ref().map(|tls| tls.speaking(b"http/1.1"));
        let io = Dialer { tls, ..dialer.clone() }.dial(endpoint).await.map_err(|error| Error::Unreachable {
            endpoint: endpoint.clone(),
            status: Box::new(Status::from_error(error.into())),
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|error| lost(error.into()))?;
        let request = http::Request::get(PATH).header(http::header::HOST, endpoint.authority()).body(Body::empty());
        let request = request.map_err(|error| lost(error.into()))?;
        let bytes_max = self.client().options().answer_bytes_max;
        // The connection ends when its sender is dropped, which is with the answer.
        let answer = async move {
            let answer = sender.send_request(request).await.map_err(BoxError::from)?;
            let status = answer.status();
            Ok((status, Limited::new(answer.into_body(), bytes_max).collect().await?.to_bytes()))
        };
        let (answer, _) = tokio::join!(answer, connection);
        let (status, body) = answer.map_err(lost)?;
        if status != http::StatusCode::OK {
            let status = Box::new(Status::unknown(format!("{PATH} is answered with HTTP status {status}")));
            return Err(Error::Answered { endpoint: endpoint.clone(), status });
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
