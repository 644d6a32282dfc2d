//! Keys of the database: `shard ‖ generation ‖ key of the record`, integers big-endian.

use oncekey_types::{ShardId, limits};

/// Holds what belongs to no shard.
const NO_SHARD: ShardId = ShardId(u16::MAX);

/// A shard's own records, apart from any snapshot.
const OWN: Generation = Generation(0);

const _: () = assert!(limits::SHARDS_MAX < NO_SHARD.0, "the number of no shard is taken");

/// A generation of a shard's records: a snapshot begins a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Generation(pub(super) u32);

impl Generation {
    /// Of a shard that has never been given a snapshot.
    pub(super) const FIRST: Self = Self(1);
    /// Never used; ends the others.
    pub(super) const LAST: Self = Self(u32::MAX);
}

/// The key of the format's version.
pub(super) fn format() -> Vec<u8> {
    record(NO_SHARD, OWN, b"format")
}

/// The key of a shard's pointer to its current generation.
pub(super) fn pointer(shard: ShardId) -> Vec<u8> {
    record(shard, OWN, b"generation")
}

/// The key of a shard's header.
pub(super) fn header(shard: ShardId) -> Vec<u8> {
    record(shard, OWN, b"header")
}

/// The key of a record; also the least key of a generation, when `key` is empty.
pub(super) fn record(shard: ShardId, generation: Generation, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + key.len());
    bytes.extend_from_slice(&shard.0.to_be_bytes());
    bytes.extend_from_slice(&generation.0.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

/// The record's own part of a key.
pub(super) fn strip(mut key: Vec<u8>) -> Vec<u8> {
    key.drain(..PREFIX_BYTES.min(key.len()));
    key
}

/// Above every key of the generation and below all that follow it.
pub(super) fn end(shard: ShardId, generation: Generation) -> Vec<u8> {
    record(shard, Generation(generation.0.saturating_add(1)), &[])
}

const PREFIX_BYTES: usize = 6;
