//! The write-ahead log of a node: entries, votes and committed positions of all its groups.
//!
//! Guarantees:
//! - What a [`Done`] has reported as durable is there after a crash or a power cut, or the log
//!   does not open. See [`OpenError::Damaged`].
//! - Jobs of one group reach the disk in the order in which they were submitted, and their
//!   [`Done`]s are called in that order.
//! - An entry can be read from the moment it was appended, durable or not.
//! - After a failed write or sync nothing is tried again: the node hears of it first, then every
//!   waiting and every later job gets the [`WalFault`].
//!
//! One committer thread writes for all groups, so that one sync serves everything that waits. The
//! log is a row of segment files; a segment is reused as soon as every entry in it was purged.
//!
//! Leaves out: what votes, positions, markers and entries mean; how far a group may be purged; and
//! protection of the bytes against somebody who can write to the disk.

mod committer;
mod group;
mod index;
mod record;
mod recovery;
mod segment;
mod segments;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use self::committer::Committer;
use self::index::{Found, Location};
use self::record::Record;
use self::shared::{Request, Shared};
use crate::disk::{Disk, DiskFile};
use crate::measure::Histogram;

/// A Raft group of the node: one per shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u32);

/// Called once, on the thread that writes (or at once on the caller's, when the log has already
/// failed), with whether the record is durable. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), WalFault>) + Send>;

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Length of a segment file, at most [`SEGMENT_MAX_BYTES`]. A batch that does not fit gets a
    /// longer one of its own.
    pub segment_bytes: u64,
    /// Zeros written ahead of the end whenever a file has to grow, so that most syncs have no new
    /// blocks to note. A reused file has all of its blocks.
    pub preallocate_bytes: u64,
    /// Segment files kept for reuse; beyond, they are removed.
    pub spare_segments: usize,
    /// Payloads of recent entries kept in memory.
    pub cache_bytes: usize,
    /// Records that wait to be written; beyond, a caller waits until the committer has caught up.
    pub queue_bytes: usize,
    /// Time without work after which the log notes on disk that its last batch was durable. With
    /// `None` it does so only when it is shut down or opened.
    pub idle_mark_ms: Option<u64>,
}

/// Greatest length of a segment file that can be asked for.
pub const SEGMENT_MAX_BYTES: u64 = 1 << 30;

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
    #[error("no space left while {action} {file}: free some space, then start the node again")]
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
    /// A [`Done`] panicked. Its caller is in an unknown state, so the log goes no further.
    #[error("a receiver of the log's answers panicked")]
    Panicked,
    /// The request breaks a rule. The log is as before and goes on.
    #[error("the log refused a request: {reason}")]
    Refused {
        /// The rule.
        reason: &'static str,
    },
}

