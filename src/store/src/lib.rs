//! The deterministic state machine of one shard.
pub mod command;
pub mod outcome;
pub mod query;
pub mod state;
