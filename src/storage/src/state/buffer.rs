//! Commits of a shard that its engine has not been given yet.
//!
//! A commit changes a few small records, many of them the same as the commit before. Gathered, they
//! cost the engine one batch where it had hundreds, and what was changed lately is read from here.
//! Nothing is lost by it: what a crash takes away, the log brings back.
//!
//! Guarantees: a reader finds the newest value of every key that was committed since the last flush
//! was finished; a flush takes commits in their order and without a gap.
//!
//! Leaves out: locks, and the engine, see `shard`.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use super::Change;

/// Bytes of changes after which a flush is due.
pub(super) const FLUSH_BYTES: usize = 1 << 20;
/// Bytes of changes that a shard may gather while a flush is due or under way.
pub(super) const BUFFER_MAX_BYTES: usize = 4 << 20;
/// What a change takes in memory beside its key and value, about.
const CHANGE_OVERHEAD_BYTES: usize = 64;

/// New values by key; `None` for a key that was removed.
pub(super) type Table = HashMap<Vec<u8>, Option<Vec<u8>>, RandomState>;

/// What a flush hands to the engine: changes and the header they lead to.
pub(super) struct Flush {
    pub(super) changes: Arc<Table>,
    pub(super) header: Vec<u8>,
}

/// The newest commits of a shard.
pub(super) struct Buffer {
    header: Option<Vec<u8>>,
    /// Not taken by a flush yet.
    young: Table,
    young_bytes: usize,
    /// Whether the header, at least, is newer than the last flush.
    is_dirty: bool,
    /// Taken by the last flush. It stays, to be read, until the next one.
    old: Arc<Table>,
    /// Whether the engine has confirmed `old`.
    is_old_written: bool,
}

impl Buffer {
    /// Nothing gathered; the engine has this header.
    pub(super) fn new(header: Option<Vec<u8>>) -> Self {
        Self {
            header,
            young: Table::default(),
            young_bytes: 0,
            is_dirty: false,
            old: Arc::default(),
            is_old_written: true,
        }
    }

    /// The header of the last commit.
    pub(super) fn header(&self) -> Option<&[u8]> {
        self.header.as_deref()
    }

    /// The value of `key` as far as it is known here: outer `None` when the engine has to be asked,
    /// inner `None` when the record was removed.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let value = self.young.get(key).or_else(|| self.old.get(key))?;
        Some(value.as_deref())
    }

    /// Takes in one change of a commit.
    pub(super) fn insert(&mut self, (key, value): Change) {
        self.young_bytes += CHANGE_OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Vec::len);
        self.young.insert(key, value);
        self.is_dirty = true;
    }

    /// Ends a commit.
    pub(super) fn set_header(&mut self, header: &[u8]) {
        let to = self.header.get_or_insert_default();
        to.clear();
        to.extend_from_slice(header);
        self.is_dirty = true;
    }

    /// Bytes of changes gathered since the last flush, counting each change.
    pub(super) fn bytes(&self) -> usize {
        self.young_bytes
    }

    /// Whether the last flush is under way, or has failed.
    pub(super) fn is_flushing(&self) -> bool {
        !self.is_old_written
    }

    /// Begins a flush, when there is something to flush. Not while [`is_flushing`](Self::is_flushing).
    pub(super) fn begin_flush(&mut self) -> Option<Flush> {
        debug_assert!(self.is_old_written, "two flushes at once");
        let header = self.header.clone().filter(|_| self.is_dirty)?;
        self.old = Arc::new(std::mem::take(&mut self.young));
        self.young_bytes = 0;
        self.is_dirty = false;
        self.is_old_written = false;
        Some(Flush { changes: self.old.clone(), header })
    }

    /// The engine has what the flush took.
    pub(super) fn end_flush(&mut self) {
        self.is_old_written = true;
    }
}
