//! One node in the place of another.
//!
//! Guarantees: the new node votes in a shard only after it has the shard's state, and only if every
//! node that goes on voting has met it; each shard passes through a joint quorum, so the promise
//! holds at every step. Sending the same request again goes on where the last one stopped.
//!
//! Leaves out: which node to replace, and when; the old node must never come back.

use std::{collections::BTreeSet, time::Duration};

use oncekey_types::NodeId;
use openraft::async_runtime::WatchReceiver;

use crate::{
    config::Member,
    error::chain,
    peer::{PeerPool, Request, Response},
    shard::Shard,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a shard still has its old membership.
#[derive(Debug)]
pub(crate) enum ReplaceFailure {
    NotLeader { leader: Option<u64> },
    NotAMember,
    NotMet { by: u64 },
    Other(String),
}

/// Puts `new` in the place of `old` in the membership of `shard`, which this node leads.
pub(crate) async fn replace(
    me: u64,
    shard: &Shard,
    pool: &PeerPool,
    old: u64,
    new: u64,
    member: &Member,
) -> Result<(), ReplaceFailure> {
    let (leader, mut voters) = {
        let metrics = shard.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        (metrics.current_leader, voters)
    };
    if leader != Some(me) {
        return Err(ReplaceFailure::NotLeader { leader });
    }
    if !voters.remove(&old) && !voters.contains(&new) {
        return Err(ReplaceFailure::NotAMember);
    }
    if voters.contains(&new) && !is_member(shard, old) {
        return Ok(());
    }
    pool.learn(new, member);
    for voter in voters.iter().copied().filter(|voter| *voter != new) {
        if !has_met(me, pool, voter, new).await {
            return Err(ReplaceFailure::NotMet { by: voter });
        }
    }
    shard
        .raft
        .add_learner(new, member.clone(), true)
        .await
        .map_err(|error| ReplaceFailure::Other(chain(&error)))?;
    tracing::info!(shard = %shard.id, node = new, "the new node has caught up");
    voters.insert(new);
    shard
        .raft
        .change_membership(voters, false)
        .await
        .map_err(|error| ReplaceFailure::Other(chain(&error)))?;
    tracing::info!(shard = %shard.id, old = %NodeId(old), new = %NodeId(new), "member replaced");
    Ok(())
}

fn is_member(shard: &Shard, node: u64) -> bool {
    shard.raft.metrics().borrow_watched().membership_config.get_node(&node).is_some()
}

/// Whether `voter` has met `node`. This node makes sure of it for itself by calling.
async fn has_met(me: u64, pool: &PeerPool, voter: u64, node: u64) -> bool {
    if voter == me {
        return pool.link(node).await.is_ok();
    }
    match pool.call(voter, Request::Acquaintances, CALL_TIMEOUT).await {
        Ok(Response::Acquaintances { met, .. }) => met.contains(&node),
        Ok(_) | Err(_) => false,
    }
}
