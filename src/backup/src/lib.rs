//! Backups of a cluster: taken from running nodes, kept in a folder or an object store, checked, and
//! put into a new cluster.
//!
//! ```text
//! manifest.json            written last: a backup without it was not finished
//! shard-00000.backup …     one file for each shard: frames as a node streams them
//! ```
//!
//! A backup keeps who the users are, their devices with their identity keys and signed prekeys, their
//! device lists, and how far all numbers have come. It has no one-time prekeys: what the cluster did
//! with them after the backup is not known to it, so no other cluster may hand them out. There is
//! nothing secret in it, but it names every user.
//!
//! Guarantees: every shard is complete up to the moment its backup began; a backup that was cut
//! short, changed or mixed with another is found, by [`verify`](verify()) and before a restore; memory
//! is bounded, whatever the size of the cluster.
//!
//! Leaves out: one moment for all shards, which nothing needs, as a user belongs to one; and old
//! backups, which whoever keeps them removes.

mod admin;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod location;
mod manifest;
mod restore;
mod take;
mod verify;

pub use admin::{Admin, AdminError};
pub use frames::StreamError;
pub use location::{Location, LocationError};
pub use manifest::{Digest, Manifest, ManifestError, ShardFile, Totals};
pub use restore::{RestoreError, restore};
pub use take::{TakeError, take};
pub use verify::{VerifyError, verify};
