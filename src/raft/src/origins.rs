//! Where the records of this node's shards come from, for whoever has to say which epoch it is.
//!
//! Guarantees: follows what is applied here. Leaves out: shards of which this node has no state yet.

use std::collections::BTreeMap;

use oncekey_store::Origin;
use oncekey_types::{Epoch, ShardId};
use parking_lot::RwLock;

/// The origins of the shards, as far as this node has their state.
#[derive(Default)]
pub(crate) struct Origins {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    shards: BTreeMap<ShardId, Origin>,
    status: EpochStatus,
}

/// In which epoch a cluster is, as one of its nodes knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EpochStatus {
    /// The highest epoch of the node's shards; none while it has no state of any.
    pub epoch: Option<Epoch>,
    /// Whether a shard is being filled from a backup, so that nothing can be asked of it.
    pub is_being_restored: bool,
}

impl Origins {
    pub(crate) fn note(&self, shard: ShardId, origin: Origin) {
        let mut known = self.known.write();
        known.shards.insert(shard, origin);
        known.status = EpochStatus {
            epoch: known.shards.values().map(|origin| origin.epoch()).max(),
            is_being_restored: known.shards.values().any(|origin| origin.is_being_restored()),
        };
    }

    pub(crate) fn status(&self) -> EpochStatus {
        self.known.read().status
    }
}
