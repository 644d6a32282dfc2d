//! What a log holds when it is opened.
//!
//! Guarantees: everything that was acknowledged is found, or opening fails with
//! [`OpenError::Damaged`]; of what was not acknowledged, at most the last batch is found, and then
//! all of it.
//!
//! **Torn or damaged?** A batch is written only after the one before it has been synced, and
//! jobs are acknowledged only after the sync of their batch. So when power fails, only the last
//! batch can be incomplete, and nobody was told that it was durable: it is dropped. If any batch
//! with a higher sequence number stands behind a bad one, the bad one had been synced, so it was
//! damaged later, and something acknowledged is gone. The log then does not open: a node that
//! forgot a vote or an entry it had confirmed must not take part again under its old id.
//!
//! To tell damage to the very last batch, the log writes an empty one behind it (a mark) when it
//! falls idle, when it is shut down and when it is opened. Between segments the seal does the
//! same, and says that a next segment exists. Entries that a checkpoint counts must be found in
//! some segment, so a missing one is noticed too.
//!
//! The last batch found may have been read from the page cache after its sync had failed. It is
//! written once more, and synced together with the mark, before anybody hears of it.
//!
//! Leaves out: damage to the last batch in the moment between its sync and the mark; and repair.

use std::sync::Arc;

use oncekey_planted::{self as planted, Bug};

use super::committer::{Active, Spares, begin_segment};
use super::index::{Index, Location};
use super::record::{ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, BatchKind, Record, aligned};
use super::segment::{Checkpoint, FORMAT_VERSION, FileName, HeaderError, SegmentHeader};
use super::segments::Segments;
use super::{GroupId, OpenError, WalFault, WalOptions};
use crate::disk::{Disk, DiskFile};

/// No log comes to batches of this number, and from below it none counts to the end of its type.
const SEQUENCE_MAX: u64 = 1 << 63;

/// A log, replayed and ready to go on.
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) segments: Segments,
    pub(super) active: Active,
    pub(super) sequence: u64,
    pub(super) spares: Spares,
}

impl Recovered {
    pub(super) fn checkpoint(&self) -> Checkpoint {
        checkpoint(&self.index)
    }
}

/// Replays what is on the disk, or begins a new log when there is none.
pub(super) fn recover(disk: &Arc<dyn Disk>, options: &WalOptions) -> Result<Recovered, OpenError> {
    let (ids, spares) = list(disk, options)?;
    let mut replay = Replay {
        disk,
        index: Index::with_cache(options.cache_bytes),
        segments: Segments::default(),
        spares,
        sequence: 1,
        last: None,
    };
    let active = match ids.as_slice() {
        [] => replay.begin(options)?,
        ids => replay.run(ids)?,
    };
    replay.rewrite_last()?;
    disk.sync_dir().map_err(|error| WalFault::of("syncing", "the directory", error))?;
    replay.segments.add(active.id, &active.file);
    let Replay { index, segments, spares, sequence, .. } = replay;
    Ok(Recovered { index, segments, active, sequence, spares })
}

/// The ids of the segments, in order, and the spare files; spares of another length are removed.
fn list(disk: &Arc<dyn Disk>, options: &WalOptions) -> Result<(Vec<u64>, Spares), OpenError> {
    let mut ids = Vec::new();
    let mut spares = Spares::default();
    let names = disk.list().map_err(|error| WalFault::of("listing", "the directory", error))?;
    for name in names {
        match FileName::parse(&name) {
            Some(FileName::Segment(id)) => ids.push(id),
            Some(FileName::Spare(number)) => {
                let fault = |error| WalFault::of("opening", name.as_str(), error);
                let size = disk.open(&name).and_then(|file| file.size()).map_err(fault)?;
                spares.next = spares.next.max(number.saturating_add(1));
                if size > options.segment_bytes || spares.numbers.len() >= options.spare_segments {
                    disk.remove(&name).map_err(fault)?;
                } else {
                    spares.numbers.push_back(number);
                }
            }
            None => tracing::warn!(file = name, "unknown file beside the log"),
        }
    }
    ids.sort_unstable();
    for pair in ids.windows(2) {
        if pair[0] + 1 != pair[1] {
            return Err(damaged(pair[0] + 1, 0, "the segment is missing"));
        }
    }
    Ok((ids, spares))
}

