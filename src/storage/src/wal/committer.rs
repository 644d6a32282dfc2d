//! What writes the log, on one thread.
//!
//! Guarantees: takes the whole queue, writes it as one batch, syncs once, then calls the jobs'
//! [`Done`]s in the order of submission. A batch is written only after every batch before it has
//! been synced; recovery rests on that. Nothing is tried twice.
//!
//! Leaves out: checking requests; what arrives here has been admitted.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use oncekey_planted::{self as planted, Bug};

use super::index::{Location, Ticket};
use super::record::{BATCH_HEADER_BYTES, BatchHeader, BatchKind, Record, aligned};
use super::segment::{Checkpoint, FileName, SegmentHeader};
use super::shared::{Job, Request, Shared, Work};
use super::{Done, GroupId, WalFault, WalOptions};
use crate::disk::{Disk, DiskFile};
use crate::failpoint;

/// Room that every batch leaves in its segment, for the seal.
const SEAL_BYTES: u64 = BATCH_HEADER_BYTES as u64;

pub(super) struct Committer {
    disk: Arc<dyn Disk>,
    options: WalOptions,
    shared: Arc<Shared>,
    /// What is durable, for the next checkpoint.
    groups: Checkpoint,
    active: Active,
    /// Of the next batch.
    sequence: u64,
    spares: Spares,
    buffer: Vec<u8>,
    /// Whether the last batch written is one that nobody waits for.
    marked: bool,
}

/// The segment that is written to.
pub(super) struct Active {
    pub(super) id: u64,
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next batch goes.
    pub(super) position: u64,
    /// Up to here the file has its blocks.
    pub(super) allocated: u64,
    pub(super) capacity: u64,
}

/// Files for reuse.
#[derive(Default)]
pub(super) struct Spares {
    pub(super) numbers: VecDeque<u64>,
    pub(super) next: u64,
}

impl Spares {
    pub(super) fn new_name(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

/// A record and, if it is an entry somebody submitted, its ticket.
struct Item {
    group: GroupId,
    record: Record,
    ticket: Option<Ticket>,
}

impl Committer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        shared: Arc<Shared>,
        groups: Checkpoint,
        active: Active,
        sequence: u64,
        spares: Spares,
    ) -> Self {
        let buffer = Vec::new();
        Self { disk, options, shared, groups, active, sequence, spares, buffer, marked: false }
    }

    /// Works until the log is closed or fails.
    pub(super) fn run(mut self) {
        self.shared.enter_committer();
        loop {
            let idle_ms = self.options.idle_mark_ms.filter(|_| !self.marked);
            if !self.step(idle_ms.map(Duration::from_millis)) {
                return;
            }
        }
    }

    /// Does the next work, after waiting for it as long as `idle`; `false` when the log has been
    /// closed or has failed.
    pub(super) fn step(&mut self, idle: Option<Duration>) -> bool {
        let (finished, waiting) = match self.shared.next_work(idle) {
            Work::Batch(jobs, committed) => self.commit(jobs, committed),
            Work::Idle(committed) => (self.mark(committed), Vec::new()),
            Work::Close(committed) => {
                match self.mark(committed) {
                    Ok(()) => self.shared.end(),
                    Err(fault) => self.shared.fail(&fault, Vec::new()),
                }
                return false;
            }
            Work::Ended => return false,
        };
        if let Err(fault) = finished {
            self.shared.fail(&fault, waiting);
            return false;
        }
        true
    }

    /// Writes a batch that nobody waits for, so that the one before it is known to have been
    /// durable: damage to it can then be told from a torn write.
    pub(super) fn mark(&mut self, committed: BTreeMap<GroupId, Bytes>) -> Result<(), WalFault> {
        if self.marked && committed.is_empty() {
            return Ok(());
        }
        let items: Vec<_> = committed_items(committed).collect();
        self.write(BatchKind::Mark, &items)
    }

    /// Makes jobs durable and says so; on a fault gives back those who wait.
    fn commit(
        &mut self,
        jobs: Vec<Job>,
        committed: BTreeMap<GroupId, Bytes>,
    ) -> (Result<(), WalFault>, Vec<Done>) {
        let mut items = Vec::with_capacity(jobs.len() + committed.len());
        let mut waiting = Vec::with_capacity(jobs.len());
        for job in jobs {
            push_items(job.group, job.request, job.ticket, &mut items);
            waiting.extend(job.done);
        }
        items.extend(committed_items(committed));
        failpoint::BEFORE_LOG_WRITE.reach();
        if let Err(fault) = self.write(BatchKind::Data, &items) {
            return (Err(fault), waiting);
        }
        failpoint::BEFORE_LOG_ACK.reach();
        let mut waiting = waiting.into_iter();
        for done in waiting.by_ref() {
            if catch_unwind(AssertUnwindSafe(|| done(Ok(())))).is_err() {
                return (Err(WalFault::Panicked), waiting.collect());
            }
        }
        (self.recycle(), Vec::new())
    }

