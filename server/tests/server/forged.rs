//! What a member hands on that no client may ask for: commands and membership changes that decode and break the rules.

use cairn_proto::{
    etcdserverpb::{self as pb, request_op::Request as Op},
    peer::{Answer, ChangeRequest, Frame, Hello, peer_client::PeerClient},
};
use cairn_server::state::{
    MemberChange,
    auth::Actor,
    command::{COMMAND_LEVEL, Command, Request, RequestId, encode},
};
use futures::FutureExt;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    cluster::{answer, hello, introduced, still_serves, stream, with_peer_port},
    support::{TestServer, eventually},
    trio::Trio,
};

/// A member that introduces itself, and is none.
const STRANGER: u64 = 7;
/// Drawn by the process that speaks for it.
const RUN: u64 = 42;

fn command(counter: u64, request: Request) -> bytes::Bytes {
    let id = RequestId { member: STRANGER, nonce: RUN, counter };
    encode(&Command { id, actor: Actor::Anonymous, request }, COMMAND_LEVEL)
}

fn put(key: &str, value: Vec<u8>) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() }
}

fn txn(puts: impl IntoIterator<Item = pb::PutRequest>) -> Request {
    let op = |put| pb::RequestOp { request: Some(Op::RequestPut(put)) };
    Request::Txn(pb::TxnRequest { success: puts.into_iter().map(op).collect(), ..Default::default() })
}

fn publish(member: u64, name: &str, url: &str) -> Request {
    Request::PublishMember { member, name: name.to_owned(), client_urls: vec![url.to_owned()] }
}

fn alarm(alarm: i32) -> Request {
    Request::Alarm(pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: 12345,
        alarm,
    })
}

fn listed(server: &TestServer) -> Vec<pb::Member> {
    server.server.node().members().members.values().cloned().collect()
}

#[tokio::test]
async fn forwarded_commands_that_no_client_may_ask_for_are_refused_and_their_sender_is_told() {
    let (server, port) = with_peer_port().await;
    let own = server.server.node().status().member_id;
    eventually("its name and the cluster's version are known", async || {
        let members = listed(&server);
        let named = members.iter().all(|member| !member.name.is_empty());
        (named && server.server.node().cluster_version().is_some()).then_some(())
    })
    .await;
    let (members, version_before) = (listed(&server), server.server.node().cluster_version());
    let grant = |id, ttl| Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl });
    let forged = [
        (Request::Put(put("", b"x".to_vec())), "key is not provided"),
        (txn([put("a", Vec::new()), put("", Vec::new())]), "key is not provided"),
        (txn([put("a", Vec::new()), put("a", Vec::new())]), "duplicate key given"),
        (Request::DeleteRange(pb::DeleteRangeRequest::default()), "key is not provided"),
        (Request::Put(put("big", vec![0; 6 << 20])), "request is too large"),
        (grant(0, 60), "requested lease not found"),
        (grant(5, i64::MAX), "too large lease TTL"),
        (alarm(9), "unknown alarm 9"),
        (publish(own, "evil", "http://127.0.0.1:1"), "member 7 publishes a name and URLs of member"),
        (publish(STRANGER, "evil\nevil", "http://127.0.0.1:1"), "must not"),
        (publish(STRANGER, "evil", "garbage"), "client URL"),
    ];
    for (counter, (request, reason)) in (1..).zip(forged) {
        let before = server.server.node().reader().revision();
        let good = format!("good{counter}");
        let commands =
            vec![command(2 * counter, request), command(2 * counter + 1, Request::Put(put(&good, Vec::new())))];
        let frame = Frame { commands, ..Frame::default() };
        let mut answers =
            stream(port, vec![introduced(hello(&server, STRANGER)), frame]).await.expect("the stream opens");
        assert!(answer(&mut answers).await.expect("an answer").welcome.is_some());
        let told = answer(&mut answers).await.expect("an answer").complaint;
        assert!(told.contains("a forwarded command breaks the rules: ") && told.contains(reason), "{told}");
        // The stream goes on, and what came with it is taken.
        eventually("the good one is applied", async || {
            (server.server.node().reader().revision() > before).then_some(())
        })
        .await;
        assert_eq!(server.server.node().reader().revision(), before + 1, "{reason}");
    }
    assert_eq!((listed(&server), server.server.node().cluster_version()), (members, version_before));
    assert!(server.server.node().alarms().list(0).is_empty());
    let hash = server.maintenance().await.hash_kv(pb::HashKvRequest::default()).await.expect("it hashes");
    assert_ne!(hash.into_inner().hash, 0);
    still_serves(&server).await;
    assert!(server.server.wait().now_or_never().is_none(), "the server did not fail");
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_stream_and_says_so() {
    let (server, port) = with_peer_port().await;
    let frame = Frame { commands: vec![command(1, Request::Put(put("big", vec![0; 12 << 20])))], ..Frame::default() };
    let mut answers = stream(port, vec![introduced(hello(&server, STRANGER)), frame]).await.expect("the stream opens");
    assert!(answer(&mut answers).await.expect("an answer").welcome.is_some());
    let end = answer(&mut answers).await.expect_err("the end");
    assert_eq!(end.code(), Code::InvalidArgument);
    assert!(end.message().contains("--max-request-bytes"), "{}", end.message());
    still_serves(&server).await;
}

