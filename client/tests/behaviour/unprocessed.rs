//! Servers that promise not to have looked at a request: then even a put is sent again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use cairn_client::{Client, Error};
use h2::{Reason, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Deed {
    Answer,
    Reset(Reason),
}

/// An HTTP/2 server that does the next deed with each request.
struct Script {
    deeds: Vec<Deed>,
    served: AtomicUsize,
    dials: AtomicUsize,
}

impl Script {
    fn new(deeds: impl Into<Vec<Deed>>) -> Arc<Self> {
        Arc::new(Self { deeds: deeds.into(), served: AtomicUsize::new(0), dials: AtomicUsize::new(0) })
    }

    /// A client of this server whose first connections, so many, go away when a request comes.
    fn client(self: &Arc<Self>, going_away: usize) -> Client {
        let script = Arc::clone(self);
        let client = Client::builder(["a"]).connector(move |_| {
            let (here, there) = tokio::io::duplex(64 << 10);
            if script.dials.fetch_add(1, Ordering::SeqCst) < going_away {
                tokio::spawn(go_away_at_the_first_request(there));
            } else {
                tokio::spawn(Arc::clone(&script).serve(there));
            }
            async { Ok(here) }
        });
        client.build().unwrap()
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    async fn serve(self: Arc<Self>, io: DuplexStream) {
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            match self.deeds[self.served.fetch_add(1, Ordering::SeqCst)] {
                Deed::Answer => answer(respond),
                Deed::Reset(reason) => respond.send_reset(reason),
            }
        }
    }
}

/// An empty message, and OK.
fn answer(mut respond: SendResponse<Bytes>) {
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut body = respond.send_response(response, false).unwrap();
    body.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    body.send_trailers(trailers).unwrap();
}

/// Says in a GOAWAY frame that no stream at all was or will be processed. h2 offers no way to do so after a request came.
async fn go_away_at_the_first_request(mut io: DuplexStream) -> io::Result<()> {
    const PREFACE_BYTES: usize = 24;
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GO_AWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    io.read_exact(&mut [0; PREFACE_BYTES]).await?;
    io.write_all(&SETTINGS).await?;
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        io.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == HEADERS {
            return io.write_all(&GO_AWAY).await;
        }
    }
}

#[tokio::test]
async fn a_put_on_a_refused_stream_is_sent_again() {
    let server = Script::new([Deed::Reset(Reason::REFUSED_STREAM), Deed::Answer]);
    server.client(0).put("k", "v").await.unwrap();
    assert_eq!(server.served(), 2);
}

#[tokio::test]
async fn a_put_that_a_server_going_away_left_unprocessed_is_sent_again() {
    let server = Script::new([Deed::Answer]);
    server.client(2).put("k", "v").await.unwrap();
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn a_put_on_a_stream_reset_for_any_other_reason_is_not_sent_again() {
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM, Reason::NO_ERROR] {
        let server = Script::new([Deed::Reset(reason), Deed::Answer]);
        let error = server.client(0).put("k", "v").await.unwrap_err();
        assert!(matches!(error, Error::Lost { .. }), "{reason:?}: {error:?}");
        assert!(error.may_have_happened());
        assert_eq!(server.served(), 1, "{reason:?}");
    }
}