impl WalFault {
    fn of(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { action, file }
            }
            _ => Self::Io { action, file, source: Arc::new(source) },
        }
    }
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Something acknowledged is damaged or missing. The node must not vote again: it may have
    /// forgotten a vote or an entry that others count on.
    #[error(
        "the log is damaged in segment {segment:016x} at byte {offset}: {what}; this node must not \
         vote: wipe its data directory and let it join again under a new node id"
    )]
    Damaged {
        /// The segment.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The log was written by another version.
    #[error("segment {segment:016x} has format {found}, this build reads format {expected}")]
    Format {
        /// The segment.
        segment: u64,
        /// The version in its header.
        found: u32,
        /// The version this build reads.
        expected: u32,
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
        "the log is damaged in segment {segment:016x} at byte {offset}: entry {index} of group \
         {group} does not match its checksum; this node must not vote: wipe its data directory and \
         let it join again under a new node id"
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
    /// [`WalStats::progress`] of the life before; what opening wrote does not count.
    pub progress: u64,
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
    /// Their bytes on disk; spare files come on top.
    pub bytes: u64,
    /// Batches written since the log was made: grows with every write, through restarts. What is
    /// told here is durable.
    pub progress: u64,
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

/// How long the disk takes, in microseconds.
#[derive(Debug)]
pub struct WalTimes {
    /// To take the bytes of a batch.
    pub write: Histogram,
    /// To make them durable.
    pub sync: Histogram,
}

impl WalTimes {
    fn new() -> Self {
        Self { write: Histogram::of_durations(), sync: Histogram::of_durations() }
    }
}

/// The write-ahead log. Clones share it; when the last one goes, the log is shut down.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    worker: Worker,
}

/// Where the committer works.
enum Worker {
    /// On a thread of its own.
    Thread(Mutex<Option<JoinHandle<()>>>),
    /// On the thread that calls [`Wal::work`].
    Caller(Box<Mutex<Committer>>),
}

impl Wal {
    /// Opens the log on `disk`, making it if there is none. `on_fault` is called at most once, from
    /// the committer thread, before anybody else hears of the fault.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] when something acknowledged cannot be read, [`OpenError::Format`]
    /// when another version wrote it, [`OpenError::Fault`] when the file system fails.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        on_fault: impl Fn(&WalFault) + Send + Sync + 'static,
    ) -> Result<(Self, Recovery), OpenError> {
        let (committer, shared, recovery) = recover(disk, options, Box::new(on_fault), None)?;
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| WalFault::of("starting the thread of", "the log", error))?;
        let worker = Worker::Thread(Mutex::new(Some(thread)));
        Ok((Self { inner: Arc::new(Inner { shared, worker }) }, recovery))
    }

    /// The same without a thread: the log is written when [`work`](Self::work) is called, and
    /// `wake` is called when there is something to write. For a simulation: everything happens on
    /// the thread that opens the log, and nothing is waited for there.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_without_thread(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        on_fault: impl Fn(&WalFault) + Send + Sync + 'static,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<(Self, Recovery), OpenError> {
        let (committer, shared, recovery) =
            recover(disk, options, Box::new(on_fault), Some(Box::new(wake)))?;
        shared.enter_committer();
        let worker = Worker::Caller(Box::new(Mutex::new(committer)));
        Ok((Self { inner: Arc::new(Inner { shared, worker }) }, recovery))
    }

    /// Writes one batch of what is queued, or notes that the log is idle. `false` when the log has
    /// ended, or is written by a thread of its own.
    #[must_use]
    pub fn work(&self) -> bool {
        match &self.inner.worker {
            Worker::Thread(_) => false,
            Worker::Caller(committer) => {
                committer.lock().unwrap_or_else(PoisonError::into_inner).step(Some(Duration::ZERO))
            }
        }
    }

    /// Appends `entries`, the first at `first_index`, which must follow the group's last entry (or
    /// its purge; the first entry of a new group may have any index). They can be read at once and
    /// are durable when `done` is called.
    ///
    /// Waits while too much is queued, but never on the committer thread.
    pub fn append(&self, group: GroupId, first_index: u64, entries: Vec<Bytes>, done: Done) {
        let request = Request::Append { first_index, entries };
        self.inner.shared.submit(group, request, Some(done));
    }

    /// Replaces the group's vote. Durable when `done` is called.
    pub fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        self.inner.shared.submit(group, Request::Vote(vote), Some(done));
    }

    /// Notes the group's committed position. It rides along with the next batch and never forces a
    /// sync, so after a crash an older one may be found. One longer than
    /// [`GROUP_STATE_MAX_BYTES`](oncekey_types::limits::GROUP_STATE_MAX_BYTES) is not kept.
    pub fn save_committed(&self, group: GroupId, committed: Bytes) {
        self.inner.shared.save_committed(group, committed);
    }

    /// Drops the group's entries from `from_index` on, at once for readers, durably when `done` is
    /// called; later appends are ordered behind it.
    pub fn truncate(&self, group: GroupId, from_index: u64, done: Option<Done>) {
        self.inner.shared.submit(group, Request::Truncate { from: from_index }, done);
    }

    /// Drops the group's entries up to and including `upto_index`, which may lie beyond the last of
    /// them (after a snapshot was installed), and keeps `marker` in their place. At once for
    /// readers, durably when `done` is called. A purge below an earlier one changes nothing.
    pub fn purge(&self, group: GroupId, upto_index: u64, marker: Bytes, done: Option<Done>) {
        self.inner.shared.submit(group, Request::Purge { upto: upto_index, marker }, done);
    }

    /// The entries of `range` that exist, in order.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] when an entry does not match its checksum; the node must stop.
    pub fn read(&self, group: GroupId, range: Range<u64>) -> Result<Vec<(u64, Bytes)>, ReadError> {
        self.read_up_to(group, range, usize::MAX)
    }

    /// Like [`read`](Self::read), but ends before the payloads exceed `max_bytes`. Returns at least
    /// one entry if there is one.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_up_to(
        &self,
        group: GroupId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let there = self.inner.shared.lock().index.entries(group);
        let mut entries = Vec::new();
        let mut left = max_bytes;
        for index in range.start.max(there.start)..range.end.min(there.end) {
            let Some(payload) = self.read_one(group, index)? else {
                break;
            };
            if payload.len() > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(payload.len());
            entries.push((index, payload));
        }
        Ok(entries)
    }

    /// Indexes of the group's first and last entry, durable or not.
    #[must_use]
    pub fn entries(&self, group: GroupId) -> Option<(u64, u64)> {
        let entries = self.inner.shared.lock().index.entries(group);
        (!entries.is_empty()).then(|| (entries.start, entries.end - 1))
    }

    /// The groups that keep the oldest segment from being reused, each with the last of its entries
    /// in it: purge them up to there to shorten the log. Empty while there is one segment only.
    #[must_use]
    pub fn groups_pinning_oldest_segment(&self) -> Vec<(GroupId, u64)> {
        self.inner.shared.lock().segments.pinning_oldest()
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        let state = self.inner.shared.lock();
        WalStats {
            segments: state.segments.len() as u64,
            bytes: state.segments.files().filter_map(|file| file.size().ok()).sum(),
            queued_bytes: state.queued_bytes() as u64,
            cached_bytes: state.index.cached_bytes() as u64,
            ..state.stats
        }
    }

    /// How long the disk has taken, batch by batch.
    #[must_use]
    pub fn times(&self) -> &WalTimes {
        &self.inner.shared.times
    }

    /// [`WalStats::progress`] alone.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.inner.shared.lock().stats.progress
    }

    /// Writes what is queued and ends the committer. Later calls get [`WalFault::Closed`]; reading
    /// still works.
    pub fn shutdown(&self) {
        self.inner.shutdown();
    }

    /// One entry, from memory or from its segment.
    fn read_one(&self, group: GroupId, index: u64) -> Result<Option<Bytes>, ReadError> {
        let (location, file) = {
            let state = self.inner.shared.lock();
            match state.index.find(group, index) {
                None => return Ok(None),
                Some(Found::InMemory(payload)) => return Ok(Some(payload)),
                Some(Found::OnDisk(location)) => (location, state.segments.file(location.segment)),
            }
        };
        let read = match file {
            Some(file) => read_record(&*file, location),
            None => Ok(None),
        };
        match read {
            Ok(Some((of, Record::Entry { index: at, payload }))) if of == group && at == index => {
                Ok(Some(payload))
            }
            // The segment may have been given up and reused since we looked.
            _ if !self.stands_at(group, index, location) => Ok(None),
            Ok(_) => Err(ReadError::Damaged {
                segment: location.segment,
                offset: u64::from(location.offset),
                group: group.0,
                index,
            }),
            Err(source) => Err(ReadError::Io { group: group.0, index, source: Arc::new(source) }),
        }
    }

    fn stands_at(&self, group: GroupId, index: u64, location: Location) -> bool {
        let found = self.inner.shared.lock().index.find(group, index);
        matches!(found, Some(Found::OnDisk(now)) if now == location)
    }
}

