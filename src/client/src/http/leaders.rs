//! Who leads which shard, as far as answers told.
//!
//! Guarantees: bounded by the number of slots and shards; only an endpoint that was configured is
//! remembered, so that an answer cannot send the client elsewhere. Leaves out: truth; leaders
//! change, and a guess that is wrong costs one hop.

use std::collections::BTreeMap;

use oncekey_types::{ShardId, Slot, limits};

use super::Endpoint;

#[derive(Debug, Default)]
pub(super) struct Leaders {
    shards: BTreeMap<Slot, ShardId>,
    leaders: BTreeMap<ShardId, Endpoint>,
}

impl Leaders {
    /// The node that led `slot` when last heard of.
    pub(super) fn of(&self, slot: Slot) -> Option<Endpoint> {
        let shard = self.shards.get(&slot)?;
        self.leaders.get(shard).cloned()
    }

    /// An answer about `slot` came from `shard`, led by `leader` if that is an endpoint.
    pub(super) fn learn(&mut self, slot: Slot, shard: ShardId, leader: Option<&Endpoint>) {
        if shard.0 >= limits::SHARDS_MAX {
            return;
        }
        self.shards.insert(slot, shard);
        match leader {
            Some(leader) => self.leaders.insert(shard, leader.clone()),
            None => self.leaders.remove(&shard),
        };
    }

    /// The leader of `slot` may be gone.
    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(shard) = self.shards.get(&slot) {
            self.leaders.remove(shard);
        }
    }
}
