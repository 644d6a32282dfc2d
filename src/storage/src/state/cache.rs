//! Records read from the engine lately.
//!
//! Guarantees: bounded by the bytes it is given. Leaves out: being right. Whoever commits a record
//! changes it here too, and a record is only put in while no commit of its shard can come between,
//! see `shard`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use oncekey_types::ShardId;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::key::Generation;

/// What a record takes in memory beside its key and value, about.
const RECORD_OVERHEAD_BYTES: u64 = 96;
/// Size of a record by which the number of records is estimated.
const RECORD_TYPICAL_BYTES: u64 = 256;

/// A cache of the records of all shards.
pub(super) struct RecordCache {
    records: Cache<Key, Arc<[u8]>, ByBytes>,
}

/// Where a record stands; a key of another generation is another record.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) shard: ShardId,
    pub(super) generation: Generation,
}

#[derive(Clone, PartialEq, Eq)]
struct Key {
    place: Place,
    key: Box<[u8]>,
}

struct KeyRef<'a> {
    place: Place,
    key: &'a [u8],
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyRef { place: self.place, key: &self.key }.hash(state);
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place.hash(state);
        self.key.hash(state);
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.place == key.place && *self.key == *key.key
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Arc<[u8]>> for ByBytes {
    fn weight(&self, key: &Key, value: &Arc<[u8]>) -> u64 {
        RECORD_OVERHEAD_BYTES + (key.key.len() + value.len()) as u64
    }
}

impl RecordCache {
    /// An empty cache for about `bytes` bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let records = usize::try_from(bytes / RECORD_TYPICAL_BYTES).unwrap_or(usize::MAX);
        Self { records: Cache::with_weighter(records, bytes, ByBytes) }
    }

    pub(super) fn get(&self, place: Place, key: &[u8]) -> Option<Arc<[u8]>> {
        self.records.get(&KeyRef { place, key })
    }

    pub(super) fn insert(&self, place: Place, key: &[u8], value: &[u8]) {
        self.records.insert(Key { place, key: key.into() }, value.into());
    }

    /// Gives a record that is here its new value. One that is not here was not read lately and does
    /// not come in by being written: most of what a shard writes is never read.
    pub(super) fn change(&self, place: Place, key: &[u8], value: Option<&[u8]>) {
        let known = KeyRef { place, key };
        match value {
            Some(value) if self.records.contains_key(&known) => {
                // Refused when it was evicted just now, which is as good.
                let _ = self.records.replace(Key { place, key: key.into() }, value.into(), true);
            }
            Some(_) => {}
            None => {
                self.records.remove(&known);
            }
        }
    }
}
