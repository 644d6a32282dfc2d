//! Where the records of a shard live, seen from the state machine.
//!
//! Guarantees: the state machine reads single records through [`StateRead`] and writes nothing; its
//! changes are a [`Changes`] that the caller commits in one atomic batch. Only a snapshot needs the
//! order of the records, [`StateScan`]. Leaves out: durability.

use std::{collections::BTreeMap, ops::Bound};

/// The records of one shard, by key.
pub trait StateRead {
    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// [`ReadFault`] when the engine cannot tell; the node must stop.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadFault>;
}

/// All records of one shard, in order.
pub trait StateScan: StateRead {
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

/// Changes to the records of a shard, at most one for each key, in an order that is the same on
/// every replica; `None` deletes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes(pub Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// A state in memory, for tests and tools.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryState(BTreeMap<Vec<u8>, Vec<u8>>);

impl MemoryState {
    /// Commits `changes`.
    pub fn commit(&mut self, changes: Changes) {
        for (key, value) in changes.0 {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }

    /// All records, in the order of their keys.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

impl FromIterator<Record> for MemoryState {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        Self(records.into_iter().collect())
    }
}

impl StateRead for MemoryState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(self.0.get(key).cloned())
    }
}

impl StateScan for MemoryState {
    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, ReadFault> {
        let from_here = self.0.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let records = from_here.take_while(|(key, _)| key.as_slice() < to).take(limit);
        Ok(records.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
