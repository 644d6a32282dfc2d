//! What a log entry costs the state machine, by the number of commands in it.
//!
//! Measures [`apply`]: the records it reads and decodes, the decisions, the records it encodes, and
//! freeing what it gave. `pop` hands out one key per device; `pop_and_expire` is the same in the
//! long run, when as many retries run out as come in.
//!
//! Leaves out: decoding the entry (see `codec`), the state engine (the state is a map in memory
//! here, and nothing is committed), and the log. Every command of a batch is about another user, so
//! no record but the shard's own is shared between them.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to report")]

mod fixture;

use std::{hint::black_box, ops::Range};

use criterion::{BenchmarkId, Criterion, Throughput};
use oncekey_store::{
    apply,
    command::{Batch, Command, Policy},
    state::MemoryState,
};
use oncekey_types::LogIndex;

use fixture::START_MS;

const BATCH_SIZES: [usize; 3] = [1, 16, 128];

/// Users whose keys were popped before the measurement, one in each millisecond.
const EARLIER: Range<u32> = 0..512;
/// Users whom the measured commands are about.
const ASKED: Range<u32> = 512..1024;
/// Users who are not registered yet.
const NEW: Range<u32> = 1024..1536;

const EARLIER_CALLER: u32 = 1;
const CALLER: u32 = 2;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let pops: Vec<_> = ASKED.map(pop).collect();
    for devices in [1, 5] {
        let state = state(devices);
        let soon = |_| START_MS + 1000;
        let name = format!("apply/pop/devices_{devices}");
        measure(&mut criterion, &name, &state, soon, &pops);
        let name = format!("apply/pop_and_expire/devices_{devices}");
        measure(&mut criterion, &name, &state, expiring, &pops);
        if devices == 1 {
            let uploads: Vec<_> = ASKED.map(fixture::upload).collect();
            measure(&mut criterion, "apply/upload_100_keys", &state, soon, &uploads);
            let registrations: Vec<_> = NEW.map(|user| fixture::register(user, 1)).collect();
            measure(&mut criterion, "apply/register_100_keys", &state, soon, &registrations);
        }
    }
    criterion.final_summary();
}

/// Applies `commands` in batches of each size, at the time `time_ms` says for the size.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    state: &MemoryState,
    time_ms: impl Fn(usize) -> u64,
    commands: &[Command],
) {
    let mut group = criterion.benchmark_group(name);
    for size in BATCH_SIZES {
        let batches: Vec<Batch> = commands
            .chunks(size)
            .map(|commands| fixture::batch(time_ms(size), commands.to_vec()))
            .collect();
        fixture::accepted(state, &batches[0]);
        let mut batches = batches.iter().cycle();
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let batch = batches.next().unwrap();
                apply(black_box(state), LogIndex(8), black_box(batch)).unwrap()
            });
        });
    }
    group.finish();
}

fn state(devices: u32) -> MemoryState {
    let mut state = fixture::state(EARLIER.start..ASKED.end, devices);
    for (time_ms, user) in (START_MS..).zip(EARLIER) {
        let earlier = fixture::batch(time_ms, vec![fixture::pop(user, EARLIER_CALLER)]);
        let applied = fixture::accepted(&state, &earlier);
        state.commit(applied.changes);
    }
    state
}

fn pop(user: u32) -> Command {
    fixture::pop(user, CALLER)
}

/// When as many of the earlier pops run out as a batch has commands.
fn expiring(size: usize) -> u64 {
    START_MS + Policy::default().retry_window_ms + size as u64 - 1
}
