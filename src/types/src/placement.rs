//! Where a user lives: user → slot → shard.
//!
//! Guarantees: the slot of a user depends on nothing but the user's bytes and never changes; a
//! [`SlotMap`] gives every slot exactly one shard.
//!
//! Leaves out: which nodes hold a shard; that is the shard's Raft membership.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::{ShardId, UserId, limits};

/// One of the [`SLOTS`](limits::SLOTS) parts that the users are divided into.
///
/// The slot is the first eight bytes of `SHA-256(user)`, read as a big-endian number, modulo the
/// number of slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(u16);

impl Slot {
    /// The slot of `user`.
    #[must_use]
    pub fn of(user: &UserId) -> Self {
        let hash = Sha256::digest(user.as_bytes());
        let head = hash.iter().take(8).fold(0u64, |head, byte| (head << 8) | u64::from(*byte));
        let slot = head % u64::from(limits::SLOTS);
        Self(u16::try_from(slot).unwrap_or_default())
    }

    /// The slot as a number below [`SLOTS`](limits::SLOTS).
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Why a slot map could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotMapError {
    /// The number of shards is zero or over the limit.
    #[error("{shards} shards asked for, allowed are 1 to {limit}")]
    ShardCount {
        /// The number asked for.
        shards: u16,
        /// The greatest number allowed.
        limit: u16,
    },
}

/// The table from slots to shards. Set when a cluster is created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotMap {
    shards: u16,
    table: Vec<ShardId>,
}

impl SlotMap {
    /// A map that spreads all slots evenly over `shards` shards.
    ///
    /// # Errors
    ///
    /// [`SlotMapError::ShardCount`] when `shards` is zero or over
    /// [`SHARDS_MAX`](limits::SHARDS_MAX).
    pub fn even(shards: u16) -> Result<Self, SlotMapError> {
        if shards == 0 || shards > limits::SHARDS_MAX {
            return Err(SlotMapError::ShardCount { shards, limit: limits::SHARDS_MAX });
        }
        let table = (0..limits::SLOTS).map(|slot| ShardId(slot % shards)).collect();
        Ok(Self { shards, table })
    }

    /// The shard of `user`.
    #[must_use]
    pub fn shard_of(&self, user: &UserId) -> ShardId {
        self.table[usize::from(Slot::of(user).0)]
    }

    /// All shards, in order.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn the_slot_of_a_user_is_fixed_for_all_time() {
        // python3: int.from_bytes(hashlib.sha256(b"bob").digest()[:8], "big") % 1024
        for (user, slot) in [("alice", 175), ("bob", 730), ("é", 851)] {
            assert_eq!(Slot::of(&UserId::new(user).unwrap()).number(), slot, "user {user}");
        }
    }

    #[test]
    fn every_shard_gets_its_share_of_users() {
        let map = SlotMap::even(16).unwrap();
        let mut users = [0u32; 16];
        for n in 0..16_000 {
            let user = UserId::new(format!("user-{n}")).unwrap();
            users[usize::from(map.shard_of(&user).0)] += 1;
        }
        assert!(users.iter().all(|n| (800..1200).contains(n)), "{users:?}");
    }

    #[test]
    fn a_map_without_shards_is_refused() {
        assert!(SlotMap::even(0).is_err());
        assert!(SlotMap::even(limits::SHARDS_MAX + 1).is_err());
    }
}
