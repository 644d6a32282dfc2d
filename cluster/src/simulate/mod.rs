//! Simulated runs, many of them, each in a process of its own.
//!
//! Guarantees: a run that found something is reported with the command that repeats it; a sample of
//! seeds is run twice and must leave the same trace; runs that together show too little are not
//! called good. Leaves out: the simulation itself, which is the program `oncekey-simulator`.

mod campaign;
mod report;
mod summary;

pub use campaign::{Campaign, Progress, Until};
pub use report::{Report, Verdict};
pub use summary::Summary;

/// What may be done to a simulated cluster; each must have been, or the runs show too little.
pub const FAULTS: [&str; 14] = [
    "clock",
    "isolation",
    "kill",
    "membership",
    "message delay",
    "one-way partition",
    "outage",
    "partition",
    "pause",
    "power cut",
    "power cut of all",
    "slow disk",
    "state lost",
    "stop in mid-write",
];

/// What nodes log when they do what is seldom needed; each must have been reached.
pub const REACHED: [&str; 3] = ["campaigning", "the voters have changed", "snapshot fetched"];
