//! Consensus: one Raft group per shard, on openraft.
//!
//! Guarantees: a [`Committed`] outcome is durable on a quorum; what one node answered, no later
//! leader contradicts; a local fault ends the node instead of bending its state; a node whose disk
//! was lost cannot vote under its old id.
//!
//! Leaves out: HTTP, signatures and limits at the edge; what a command means, which is the
//! business of `oncekey-store`.
//!
//! This is the only crate that names openraft. Start with [`Node`], then `router` (any node, always
//! an answer), `forwarder` and `batcher` (many commands, one frame and one entry), `machine` and
//! `log_store` (what openraft writes and reads), and `peer` (what nodes say to each other).

mod backup;
mod batcher;
mod codec;
mod config;
mod disk;
mod elections;
mod elsewhere;
pub mod environment;
mod error;
mod formation;
mod forwarder;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod group;
mod identity;
mod introduction;
mod lead;
mod liveness;
mod log_store;
mod machine;
mod measures;
mod members;
mod membership;
mod node;
mod operate;
mod origins;
mod peer;
mod reports;
mod router;
mod seldom;
mod service;
mod shard;
mod start;
mod status;
#[cfg(test)]
mod storage_suite;
pub mod trace;
mod transfer;
mod type_config;
mod upkeep;
mod watchers;

pub use backup::{BackupError, ShardBackup};
pub use config::{Member, NodeConfig, Timing};
pub use environment::Environment;
pub use error::{ChangeError, Fault, StartError, SubmitError};
pub use measures::{NodeMeasures, POOL_SIZES, ShardMeasures};
pub use membership::{Location, Refusal, Standing};
pub use node::Node;
#[cfg(feature = "failpoints")]
pub use oncekey_storage::failpoint;
pub use oncekey_storage::{
    disk::Space,
    measure,
    state::{EngineKind, StateTimes},
    wal::{WalStats, WalTimes},
};
pub use origins::EpochStatus;
pub use peer::Protocols;
pub use reports::{NodeReport, SeenNode, ShardReport, Totals};
pub use router::{Committed, LocalRead, Read};
pub use status::{MemberStatus, NodeStatus, PlacementStatus, ShardStatus};
pub use watchers::Watch;
