//! What a run looks like, drawn from its seed.
//!
//! Guarantees: the same seed gives the same plan. Leaves out: the faults, which depend on what
//! happens; see `faults`.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// What a run looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How long there are faults.
    pub(crate) safety: Duration,
    pub(crate) nodes: u64,
    pub(crate) shards: u16,
    pub(crate) users: usize,
    pub(crate) devices: u32,
    pub(crate) callers: usize,
    /// Longest pause between two fetches of a caller.
    pub(crate) think_max_ms: u64,
    /// Entries of a log after which it is purged.
    pub(crate) log_entries_max: u64,
    /// Longest time that a disk takes for one piece of work.
    pub(crate) disk_max_ms: u64,
    /// Longest time that a message takes.
    pub(crate) latency_max_ms: u64,
    /// Longest time between two kills of a leader.
    pub(crate) kill_every_max_ms: u64,
    /// Longest time between two other faults.
    pub(crate) fault_every_max_ms: u64,
}

impl Plan {
    pub(crate) fn draw(seed: u64, safety: Duration) -> Self {
        let mut rng = rng(seed, "plan");
        Self {
            seed,
            safety,
            nodes: if rng.random_ratio(1, 6) { 5 } else { 3 },
            shards: rng.random_range(1..=3),
            users: rng.random_range(2..=5),
            devices: rng.random_range(1..=2),
            callers: rng.random_range(4..=7),
            think_max_ms: rng.random_range(80..=200),
            log_entries_max: rng.random_range(40..=400),
            disk_max_ms: rng.random_range(1..=4),
            latency_max_ms: rng.random_range(2..=12),
            kill_every_max_ms: 2_400,
            fault_every_max_ms: rng.random_range(2_000..=8_000),
        }
    }
}

/// The generator of one part of a run.
pub(crate) fn rng(seed: u64, part: &str) -> StdRng {
    let mut hasher = DefaultHasher::new();
    part.hash(&mut hasher);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..16].copy_from_slice(&hasher.finish().to_be_bytes());
    StdRng::from_seed(bytes)
}
