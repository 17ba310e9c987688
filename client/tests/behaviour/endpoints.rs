//! Endpoints taken from the member list.

use std::sync::Arc;

use cairn_client::{SyncError, proto::etcdserverpb as pb};

use crate::{eventually, history::History, member::Member, network::Network, soon};

fn listed(name: &str, url: &str) -> pb::Member {
    pb::Member { name: name.to_owned(), client_urls: vec![url.to_owned()], ..Default::default() }
}

/// Members at `a`, `b` and `c` that know each other.
fn members(network: &Network, history: &Arc<History>) -> Vec<Arc<Member>> {
    let hosts = ["a", "b", "c"];
    let members: Vec<_> = (1..).zip(hosts).map(|(id, _)| Member::with_history(id, history)).collect();
    for (host, member) in hosts.iter().zip(&members) {
        network.accept(host, member);
        member.knows(hosts.iter().map(|host| listed(host, &format!("http://{host}:2379"))).collect());
    }
    members
}

fn shown(endpoints: &[cairn_client::Endpoint]) -> Vec<&str> {
    endpoints.iter().map(cairn_client::Endpoint::as_str).collect()
}

#[tokio::test]
async fn a_client_of_one_member_learns_of_the_others() {
    let network = Network::new();
    let members = members(&network, &History::new());
    let client = network.client(["http://a:2379"]).build().unwrap();
    let clone = client.clone();
    let synced = client.sync_endpoints().await.unwrap();
    assert_eq!(shown(&synced), ["http://a:2379", "http://b:2379", "http://c:2379"]);
    assert_eq!(clone.endpoints(), synced, "clones have them too");
    for _ in 0..6 {
        clone.put("k", "v").await.unwrap();
    }
    assert_eq!(network.dials("a"), 1, "the connection to a member that stays is kept");
    for member in &members {
        assert_eq!(member.seen().iter().filter(|method| **method == "put").count(), 2);
    }
}

#[tokio::test]
async fn members_that_cannot_serve_are_left_out() {
    let network = Network::new();
    let members = members(&network, &History::new());
    members[0].knows(vec![
        listed("a", "http://a:2379"),
        listed("", "http://b:2379"),
        pb::Member { is_learner: true, ..listed("c", "http://c:2379") },
        listed("d", "ftp://d"),
        listed("e", "http://a:2379"),
    ]);
    let client = network.client(["a"]).build().unwrap();
    assert_eq!(shown(&client.sync_endpoints().await.unwrap()), ["http://a:2379"]);
}

#[tokio::test]
async fn a_client_keeps_what_it_has_when_no_member_can_be_used() {
    let network = Network::new();
    let members = members(&network, &History::new());
    members[0].knows(vec![listed("", "http://b:2379")]);
    let client = network.client(["a"]).build().unwrap();
    let error = client.sync_endpoints().await.unwrap_err();
    assert!(matches!(error, SyncError::NoEndpoint), "{error}");
    assert_eq!(shown(&client.endpoints()), ["a"]);
    client.put("k", "v").await.unwrap();
    network.refuse("a");
    network.cut("a");
    let client = network.client(["a"]).fail_fast().build().unwrap();
    assert!(matches!(client.sync_endpoints().await, Err(SyncError::Request(_))));
}

#[tokio::test]
async fn a_watch_goes_to_a_member_that_was_learnt_of_when_its_own_is_gone() {
    let (network, history) = (Network::new(), History::new());
    let _members = members(&network, &history);
    let client = network.client(["http://a:2379"]).build().unwrap();
    let mut watcher = client.watch("k").await.unwrap();
    client.sync_endpoints().await.unwrap();
    network.refuse("a");
    network.cut("a");
    history.go_on(1);
    let answer = soon("the event", watcher.next()).await.unwrap();
    assert_eq!(answer.events[0].kv.as_ref().unwrap().mod_revision, 2);
    eventually("another member serves it", || network.dials("b") + network.dials("c") > 0).await;
}

#[tokio::test]
async fn a_client_of_one_endpoint_keeps_it() {
    let network = Network::new();
    let members = members(&network, &History::new());
    members[0].knows(vec![listed("b", "http://b:2379")]);
    let client = network.client(["a"]).build().unwrap();
    let one = client.each().next().unwrap();
    client.sync_endpoints().await.unwrap();
    one.status().await.unwrap();
    assert_eq!(members[0].seen(), ["member_list", "status"]);
    assert_eq!(shown(&one.client().endpoints()), ["a"]);
}
