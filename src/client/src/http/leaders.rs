//! Who leads which shard, as far as answers told.
//!
//! Guarantees: bounded by the number of slots and shards. Leaves out: truth; leaders change, and a
//! guess that is wrong costs one hop. Only an endpoint that was configured is ever asked, so that
//! an answer cannot send the client elsewhere.

use std::collections::BTreeMap;

use oncekey_types::{ShardId, Slot};

use crate::transport::Route;

#[derive(Debug, Default)]
pub(super) struct Leaders {
    shards: BTreeMap<Slot, ShardId>,
    leaders: BTreeMap<ShardId, String>,
}

impl Leaders {
    /// Public address of the node that led `slot` when last heard of.
    pub(super) fn of(&self, slot: Slot) -> Option<String> {
        let shard = self.shards.get(&slot)?;
        self.leaders.get(shard).cloned()
    }

    pub(super) fn learn(&mut self, slot: Slot, route: &Route) {
        let Some(shard) = route.shard else { return };
        self.shards.insert(slot, shard);
        match &route.leader {
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
