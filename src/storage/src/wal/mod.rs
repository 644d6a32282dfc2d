//! The write-ahead log of a node.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;

/// A Raft group of the node: one per shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u32);

/// Called once, on the committer thread (or at once on the caller's, when the log has already
/// failed), with whether the record is durable. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), WalFault>) + Send>;

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Length of a segment file.
    pub segment_bytes: u64,
    /// Zeros written ahead of the end.
    pub preallocate_bytes: u64,
    /// Segment files kept for reuse.
    pub spare_segments: usize,
    /// Recent payloads kept in memory.
    pub cache_bytes: usize,
    /// Payloads that wait to be written; beyond, a caller waits.
    pub queue_bytes: usize,
    /// Time without work until the log notes that its last batch is durable.
    pub idle_mark_ms: Option<u64>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            preallocate_bytes: 1 << 20,
            spare_segments: 2,
            cache_bytes: 32 << 20,
            queue_bytes: 64 << 20,
            idle_mark_ms: Some(50),
        }
    }
}

/// Why the log takes no more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalFault {
    /// No space left on the device.
    #[error(
        "no space left for the log while {action} {file}: free some space, then start the node again"
    )]
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// The file.
        file: String,
    },
    /// A read, write or sync failed.
    #[error("the log failed while {action} {file}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        file: String,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The log has been shut down.
    #[error("the log has been shut down")]
    Closed,
    /// The caller broke the rules; the log is as before.
    #[error("refused: {reason}")]
    Refused {
        /// The rule.
        reason: &'static str,
    },
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Acknowledged data is damaged or missing.
    #[error(
        "segment {segment:016x} is damaged at byte {offset}: {what}; this node must not vote: wipe its data directory and let it join again under a new node id"
    )]
    Damaged {
        /// The segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The file system failed.
    #[error(transparent)]
    Fault(#[from] WalFault),
}

/// Why entries could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// An entry is damaged on disk.
    #[error(
        "segment {segment:016x} is damaged at byte {offset}: entry {index} of group {group} does not match its checksum"
    )]
    Damaged {
        /// The segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// The group.
        group: u32,
        /// The entry.
        index: u64,
    },
    /// The file system failed.
    #[error("the log failed while reading entry {index} of group {group}: {source}")]
    Io {
        /// The group.
        group: u32,
        /// The entry.
        index: u64,
        /// The cause.
        source: Arc<io::Error>,
    },
}

/// What an opened log holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Every group that was ever written to.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
}

/// What an opened log holds of one group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveredGroup {
    /// The last vote saved.
    pub vote: Option<Bytes>,
    /// The last committed position saved; may be older than the last one enqueued.
    pub committed: Option<Bytes>,
    /// The index up to which entries were purged, and the marker given with it.
    pub purged: Option<(u64, Bytes)>,
    /// Indexes of the first and the last entry, if there is any.
    pub entries: Option<(u64, u64)>,
}

/// Counters of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalStats {
    /// Segment files in use.
    pub segments: u64,
    /// Their bytes on disk, spare files included.
    pub bytes: u64,
    /// Batches written since the log was opened.
    pub batches: u64,
    /// Syncs of a file or directory since the log was opened.
    pub syncs: u64,
    /// Records written since the log was opened.
    pub records: u64,
    /// Bytes of records that wait to be written.
    pub queued_bytes: u64,
    /// Bytes of payloads in memory.
    pub cached_bytes: u64,
}

/// The write-ahead log. Clones share it.
#[derive(Clone)]
pub struct Wal;

impl Wal {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`]
    pub fn open(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        on_fault: impl Fn(&WalFault) + Send + Sync + 'static,
    ) -> Result<(Self, Recovery), OpenError> {
        let _ = (disk, options, on_fault);
        todo!()
    }

    /// Appends `entries`, the first at `first_index`, which must follow the group's last entry.
    /// They can be read at once; they are durable when `done` is called.
    pub fn append(&self, group: GroupId, first_index: u64, entries: Vec<Bytes>, done: Done) {
        let _ = (group, first_index, entries, done);
    }

    /// Replaces the group's vote. Durable when `done` is called.
    pub fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        let _ = (group, vote, done);
    }

    /// Notes the group's committed position. Rides along with the next batch; never forces a sync.
    pub fn save_committed(&self, group: GroupId, committed: Bytes) {
        let _ = (group, committed);
    }

    /// Drops the group's entries from `from_index` on. Durable when `done` is called.
    pub fn truncate(&self, group: GroupId, from_index: u64, done: Option<Done>) {
        let _ = (group, from_index, done);
    }

    /// Drops the group's entries up to and including `upto_index`, which may lie beyond the last
    /// (after a snapshot). Durable when `done` is called.
    pub fn purge(&self, group: GroupId, upto_index: u64, marker: Bytes, done: Option<Done>) {
        let _ = (group, upto_index, marker, done);
    }

    /// The entries of `range` that exist, in order.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`]
    pub fn read(&self, group: GroupId, range: Range<u64>) -> Result<Vec<(u64, Bytes)>, ReadError> {
        self.read_up_to(group, range, usize::MAX)
    }

    /// Like [`read`](Self::read), but stops before the payloads exceed `max_bytes`; returns at
    /// least one entry if there is one.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`]
    pub fn read_up_to(
        &self,
        group: GroupId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let _ = (group, range, max_bytes);
        todo!()
    }

    /// Indexes of the first and the last entry of the group, durable or not.
    #[must_use]
    pub fn entries(&self, group: GroupId) -> Option<(u64, u64)> {
        let _ = group;
        None
    }

    /// The groups that keep the oldest segment from being reused, each with the last of its
    /// entries in it. Purge them up to there to shorten the log. Empty while there is only one
    /// segment.
    #[must_use]
    pub fn groups_pinning_oldest_segment(&self) -> Vec<(GroupId, u64)> {
        Vec::new()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        WalStats::default()
    }

    /// Writes what is queued, then ends the committer. Later calls get [`WalFault::Closed`].
    pub fn shutdown(&self) {}
}
