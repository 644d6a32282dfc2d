//! Where the records of a shard live, seen from the state machine.
//!
//! Guarantees: the state machine reads through [`StateRead`] and writes nothing; its changes are a
//! [`Changes`] that the caller commits in one atomic batch. Leaves out: durability.

use std::collections::BTreeMap;

/// Ordered key-value records of one shard.
pub trait StateRead {
    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// [`ReadFault`] when the engine cannot tell; the node must stop.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadFault>;

    /// Up to `limit` records with `from <= key < to`, in the order of their keys.
    ///
    /// # Errors
    ///
    /// [`ReadFault`] when the engine cannot tell; the node must stop.
    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, ReadFault>;
}

/// A key with its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// A local fault of the engine.
#[derive(Debug, thiserror::Error)]
#[error("the state engine failed")]
pub struct ReadFault(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Changes to the records of a shard; `None` deletes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes(pub BTreeMap<Vec<u8>, Option<Vec<u8>>>);
