//! The image against the index it was made of.

use proptest::{collection::vec, prelude::*, sample::Index as Place};

use super::*;
use crate::state::mvcc::index::RangeEnd;

const HEADER: ImageHeader = ImageHeader { cluster: 7, base: 0, finished: -1 };

fn index() -> Index {
    Index::default()
}

fn key(number: u32) -> Vec<u8> {
    match number % 3 {
        0 => format!("/registry/pods/default/{number}"),
        1 => format!("/registry/{number:08}"),
        _ => format!("{number}"),
    }
    .into_bytes()
}

/// One write, also kept for a later replay.
#[derive(Debug, Clone, Copy)]
struct Write {
    key: u32,
    put: bool,
    lease: i64,
}

fn write() -> impl Strategy<Value = Write> {
    (0..3000u32, prop::bool::weighted(0.8), prop_oneof![4 => Just(0), 1 => 1..i64::MAX])
        .prop_map(|(key, put, lease)| Write { key, put, lease })
}

/// A put's own numbers, or `None` for a tombstone, as the store has them.
type Row = (Vec<u8>, Revision, Option<(i64, i64, i64)>);

fn apply(index: &mut Index, rows: &mut Vec<Row>, writes: &[Write]) {
    for Write { key: number, put, lease } in writes {
        let at = Revision::new(index.newest().main + 1, 0);
        let key = key(*number);
        if *put {
            let meta = index.put(&key, at, *lease).meta;
            rows.push((key, at, Some((meta.created, meta.version, *lease))));
        } else if index.delete(&key, at).is_some() {
            rows.push((key, at, None));
        }
    }
}

fn restore(index: &mut Index, rows: &[Row]) {
    for (key, at, put) in rows {
        match put {
            Some((created, version, lease)) => index.restore_put(key, *at, *created, *version, *lease),
            None => index.restore_delete(key, *at),
        }
    }
}

fn read(mut bytes: &[u8]) -> Result<(Index, ImageHeader, ImageTrailer), ImageError> {
    read_image(&mut bytes, &mut |_| true).map(Option::unwrap)
}

/// A whole image of an index that does not change.
fn image(index: &Index) -> Vec<u8> {
    let (mut writer, mut bytes) = ImageWriter::new(&ImageHeader { base: index.newest().main, ..HEADER });
    while let Some(block) = writer.block(index) {
        bytes.extend(block);
    }
    bytes.extend(writer.finish(index.newest().main, 5));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_image_and_what_came_after_are_the_index_though_it_was_written_meanwhile(
        before in vec(write(), 1..6000), between in vec(vec(write(), 0..200), 0..12), after in vec(write(), 0..100), compact: Place,
    ) {
        let (mut index, mut rows) = (index(), Vec::new());
        apply(&mut index, &mut rows, &before);
        let mut removed = Vec::new();
        let c = compact.index(before.len()) as i64;
        let mut from = Some(bytes::Bytes::new());
        while let Some(start) = from {
            from = index.compact_step(c, &start, 512, 512, &mut removed);
        }
        rows.retain(|(_, at, put)| !removed.contains(&(*at, put.is_none())));

        let base = index.newest().main;
        let (mut writer, mut bytes) = ImageWriter::new(&ImageHeader { base, ..HEADER });
        let mut between = between.into_iter();
        while let Some(block) = writer.block(&index) {
            bytes.extend(block);
            apply(&mut index, &mut rows, &between.next().unwrap_or_default());
        }
        let needs = index.newest().main;
        bytes.extend(writer.finish(needs, 9));
        apply(&mut index, &mut rows, &after);

        let (mut read, header, trailer) = read(&bytes).unwrap();
        prop_assert_eq!((header.base, header.cluster, header.finished), (base, 7, -1));
        prop_assert_eq!((trailer.needs, trailer.applied), (needs, 9));
        let later = rows.partition_point(|(_, at, _)| at.main <= base);
        restore(&mut read, &rows[later..]);
        prop_assert_eq!(read.dump(), index.dump());
        prop_assert_eq!(read.newest(), index.newest());
        prop_assert_eq!(read.count_newest(b"/registry/", &RangeEnd::Unbounded), index.count_newest(b"/registry/", &RangeEnd::Unbounded));

        // As of an earlier crash of the store.
        let enough = rows.partition_point(|(_, at, _)| at.main <= needs);
        let (mut read, ..) = super::tests::read(&bytes).unwrap();
        let mut scanned = super::tests::index();
        restore(&mut read, &rows[later..enough]);
        restore(&mut scanned, &rows[..enough]);
        prop_assert_eq!(read.dump(), scanned.dump());
    }

    #[test]
    fn every_damage_is_noticed(writes in vec(write(), 0..60), place: Place, bit in 0..8u8, cut: Place, more in vec(any::<u8>(), 1..40)) {
        let mut index = index();
        apply(&mut index, &mut Vec::new(), &writes);
        let bytes = image(&index);
        prop_assert_eq!(read(&bytes).unwrap().0.dump(), index.dump());
        let mut flipped = bytes.clone();
        flipped[place.index(bytes.len())] ^= 1 << bit;
        prop_assert!(read(&flipped).is_err());
        prop_assert!(read(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(read(&[&bytes[..], &more].concat()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in vec(any::<u8>(), 0..200), entries in 0..20u32) {
        let mut loading = Loading::new(&ImageHeader { base: 1 << 40, ..HEADER });
        let _ = loading.block(entries, &body);
        let _ = read(&body);
    }
}

#[test]
fn blocks_of_another_image_or_in_another_order_are_refused() {
    let mut index = index();
    let writes: Vec<_> = (0..3000).map(|key| Write { key, put: true, lease: 0 }).collect();
    apply(&mut index, &mut Vec::new(), &writes);
    let blocks = |base| {
        let (mut writer, header) = ImageWriter::new(&ImageHeader { base, ..HEADER });
        let mut blocks = vec![header];
        while let Some(block) = writer.block(&index) {
            blocks.push(block);
        }
        blocks.push(writer.finish(base, 1));
        blocks
    };
    let (one, other) = (blocks(3000), blocks(3001));
    assert!(one.len() > 6);
    assert!(read(&one.concat()).is_ok());
    let mut mixed = one.clone();
    mixed[2] = other[2].clone();
    assert!(matches!(read(&mixed.concat()), Err(ImageError::Damaged(_))));
    let mut swapped = one.clone();
    swapped.swap(2, 3);
    assert!(matches!(read(&swapped.concat()), Err(ImageError::Damaged(_))));
    let mut missing = one;
    missing.remove(2);
    assert!(matches!(read(&missing.concat()), Err(ImageError::Damaged(_))));
}

#[test]
fn a_key_with_a_long_history_is_written_in_several_blocks() {
    let mut index = index();
    let writes: Vec<_> = (0..5 * BLOCK_EVENTS).map(|_| Write { key: 1, put: true, lease: 3 }).collect();
    apply(&mut index, &mut Vec::new(), &writes);
    apply(&mut index, &mut Vec::new(), &[Write { key: 2, put: true, lease: 0 }]);
    let (read, _, trailer) = read(&image(&index)).unwrap();
    assert_eq!(read.dump(), index.dump());
    assert_eq!(trailer.keys, 2);
}

#[test]
fn another_format_is_told_by_its_number() {
    let mut bytes = image(&index());
    bytes[8] = 9;
    assert!(matches!(read(&bytes), Err(ImageError::Format(9))));
}
