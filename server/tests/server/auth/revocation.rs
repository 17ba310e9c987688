//! What is open when a permission is taken away ends, on every member.

use std::time::Duration;

use cairn_proto::{
    ApiError, cancel_reason,
    etcdserverpb::{self as pb, auth_client::AuthClient, watch_client::WatchClient, watch_request::RequestUnion},
    v3electionpb as election,
};
use futures::{StreamExt, stream};
use tonic::{Streaming, transport::Channel};

use super::{login, permission, set_up, with_token};
use crate::{support::eventually, trio::Trio};

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A stream that watches keys, each alone, as the holder of a token.
async fn watch(channel: Channel, token: Option<&str>, keys: &[&'static str]) -> Streaming<pb::WatchResponse> {
    let creates: Vec<_> = keys
        .iter()
        .map(|key| {
            let create = pb::WatchCreateRequest { key: (*key).into(), ..Default::default() };
            pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
        })
        .collect();
    let requests = stream::iter(creates).chain(stream::pending());
    let answers = WatchClient::new(channel).watch(with_token(requests, token)).await.expect("a stream");
    let mut answers = answers.into_inner();
    for key in keys {
        let created = next(&mut answers).await;
        assert!(created.created && !created.canceled, "{key}: {created:?}");
    }
    answers
}

async fn next(answers: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    tokio::time::timeout(SOON, answers.next()).await.expect("an answer").expect("the stream goes on").expect("no error")
}

/// The next one that says that a watch was ended.
async fn ended(answers: &mut Streaming<pb::WatchResponse>) -> (i64, String) {
    let answer = next(answers).await;
    assert!(answer.canceled && answer.events.is_empty(), "{answer:?}");
    (answer.watch_id, answer.cancel_reason)
}

async fn start() -> Trio {
    Trio::start(|config| config.bcrypt_cost = 4).await
}

/// Gives alice a role of her own with the key `x`.
async fn grant_another_role(auth: &mut AuthClient<Channel>, root: &str) {
    let role = pb::AuthRoleAddRequest { name: "x".into() };
    auth.role_add(with_token(role, Some(root))).await.expect("a role");
    let grant = pb::AuthRoleGrantPermissionRequest { name: "x".into(), perm: Some(permission("x", "")) };
    auth.role_grant_permission(with_token(grant, Some(root))).await.expect("a permission");
    let grant = pb::AuthUserGrantRoleRequest { user: "alice".into(), role: "x".into() };
    auth.user_grant_role(with_token(grant, Some(root))).await.expect("a role of the user");
}

/// A way to take something away from alice.
#[derive(Debug, Clone, Copy)]
enum Way {
    Permission,
    Role,
    RoleOfUser,
    User,
}

impl Way {
    async fn take(self, auth: &mut AuthClient<Channel>, root: &str) {
        let root = Some(root);
        let taken = match self {
            Self::Permission => {
                let (role, key, range_end) = ("team".into(), "k".into(), "l".into());
                let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                auth.role_revoke_permission(with_token(request, root)).await.map(drop)
            }
            Self::Role => {
                let request = pb::AuthRoleDeleteRequest { role: "team".into() };
                auth.role_delete(with_token(request, root)).await.map(drop)
            }
            Self::RoleOfUser => {
                let request = pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "team".into() };
                auth.user_revoke_role(with_token(request, root)).await.map(drop)
            }
            Self::User => {
                let request = pb::AuthUserDeleteRequest { name: "alice".into() };
                auth.user_delete(with_token(request, root)).await.map(drop)
            }
        };
        taken.expect("root may");
    }
}

