//! Leases kept alive: over members that fail, and until they are lost.

use std::time::Duration;

use cairn_client::{LeaseLost, proto::ApiError};

use crate::{
    eventually,
    member::{Behaviour, Member},
    network::Network,
};

#[tokio::test]
async fn a_lease_is_renewed_over_the_member_that_answers() {
    let network = Network::new();
    let members = [Member::behaving(1, Behaviour::Fail(ApiError::NoLeader)), Member::new(2)];
    network.accept("a", &members[0]);
    network.accept("b", &members[1]);
    let client = network.client(["a", "b"]).build().unwrap();
    let mut lease = client.keep_alive(7);
    for _ in 0..2 {
        let answer = lease.renewed().await.unwrap();
        assert_eq!((answer.id, answer.ttl, answer.header.unwrap().member_id), (7, 1, 2));
    }
    assert_eq!(lease.is_lost(), None);
}

#[tokio::test]
async fn a_lease_that_is_not_there_is_gone_at_once() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    member.forget_leases();
    let mut lease = client.keep_alive(7);
    assert_eq!(lease.renewed().await, Err(LeaseLost::Gone { id: 7 }));
    assert_eq!(lease.lost().await, LeaseLost::Gone { id: 7 });
    assert_eq!(client.lease_keep_alive_once(7).await.unwrap().ttl, 0);
}

#[tokio::test]
async fn a_lease_is_lost_when_no_renewal_came_through_for_its_time_to_live() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let mut lease = client.keep_alive(7);
    lease.renewed().await.unwrap();
    network.refuse("a");
    network.cut("a");
    let lost = tokio::time::timeout(Duration::from_secs(30), lease.lost()).await.unwrap();
    assert!(matches!(&lost, LeaseLost::Unrenewed { id: 7, .. }), "{lost}");
    assert_eq!(lease.is_lost(), Some(lost));
}

#[tokio::test]
async fn a_lease_survives_a_connection_that_was_cut() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let mut lease = client.keep_alive(7);
    lease.renewed().await.unwrap();
    network.cut("a");
    lease.renewed().await.unwrap();
    assert_eq!(network.dials("a"), 2);
}

#[tokio::test]
async fn a_refusal_that_will_not_change_ends_the_renewals() {
    let network = Network::new();
    let member = Member::behaving(1, Behaviour::Fail(ApiError::PermissionDenied));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let lost = client.keep_alive(7).lost().await;
    assert!(matches!(&lost, LeaseLost::Refused { .. }) && lost.to_string().contains("permission denied"), "{lost}");
}

#[tokio::test]
async fn a_dropped_handle_renews_no_more() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let mut lease = client.keep_alive(7);
    lease.renewed().await.unwrap();
    drop(lease);
    let renewals = || member.seen().iter().filter(|method| **method == "keep_alive").count();
    let mut other = client.keep_alive(8);
    for _ in 0..3 {
        other.renewed().await.unwrap();
    }
    eventually("renewals of the other lease", || renewals() >= 3).await;
    assert!(member.renewed().iter().skip(1).all(|id| *id == 8), "{:?}", member.renewed());
}
