//! Recovery of the write-ahead log.
//!
//! Checksums keep random bytes out, so one target makes them right behind the fuzzer's back, and
//! the other has real logs written and then damages them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use oncekey_storage::{
    disk::{Disk as _, SimDisk, Tear},
    wal::{GroupId, OpenError, Recovery, Wal, WalOptions},
};

use crate::{Target, take};

/// The content of a segment, with its checksums, magic numbers and sequence numbers made right.
pub const LOG_SEGMENT: Target =
    Target { name: "log_segment", run: segment, seeds: segments, claim_bytes: 16 << 20 };

/// A log that was written by a script and then cut off or damaged.
pub const LOG_DAMAGE: Target =
    Target { name: "log_damage", run: damage, seeds: damages, claim_bytes: 16 << 20 };

const FIRST_SEGMENT: &str = "0000000000000001.log";
const GROUPS: u8 = 3;
const STEPS_MAX: usize = 16;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 1024,
        preallocate_bytes: 128,
        spare_segments: 1,
        cache_bytes: 0,
        queue_bytes: 1 << 20,
        idle_mark_ms: None,
    }
}

fn open(disk: &SimDisk) -> Result<(Wal, Recovery), OpenError> {
    Wal::open_without_thread(Arc::new(disk.mount()), options(), |_| {}, || {})
}

/// What a log holds, group by group: vote, purge, entries. Groups that hold nothing are left out.
type Content = BTreeMap<GroupId, (Option<Bytes>, Option<(u64, Bytes)>, Vec<(u64, Bytes)>)>;

fn content(disk: &SimDisk) -> Result<Content, OpenError> {
    let (wal, recovery) = open(disk)?;
    let groups = recovery.groups.into_iter().map(|(id, group)| {
        let entries = wal.read(id, 0..u64::MAX).expect("what was recovered can be read");
        let found = entries.first().zip(entries.last()).map(|(first, last)| (first.0, last.0));
        assert_eq!(found, group.entries, "the entries of {id:?} are not those it was said to have");
        (id, (group.vote, group.purged, entries))
    });
    let mut content: Content = groups.collect();
    content.retain(|_, group| *group != (None, None, Vec::new()));
    Ok(content)
}

/// Whatever a segment says, the log opens or says why not; and what was opened once is the same
/// when it is opened again.
fn segment(data: &[u8]) {
    if data.len() > 64 << 10 || begins_below_the_limit(data) {
        return;
    }
    let disk = SimDisk::new();
    let file = disk.mount().create(FIRST_SEGMENT).expect("the disk is empty");
    file.write_all_at(&repaired(data), 0).expect("the disk has no limit");
    if let Ok(first) = content(&disk) {
        take();
        assert_eq!(content(&disk).ok(), Some(first), "another log when it is opened again");
    }
}

/// Whether the first batch has one of the last numbers with which a log is opened. Such a log counts on
/// past them, and is not opened again.
fn begins_below_the_limit(data: &[u8]) -> bool {
    const LIMIT: u64 = 1 << 63;
    let first = data.get(24..32).and_then(|it| it.try_into().ok()).map(u64::from_le_bytes);
    first.is_some_and(|first| (LIMIT - 1024..LIMIT).contains(&first))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The segment with right checksums; the formats are described in the log's modules `segment` and
/// `record`.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    put(&mut bytes, 0, b"OKEYWAL\0");
    put(&mut bytes, 8, &1u32.to_le_bytes());
    put(&mut bytes, 16, &1u64.to_le_bytes());
    let Some(checkpoint) = u32_at(&bytes, 40) else { return bytes };
    let end = 48 + checkpoint;
    let Some(checksum) = bytes.get(16..end).map(crc32fast::hash) else { return bytes };
    put(&mut bytes, 12, &checksum.to_le_bytes());
    let Some(first) = bytes.get(24..32).and_then(|it| it.try_into().ok()).map(u64::from_le_bytes)
    else {
        return bytes;
    };
    let (mut at, mut sequence) = (end.next_multiple_of(8), first);
    while let Some(behind) = repair_batch(&mut bytes, at, sequence) {
        (at, sequence) = (behind, sequence.wrapping_add(1));
    }
    bytes
}

fn repair_batch(bytes: &mut [u8], at: usize, sequence: u64) -> Option<usize> {
    bytes.get(at..at + 40)?;
    put(bytes, at, b"OKB1");
    put(bytes, at + 8, &1u64.to_le_bytes());
    put(bytes, at + 16, &sequence.to_le_bytes());
    let end = at + 40 + u32_at(bytes, at + 24)?;
    let mut record = at + 40;
    let mut records = 0u32;
    while record < end {
        let behind = record + 21 + u32_at(bytes, record)?;
        let mut hash = crc32fast::Hasher::new();
        hash.update(&1u64.to_le_bytes());
        hash.update(&(record as u64).to_le_bytes());
        hash.update(bytes.get(record..record + 4)?);
        hash.update(bytes.get(record + 8..behind)?);
        put(bytes, record + 4, &hash.finalize().to_le_bytes());
        (record, records) = (behind, records + 1);
    }
    put(bytes, at + 28, &records.to_le_bytes());
    let checksum = crc32fast::hash(bytes.get(at + 8..at + 40)?);
    put(bytes, at + 4, &checksum.to_le_bytes());
    Some(end.next_multiple_of(8))
}