async fn taking_away_ends(way: Way) {
    let trio = start().await;
    let mut auth = set_up(trio.channel(0)).await;
    let (root, alice) = (login(&mut auth, "root").await, login(&mut auth, "alice").await);
    grant_another_role(&mut auth, &root).await;
    let mut streams = Vec::new();
    for at in 0..3 {
        // Until the member has the token and the role.
        let kv = pb::kv_client::KvClient::new(trio.channel(at));
        let known = async || {
            let range = pb::RangeRequest { key: "x".into(), ..Default::default() };
            kv.clone().range(with_token(range, Some(&alice))).await.ok()
        };
        eventually("the member knows alice", known).await;
        streams.push(watch(trio.channel(at), Some(&alice), &["k1", "x", "k2"]).await);
    }
    let mut of_root = watch(trio.channel(1), Some(&root), &["k1"]).await;
    way.take(&mut auth, &root).await;
    // Later events are for those only who may still see them.
    for key in ["k1", "x", "k2"] {
        let put = pb::PutRequest { key: key.into(), value: "secret".into(), ..Default::default() };
        pb::kv_client::KvClient::new(trio.channel(0)).put(with_token(put, Some(&root))).await.expect("root may");
    }
    for answers in &mut streams {
        let mut lost = vec![ended(answers).await, ended(answers).await];
        if matches!(way, Way::User) {
            lost.push(ended(answers).await);
        }
        let ids: Vec<_> = lost.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, if matches!(way, Way::User) { vec![0, 1, 2] } else { vec![0, 2] }, "{way:?}");
        assert!(lost.iter().all(|(_, reason)| reason == cancel_reason::PERMISSION_DENIED), "{lost:?}");
        if !matches!(way, Way::User) {
            let told = next(answers).await;
            assert_eq!((told.watch_id, told.events.len()), (1, 1), "{told:?}");
        }
    }
    assert_eq!(next(&mut of_root).await.events.len(), 1);
    trio.shutdown().await;
}

#[tokio::test]
async fn a_permission_that_is_taken_away_ends_its_watches() {
    taking_away_ends(Way::Permission).await;
}

#[tokio::test]
async fn a_role_that_is_deleted_ends_its_watches() {
    taking_away_ends(Way::Role).await;
}

#[tokio::test]
async fn a_role_that_is_taken_from_a_user_ends_its_watches() {
    taking_away_ends(Way::RoleOfUser).await;
}

#[tokio::test]
async fn a_user_that_is_deleted_loses_all_watches() {
    taking_away_ends(Way::User).await;
}

#[tokio::test]
async fn watches_without_a_user_end_when_authentication_is_turned_on() {
    let trio = start().await;
    let mut streams = Vec::new();
    for at in 0..3 {
        streams.push(watch(trio.channel(at), None, &["k1"]).await);
    }
    let mut auth = set_up(trio.channel(0)).await;
    for answers in &mut streams {
        // The put of the set-up came before.
        assert_eq!(next(answers).await.events.len(), 1);
        assert_eq!(ended(answers).await, (0, cancel_reason::USER_EMPTY.to_owned()));
    }
    let root = login(&mut auth, "root").await;
    auth.auth_disable(with_token(pb::AuthDisableRequest {}, Some(&root))).await.expect("root may");
    // Where that was answered, it is applied.
    drop(watch(trio.channel(0), None, &["k1"]).await);
    trio.shutdown().await;
}

#[tokio::test]
async fn who_observes_an_election_is_told_nothing_after_its_permission() {
    let trio = start().await;
    let mut auth = set_up(trio.channel(0)).await;
    let (root, alice) = (login(&mut auth, "root").await, login(&mut auth, "alice").await);
    let mut elections = election::election_client::ElectionClient::new(trio.channel(0));
    let campaign = election::CampaignRequest { name: "kl".into(), lease: super::LEASE, value: "one".into() };
    elections.campaign(with_token(campaign, Some(&alice))).await.expect("alice leads");
    let observe = election::LeaderRequest { name: "kl".into() };
    let mut told = elections.observe(with_token(observe, Some(&alice))).await.expect("a stream").into_inner();
    told.next().await.expect("the leader").expect("no error");
    Way::Permission.take(&mut auth, &root).await;
    let end = tokio::time::timeout(SOON, told.next()).await.expect("an end").expect("an error");
    assert_eq!(end.expect_err("no leader is told").message(), ApiError::PermissionDenied.text());
    trio.shutdown().await;
}
