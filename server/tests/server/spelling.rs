//! Addresses that flags and the cluster spell in several ways, on the server's binary. No name service is asked: the
//! system's resolver knows `127.1` by itself, which is no IP address by its text.

use cairn_proto::etcdserverpb::{self as pb, cluster_client::ClusterClient};
use tempfile::TempDir;

use super::{
    cluster::free_port,
    process::{Process, refused},
    support::eventually,
};

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// The flags of a member that listens on `port` of 127.0.0.1.
fn member(name: &str, port: u16, advertised: &str, cluster: &str, state: &str) -> [String; 5] {
    [
        format!("--name={name}"),
        format!("--listen-peer-urls=http://127.0.0.1:{port}"),
        format!("--initial-advertise-peer-urls={advertised}"),
        format!("--initial-cluster={cluster}"),
        format!("--initial-cluster-state={state}"),
    ]
}

fn spawn(dir: &TempDir, flags: &[String]) -> Process {
    Process::spawn(dir.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test]
async fn three_members_start_that_advertise_their_addresses_in_other_words() {
    let dirs = [temporary(), temporary(), temporary()];
    let ports = [free_port(), free_port(), free_port()];
    let listed = ["127.0.0.1", "127.0.0.1", "127.1"];
    let advertised = ["127.1", "[0:0:0:0:0:ffff:127.0.0.1]", "127.0.0.1"];
    let url = |hosts: [&str; 3], at: usize| format!("http://{}:{}", hosts[at], ports[at]);
    let cluster = (0..3).map(|at| format!("n{at}={}", url(listed, at))).collect::<Vec<_>>().join(",");
    let start =
        |at: usize| spawn(&dirs[at], &member(&format!("n{at}"), ports[at], &url(advertised, at), &cluster, "new"));
    let mut members = [start(0), start(1), start(2)];
    for member in &mut members {
        member.serves().expect("it serves");
    }
    members[0].put("a", "1").await;
    assert_eq!(members[2].get("a").await.as_deref(), Some(&b"1"[..]));
    let mut client = ClusterClient::new(members[1].channel().await);
    let list = client.member_list(pb::MemberListRequest { linearizable: true }).await.expect("the members");
    let mut urls: Vec<_> = list.into_inner().members.into_iter().flat_map(|member| member.peer_urls).collect();
    urls.sort();
    let mut expected: Vec<_> = (0..3).map(|at| url(listed, at)).collect();
    expected.sort();
    assert_eq!(urls, expected, "the members have the URLs of --initial-cluster, as they are written there");

    let [first, second, _third] = members;
    second.stop();
    let mut again = start(1);
    again.serves().expect("it serves again");
    assert!(!again.log().contains("the cluster knows this member at other peer URLs"), "{}", again.log());
    again.stop();
    first.stop();
    // The directory of one member under the address of another, in other words.
    let of_another = format!("http://[::ffff:127.0.0.1]:{}", ports[0]);
    let flags = member("n1", ports[0], &of_another, &cluster, "new");
    refused(dirs[1].path(), &flags.each_ref().map(String::as_str)).says(&["it is that of member"]);
}

#[tokio::test]
async fn a_member_joins_under_another_spelling_of_its_address() {
    let (one, two) = (temporary(), temporary());
    let (first, second) = (free_port(), free_port());
    let alone = format!("one=http://127.0.0.1:{first}");
    let mut server = spawn(&one, &member("one", first, &format!("http://127.0.0.1:{first}"), &alone, "new"));
    server.serves().expect("it serves");
    let request = pb::MemberAddRequest { peer_urls: vec![format!("http://127.0.0.1:{second}")], is_learner: false };
    ClusterClient::new(server.channel().await).member_add(request).await.expect("it is added");
    let both = format!("one=http://127.1:{first},two=http://[::ffff:127.0.0.1]:{second}");
    let mut joined = spawn(&two, &member("two", second, &format!("http://127.1:{second}"), &both, "existing"));
    joined.serves().expect("it serves");
    eventually("both serve", async || joined.get("a").await.is_none().then_some(())).await;
}

#[tokio::test]
async fn localhost_is_no_other_spelling_of_a_loopback_address() {
    for (advertised, listed, same) in [
        ("http://127.0.0.1:1", "http://localhost:1", false),
        ("http://localhost:1", "http://127.1:1", false),
        ("http://[::1]:1", "http://127.0.0.1:1", false),
        ("http://127.0.0.1:1", "http://127.0.0.1:2", false),
        ("https://127.0.0.1:1", "http://127.0.0.1:1", false),
        ("http://[::1]:1", "http://[0:0:0:0:0:0:0:1]:1", true),
        ("http://[::ffff:127.0.0.1]:1,http://[::1]:2", "http://[0::1]:2,m1=http://127.0.0.1:1", true),
    ] {
        let dir = temporary();
        let flags = [
            "--name=m1".to_owned(),
            format!("--initial-advertise-peer-urls={advertised}"),
            format!("--initial-cluster=m1={listed}"),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        if same {
            Process::start(dir.path(), &flags).stop();
        } else {
            let words = [&*format!("m1={listed}"), "but missing from --initial-advertise-peer-urls", advertised];
            refused(dir.path(), &flags).says(&words);
        }
    }
}
