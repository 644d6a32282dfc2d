//! Identifiers and limits shared by every Oncekey crate.
//!
//! Guarantees: a value of one of these types is inside its limits, and two kinds of id cannot be
//! confused. The mapping from a user to a [`Slot`] is fixed for all time and reproducible in any
//! language.
//!
//! Leaves out: keys, records and anything with behaviour. What an id names lives in the crate that
//! owns it.
#![no_std]

extern crate alloc;

mod backup;
mod ids;
pub mod limits;
#[cfg(feature = "openapi")]
mod openapi;
mod placement;
mod text;
mod time;

pub use backup::{BackupId, NoBackupId};
pub use ids::{
    DeviceId, Epoch, LogIndex, NodeId, OneTimePreKeyId, RegistrationId, Seq, ShardId,
    SignedPreKeyId,
};
pub use placement::{Slot, SlotMap, SlotMapError};
pub use text::{CallerId, RequestId, TextError, UserId};
pub use time::{TimestampMs, UnixSeconds};
