//! A member that is left alone.

use super::*;

#[test]
fn who_is_left_alone_reads_locally_only_when_all_is_applied_that_the_other_may_have_shown() {
    let mut bench = Bench::leading(options());
    let one = |kind| change(&[(2, kind)], ConfChangeTransition::Auto);
    let acknowledge = |bench: &mut Bench| {
        let (term, index) = (bench.core.status().standing.term, bench.core.cache().last());
        let mut message = Message { from: 2, to: 1, term, index, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppendResponse);
        bench.core.step(message).unwrap();
    };
    bench.core.propose_conf_change(1, one(ConfChangeType::AddNode), &Bytes::new(), 1);
    bench.run();
    acknowledge(&mut bench);
    bench.run();
    // The other one gets both entries and hears that both are committed.
    bench.core.propose_conf_change(2, one(ConfChangeType::RemoveNode), &Bytes::new(), 2);
    bench.put_of(10);
    bench.run();
    let put = bench.core.cache().last();
    acknowledge(&mut bench);
    let mut applied = Vec::new();
    for _ in 0..8 {
        bench.core.advance().unwrap();
        bench.collect();
        for write in mem::take(&mut bench.unsynced) {
            bench.core.synced(write.number);
        }
        bench.core.apply().unwrap();
        let status = bench.core.status();
        assert_eq!(status.reads_locally, status.applied >= put, "{status:?}");
        applied.push(status.applied);
    }
    assert!(applied.contains(&(put - 1)) && applied.ends_with(&[put]), "the removal is applied by itself: {applied:?}");
}
