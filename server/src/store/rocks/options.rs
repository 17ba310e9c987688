//! What RocksDB is told, and why.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DEFAULT_COLUMN_FAMILY_NAME, LogLevel, Options,
};

use crate::store::Table;

/// Sizes of a [`RocksStore`](super::RocksStore). The defaults are the documented default memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// Bytes of writes that are collected before they go to a file.
    pub memtable_bytes: usize,
    /// How many such buffers may wait for the disk, the one in use included; then writes stall. At least 2.
    pub memtables_max: usize,
    /// Bytes of file blocks kept in memory, uncompressed.
    pub block_cache_bytes: usize,
    /// Threads that write and rewrite files. At least 2.
    pub background_jobs: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { memtable_bytes: 16 << 20, memtables_max: 2, block_cache_bytes: 32 << 20, background_jobs: 2 }
    }
}

/// Arena block of a small table: its memory is taken in such steps.
const SMALL_ARENA_BYTES: usize = 64 << 10;
/// RocksDB's log for people is turned over at this size; the old one is kept.
const INFO_LOG_BYTES: usize = 1 << 20;
/// A file of deletions is merged into what it deletes without waiting for the level to fill, if so many of so many neighbours are deletions. Fewer are
/// not worth rewriting the files below.
const DELETIONS_TRIGGER: usize = 2048;
const DELETIONS_WINDOW: usize = 4096;

impl RocksOptions {
    /// Options of the database as a whole.
    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        // One flush for all tables: what is on disk is one point of the write order.
        options.set_atomic_flush(true);
        options.set_allow_concurrent_memtable_write(false);
        options.set_db_write_buffer_size(self.memtable_bytes * self.memtables_max.max(2));
        options.set_max_background_jobs(i32::try_from(self.background_jobs.max(2)).unwrap_or(i32::MAX));
        // Write-back in small steps, so that the raft log's syncs do not queue behind one large one.
        options.set_bytes_per_sync(1 << 20);
        options.set_max_open_files(-1);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(INFO_LOG_BYTES);
        options.set_log_level(LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_manifest_preallocation_size(64 << 10);
        options
    }

    /// Every column family with its options.
    pub(super) fn families(&self) -> Vec<(&'static str, Options)> {
        let cache = Cache::new_hyper_clock_cache(self.block_cache_bytes, 0);
        let tables = Table::ALL.iter().map(|table| (table.name(), self.family(*table == Table::Rev, &cache)));
        std::iter::once((DEFAULT_COLUMN_FAMILY_NAME, self.family(false, &cache))).chain(tables).collect()
    }

    fn family(&self, revisions: bool, cache: &Cache) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        blocks.set_format_version(6);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_pin_top_level_index_and_filter(true);
        let mut options = Options::default();
        options.set_write_buffer_size(self.memtable_bytes);
        options.set_max_write_buffer_number(i32::try_from(self.memtables_max.max(2)).unwrap_or(i32::MAX));
        options.set_level_compaction_dynamic_level_bytes(true);
        if revisions {
            // The index of a large table does not fit into a small cache: only its upper half stays, the rest comes by need.
            blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
            // Only revisions that exist are asked for, so no filter. They are written in order and rarely move between levels: the young ones are not
            // worth compressing.
            options.set_optimize_filters_for_hits(true);
            let none = [DBCompressionType::None; 2];
            options.set_compression_per_level(&[&none[..], &[DBCompressionType::Lz4; 5][..]].concat());
            options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_TRIGGER, 0.0);
        } else {
            blocks.set_bloom_filter(10.0, false);
            options.set_arena_block_size(SMALL_ARENA_BYTES);
        }
        options.set_block_based_table_factory(&blocks);
        options
    }
}