struct Replay<'a> {
    disk: &'a Arc<dyn Disk>,
    index: Index,
    segments: Segments,
    spares: Spares,
    /// Of the next batch.
    sequence: u64,
    last: Option<BatchPlace>,
}

/// Where a batch stands.
struct BatchPlace {
    segment: u64,
    position: usize,
    bytes: usize,
}

/// A segment, read.
struct Loaded {
    id: u64,
    file: Arc<dyn DiskFile>,
    content: Vec<u8>,
}

impl Replay<'_> {
    /// A new log.
    fn begin(&mut self, options: &WalOptions) -> Result<Active, OpenError> {
        let header = SegmentHeader {
            segment: 1,
            first_sequence: self.sequence,
            capacity: 0,
            checkpoint: Checkpoint::new(),
        };
        let (active, _) = begin_segment(self.disk, options, &mut self.spares, header, 0)?;
        Ok(active)
    }

    /// Replays the segments; returns the one to go on with.
    fn run(&mut self, ids: &[u64]) -> Result<Active, OpenError> {
        let mut open: Option<Active> = None;
        for &id in ids {
            let loaded = self.load(id)?;
            if let Some(active) = &open {
                // The segment before has no seal. That is right only if this one is the newest and
                // was never written to.
                if Some(&id) != ids.last() || later_batch(&loaded.content, 0, id, 0) {
                    return Err(damaged(active.id, active.position, "the segment has no seal"));
                }
                self.give_back(id)?;
                break;
            }
            open = self.replay_segment(loaded)?;
        }
        if self.index.has_unseen() {
            let oldest = ids.first().copied().unwrap_or_default();
            return Err(damaged(oldest.saturating_sub(1), 0, "the segment is missing"));
        }
        let newest = ids.last().copied().unwrap_or_default();
        open.ok_or_else(|| damaged(newest + 1, 0, "the segment is missing"))
    }

    fn load(&self, id: u64) -> Result<Loaded, OpenError> {
        let name = FileName::Segment(id).to_string();
        let fault = |error| WalFault::of("reading", name.as_str(), error);
        let file = self.disk.open(&name).map_err(fault)?;
        let size = file.size().map_err(fault)?;
        let size = usize::try_from(size)
            .ok()
            .filter(|_| u32::try_from(size).is_ok())
            .ok_or_else(|| damaged(id, 0, "the file is too long"))?;
        let mut content = vec![0; size];
        file.read_exact_at(&mut content, 0).map_err(fault)?;
        Ok(Loaded { id, file, content })
    }

    /// Replays one segment; returns it when it has no seal.
    fn replay_segment(&mut self, loaded: Loaded) -> Result<Option<Active>, OpenError> {
        let Loaded { id, file, content } = loaded;
        let (header, mut position) = match SegmentHeader::decode(&content, id) {
            Ok(header) => header,
            Err(HeaderError::Damaged) => return Err(damaged(id, 0, "the header")),
            Err(HeaderError::Version(found)) => {
                return Err(OpenError::Format { segment: id, found, expected: FORMAT_VERSION });
            }
        };
        self.take_header(&header)?;
        self.segments.add(id, &file);
        while let Some(batch) = Batch::decode(&content, position, id, self.sequence) {
            for (group, record, location) in batch.records {
                self.apply(group, record, location)
                    .map_err(|what| damaged(id, u64::from(location.offset), what))?;
            }
            self.last = Some(BatchPlace { segment: id, position, bytes: batch.bytes });
            self.sequence += 1;
            position += batch.bytes;
            if batch.kind == BatchKind::Seal {
                return Ok(None);
            }
        }
        if later_batch(&content, position, id, self.sequence)
            && !planted::is(Bug::DamageTakenForTornTail)
        {
            return Err(damaged(id, position as u64, "a batch that later ones follow"));
        }
        Ok(Some(Active {
            id,
            file,
            position: position as u64,
            allocated: content.len() as u64,
            capacity: header.capacity,
        }))
    }

    /// The first header brings the state; each later one must say what was replayed.
    fn take_header(&mut self, header: &SegmentHeader) -> Result<(), OpenError> {
        if header.first_sequence >= SEQUENCE_MAX {
            return Err(damaged(header.segment, 0, "a sequence number that no log comes to"));
        }
        if self.segments.is_empty() {
            self.sequence = header.first_sequence;
            for (group, state) in &header.checkpoint {
                self.index.adopt(*group, state);
            }
        } else if header.first_sequence != self.sequence
            || header.checkpoint != checkpoint(&self.index)
        {
            return Err(damaged(
                header.segment,
                0,
                "its checkpoint is not what the log before it says",
            ));
        }
        Ok(())
    }

    fn apply(
        &mut self,
        group: GroupId,
        record: Record,
        location: Location,
    ) -> Result<(), &'static str> {
        match record {
            Record::Entry { index, .. } => {
                self.index.append_written(group, index, location)?;
                self.segments.entry(location.segment, group, index);
            }
            Record::Vote(_) | Record::Committed(_) => self.index.state_mut(group).apply(&record)?,
            Record::Truncate { from } => {
                self.index.truncate(group, from);
                self.segments.truncate(group, from);
            }
            Record::Purge { upto, marker } => {
                self.index.purge(group, upto, marker);
                self.segments.purge(group, upto);
            }
        }
        Ok(())
    }

    /// Makes a segment that was named but never written to a spare file again.
    fn give_back(&mut self, id: u64) -> Result<(), OpenError> {
        let number = self.spares.new_name();
        let name = FileName::Segment(id).to_string();
        self.disk
            .rename(&name, &FileName::Spare(number).to_string())
            .map_err(|error| WalFault::of("giving up", name.as_str(), error))?;
        self.spares.numbers.push_back(number);
        Ok(())
    }

    fn rewrite_last(&self) -> Result<(), OpenError> {
        let Some(BatchPlace { segment, position, bytes }) = self.last else {
            return Ok(());
        };
        let Some(file) = self.segments.file(segment) else {
            return Ok(());
        };
        let fault =
            |error| WalFault::of("rewriting", FileName::Segment(segment).to_string(), error);
        let mut batch = vec![0; bytes];
        file.read_exact_at(&mut batch, position as u64).map_err(fault)?;
        file.write_all_at(&batch, position as u64).map_err(fault)?;
        file.sync_data().map_err(fault)?;
        Ok(())
    }
}

