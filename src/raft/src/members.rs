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
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    config::Member,
    error::{ReplaceError, chain},
    peer::{PeerPool, Request, Response, ShardRequest},
    shard::Shard,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a shard's leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Which node takes the place of which.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Replacement {
    pub(crate) old: u64,
    pub(crate) new: u64,
    /// How the new node is reached.
    pub(crate) member: Member,
}

/// Why a shard still has its old membership.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ReplaceFailure {
    NotLeader { leader: Option<u64> },
    NotAMember,
    NotMet { by: u64 },
    Other(String),
}

/// Has the leader of `shard`, wherever it is, make the replacement. Tries until `deadline`.
pub(crate) async fn replace_wherever_led(
    me: u64,
    shard: &Shard,
    pool: &PeerPool,
    replacement: &Replacement,
    deadline: Instant,
) -> Result<(), ReplaceError> {
    let mut hint = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let result = match hint.take().or_else(|| shard.leader()) {
            Some(leader) if leader == me => timeout(left, replace(me, shard, pool, replacement))
                .await
                .unwrap_or_else(|_| Err(ReplaceFailure::Other("no quorum in time".to_owned()))),
            Some(leader) => ask(leader, shard, pool, replacement, left).await,
            None => Err(ReplaceFailure::NotLeader { leader: None }),
        };
        let failure = match result {
            Ok(()) => return Ok(()),
            Err(ReplaceFailure::NotAMember) => {
                return Err(ReplaceError::NotAMember { node: NodeId(replacement.old) });
            }
            Err(failure) => failure,
        };
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(failure.given_up(shard, replacement));
        }
        if let ReplaceFailure::NotLeader { leader } = failure {
            hint = leader;
        }
        sleep(RETRY_PAUSE).await;
    }
}

async fn ask(
    leader: u64,
    shard: &Shard,
    pool: &PeerPool,
    replacement: &Replacement,
    left: Duration,
) -> Result<(), ReplaceFailure> {
    let request = Request::Shard(shard.id.0, ShardRequest::Replace(replacement.clone()));
    match pool.call(leader, request, left).await {
        Ok(Response::Replaced(result)) => result,
        Ok(Response::Failed { reason }) => Err(ReplaceFailure::Other(reason)),
        Ok(_) => Err(ReplaceFailure::Other("an answer to another question".to_owned())),
        Err(error) => Err(ReplaceFailure::Other(error.to_string())),
    }
}

impl ReplaceFailure {
    /// The error of a replacement that is not tried again.
    fn given_up(self, shard: &Shard, replacement: &Replacement) -> ReplaceError {
        let reason = match self {
            Self::NotMet { by } => {
                return ReplaceError::NotMet { node: NodeId(replacement.new), by: NodeId(by) };
            }
            Self::NotAMember => {
                return ReplaceError::NotAMember { node: NodeId(replacement.old) };
            }
            Self::NotLeader { .. } => "no leader was found in time".to_owned(),
            Self::Other(reason) => reason,
        };
        ReplaceError::Shard { shard: shard.id, reason }
    }
}

/// Makes the replacement in the membership of `shard`, if this node leads it.
pub(crate) async fn replace(
    me: u64,
    shard: &Shard,
    pool: &PeerPool,
    replacement: &Replacement,
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
    let Replacement { old, new, member } = replacement;
    let (old, new) = (*old, *new);
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
