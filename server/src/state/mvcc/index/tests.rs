//! Counts in the past against a model, whatever the birth/death log still knows.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;

fn counted(index: &Index, from: &[u8], end: &RangeEnd, at: Revision) -> u64 {
    let mut counting = Counting::new(Bytes::copy_from_slice(from), end.clone(), at);
    loop {
        if let Some(count) = index.count_step(&mut counting) {
            return count;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn counts_are_exact_at_every_revision_with_any_length_of_the_log(
        births_bytes_max in prop_oneof![Just(0), Just(600), Just(1 << 20)],
        writes in vec((0..300u32, prop::bool::weighted(0.7), 1..4u32), 1..400),
        compact_at in prop::option::of(0..400usize),
        ends in (0..300u32, 0..300u32),
    ) {
        let mut index = Index::new(IndexLimits { births_bytes_max });
        let mut model: BTreeMap<Bytes, Vec<(Revision, bool)>> = BTreeMap::new();
        let key = |number: u32| Bytes::from(format!("/registry/pods/{number:04}"));
        let (mut main, mut compacted) = (1, 1);
        for (step, (first, put, keys)) in writes.into_iter().enumerate() {
            main += 1;
            for sub in 0..keys {
                let (key, at) = (key((first + sub) % 300), Revision::new(main, sub));
                let changed = if put { index.put(&key, at, 0); true } else { index.delete(&key, at).is_some() };
                if changed {
                    model.entry(key).or_default().push((at, put));
                }
            }
            if compact_at == Some(step) {
                compacted = main;
                let mut from = Some(Bytes::new());
                while let Some(start) = from {
                    from = index.compact_step(compacted, &start, 64, 64, &mut Vec::new());
                }
            }
            prop_assert!(index.stats().births_bytes <= births_bytes_max as u64);
        }
        let from = key(ends.0);
        for end in [RangeEnd::Unbounded, RangeEnd::Before(key(ends.1)), RangeEnd::Single] {
            for at in (compacted..=main).flat_map(|main| [Revision::new(main, 0), Revision::whole(main)]) {
                if at < Revision::whole(compacted) {
                    continue;
                }
                let lives = |events: &[(Revision, bool)]| events.iter().rev().find(|(event, _)| *event <= at).is_some_and(|(_, put)| *put);
                let expected = model.iter().filter(|(key, events)| end.contains(&from, key) && lives(events)).count() as u64;
                prop_assert_eq!(counted(&index, &from, &end, at), expected, "at {:?} {:?}", at, end);
                if let Some(count) = index.count(&from, &end, at) {
                    prop_assert_eq!(count, expected, "at once, at {:?} {:?}", at, end);
                }
            }
        }
    }
}
