//! How a cluster is made of nodes with empty disks.
//!
//! Guarantees: a shard's first membership is written only when every initial member has met every
//! other one, with its incarnation on disk, so that a member that loses its disk later is always
//! recognised; shards are shared out so that each node begins as the leader of its part. A node
//! that restarts in the middle goes on where it stopped.
//!
//! Leaves out: a deadline. A cluster forms when all its initial members are up, and says in the
//! log whom it waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use oncekey_types::NodeId;
use tokio::time::{Instant, sleep};

use crate::{
    config::Member,
    error::chain,
    identity::Identity,
    peer::{PeerPool, Request, Response},
    shard::Shard,
};

const PAUSE: Duration = Duration::from_millis(50);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Forms the groups of `shards`, if this node is one of the `members` of a new cluster. Returns
/// when this node's part is done.
pub(crate) async fn form(
    identity: Arc<Identity>,
    pool: Arc<PeerPool>,
    members: BTreeMap<NodeId, Member>,
    shards: Vec<Arc<Shard>>,
) {
    let me = identity.node();
    let mine: Vec<_> = shards
        .into_iter()
        .filter(|shard| {
            let first = members.keys().nth(usize::from(shard.id.0) % members.len().max(1));
            shard.log.is_pristine() && first == Some(&me)
        })
        .collect();
    if mine.is_empty() {
        return;
    }
    wait_until_all_have_met(&identity, &pool, &members).await;
    let voters: BTreeMap<u64, Member> =
        members.iter().map(|(node, member)| (node.0, member.clone())).collect();
    for shard in mine {
        if let Err(error) = shard.raft.initialize(voters.clone()).await {
            // Another node's log has reached this one in the meantime.
            tracing::debug!(shard = %shard.id, error = chain(&error), "shard is formed already");
        }
    }
    tracing::info!(node = %me, members = members.len(), "the cluster is formed");
}

async fn wait_until_all_have_met(
    identity: &Identity,
    pool: &PeerPool,
    members: &BTreeMap<NodeId, Member>,
) {
    let all: BTreeSet<u64> = members.keys().map(|node| node.0).collect();
    let me = identity.node().0;
    let mut report = Instant::now() + REPORT_EVERY;
    loop {
        let mut missing = BTreeSet::new();
        for node in all.iter().copied().filter(|node| *node != me) {
            let met = match pool.call(node, Request::Acquaintances, CALL_TIMEOUT).await {
                Ok(Response::Acquaintances { met, .. }) => met,
                Ok(_) | Err(_) => Vec::new(),
            };
            let met: BTreeSet<u64> = met.into_iter().chain([node]).collect();
            if !all.is_subset(&met) {
                missing.insert(node);
            }
        }
        if missing.is_empty() {
            return;
        }
        if Instant::now() >= report {
            tracing::info!(waiting_for = ?missing, "a new cluster forms when all its members have met");
            report = Instant::now() + REPORT_EVERY;
        }
        sleep(PAUSE).await;
    }
}