impl Inner {
    fn shutdown(&self) {
        self.shared.close();
        match &self.worker {
            Worker::Thread(thread) => {
                let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(thread) = thread
                    && !self.shared.is_committer()
                {
                    // It catches the panics of others and has none of its own.
                    let _ = thread.join();
                }
            }
            Worker::Caller(committer) => {
                // Held when the last handle goes inside a `Done`: whoever works goes on to the end.
                if let Ok(mut committer) = committer.try_lock() {
                    while committer.step(Some(Duration::ZERO)) {}
                }
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Opens what is on `disk`, up to the point where a committer can go on.
fn recover(
    disk: Arc<dyn Disk>,
    mut options: WalOptions,
    on_fault: Box<dyn Fn(&WalFault) + Send + Sync>,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
) -> Result<(Committer, Arc<Shared>, Recovery), OpenError> {
    options.segment_bytes = options.segment_bytes.min(SEGMENT_MAX_BYTES);
    let recovered = recovery::recover(&disk, &options)?;
    let (checkpoint, progress) = (recovered.checkpoint(), recovered.sequence);
    let groups = checkpoint.iter().map(|(id, state)| (*id, state.recovered())).collect();
    let shared = Arc::new(Shared::new(
        recovered.index,
        recovered.segments,
        options.queue_bytes,
        on_fault,
        wake,
    ));
    let mut committer = Committer::new(
        disk,
        options,
        shared.clone(),
        checkpoint,
        recovered.active,
        recovered.sequence,
        recovered.spares,
    );
    // Covers what a torn write left behind, and shows that the last batch is durable now.
    committer.mark(BTreeMap::new())?;
    committer.recycle()?;
    Ok((committer, shared, Recovery { groups, progress }))
}

fn read_record(file: &dyn DiskFile, location: Location) -> io::Result<Option<(GroupId, Record)>> {
    let mut bytes = vec![0; usize::try_from(location.bytes).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, u64::from(location.offset))?;
    let record = Record::decode(&bytes, location.segment, u64::from(location.offset));
    Ok(record.map(|(group, record, _)| (group, record)))
}
