//! The write-ahead log and the state engines of a node.
//!
//! Guarantees: what [`wal::Wal`] has acknowledged is there after a crash, a power cut or a torn
//! write, or the node refuses to open; what a [`state::ShardSpace`] has committed is applied as a
//! whole or not at all.
//!
//! Leaves out: what the bytes mean. Votes, log ids, entries and records are opaque here; the Raft
//! layer and the state machine own their formats. This is the only crate that names fjall or sled.

pub mod disk;
pub mod failpoint;
mod machine;
pub mod measure;
pub mod state;
pub mod wal;

pub use machine::SimMachine;
