//! The tree against a `BTreeMap`.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::state::mvcc::index::builder::Builder;
use crate::state::mvcc::index::history::{Event, Kind};

type Model = BTreeMap<Vec<u8>, Vec<(i64, bool)>>;

/// What happens to the tree.
#[derive(Debug, Clone)]
enum Step {
    /// Puts (`true`) or deletes a key, or many that follow it.
    Write { key: u32, keys: u32, put: bool },
    /// Compacts everything so far, `max_keys` at a time.
    Sweep { max_keys: usize },
}

/// Names with long common beginnings, some being the beginning of others; `digits` tells how they lie.
fn name(number: u32, digits: usize) -> Vec<u8> {
    match number % 5 {
        0 => format!("/registry/{number:0digits$}"),
        1 => format!("/registry/{}/", number % 50),
        2 => format!("/registry/{}/{number}", number % 7),
        3 => format!("{number:x}"),
        _ => format!("/registry/{}/{}", number % 50, "n".repeat(number as usize % 90)),
    }
    .into_bytes()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4000u32, 1..200u32, prop::bool::weighted(0.6)).prop_map(|(key, keys, put)| Step::Write { key, keys, put }),
        3 => (0..4000u32, any::<bool>()).prop_map(|(key, put)| Step::Write { key, keys: 1, put }),
        1 => (1..300usize).prop_map(|max_keys| Step::Sweep { max_keys }),
    ]
}

fn live(events: &[(i64, bool)], at: i64) -> bool {
    events.iter().rev().find(|(main, _)| *main <= at).is_some_and(|(_, put)| *put)
}

fn write(tree: &mut Tree, model: &mut Model, key: &[u8], main: i64, put: bool) {
    let events = model.get(key);
    let alive = events.is_some_and(|events| live(events, main));
    if !put && !alive {
        return;
    }
    tree.edit(key, |history| {
        let at = Revision::new(main, 0);
        let version =
            history.as_deref().and_then(History::newest).map_or((main, 1), |meta| (meta.created, meta.version + 1));
        let kind = if put { Kind::Put { created: version.0, version: version.1 } } else { Kind::Tombstone };
        match history {
            Some(history) => {
                history.push(Event { at, kind }, 0);
                (None, ())
            }
            None => (Some(History::new(Event { at, kind }, 0)), ()),
        }
    });
    model.entry(key.to_vec()).or_default().push((main, put));
}

/// Removes what compaction to `c` removes, in steps.
fn sweep(tree: &mut Tree, model: &mut Model, c: i64, max_keys: usize) {
    let (mut from, mut removed) = (bytes::Bytes::new(), Vec::new());
    loop {
        let next = tree.sweep(&from, c, max_keys, &mut |history| match history.compact(
            c,
            &mut usize::MAX.clone(),
            &mut removed,
        ) {
            crate::state::mvcc::index::history::Compacted::Empty => Sweep::Remove,
            _ => Sweep::Keep,
        });
        match next {
            Some(next) => {
                assert!(next > from, "a sweep stands still");
                from = next;
            }
            None => break,
        }
    }
    model.retain(|_, events| {
        let seen = events.iter().take_while(|(main, _)| *main <= c).count();
        let gone = seen.saturating_sub(1);
        let newest_is_old_tombstone = seen > 0 && !events[seen - 1].1 && events[seen - 1].0 < c;
        events.drain(..gone + usize::from(newest_is_old_tombstone));
        !events.is_empty()
    });
}

