//! When the index image is written, and whether one that is found can be used.
//!
//! An image with base B spares a start the revisions up to B: they are in the image, the rest is scanned. That is right as long as the store still tells
//! about everything that happened after B. Compaction to C takes away tombstones up to C, and with them the news that a key of the image has died. So the
//! one rule is: **nothing is removed for a compaction to C while an image with a base below C is there.** It is replaced by a newer one first, or removed.
//!
//! What a start then has to mind:
//! ```text
//! the image is ahead      the store lost what was not flushed: the image says from which revision on it can be used; written after a flush, it can
//! compaction finished     after the image was written: the rule of compaction is applied to the index again, which needs nothing but the index
//! compaction under way    some of what the image has is gone from the store; it is removed again, by a deletion that does not mind that it is not there
//! lease unknown           a value superseded while the image was written; what superseded it is in the store at the revision the image asks for
//! ```
//! An image that cannot be used is removed at once: it must not become usable later.

use std::time::Duration;

use super::{
    Mvcc,
    index::{
        Index,
        image::{ImageHeader, ImageTrailer, ImageWriter, read_image},
    },
};
use crate::{
    state::{StateError, record},
    store::{NewFile, Store, StoreError, Table},
};

/// The name of the index image, which may go with a checkpoint of the tables.
pub const NAME: &str = "index-image";
/// An image is also due when so many times its own size was written since.
const BYTES_FACTOR: u64 = 4;
/// An image is also due when this part of the number of keys was written since.
const KEYS_PART: u64 = 2;

/// Revisions and bytes that a start reads in no time: for less no image is written at the end.
const FEW_REVISIONS: u64 = 1000;
const FEW_BYTES: u64 = 1 << 20;

/// When images are written.
#[derive(Debug, Clone, Copy)]
pub struct ImageOptions {
    /// Whether at all.
    pub enabled: bool,
    /// Revisions after which one is due, at least.
    pub revisions_min: u64,
    /// Bytes written after which one is due, at least.
    pub bytes_min: u64,
    /// Time between two, unless one would be lost otherwise.
    pub interval_min: Duration,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self { enabled: true, revisions_min: 100_000, bytes_min: 32 << 20, interval_min: Duration::from_secs(5) }
    }
}

/// The image in the store's directory.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct OnDisk {
    base: i64,
    bytes: u64,
    /// The store's counter of written bytes when it was begun.
    written: u64,
}

/// What opening knows of images.
#[derive(Debug, Default)]
pub(in crate::state) struct Found {
    /// The index to go on from.
    pub index: Option<Index>,
    /// Its last main revision, 0 without one.
    pub base: i64,
    /// Up to this main revision, the store may miss what the index has and compaction is about to remove.
    pub doubtful_to: i64,
    on_disk: Option<OnDisk>,
}

/// What an image has to fit to.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct StoreIs {
    pub cluster: u64,
    pub applied: u64,
    pub revision: i64,
    /// The newest compaction asked for, -1 for none.
    pub compacted: i64,
    /// How far compaction was carried out, -1 for not at all.
    pub finished: i64,
}

