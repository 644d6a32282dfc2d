//! The deterministic state machine of one shard.
pub mod command;
mod fault;
mod machine;
pub mod outcome;
pub mod query;
mod record;
pub mod state;

pub use fault::ApplyFault;
pub use machine::{Applied, apply};
pub use record::CorruptRecord;
