//! The deterministic state machine of one shard.
//!
//! [`apply`] takes a [`Batch`](command::Batch) of commands, the content of one log entry, and gives
//! one [`Outcome`](outcome::Outcome) for each and the [`Changes`](state::Changes) to commit.
//! [`query::answer`] reads. [`snapshot`] carries a whole state to another node, or what a backup keeps
//! of it to a new cluster, and [`codec`] has the bytes of the rest.
//!
//! Guarantees: pure. The same log gives the same outcomes and the same records on every replica;
//! a one-time prekey is handed out at most once; a refusal changes nothing; a local fault is an
//! error and never an outcome.
//!
//! Leaves out: signatures and points, which the server checks before it proposes; the log, the
//! engine and the network.

pub mod codec;
pub mod command;
mod digest;
mod fault;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(test)]
mod generate;
mod machine;
mod octets;
mod origin;
pub mod outcome;
pub mod query;
mod record;
pub mod snapshot;
pub mod state;

pub use fault::ApplyFault;
pub use machine::{Applied, Met, apply};
pub use origin::Origin;
pub use record::{
    CorruptRecord, KEY_SPACE, Kind,
    kept::{Census, owner_of},
};