/// The whole content, weights and counts against the model.
fn compare(tree: &Tree, model: &Model, oldest: i64, newest: i64, probes: &[(Vec<u8>, Vec<u8>)]) {
    let (_, keys) = tree.root.check(b"", None);
    assert_eq!((keys, tree.len()), (model.len(), model.len()));
    let mut walked = Vec::new();
    tree.walk(b"", false, &mut |key, history| {
        let events = history.events().map(|event| (event.at.main, !event.is_tombstone())).collect::<Vec<_>>();
        walked.push((key.to_vec(), events));
        true
    });
    assert!(
        walked.iter().eq(model.iter().map(|(key, events)| (key.clone(), events.clone())).collect::<Vec<_>>().iter())
    );
    let count = |from: &[u8], to: Option<&[u8]>, at| {
        let within = model.iter().filter(|(key, _)| &key[..] >= from && to.is_none_or(|to| &key[..] < to));
        within.filter(|(_, events)| live(events, at)).count() as u64
    };
    assert_eq!(tree.live(), count(b"", None, newest));
    for (from, to) in probes {
        assert_eq!(tree.rank(from), count(b"", Some(from), newest));
        let mut first = None;
        tree.walk(from, true, &mut |key, history| {
            assert!(history.is_live());
            first = Some(key.to_vec());
            false
        });
        let expected = model.range(from.clone()..).find(|(_, events)| live(events, newest)).map(|(key, _)| key.clone());
        assert_eq!(first, expected);
        for at in [oldest, i64::midpoint(oldest, newest), newest - 1, newest] {
            if at < oldest {
                continue;
            }
            for to in [None, Some(&to[..])] {
                let (mut total, mut next) = (0, Some(from.clone()));
                while let Some(from) = next {
                    let (some, more) = tree.count_at(&from, to, Revision::whole(at), 100);
                    total += some;
                    next = more;
                }
                let expected = if to.is_some_and(|to| to <= &from[..]) { 0 } else { count(from, to, at) };
                assert_eq!(total, expected, "at {at} from {from:?} to {to:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_tree_is_a_map_that_counts(
        digits in 1..60usize, steps in vec(step(), 1..60), probes in vec((0..4000u32, 0..4000u32), 4),
    ) {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        let (mut main, mut compacted) = (1, 1);
        let probes: Vec<_> = probes.into_iter().map(|(a, b)| (name(a, digits), name(b, digits))).collect();
        for step in steps {
            match step {
                Step::Write { key, keys, put } => {
                    for number in key..key + keys {
                        main += 1;
                        write(&mut tree, &mut model, &name(number, digits), main, put);
                    }
                }
                Step::Sweep { max_keys } => {
                    compacted = main;
                    sweep(&mut tree, &mut model, compacted, max_keys);
                }
            }
            tree.root.check(b"", None);
        }
        compare(&tree, &model, compacted, main, &probes);

        // The same keys, built at once.
        let mut builder = Builder::default();
        tree.walk(b"", false, &mut |key, history| builder.push(key, history.clone()));
        let again = History::new(Event { at: Revision::new(1, 0), kind: Kind::Tombstone }, 0);
        prop_assert!(model.is_empty() || !builder.push(b"", again));
        let mut tree = builder.finish(0);
        compare(&tree, &model, compacted, main, &probes);
        for number in 0..300 {
            main += 1;
            write(&mut tree, &mut model, &name(number * 13, digits), main, number % 3 != 0);
        }
        compare(&tree, &model, compacted, main, &probes);
        for key in model.keys().cloned().collect::<Vec<_>>() {
            main += 1;
            write(&mut tree, &mut model, &key, main, false);
        }
        sweep(&mut tree, &mut model, main + 1, 64);
        prop_assert!(model.is_empty());
        compare(&tree, &model, main + 1, main + 1, &probes);
    }
}

#[test]
fn keys_larger_than_a_node_are_kept_apart() {
    let (mut tree, mut model) = (Tree::default(), Model::new());
    let name = |number: i64| {
        let mut key = vec![b'a' + (number % 3) as u8; 20_000];
        key.extend_from_slice(number.to_string().as_bytes());
        key
    };
    for number in 0..60 {
        write(&mut tree, &mut model, &name(number), number + 2, true);
    }
    let mut builder = Builder::default();
    tree.walk(b"", false, &mut |key, history| builder.push(key, history.clone()));
    let built = builder.finish(0);
    for tree in [&tree, &built] {
        compare(tree, &model, 62, 62, &[(name(3), name(44)), (b"b".to_vec(), b"c".to_vec())]);
    }
    for number in 0..60 {
        write(&mut tree, &mut model, &name(number), number + 100, false);
    }
    sweep(&mut tree, &mut model, 500, 7);
    compare(&tree, &model, 500, 500, &[]);
}

#[test]
fn ascending_keys_leave_full_nodes() {
    let (mut tree, mut model) = (Tree::default(), Model::new());
    for number in 0..5000u32 {
        write(&mut tree, &mut model, &number.to_be_bytes(), i64::from(number) + 2, true);
    }
    let mut leaves = 0;
    let mut nodes = vec![&tree.root];
    while let Some(node) = nodes.pop() {
        match node {
            Node::Leaf(_) => leaves += 1,
            Node::Inner(inner) => nodes.extend(&inner.children),
        }
    }
    assert_eq!(leaves, 5000_usize.div_ceil(super::super::node::FANOUT_MAX));
    compare(&tree, &model, 5001, 5001, &[]);
}
