//! What one simulated run came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one simulated run came to. `oncekey-simulator` prints it as its last line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// What repeats the run.
    pub seed: u64,
    /// Stands for everything that happened; equal in each repetition.
    pub trace: String,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Calls of every kind.
    pub operations: u64,
    /// Fetches that were answered.
    pub answered: u64,
    /// Those that took more than one attempt.
    pub retried: u64,
    /// Answers to fetches that were given without a quorum.
    pub alone: u64,
    /// One-time prekeys handed out.
    pub issued: u64,
    /// Registrations, uploads and rotations.
    pub writes: u64,
    /// Reads of pools.
    pub reads: u64,
    /// Leaders that died while a fetch was on its way.
    pub leaders_hit: u64,
    /// What was done to the cluster, how often.
    pub faults: BTreeMap<String, u64>,
    /// What nodes logged, how often: shows which parts of them were reached.
    pub reached: BTreeMap<String, u64>,
    /// Fetches and writes whose outcome nobody knows at the end.
    pub undecided: u64,
    /// What must not be: broken invariants, nodes that ended by themselves, a cluster that does not
    /// come back.
    pub violations: Vec<String>,
    /// Invariants that were not judged in full, and why.
    pub not_judged: Vec<String>,
}
