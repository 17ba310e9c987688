//! Counts in the past against a model.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::Index as Place};

use super::{
    image::{ImageHeader, ImageWriter, read_image},
    *,
};

type Model = BTreeMap<Bytes, Vec<(Revision, bool)>>;

fn counted(index: &Index, from: &[u8], end: &RangeEnd, at: Revision) -> u64 {
    let in_steps = |max_keys| {
        let mut counting = Counting::new(from, end, at);
        loop {
            if let Some(count) = index.count_step(&mut counting, max_keys) {
                return count;
            }
        }
    };
    let count = in_steps(1 << 20);
    assert_eq!(in_steps(10), count, "in small steps");
    count
}

fn expected(model: &Model, from: &[u8], end: &RangeEnd, at: Revision) -> u64 {
    let lives = |events: &[(Revision, bool)]| {
        events[..events.partition_point(|(event, _)| *event <= at)].last().is_some_and(|(_, put)| *put)
    };
    model.iter().filter(|(key, events)| end.contains(from, key) && lives(events)).count() as u64
}

fn write(index: &mut Index, model: &mut Model, key: Bytes, at: Revision, put: bool) {
    let changed = if put {
        index.put(&key, at, 0);
        true
    } else {
        index.delete(&key, at).is_some()
    };
    if changed {
        model.entry(key).or_default().push((at, put));
    }
}

fn compact(index: &mut Index, c: i64) {
    let mut from = Some(Bytes::new());
    while let Some(start) = from {
        from = index.compact_step(c, &start, 64, 64, &mut Vec::new());
    }
}

/// The index as the next start would have it.
fn reopened(index: &Index, finished: i64) -> Index {
    let newest = index.newest().main;
    let (mut writer, mut bytes) = ImageWriter::new(&ImageHeader { cluster: 1, base: newest, finished });
    while let Some(block) = writer.block(index) {
        bytes.extend(block);
    }
    bytes.extend(writer.finish(newest, 1));
    read_image(&mut &bytes[..], &mut |_| true).unwrap().unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn counts_are_exact_at_every_revision(
        writes in vec((0..300u32, prop::bool::weighted(0.7), 1..4u32), 1..400),
        compact_at in prop::option::of(0..400usize),
        ends in (0..300u32, 0..300u32),
    ) {
        let (mut index, mut model) = (Index::default(), Model::new());
        let key = |number: u32| Bytes::from(format!("/registry/pods/{number:04}"));
        let (mut main, mut compacted) = (1, 1);
        for (step, (first, put, keys)) in writes.into_iter().enumerate() {
            main += 1;
            for sub in 0..keys {
                write(&mut index, &mut model, key((first + sub) % 300), Revision::new(main, sub), put);
            }
            if compact_at == Some(step) {
                compacted = main;
                compact(&mut index, compacted);
            }
        }
        let from = key(ends.0);
        for end in [RangeEnd::Unbounded, RangeEnd::Before(key(ends.1)), RangeEnd::Single] {
            for at in (compacted..=main).flat_map(|main| [Revision::new(main, 0), Revision::whole(main)]) {
                if at >= Revision::whole(compacted) {
                    prop_assert_eq!(counted(&index, &from, &end, at), expected(&model, &from, &end, at), "at {:?} {:?}", at, end);
                }
            }
        }
    }

    /// So many keys that stretches of the tree are divided, and put together again.
    #[test]
    fn counts_of_many_keys_are_exact_at_any_revision_also_after_a_start(
        writes in vec((0..12_000u32, prop::bool::weighted(0.7), 1..1500u32, any::<bool>()), 1..30),
        compact_at in prop::option::of(0..30usize),
        step in prop::sample::select(vec![1u32, 7919]),
        restored: bool,
        probes in vec((any::<Place>(), any::<u32>(), 0..12_000u32, 0..12_000u32), 12),
    ) {
        let (mut index, mut model) = (Index::default(), Model::new());
        let key = |number: u32| Bytes::from(format!("/registry/{number:05}"));
        let (mut main, mut compacted) = (1, 1);
        let mut points = Vec::new();
        for (number, (first, put, keys, together)) in writes.into_iter().enumerate() {
            for (sub, place) in (first..first + keys).enumerate() {
                main += i64::from(sub == 0 || !together);
                let at = Revision::new(main, if together { sub as u32 } else { 0 });
                points.push(at);
                write(&mut index, &mut model, key(place.wrapping_mul(step) % 12_000), at, put);
            }
            if compact_at == Some(number) {
                compacted = main;
                compact(&mut index, compacted);
                points.retain(|at| at.main > compacted);
                points.push(Revision::whole(main));
            }
        }
        if restored {
            index = reopened(&index, if compact_at.is_some() { compacted } else { -1 });
        }
        for (place, sub, from, to) in probes {
            let at = place.get(&points);
            for at in [*at, Revision::new(at.main, sub), Revision::whole(at.main), Revision::whole(at.main - 1)] {
                if at < Revision::whole(compacted) {
                    continue;
                }
                for (from, end) in [
                    (Bytes::new(), RangeEnd::Unbounded),
                    (key(from), RangeEnd::Before(key(to))),
                    (Bytes::from_static(b"/registry/"), RangeEnd::Before(Bytes::from_static(b"/registry0"))),
                ] {
                    prop_assert_eq!(counted(&index, &from, &end, at), expected(&model, &from, &end, at), "at {:?} {:?}", at, end);
                }
            }
        }
    }
}

#[test]
fn what_becomes_known_of_the_past_later_is_counted() {
    let mut index = Index::default();
    let key = |number: i64| Bytes::from(format!("{number:05}"));
    // From the newest revision to the oldest, as no start does it.
    for number in (0..6000).rev() {
        index.restore_put(&key(number % 5000), Revision::new(number + 2, 0), number % 5000 + 2, number / 5000 + 1, 0);
    }
    for main in (1..6100).step_by(50) {
        let expected = (main - 1).clamp(0, 5000) as u64;
        assert_eq!(counted(&index, b"", &RangeEnd::Unbounded, Revision::whole(main)), expected, "at {main}");
    }
}
