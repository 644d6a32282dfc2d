//! The trace of a run, as one number.
//!
//! Guarantees: two runs that differ in any byte that was sent, in when it was sent, in a fault or
//! in an answer have different traces, but for a chance of 2⁻⁶⁴. Leaves out: what differs; a run
//! can be told to log.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

/// Gathers the trace of a run. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    hash: u64,
    steps: u64,
}

impl Trace {
    /// Adds what happened `at` a time of the simulation, told apart by `what`.
    pub(crate) fn add(&self, at: Duration, what: u64, bytes: &[u8]) {
        let mut state = self.0.lock();
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        for word in [nanos, what, bytes.len() as u64, crc32fast::hash(bytes).into()] {
            state.hash = mix(state.hash ^ word);
        }
        state.steps += 1;
    }

    /// The number.
    pub(crate) fn hash(&self) -> String {
        let state = *self.0.lock();
        format!("{:016x}", mix(state.hash ^ state.steps))
    }
}

/// SplitMix64.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
