//! The state as the commands of one batch see it.
//!
//! Guarantees: a record that an earlier command of the batch wrote or deleted reads so; each record
//! is fetched from the engine at most once for a batch. Leaves out: taking back a write; a command
//! decides before it writes.

use std::collections::{BTreeMap, btree_map};

use crate::{
    ApplyFault,
    record::{Key, Value},
    state::{Changes, ReadFault, StateRead},
};

pub(super) struct Overlay<'a, S> {
    base: &'a S,
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Writes and deletions so far, to see that a refused command made none.
    writes: u64,
}

struct Entry {
    value: Option<Vec<u8>>,
    changed: bool,
}

impl<'a, S: StateRead> Overlay<'a, S> {
    pub(super) fn new(base: &'a S) -> Self {
        Self { base, entries: BTreeMap::new(), writes: 0 }
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// The record under `key`.
    pub(super) fn read<K: Key>(&mut self, key: &K) -> Result<Option<K::Value>, ApplyFault> {
        Ok(self.bytes(key)?.map(K::decode).transpose()?)
    }

    /// The record under `key`, not decoded.
    pub(super) fn bytes<K: Key>(&mut self, key: &K) -> Result<Option<&[u8]>, ReadFault> {
        let entry = match self.entries.entry(key.to_bytes()) {
            btree_map::Entry::Occupied(entry) => entry.into_mut(),
            btree_map::Entry::Vacant(entry) => {
                let value = self.base.get(entry.key())?;
                entry.insert(Entry { value, changed: false })
            }
        };
        Ok(entry.value.as_deref())
    }

    pub(super) fn write<K: Key>(&mut self, key: &K, value: &K::Value) -> Result<(), ApplyFault> {
        let value = Some(value.to_bytes()?);
        self.set(key, value);
        Ok(())
    }

    pub(super) fn delete<K: Key>(&mut self, key: &K) {
        self.set(key, None);
    }

    pub(super) fn into_changes(self) -> Changes {
        let changed = self.entries.into_iter().filter(|(_, entry)| entry.changed);
        Changes(changed.map(|(key, entry)| (key, entry.value)).collect())
    }

    fn set<K: Key>(&mut self, key: &K, value: Option<Vec<u8>>) {
        self.writes += 1;
        self.entries.insert(key.to_bytes(), Entry { value, changed: true });
    }
}
