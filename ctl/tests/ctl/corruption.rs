//! The alarm CORRUPT, as a genuine etcdctl and this program show it and clear it.

use cairn_client::Client;
use cairn_proto::etcdserverpb::{AlarmRequest, AlarmType, alarm_request::AlarmAction};

use crate::compared::as_before_3_7;
use crate::referee::{Given, On, Pair, Server, on_either_server};

on_either_server! {
    a_corrupt_member_is_shown_and_its_alarm_cleared_alike,
}

/// Raises the alarm for a member, as the cluster's leader does.
fn accuse(server: &Server, member_id: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::new([server.endpoint()]).expect("a client");
        let alarm = AlarmRequest { action: AlarmAction::Activate.into(), member_id, alarm: AlarmType::Corrupt.into() };
        client.call(alarm).await.expect("the alarm is raised");
    });
}

fn a_corrupt_member_is_shown_and_its_alarm_cleared_alike(on: On) {
    let pair = Pair::start(on, &[]);
    pair.same("put a 1");
    for side in [&pair.genuine, &pair.ours] {
        accuse(&side.server, 123);
    }
    let refused = pair.same("put a 2");
    assert_eq!((refused.code, refused.stderr.as_str()), (1, "Error: etcdserver: corrupt cluster"));
    for line in [
        "del a",
        "compaction 2",
        "lease grant 10",
        "get a",
        "get a --consistency s",
        "alarm list -w json",
        "alarm list -w fields",
        "alarm disarm",
        "alarm list",
        "put a 3",
    ] {
        pair.same_masked(line, as_before_3_7);
    }
}

#[test]
fn the_corrupt_member_itself_serves_nothing_until_its_alarm_is_cleared() {
    let pair = Pair::start(On::Cairn, &[]);
    let side = &pair.ours;
    let run = |line: &str| side.output(line, Given::default());
    assert_eq!(run("put a 1").code, 0);
    let id = side.words("<member>").pop().and_then(|id| id.parse().ok());
    accuse(&side.server, id.expect("its id"));
    for line in ["get a", "get a --consistency s", "put a 2"] {
        let refused = run(line);
        assert_eq!((refused.code, refused.stderr.as_str()), (1, "Error: etcdserver: corrupt cluster"), "{line}");
    }
    assert_eq!(run("endpoint health").code, 1);
    assert_eq!(run("alarm list").stdout, "memberID:<member> alarm:CORRUPT\n");
    assert_eq!(run("alarm disarm").code, 0);
    assert_eq!(run("get a").stdout, "a\n1\n");
}
