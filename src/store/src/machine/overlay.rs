//! The state as the commands of one batch see it.
//!
//! Guarantees: a record that an earlier command of the batch wrote or deleted reads so; each record
//! is fetched from the engine at most once for a batch; the changes are in the order in which the
//! records were first met, which is the same on every replica. Leaves out: taking back a write; a
//! command decides before it writes.

use core::marker::PhantomData;

use ahash::RandomState;
use indexmap::IndexMap;

use crate::{
    ApplyFault,
    record::{CorruptRecord, Key, Value},
    state::{Changes, ReadFault, StateRead},
};

pub(super) struct Overlay<'a, S> {
    base: &'a S,
    entries: IndexMap<Vec<u8>, Entry, RandomState>,
    /// For the key that is looked up or the value that is written.
    scratch: Vec<u8>,
    /// Writes and deletions so far, to see that a refused command made none.
    writes: u64,
}

struct Entry {
    value: Option<Vec<u8>>,
    changed: bool,
}

/// The place of a record in the overlay, so that its key is looked up once.
pub(super) struct Slot<V> {
    place: usize,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for Slot<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Slot<V> {}

impl<'a, S: StateRead> Overlay<'a, S> {
    /// An overlay with room for so many records.
    pub(super) fn new(base: &'a S, records: usize) -> Self {
        Self {
            base,
            entries: IndexMap::with_capacity_and_hasher(records, RandomState::new()),
            scratch: Vec::with_capacity(512),
            writes: 0,
        }
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// The record under `key`, fetched.
    pub(super) fn find<K: Key>(&mut self, key: &K) -> Result<Slot<K::Value>, ReadFault> {
        let place = match self.known(key) {
            Some(place) => place,
            None => {
                let value = self.base.get(&self.scratch)?;
                self.insert(Entry { value, changed: false })
            }
        };
        Ok(Slot { place, value: PhantomData })
    }

    /// The bytes of a record, if it is there.
    pub(super) fn bytes<V>(&self, slot: Slot<V>) -> Option<&[u8]> {
        self.entries[slot.place].value.as_deref()
    }

    /// A record, if it is there.
    pub(super) fn value<V: Value>(&self, slot: Slot<V>) -> Result<Option<V>, CorruptRecord> {
        self.bytes(slot).map(V::from_bytes).transpose()
    }

    /// The record under `key`, if it is there.
    pub(super) fn read<K: Key>(&mut self, key: &K) -> Result<Option<K::Value>, ApplyFault> {
        let slot = self.find(key)?;
        Ok(self.value(slot)?)
    }

    /// Writes a record.
    pub(super) fn set<V: Value>(&mut self, slot: Slot<V>, value: &V) -> Result<(), ApplyFault> {
        self.scratch.clear();
        value.append_to(&mut self.scratch)?;
        let bytes = self.entries[slot.place].value.get_or_insert_default();
        bytes.clear();
        bytes.extend_from_slice(&self.scratch);
        self.change(slot);
        Ok(())
    }

    /// The bytes of a record, to be changed.
    pub(super) fn edit<V>(&mut self, slot: Slot<V>) -> &mut Vec<u8> {
        self.change(slot);
        self.entries[slot.place].value.get_or_insert_default()
    }

    /// Deletes a record.
    pub(super) fn remove<V>(&mut self, slot: Slot<V>) {
        self.change(slot);
        self.entries[slot.place].value = None;
    }

    /// Writes the record under `key`, unseen.
    pub(super) fn write<K: Key>(&mut self, key: &K, value: &K::Value) -> Result<(), ApplyFault> {
        let slot = self.unseen(key);
        self.set(slot, value)
    }

    /// Deletes the record under `key`, unseen.
    pub(super) fn delete<K: Key>(&mut self, key: &K) {
        let slot = self.unseen(key);
        self.remove(slot);
    }

    /// The place of the record under `key`, which is not fetched and is to be written or deleted.
    pub(super) fn unseen<K: Key>(&mut self, key: &K) -> Slot<K::Value> {
        let place = match self.known(key) {
            Some(place) => place,
            None => self.insert(Entry { value: None, changed: true }),
        };
        Slot { place, value: PhantomData }
    }

    pub(super) fn into_changes(self) -> Changes {
        let changed = self.entries.into_iter().filter(|(_, entry)| entry.changed);
        Changes(changed.map(|(key, entry)| (key, entry.value)).collect())
    }

    /// Leaves the key's bytes in `scratch`.
    fn known<K: Key>(&mut self, key: &K) -> Option<usize> {
        self.scratch.clear();
        key.append_to(&mut self.scratch);
        self.entries.get_index_of(self.scratch.as_slice())
    }

    /// Inserts under the key in `scratch`.
    fn insert(&mut self, entry: Entry) -> usize {
        self.entries.insert_full(self.scratch.clone(), entry).0
    }

    fn change<V>(&mut self, slot: Slot<V>) {
        self.writes += 1;
        self.entries[slot.place].changed = true;
    }
}
