//! What durability costs: the write-ahead log and the state engines on the disk of the build.
//!
//! Measures:
//! - `wal/append`: a closed loop with so many entries in flight, over the groups of the default
//!   number of shards. One iteration is as many entries as are in flight, so the time is the latency
//!   of one entry (by Little's law) and the rate is entries per second. `wal/write_and_sync` is the
//!   least that the disk asks for one entry: a write in place and one sync, without a log.
//! - `state/…/commit`: the changes that so many pops make, old retries removed as new ones come in.
//! - `state/…/get`: a lot of one-time prekeys, and a key that is not there.
//!
//! Leaves out: recovery, reading the log back, checkpoints, and a state that is larger than the
//! cache. The directory is `CARGO_TARGET_TMPDIR`: figures from a build on a memory file system say
//! nothing about syncs.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to report")]

use std::{
    hint::black_box,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use oncekey_storage::{
    disk::{Disk, RealDisk},
    state::{Change, EngineKind, EngineOptions, ShardSpace, StateEngine},
    wal::{GroupId, Wal, WalFault, WalOptions},
};
use oncekey_types::{ShardId, limits::SHARDS_DEFAULT};
use tempfile::TempDir;

/// An entry with one pop, and what Raft puts around it.
const ENTRY_BYTES: usize = 160;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bare_disk(&mut criterion);
    log(&mut criterion);
    state(&mut criterion, EngineKind::Fjall);
    #[cfg(feature = "sled")]
    state(&mut criterion, EngineKind::Sled);
    criterion.final_summary();
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn bare_disk(criterion: &mut Criterion) {
    const FILE_BYTES: usize = 1 << 20;
    let dir = directory();
    let file = RealDisk::open(dir.path()).unwrap().create("file").unwrap();
    file.write_all_at(&vec![0; FILE_BYTES], 0).unwrap();
    file.sync_data().unwrap();

    let offsets = (0..(FILE_BYTES - ENTRY_BYTES) as u64).step_by(ENTRY_BYTES);
    let mut offsets = offsets.cycle();
    criterion.bench_function("wal/write_and_sync", |bencher| {
        bencher.iter(|| {
            file.write_all_at(&[1; ENTRY_BYTES], offsets.next().unwrap()).unwrap();
            file.sync_data().unwrap();
        });
    });
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal/append");
    group.sample_size(20);
    for in_flight in [1, 16, 64, 256] {
        let dir = directory();
        let mut log = Log::open(&dir);
        group.throughput(Throughput::Elements(in_flight));
        group.bench_function(BenchmarkId::new("in_flight", in_flight), |bencher| {
            bencher.iter_custom(|rounds| log.run(in_flight, rounds));
        });
    }
    group.finish();
}

type Durable = Result<(), WalFault>;

/// A log, and how far each of its groups has come.
struct Log {
    wal: Wal,
    /// The index of the next entry, for each group.
    next: Vec<u64>,
    /// Entries submitted so far.
    submitted: usize,
    done: Sender<Durable>,
    reports: Receiver<Durable>,
}

impl Log {
    /// Entries that a group keeps behind a purge, and between two.
    const KEPT: u64 = 4096;

    fn open(dir: &TempDir) -> Self {
        let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
        let (wal, _) = Wal::open(disk, WalOptions::default(), |_| {}).unwrap();
        let next = vec![1; usize::from(SHARDS_DEFAULT)];
        let (done, reports) = channel();
        Self { wal, next, submitted: 0, done, reports }
    }

    /// Appends `rounds × in_flight` entries, at most `in_flight` of them waiting at a time.
    fn run(&mut self, in_flight: u64, rounds: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..in_flight {
            self.submit();
        }
        for _ in in_flight..in_flight * rounds {
            self.wait();
            self.submit();
        }
        for _ in 0..in_flight {
            self.wait();
        }
        start.elapsed()
    }

    fn submit(&mut self) {
        let turn = self.submitted % self.next.len();
        let group = GroupId(u32::try_from(turn).unwrap());
        let index = self.next[turn];
        let done = self.done.clone();
        let entry = Bytes::from(vec![1; ENTRY_BYTES]);
        let report = move |durable| done.send(durable).unwrap();
        self.wal.append(group, index, vec![entry], Box::new(report));
        if index.is_multiple_of(Self::KEPT) {
            self.wal.purge(group, index - Self::KEPT, Bytes::from_static(b"marker"), None);
        }
        self.next[turn] += 1;
        self.submitted += 1;
    }

    fn wait(&self) {
        self.reports.recv().unwrap().unwrap();
    }
}

impl Drop for Log {
    /// What is still purged must not find its directory gone.
    fn drop(&mut self) {
        self.wal.shutdown();
    }
}

fn state(criterion: &mut Criterion, kind: EngineKind) {
    const POPS: [usize; 3] = [1, 16, 128];
    let dir = directory();
    let engine = StateEngine::open(dir.path(), kind, &EngineOptions::default()).unwrap();
    let space = engine.shard(ShardId(0)).unwrap();
    fill(&space);
    engine.checkpoint().unwrap();

    let mut group = criterion.benchmark_group(format!("state/{kind}/get"));
    let mut devices = scattered();
    group.bench_function("lot", |bencher| {
        bencher
            .iter(|| space.read().get(black_box(&lot(devices.next().unwrap()))).unwrap().unwrap());
    });
    group.bench_function("missing", |bencher| {
        bencher.iter(|| {
            space.read().get(black_box(&retry(u64::MAX - devices.next().unwrap()))).unwrap()
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group(format!("state/{kind}/commit"));
    let mut pops = (0..).zip(scattered());
    for size in POPS {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("pops", size), |bencher| {
            let changes = || pops.by_ref().take(size).flat_map(changes).collect::<Vec<_>>();
            let commit = |changes| space.commit(changes, &[1; 96]).unwrap();
            bencher.iter_batched(changes, commit, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Devices of the state, with a lot and a cursor each.
const DEVICES: u64 = 10_000;
/// Retries that are kept.
const RETRIES: u64 = 10_000;
/// A lot of 32 keys.
const LOT_BYTES: usize = 3232;

fn fill(space: &ShardSpace) {
    for device in 0..DEVICES {
        let records =
            [(lot(device), Some(vec![1; LOT_BYTES])), (cursor(device), Some(vec![1; 10]))];
        space.commit(records, &[1; 96]).unwrap();
    }
}

/// The devices in an order without neighbours, the same at every run.
fn scattered() -> impl Iterator<Item = u64> {
    (0..).map(|n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % DEVICES)
}

/// What the pop with this number changes, at this device: its cursor, the retry with its place in
/// the queue, and the same of an older pop, which is forgotten.
fn changes((number, device): (u64, u64)) -> Vec<Change> {
    let mut changes = vec![
        (cursor(device), Some(vec![2; 10])),
        (retry(number), Some(vec![2; 300])),
        (key(0x08, number), Some(vec![2; 60])),
    ];
    if let Some(old) = number.checked_sub(RETRIES) {
        let keys = [retry(old), key(0x08, old)];
        changes.extend(keys.map(|key| (key, None)));
    }
    changes
}

fn lot(device: u64) -> Vec<u8> {
    [key(0x06, device), vec![0; 8]].concat()
}

fn cursor(device: u64) -> Vec<u8> {
    key(0x05, device)
}

/// Callers and idempotency keys come in no order.
fn retry(number: u64) -> Vec<u8> {
    [key(0x07, number.wrapping_mul(0x9E37_79B9_7F4A_7C15)), vec![b'r'; 32]].concat()
}

fn key(kind: u8, number: u64) -> Vec<u8> {
    [&[kind], number.to_be_bytes().as_slice()].concat()
}
