//! Keeping the log short and the operator informed.
//!
//! Guarantees: the write-ahead log does not grow for ever because of a shard that is seldom
//! written: when it has more than [`SEGMENTS_MAX`] segments, the shards that hold its oldest one
//! make their state durable and purge. A Raft group that ends by itself is a fault of the node.
//!
//! Leaves out: purging of busy shards, which openraft does by count of entries.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oncekey_storage::wal::Wal;
use oncekey_types::ShardId;
use openraft::async_runtime::WatchReceiver;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    error::{Fault, FaultSink, chain},
    group::Group,
    identity::Identity,
    transfer::OpenTransfers,
};

/// Segments of the write-ahead log above which shards are asked to purge.
const SEGMENTS_MAX: u64 = 3;
const EVERY: Duration = Duration::from_millis(500);
/// Rounds after which is written down how far the other nodes are.
const PROGRESS_EVERY: u64 = 20;

/// Looks after `shards` until dropped.
pub(crate) async fn run(
    identity: Arc<Identity>,
    wal: Wal,
    shards: BTreeMap<ShardId, Arc<Group>>,
    transfers: OpenTransfers,
    faults: FaultSink,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 1u64.. {
        ticks.tick().await;
        transfers.sweep();
        if round % PROGRESS_EVERY == 0
            && let Err(error) = identity.keep_progress()
        {
            faults.raise(&Fault::new(format!("the identity cannot be written: {error}")));
        }
        for shard in shards.values() {
            let stopped = shard.raft.metrics().borrow_watched().running_state.clone().err();
            if let Some(error) = stopped {
                faults.raise(&Fault::new(format!(
                    "shard {} has stopped: {}",
                    shard.id,
                    chain(&error)
                )));
            }
        }
        if wal.stats().segments <= SEGMENTS_MAX {
            continue;
        }
        for (group, last) in wal.groups_pinning_oldest_segment() {
            let shard = u16::try_from(group.0).ok().and_then(|id| shards.get(&ShardId(id)));
            if let Some(shard) = shard {
                purge(shard, last).await;
            }
        }
    }
}

/// Purges `shard` up to `last` if its state is durable up to there; otherwise makes it so, and the
/// next round purges.
async fn purge(shard: &Group, last: u64) {
    let durable = shard.raft.metrics().borrow_watched().snapshot.map_or(0, |log_id| log_id.index);
    // A group that has ended is noticed above.
    let _ = if durable >= last {
        shard.raft.trigger().purge_log(last).await
    } else {
        shard.raft.trigger().snapshot().await
    };
}
