//! What a leader does with commands that are forwarded in a term, and what it tells the member that sent them.

use cairn_proto::{
    etcdserverpb as pb,
    peer::{Answer, Frame, Hello, RefusedCommand, peer_server::PeerServer},
};
use cairn_server::{
    node::core::DropReason,
    state::{
        auth::Actor,
        command::{COMMAND_LEVEL, Command, Request, RequestId, encode},
    },
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::{
    cluster::{answer, hello, introduced, stream, with_peer_port},
    strangers::Impostor,
    support::{DEADLINE, eventually, http},
};

/// The member that forwards, and the run it says it is in.
const FOLLOWER: u64 = 7;
const RUN: u64 = 42;

fn put(counter: u64) -> bytes::Bytes {
    let id = RequestId { member: FOLLOWER, nonce: RUN, counter };
    let request = Request::Put(pb::PutRequest { key: format!("{counter}").into(), ..pb::PutRequest::default() });
    encode(&Command { id, actor: Actor::Anonymous, request }, COMMAND_LEVEL)
}

#[tokio::test]
async fn commands_of_other_terms_are_not_proposed_and_their_sender_is_told() {
    let (server, port) = with_peer_port().await;
    // The follower listens, too: that is where it is told.
    let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("it listens");
    let url = format!("http://{}", socket.local_addr().expect("it has an address"));
    let (heard, mut frames) = mpsc::unbounded_channel();
    let follower = PeerServer::new(Impostor { answer: || Ok(Answer::default()), heard });
    tokio::spawn(Server::builder().add_service(follower).serve_with_incoming(TcpListenerStream::new(socket)));

    let introduction = || introduced(Hello { peer_urls: vec![url.clone()], ..hello(&server, FOLLOWER) });
    let mut answers = stream(port, vec![introduction()]).await.expect("the stream opens");
    assert!(answer(&mut answers).await.expect("an answer").welcome.is_some());
    timeout(DEADLINE, frames.recv()).await.expect("the leader connects").expect("it goes on");

    let (term, before) = (server.server.node().status().term, server.server.node().reader().revision());
    let commands = (1..=4).map(put).collect();
    // One of a former term, one of this one, one of any, one of a term that is still to come.
    let frame = Frame { commands, command_terms: vec![term - 1, term, 0, term + 1], ..Frame::default() };
    let mut answers = stream(port, vec![introduction(), frame]).await.expect("the stream opens");
    assert!(answer(&mut answers).await.expect("an answer").welcome.is_some());
    let refused = |counter, term| RefusedCommand { nonce: RUN, counter, term, busy: false };
    let mut told = Vec::new();
    while told.len() < 2 {
        let frame: Frame = timeout(DEADLINE, frames.recv()).await.expect("it is told").expect("it goes on");
        told.extend(frame.refused_commands);
    }
    assert_eq!(told, [refused(1, term - 1), refused(4, term + 1)]);
    eventually("the others are applied", async || {
        (server.server.node().reader().revision() == before + 2).then_some(())
    })
    .await;
    let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    eventually("they are counted", async || {
        let page = http(server.addr(), request).await.body;
        page.lines().any(|line| line == "cairn_node_dropped_total{reason=\"other_term\"} 2").then_some(())
    })
    .await;
}

#[test]
fn the_manual_names_every_reason_for_dropping_something() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let manual = std::fs::read_to_string(path).expect("the manual is there");
    let told = manual.lines().skip_while(|line| !line.contains("cairn_node_dropped_total"));
    let told: String = told.take_while(|line| !line.is_empty()).collect();
    let other = ["not_connected", "connection_lost"];
    for reason in DropReason::ALL.map(DropReason::name).into_iter().chain(other) {
        assert!(told.contains(&format!("`{reason}`")), "{reason} is not in\n{told}");
    }
}
