//! What it costs to turn values of the state machine into bytes and back.
//!
//! Measures the content of a log entry by the number of commands in it, what nodes forward to one
//! another, and a snapshot, which checks each record of a state and, when read, decodes it.
//!
//! Leaves out: the records of a single command, which are no public format (`apply` has their cost
//! in it); what the Raft layer puts around an entry; compression, of which there is none.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to report")]

mod fixture;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use oncekey_store::{
    codec::{entry, message},
    command::Command,
    snapshot,
    state::MemoryState,
};

use fixture::START_MS;

const BATCH_SIZES: [u32; 3] = [1, 16, 128];
const USERS: u32 = 128;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    batches(&mut criterion, "pop", |user| fixture::pop(user, 1));
    batches(&mut criterion, "upload_100_keys", fixture::upload);
    commands(&mut criterion);
    for devices in [1, 5] {
        outcomes(&mut criterion, devices);
    }
    snapshots(&mut criterion, &fixture::state(0..USERS, 1));
    criterion.final_summary();
}

fn batches(criterion: &mut Criterion, name: &str, command: impl Fn(u32) -> Command) {
    let mut group = criterion.benchmark_group(format!("codec/batch/{name}"));
    for size in BATCH_SIZES {
        let batch = fixture::batch(START_MS, (0..size).map(&command).collect());
        let bytes = entry::encode(&batch).unwrap();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("encode", size), |bencher| {
            bencher.iter(|| entry::encode(black_box(&batch)).unwrap());
        });
        group.bench_function(BenchmarkId::new("decode", size), |bencher| {
            bencher.iter(|| entry::decode(black_box(&bytes)).unwrap());
        });
    }
    group.finish();
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/command/pop");
    let command = fixture::pop(0, 1);
    let bytes = message::encode_command(&command).unwrap();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| message::encode_command(black_box(&command)).unwrap());
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| message::decode_command(black_box(&bytes)).unwrap());
    });
    group.finish();
}

fn outcomes(criterion: &mut Criterion, devices: u32) {
    let state = fixture::state(0..1, devices);
    let batch = fixture::batch(START_MS, vec![fixture::pop(0, 1)]);
    let outcome = fixture::accepted(&state, &batch).outcomes.remove(0);
    let bytes = message::encode_outcome(&outcome).unwrap();

    let mut group = criterion.benchmark_group(format!("codec/outcome/pop/devices_{devices}"));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| message::encode_outcome(black_box(&outcome)).unwrap());
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| message::decode_outcome(black_box(&bytes)).unwrap());
    });
    group.finish();
}

/// Bytes are those of the chunks; a user has one device with 100 keys, in six records.
fn snapshots(criterion: &mut Criterion, state: &MemoryState) {
    let chunks = write(state);
    let bytes: usize = chunks.iter().map(Vec::len).sum();

    let mut group = criterion.benchmark_group(format!("codec/snapshot/{USERS}_users"));
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("write", |bencher| bencher.iter(|| write(black_box(state))));
    group.bench_function("read", |bencher| bencher.iter(|| read(black_box(&chunks))));
    group.finish();
}

fn write(state: &MemoryState) -> Vec<Vec<u8>> {
    let mut writer = snapshot::Writer::of(snapshot::Content::Snapshot);
    let mut chunks = Vec::new();
    while let Some(chunk) = writer.next_chunk(state).unwrap() {
        chunks.push(chunk);
    }
    chunks
}

fn read(chunks: &[Vec<u8>]) -> MemoryState {
    let mut reader = snapshot::Reader::of(snapshot::Content::Snapshot);
    let records = chunks.iter().flat_map(|chunk| reader.push(chunk).unwrap()).collect();
    reader.finish().unwrap();
    records
}