/// Speaks for member `from` of a trio to the one that leads.
struct Impostor {
    client: PeerClient<Channel>,
    cluster_id: u64,
    from: u64,
    run: u64,
    /// Whose end would be the end of being introduced.
    _answers: Streaming<Answer>,
}

impl Impostor {
    async fn of(trio: &Trio, leader: usize, from: u64) -> Self {
        let status = trio.of(leader).node().status();
        let port = trio.urls[leader].port().expect("a TCP port");
        let own = Hello {
            protocol: 1,
            version: "3.7.1".to_owned(),
            cluster_id: status.cluster_id,
            from,
            to: status.member_id,
            run: RUN,
            ..Hello::default()
        };
        let mut answers = stream(port, vec![introduced(own)]).await.expect("the stream opens");
        assert!(answer(&mut answers).await.expect("an answer").welcome.is_some());
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URL");
        let client = PeerClient::new(channel.connect().await.expect("the peer port accepts"));
        Self { client, cluster_id: status.cluster_id, from, run: RUN, _answers: answers }
    }

    async fn asks(&mut self, change: &MemberChange) -> Result<(), Status> {
        let change = change.encode(RequestId { member: 0, nonce: 0, counter: 0 });
        let request = ChangeRequest { cluster_id: self.cluster_id, change, from: self.from, run: self.run };
        self.client.change(request).await.map(drop)
    }
}

fn learner(id: u64, url: &str) -> pb::Member {
    pb::Member { id, peer_urls: vec![url.to_owned()], is_learner: true, ..pb::Member::default() }
}

#[tokio::test]
async fn membership_changes_that_make_no_sense_are_refused_by_the_leader_which_goes_on() {
    let mut trio = Trio::start(|config| config.strict_reconfig_check = false).await;
    let leader = trio.leader().await;
    let (victim, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (from, id) = (trio.id(victim), trio.id(other));
    trio.down(victim).await;

    let mut impostor = Impostor::of(&trio, leader, from).await;
    let good = learner(99, "http://127.0.0.1:9");
    let update =
        |urls: &[&str]| MemberChange::Update { id, peer_urls: urls.iter().map(|&url| url.to_owned()).collect() };
    let nonsense = [
        (MemberChange::Add(learner(0, "http://127.0.0.1:9")), "the id 0"),
        (MemberChange::Add(pb::Member { peer_urls: Vec::new(), ..good.clone() }), "peer URLs that are none"),
        (MemberChange::Add(learner(99, "zzz")), "peer URLs that are none"),
        (MemberChange::Add(pb::Member { name: "x".repeat(2000), ..good.clone() }), "publishes its name"),
        (MemberChange::Add(pb::Member { client_urls: vec!["zzz".to_owned()], ..good.clone() }), "publishes its name"),
        (MemberChange::Add(pb::Member { name: "x".repeat(2_000_000), ..good.clone() }), "is too large"),
        (update(&[]), "peer URLs that are none"),
        (update(&["foo bar"]), "peer URLs that are none"),
    ];
    let before = trio.of(leader).node().members();
    for (change, reason) in nonsense {
        let refused = impostor.asks(&change).await.expect_err("it makes no sense");
        assert_eq!((refused.code(), refused.message().contains(reason)), (Code::InvalidArgument, true), "{refused}");
        trio.put(other, "alive", reason).await;
    }
    assert_eq!(trio.of(leader).node().members(), before);

    // Who is no member, or another process than the one that is heard, may not ask at all.
    for (from, run) in [(STRANGER, RUN), (from, RUN + 1), (0, 0)] {
        let mut stranger = Impostor { from, run, ..Impostor::of(&trio, leader, from.max(STRANGER)).await };
        let refused = stranger.asks(&MemberChange::Add(good.clone())).await.expect_err("it may not");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }

    impostor.asks(&MemberChange::Add(good)).await.expect("what makes sense is done");
    assert!(trio.of(leader).node().members().members.contains_key(&99));
    trio.put(other, "alive", "still").await;
    trio.shutdown().await;
}