/// A batch, read whole.
struct Batch {
    kind: BatchKind,
    bytes: usize,
    records: Vec<(GroupId, Record, Location)>,
}

impl Batch {
    /// The batch at `position`, if it is the one with this sequence number and undamaged.
    fn decode(content: &[u8], position: usize, segment: u64, sequence: u64) -> Option<Self> {
        let header = BatchHeader::decode(content.get(position..)?, segment)?;
        let body_bytes = usize::try_from(header.body_bytes).ok()?;
        let bytes = aligned(BATCH_HEADER_BYTES + body_bytes);
        let body = content.get(position + BATCH_HEADER_BYTES..)?.get(..body_bytes)?;
        content.get(position..position + bytes)?;
        let mut records = Vec::new();
        let mut at = 0;
        while at < body.len() {
            let offset = position + BATCH_HEADER_BYTES + at;
            let (group, record, length) = Record::decode(&body[at..], segment, offset as u64)?;
            let location = Location {
                segment,
                offset: u32::try_from(offset).ok()?,
                bytes: u32::try_from(length).ok()?,
            };
            records.push((group, record, location));
            at += length;
        }
        let complete =
            header.sequence == sequence && records.len() == usize::try_from(header.records).ok()?;
        complete.then_some(Self { kind: header.kind, bytes, records })
    }
}

/// Whether any batch of the segment with a sequence number above `sequence` begins at `from` or
/// behind it.
fn later_batch(content: &[u8], from: usize, segment: u64, sequence: u64) -> bool {
    (from..content.len()).step_by(ALIGNMENT).any(|at| {
        BatchHeader::decode(&content[at..], segment)
            .is_some_and(|header| header.sequence > sequence)
    })
}

fn checkpoint(index: &Index) -> Checkpoint {
    index.groups().map(|(id, state)| (id, state.clone())).collect()
}

fn damaged(segment: u64, offset: u64, what: &'static str) -> OpenError {
    OpenError::Damaged { segment, offset, what }
}