    /// Writes and syncs one batch, then brings the index up to it.
    fn write(&mut self, kind: BatchKind, items: &[Item]) -> Result<(), WalFault> {
        let body: usize = items.iter().map(|item| item.record.encoded_bytes()).sum();
        let length = aligned(BATCH_HEADER_BYTES + body) as u64;
        if self.active.position + length + SEAL_BYTES > self.active.capacity {
            self.roll(length)?;
        }
        let locations = self.encode(kind, items, body);
        self.write_buffer(length)?;
        if !is_left_unsynced(items) {
            self.sync_buffer()?;
        }
        for item in items {
            let applied = self.groups.entry(item.group).or_default().apply(&item.record);
            debug_assert_eq!(applied, Ok(()), "the index admitted what cannot follow");
        }
        self.publish(items, &locations);
        self.marked = kind != BatchKind::Data;
        Ok(())
    }

    /// Fills the buffer with a batch for the current position.
    fn encode(&mut self, kind: BatchKind, items: &[Item], body: usize) -> Vec<Location> {
        let header = BatchHeader {
            segment: self.active.id,
            sequence: self.sequence,
            body_bytes: small(body),
            records: small(items.len()),
            kind,
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(&header.encode());
        let mut locations = Vec::with_capacity(items.len());
        for item in items {
            let start = self.buffer.len();
            item.record.encode(item.group, self.active.id, self.active.position, &mut self.buffer);
            let offset = u32::try_from(self.active.position).unwrap_or(u32::MAX) + small(start);
            let bytes = small(self.buffer.len() - start);
            locations.push(Location { segment: self.active.id, offset, bytes });
        }
        locations
    }

    /// Writes the buffer at the current position. When the file has to grow, zeros go along, so that
    /// the next syncs have no new blocks to note.
    fn write_buffer(&mut self, length: u64) -> Result<(), WalFault> {
        let end = self.active.position + length;
        let mut allocated = self.active.allocated;
        if end > allocated {
            // Never short of the end, whatever a header says of the room there is.
            allocated = (end + self.options.preallocate_bytes).min(self.active.capacity).max(end);
        }
        let written = if allocated > self.active.allocated { allocated } else { end };
        self.buffer.resize(usize_of(written - self.active.position), 0);
        let began = Instant::now();
        self.active
            .file
            .write_all_at(&self.buffer, self.active.position)
            .map_err(|error| fault("writing", FileName::Segment(self.active.id), error))?;
        self.shared.times.write.note_since(began);
        self.active.allocated = allocated;
        self.active.position = end;
        self.sequence += 1;
        self.buffer.shrink_to(self.buffer.capacity().min(16 << 20));
        Ok(())
    }

    /// Syncs what [`Self::write_buffer`] wrote.
    fn sync_buffer(&self) -> Result<(), WalFault> {
        failpoint::BEFORE_LOG_SYNC.reach();
        self.sync(&self.active.file, FileName::Segment(self.active.id))
    }

    fn publish(&self, items: &[Item], locations: &[Location]) {
        let mut state = self.shared.lock();
        for (item, location) in items.iter().zip(locations) {
            match &item.record {
                Record::Entry { index, .. } => {
                    state.segments.entry(location.segment, item.group, *index);
                    if let Some(ticket) = item.ticket {
                        state.index.written(item.group, *index, ticket, *location);
                    }
                }
                Record::Truncate { from } => state.segments.truncate(item.group, *from),
                Record::Purge { upto, .. } => state.segments.purge(item.group, *upto),
                Record::Vote(_) | Record::Committed(_) => {}
            }
        }
        state.stats.progress = self.sequence;
        state.stats.batches += 1;
        state.stats.records += items.len() as u64;
    }

    /// Begins the next segment, with room for a batch of `length`, then seals the current one.
    fn roll(&mut self, length: u64) -> Result<(), WalFault> {
        let header = SegmentHeader {
            segment: self.active.id + 1,
            // The seal comes before.
            first_sequence: self.sequence + 1,
            capacity: 0,
            checkpoint: self.groups.clone(),
        };
        let (next, syncs) =
            begin_segment(&self.disk, &self.options, &mut self.spares, header, length)?;
        self.shared.lock().stats.syncs += syncs;
        self.encode(BatchKind::Seal, &[], 0);
        self.write_buffer(SEAL_BYTES)?;
        self.sync_buffer()?;
        self.shared.lock().segments.add(next.id, &next.file);
        self.active = next;
        Ok(())
    }

    /// Gives up the oldest segments that nobody needs. Each is renamed durably before its file can
    /// be written to again, else a crash could leave new content under an old name.
    pub(super) fn recycle(&mut self) -> Result<(), WalFault> {
        loop {
            let (id, file) = {
                let mut state = self.shared.lock();
                let Some(id) = state.segments.unneeded() else {
                    return Ok(());
                };
                let Some(file) = state.segments.remove(id) else {
                    return Ok(());
                };
                (id, file)
            };
            let name = FileName::Segment(id);
            let size = file.size().map_err(|error| fault("reading", name, error))?;
            let full = self.spares.numbers.len() >= self.options.spare_segments;
            if full || size > self.options.segment_bytes {
                self.disk.remove(&name.to_string())
            } else {
                let number = self.spares.new_name();
                self.spares.numbers.push_back(number);
                self.disk.rename(&name.to_string(), &FileName::Spare(number).to_string())
            }
            .map_err(|error| fault("giving up", name, error))?;
            self.disk.sync_dir().map_err(|error| fault("giving up", name, error))?;
            self.shared.lock().stats.syncs += 1;
        }
    }

    fn sync(&self, file: &Arc<dyn DiskFile>, name: FileName) -> Result<(), WalFault> {
        let began = Instant::now();
        file.sync_data().map_err(|error| fault("syncing", name, error))?;
        self.shared.times.sync.note_since(began);
        self.shared.lock().stats.syncs += 1;
        Ok(())
    }
}

/// Makes a segment: takes or makes a spare file, writes its header, syncs it, and only then gives
/// it its name. Returns the segment and the number of syncs.
pub(super) fn begin_segment(
    disk: &Arc<dyn Disk>,
    options: &WalOptions,
    spares: &mut Spares,
    mut header: SegmentHeader,
    length: u64,
) -> Result<(Active, u64), WalFault> {
    let name = FileName::Segment(header.segment);
    let fault = |action| move |error| fault(action, name, error);
    let header_bytes = header.encode().len() as u64;
    header.capacity = options.segment_bytes.max(header_bytes + length + SEAL_BYTES);
    let mut bytes = header.encode();
    let spare =
        if header.capacity == options.segment_bytes { spares.numbers.pop_front() } else { None };
    let (spare, file) = match spare {
        Some(number) => {
            let spare = FileName::Spare(number).to_string();
            let file = disk.open(&spare).map_err(fault("opening a spare file for"))?;
            (spare, file)
        }
        None => {
            let spare = FileName::Spare(spares.new_name()).to_string();
            let file = disk.create(&spare).map_err(fault("creating"))?;
            let allocated = (header_bytes + options.preallocate_bytes).min(header.capacity);
            bytes.resize(usize_of(allocated), 0);
            (spare, file)
        }
    };
    file.write_all_at(&bytes, 0).map_err(fault("writing"))?;
    if !planted::is(Bug::SegmentNamedTooEarly) {
        file.sync_data().map_err(fault("syncing"))?;
    }
    let allocated = file.size().map_err(fault("reading"))?;
    disk.rename(&spare, &name.to_string()).map_err(fault("naming"))?;
    disk.sync_dir().map_err(fault("naming"))?;
    let capacity = header.capacity;
    Ok((Active { id: header.segment, file, position: header_bytes, allocated, capacity }, 2))
}

/// Whether a planted bug leaves out the sync of `items`.
fn is_left_unsynced(items: &[Item]) -> bool {
    items.iter().any(|item| match item.record {
        Record::Vote(_) => planted::is(Bug::VoteNotSynced),
        Record::Entry { .. } => planted::is(Bug::AppendNotSynced),
        Record::Truncate { .. } | Record::Purge { .. } | Record::Committed(_) => false,
    })
}

fn push_items(group: GroupId, request: Request, ticket: Option<Ticket>, items: &mut Vec<Item>) {
    match request {
        Request::Append { first_index, entries } => {
            for (place, payload) in (0..).zip(entries) {
                let record = Record::Entry { index: first_index + place, payload };
                let ticket = ticket.map(|ticket| ticket.after(place));
                items.push(Item { group, record, ticket });
            }
        }
        Request::Vote(_) if planted::is(Bug::VoteNotSaved) => {}
        Request::Vote(vote) => items.push(Item { group, record: Record::Vote(vote), ticket }),
        Request::Truncate { .. } if planted::is(Bug::TruncationNotWritten) => {}
        Request::Truncate { from } => {
            items.push(Item { group, record: Record::Truncate { from }, ticket });
        }
        Request::Purge { upto, marker } => {
            items.push(Item { group, record: Record::Purge { upto, marker }, ticket });
        }
    }
}

fn committed_items(committed: BTreeMap<GroupId, Bytes>) -> impl Iterator<Item = Item> {
    committed.into_iter().map(|(group, bytes)| Item {
        group,
        record: Record::Committed(bytes),
        ticket: None,
    })
}

fn fault(action: &'static str, file: FileName, error: io::Error) -> WalFault {
    WalFault::of(action, file.to_string(), error)
}

/// Lengths within a batch: the limits on requests keep them far below 4 GiB.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Lengths within a segment, which is shorter than 4 GiB.
fn usize_of(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
