//! `check datascale` beside the genuine one.

use crate::referee::{On, Pair, by_etcdctl_on_both_servers, mask_after, on_either_server};

on_either_server! {
    the_smallest_load_is_written_measured_and_deleted_alike,
}

by_etcdctl_on_both_servers! {
    the_smallest_load_is_written_measured_and_deleted_alike,
}

/// Sets aside the seconds, the memory taken, and the progress that the genuine program draws into whatever it writes to.
fn measured(text: &str) -> String {
    let last = text.lines().map(|line| line.rsplit('\r').next().unwrap_or_default());
    let text: String = last.flat_map(|line| [line, "\n"]).collect();
    let text = mask_after(&text, "100.00% ", |character| character == '\n');
    mask_after(&text, "memory used : ", |character| character == ' ')
}

fn the_smallest_load_is_written_measured_and_deleted_alike(on: On) {
    let pair = Pair::start(on, &[]);
    let checked = pair.same_masked("check datascale --prefix /checked/ --auto-compact --auto-defrag", measured);
    assert!(checked.stdout.contains("PASS: Approximate system memory used : … MB.\n"), "{}", checked.stdout);
    pair.same("get '' --from-key --count-only -w json");
    // One revision for each key, then one for their deletion.
    assert!(pair.same("get a -w json").stdout.contains("\"revision\":10002"));
    pair.same("put /checked/in-the-way 1");
    assert_eq!(pair.same("check datascale --prefix /checked/").code, 3);
    assert_eq!(pair.same("check datascale --load huge").code, 4);
}