/// Reads the image, or removes it if it cannot be used.
pub(in crate::state) fn find(store: &dyn Store, is: StoreIs) -> Result<Found, StoreError> {
    let Some(mut file) = store.open_file(NAME)? else { return Ok(Found::default()) };
    let mut reader = std::io::BufReader::with_capacity(1 << 20, &mut *file);
    let mut usable = |header: &ImageHeader| {
        header.cluster == is.cluster && header.base <= is.revision && header.finished <= is.finished
    };
    let why = match read_image(&mut reader, &mut usable) {
        Ok(Some((index, header, trailer))) if fits(&header, &trailer, is) => {
            tracing::info!(base = header.base, keys = trailer.keys, "the index image is used");
            // A compaction that is not finished may have begun, if the image allowed it to.
            let begun = is.finished < is.compacted;
            return Ok(Found {
                index: Some(index),
                base: header.base,
                doubtful_to: if begun { header.base.min(is.compacted) } else { -1 },
                on_disk: Some(OnDisk { base: header.base, bytes: 0, written: 0 }),
            });
        }
        Ok(_) => "it does not belong to what the store holds now".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(%why, "the index image cannot be used; all revisions are read instead");
    store.remove_file(NAME)?;
    Ok(Found::default())
}

fn fits(header: &ImageHeader, trailer: &ImageTrailer, is: StoreIs) -> bool {
    trailer.needs <= is.revision && trailer.applied <= is.applied && is.finished <= header.base
}

/// Writes images. Driven by the compactor, between compactions.
#[derive(Debug)]
pub(in crate::state) struct Imager {
    options: ImageOptions,
    on_disk: Option<OnDisk>,
    /// When one was begun last.
    begun: Option<Duration>,
}

/// An image being written.
pub(super) struct Writing {
    file: Box<dyn NewFile>,
    writer: ImageWriter,
    on_disk: OnDisk,
    /// All keys are in; the store has to reach this revision.
    needs: Option<i64>,
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writing").field("on_disk", &self.on_disk).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// What a step of writing an image did.
pub(super) enum Written {
    /// Some of it.
    Some(Writing),
    /// The store has to catch up with the index first.
    Waits(Writing),
    /// It is there.
    Done(OnDisk),
}

impl Imager {
    pub(super) fn new(options: ImageOptions, on_disk: Option<OnDisk>) -> Self {
        Self { options, on_disk, begun: None }
    }

    fn is_recent(&self, now: Duration) -> bool {
        self.begun.is_some_and(|begun| now.saturating_sub(begun) < self.options.interval_min)
    }

    /// Whether enough has changed for another image.
    pub(super) fn is_due(&self, mvcc: &Mvcc, now: Duration) -> bool {
        if !self.options.enabled || self.is_recent(now) {
            return false;
        }
        let (revisions, bytes) = self.since_last(mvcc);
        let size = self.on_disk.map_or(0, |image| image.bytes);
        if bytes >= self.options.bytes_min.max(size * BYTES_FACTOR) {
            return revisions > 0;
        }
        let keys = mvcc.index.read().stats().keys;
        revisions >= self.options.revisions_min.max(keys / KEYS_PART)
    }

    /// Whether a start would notice that there is no newer image than the one on disk.
    pub(super) fn is_behind(&self, mvcc: &Mvcc) -> bool {
        let (revisions, bytes) = self.since_last(mvcc);
        let options = &self.options;
        options.enabled
            && (revisions >= options.revisions_min.min(FEW_REVISIONS) || bytes >= options.bytes_min.min(FEW_BYTES))
    }

    /// Revisions and bytes written since the image on disk.
    fn since_last(&self, mvcc: &Mvcc) -> (u64, u64) {
        let last = self.on_disk.unwrap_or(OnDisk { base: 0, bytes: 0, written: 0 });
        let revisions = u64::try_from(mvcc.revision() - last.base).unwrap_or(0);
        (revisions, mvcc.bytes_written().saturating_sub(last.written))
    }

    /// Whether compaction to `target` may remove anything with the image that is there.
    pub(super) fn allows(&self, target: i64) -> bool {
        self.on_disk.is_none_or(|image| image.base >= target)
    }

    /// Whether an image in the way of a compaction is worth being replaced.
    pub(super) fn replaces(&self, now: Duration) -> bool {
        self.options.enabled && !self.is_recent(now)
    }

    /// Removes the image.
    pub(super) fn remove(&mut self, store: &dyn Store) -> Result<(), StateError> {
        store.remove_file(NAME)?;
        self.on_disk = None;
        Ok(())
    }

    pub(super) fn note(&mut self, on_disk: OnDisk) {
        self.on_disk = Some(on_disk);
    }

    /// Begins to write an image; `None` if it cannot be written.
    pub(super) fn begin(&mut self, mvcc: &Mvcc, now: Duration) -> Result<Option<Writing>, StateError> {
        self.begun = Some(now);
        let cluster = mvcc.store.get(Table::Meta, record::cluster::KEY)?;
        let cluster = cluster.map(|bytes| record::cluster::decode(&bytes)).transpose()?.unwrap_or(0);
        // Bytes first: what is written between the two is counted for the next image.
        let written = mvcc.bytes_written();
        let header = ImageHeader { cluster, base: mvcc.revision(), finished: mvcc.horizon.lock().finished };
        let (writer, first) = ImageWriter::new(&header);
        let on_disk = OnDisk { base: header.base, bytes: first.len() as u64, written };
        let begun = mvcc.store.create_file(NAME).and_then(|mut file| {
            file.write(&first)?;
            Ok(Writing { file, writer, on_disk, needs: None })
        });
        match begun {
            Ok(writing) => Ok(Some(writing)),
            Err(error) => self.give_up(mvcc, &error).map(|()| None),
        }
    }

    /// An image that cannot be written is no harm but to the next start.
    pub(super) fn give_up(&mut self, mvcc: &Mvcc, error: &StoreError) -> Result<(), StateError> {
        tracing::warn!(%error, "the index image could not be written");
        self.remove(mvcc.store.as_ref())
    }
}

impl Writing {
    /// Does a little. The inner error is about the file alone.
    pub(super) fn step(mut self, mvcc: &Mvcc) -> Result<Result<Written, StoreError>, StateError> {
        let Some(needs) = self.needs else {
            let index = mvcc.index.read();
            let block = self.writer.block(&index);
            if block.is_none() {
                self.needs = Some(index.newest().main);
            }
            drop(index);
            if let Some(block) = block {
                self.on_disk.bytes += block.len() as u64;
                if let Err(error) = self.file.write(&block) {
                    return Ok(Err(error));
                }
            }
            return Ok(Ok(Written::Some(self)));
        };
        if mvcc.revision() < needs {
            return Ok(Ok(Written::Waits(self)));
        }
        mvcc.store.flush()?;
        let applied = crate::state::persisted_applied(mvcc.store.as_ref())?;
        let last = self.writer.finish(needs, applied);
        if let Err(error) = self.file.write(&last).and_then(|()| self.file.finish()) {
            return Ok(Err(error));
        }
        Ok(Ok(Written::Done(self.on_disk)))
    }
}

impl Found {
    /// What writes the next images.
    pub(in crate::state) fn imager(&self, options: ImageOptions) -> Imager {
        Imager::new(options, self.on_disk)
    }
}
