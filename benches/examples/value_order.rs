//! Values ordered by revision, or by key and revision: what either costs on the store as the server opens it.
//!
//! ```text
//! cargo run --release -p cairn-bench --example value_order -- [keys]
//! ```
//! Keys of 64 bytes are loaded in random order, each with a value of 256 random bytes, in batches of 100. Then each layout does what the server would do
//! with it. CPU is that of the process, the store's threads included. Figures: docs/decisions/0001-values-by-revision.md.

use std::{fs, hint::black_box, ops::ControlFlow, time::Duration};

use bytes::Bytes;
use cairn_server::store::{Batch, RocksOptions, RocksStore, Store, StoreError, Table};

const KEY_BYTES: usize = 64;
const VALUE_BYTES: usize = 256;
const BATCH_ROWS: u64 = 100;
const PAGE: u64 = 500;
/// A tenth of history is what a watcher catches up with.
const CATCH_UP_PART: u64 = 10;

/// Clock ticks a second in `/proc/<pid>/stat`; fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Layout {
    ByRevision,
    ByKey,
}

/// A generator good enough for bytes that do not compress.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    }
}

fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux has /proc");
    let times = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// CPU milliseconds of `work`.
fn measured<R>(work: impl FnOnce() -> R) -> (f64, R) {
    let before = cpu_seconds();
    let result = work();
    ((cpu_seconds() - before) * 1e3, result)
}

struct Bench {
    layout: Layout,
    keys: u64,
    step: u64,
    store: RocksStore,
}

impl Bench {
    fn name(number: u64) -> String {
        format!("/registry/pods/{number:0width$}", width = KEY_BYTES - 15)
    }

    /// The key written at a revision.
    fn key_of(&self, revision: u64) -> u64 {
        (u128::from(revision) * u128::from(self.step) % u128::from(self.keys)) as u64
    }

    fn row(&self, number: u64, revision: u64) -> Bytes {
        let at = [&revision.to_be_bytes()[..], &[0; 4]].concat();
        match self.layout {
            Layout::ByRevision => at.into(),
            Layout::ByKey => [Self::name(number).as_bytes(), &at].concat().into(),
        }
    }

    fn load(&self) {
        let mut random = Random(1);
        let mut value = vec![0; KEY_BYTES + VALUE_BYTES];
        for first in (0..self.keys).step_by(BATCH_ROWS as usize) {
            let mut batch = Batch::default();
            for revision in first..(first + BATCH_ROWS).min(self.keys) {
                let number = self.key_of(revision);
                value[..KEY_BYTES].copy_from_slice(Self::name(number).as_bytes());
                value[KEY_BYTES..].chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next().to_le_bytes()));
                batch.put(Table::Rev, self.row(number, revision), value.clone());
            }
            while let Err(StoreError::Stalled) = self.store.write(&batch) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.store.flush().expect("the disk takes it");
        // Until the store's own threads have come to rest.
        let mut before = -1.0;
        while cpu_seconds() - before > 0.02 {
            before = cpu_seconds();
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn scan(&self, from: &[u8], rows: u64) -> u64 {
        let mut seen = 0;
        let visit = &mut |_: &[u8], value: &[u8]| {
            black_box(Bytes::copy_from_slice(value));
            seen += 1;
            if seen == rows { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.store.scan(Table::Rev, from, None, visit).expect("the store is readable");
        seen
    }

    /// Pages of a list at random places.
    fn pages(&self, revision_of: &[u64]) {
        let mut random = Random(2);
        for _ in 0..100 {
            let first = random.next() % (self.keys - PAGE);
            match self.layout {
                Layout::ByKey => {
                    self.scan(Self::name(first).as_bytes(), PAGE);
                }
                Layout::ByRevision => {
                    let mut wanted: Vec<_> = (first..first + PAGE).map(|number| revision_of[number as usize]).collect();
                    wanted.sort_unstable();
                    let rows: Vec<_> = wanted.iter().map(|revision| self.row(0, *revision)).collect();
                    let rows: Vec<_> = rows.iter().map(|row| &row[..]).collect();
                    black_box(self.store.multi_get(Table::Rev, &rows, true).expect("the store is readable"));
                }
            }
        }
    }

    /// Every value, in key order.
    fn whole_list(&self, revision_of: &[u64]) {
        if self.layout == Layout::ByKey {
            self.scan(b"", self.keys);
            return;
        }
        let mut places: Vec<_> = (0u32..).zip(revision_of).map(|(place, revision)| (*revision, place)).collect();
        places.sort_unstable();
        let mut out = vec![Bytes::new(); self.keys as usize];
        let mut places = places.iter();
        let visit = &mut |_: &[u8], value: &[u8]| {
            if let Some((_, place)) = places.next() {
                out[*place as usize] = Bytes::copy_from_slice(value);
            }
            ControlFlow::Continue(())
        };
        self.store.scan(Table::Rev, b"", None, visit).expect("the store is readable");
        black_box(out);
    }

    /// The newest part of history, in order. By key there is no way but to look at everything.
    fn catch_up(&self) {
        match self.layout {
            Layout::ByRevision => self.scan(&self.row(0, self.keys - self.keys / CATCH_UP_PART), self.keys),
            Layout::ByKey => self.scan(b"", self.keys),
        };
    }

    /// The rows above an index image that lacks the newest tenth: the same.
    fn start(&self) {
        self.catch_up();
    }
}

fn main() {
    let keys: u64 = std::env::args().nth(1).and_then(|keys| keys.parse().ok()).unwrap_or(1_000_000);
    println!("{keys} keys             {:>12} {:>12}", "by revision", "by key");
    let mut columns: Vec<Vec<(&str, f64)>> = Vec::new();
    for layout in [Layout::ByRevision, Layout::ByKey] {
        let directory = tempfile::tempdir().expect("a directory");
        let store = RocksStore::create(&directory.path().join("store"), &RocksOptions::default()).expect("a store");
        let bench = Bench { layout, keys, step: (keys as f64 * 0.618) as u64 | 1, store };
        let mut revision_of = vec![0; keys as usize];
        (0..keys).for_each(|revision| revision_of[bench.key_of(revision) as usize] = revision);
        let (load, ()) = measured(|| bench.load());
        let disk = bench.store.size().expect("a size").total as f64 / 1e6;
        let (pages, ()) = measured(|| bench.pages(&revision_of));
        let (list, ()) = measured(|| bench.whole_list(&revision_of));
        let (catch_up, ()) = measured(|| bench.catch_up());
        let (start, ()) = measured(|| bench.start());
        columns.push(vec![
            ("put, us CPU each", load * 1e3 / keys as f64),
            ("page of 500, ms CPU", pages / 100.0),
            ("whole list, ms CPU", list),
            ("watch catch-up, ms CPU", catch_up),
            ("start above image, ms CPU", start),
            ("disk, MB", disk),
        ]);
    }
    for ((what, by_revision), (_, by_key)) in columns[0].iter().zip(&columns[1]) {
        println!("{what:<26} {by_revision:>10.2} {by_key:>12.2}");
    }
}