/// The first segment after each step, until it ends with the promise of a next one; and a header
/// with a checkpoint that needs no other segment, because all was purged before.
fn segments() -> Vec<Vec<u8>> {
    let disk = SimDisk::new();
    let mut writer = Writer::open(&disk).expect("the disk is empty");
    let purges = (0..GROUPS).map(|group| [3, group, 0]);
    let votes = std::iter::repeat_n([1, 0, 7], 16);
    let mut seeds = Vec::new();
    for step in SCRIPT.iter().copied().chain(purges).chain(votes) {
        assert!(writer.step(step), "nothing fails here");
        if disk.names().iter().filter(|name| name.ends_with(".log")).count() == 1 {
            seeds.extend(disk.content(FIRST_SEGMENT));
        }
    }
    writer.wal.shutdown();
    let newest = disk.names().into_iter().rfind(|name| name.ends_with(".log"));
    let mut header = newest.and_then(|name| disk.content(&name)).expect("a log has a segment");
    let checkpoint = u32_at(&header, 40).expect("a segment has a header");
    header.truncate(48 + checkpoint);
    seeds.push(header);
    seeds
}

/// What to do, to which group, and how much.
type Step = [u8; 3];

const SCRIPT: &[Step] =
    &[[0, 0, 3], [1, 0, 7], [0, 1, 200], [0, 0, 2], [2, 0, 1], [0, 0, 1], [3, 0, 1], [1, 1, 2]];

/// Writes a log step by step.
struct Writer {
    wal: Wal,
    /// Where the next entry of each group goes.
    next: BTreeMap<GroupId, u64>,
}

impl Writer {
    fn open(disk: &SimDisk) -> Option<Self> {
        let (wal, _) = open(disk).ok()?;
        Some(Self { wal, next: BTreeMap::new() })
    }

    /// Whether it was acknowledged.
    fn step(&mut self, [what, group, how_much]: Step) -> bool {
        let group = GroupId(u32::from(group % GROUPS));
        let many = u64::from(how_much);
        let next = self.next.entry(group).or_insert(1);
        let (first, _) = self.wal.entries(group).unwrap_or((*next, *next));
        let durable = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&durable);
        let done = Box::new(move |result: Result<(), _>| {
            told.store(result.is_ok(), Ordering::SeqCst);
        });
        match what % 4 {
            0 => {
                let payloads = (0..=many % 4).map(|_| vec![how_much; usize::from(how_much)]);
                let entries: Vec<Bytes> = payloads.map(Bytes::from).collect();
                let at = *next;
                *next += entries.len() as u64;
                self.wal.append(group, at, entries, done);
            }
            1 => self.wal.save_vote(group, vec![how_much; 9].into(), done),
            2 => {
                *next = next.saturating_sub(many % 8).max(first);
                self.wal.truncate(group, *next, Some(done));
            }
            _ => {
                let upto = next.saturating_sub(1 + many % 8);
                self.wal.purge(group, upto, format!("purged {upto}").into(), Some(done));
            }
        }
        while !durable.load(Ordering::SeqCst) {
            if !self.wal.work() {
                return false;
            }
        }
        true
    }
}

/// After a power cut the log holds what was acknowledged, or also the step that was in flight; a
/// flipped bit in a log that was closed is found, or was in nothing that counts.
fn damage(data: &[u8]) {
    let Some(([how, where_, seed], script)) = data.split_first_chunk::<3>().map(|(a, b)| (*a, b))
    else {
        return;
    };
    let steps: Vec<Step> =
        script.chunks_exact(3).take(STEPS_MAX).map(|step| [step[0], step[1], step[2]]).collect();
    take();
    if how % 2 == 0 {
        cut(&steps, u64::from(where_), seed);
    } else {
        flip(&steps, usize::from(where_) << 8 | usize::from(seed), how >> 1);
    }
}

fn cut(steps: &[Step], operation: u64, seed: u8) {
    let states = states(steps);
    let disk = SimDisk::new();
    let Some(mut writer) = Writer::open(&disk) else { return };
    disk.crash_at(disk.operations() + operation);
    let acknowledged = steps.iter().take_while(|step| writer.step(**step)).count();
    disk.power_cut(match seed % 4 {
        0 => Tear::Nothing,
        1 => Tear::Everything,
        2 => Tear::Prefix(usize::from(seed) * 8),
        _ => Tear::Sectors(seed.into()),
    });
    let found = content(&disk).expect("a power cut damages nothing");
    let allowed = &states[acknowledged..states.len().min(acknowledged + 2)];
    assert!(allowed.contains(&found), "{acknowledged} steps of {steps:?}, found {found:?}");
}

/// What the log holds before the first step and after each.
fn states(steps: &[Step]) -> Vec<Content> {
    let disk = SimDisk::new();
    let mut writer = Writer::open(&disk).expect("the disk is empty");
    let now = || content(&disk.fork()).expect("nothing was damaged");
    let mut states = vec![now()];
    for step in steps {
        assert!(writer.step(*step), "nothing fails here");
        states.push(now());
    }
    states
}

fn flip(steps: &[Step], byte: usize, bit: u8) {
    let disk = SimDisk::new();
    let mut writer = Writer::open(&disk).expect("the disk is empty");
    for step in steps {
        assert!(writer.step(*step), "nothing fails here");
    }
    writer.wal.shutdown();
    let expected = content(&disk.fork()).expect("nothing was damaged");
    let names: Vec<_> = disk.names().into_iter().filter(|name| name.ends_with(".log")).collect();
    disk.flip_bit(&names[byte % names.len()], byte, bit % 8);
    match content(&disk) {
        Ok(found) => assert_eq!(found, expected, "bit {bit} of byte {byte}"),
        Err(OpenError::Damaged { .. } | OpenError::Format { .. }) => {}
        Err(error) => panic!("bit {bit} of byte {byte}: {error}"),
    }
}

fn damages() -> Vec<Vec<u8>> {
    let script = SCRIPT.concat();
    let how: [[u8; 3]; 4] = [[0, 5, 2], [0, 9, 3], [1, 0, 70], [3, 1, 9]];
    how.iter().map(|how| [how.as_slice(), &script].concat()).collect()
}
