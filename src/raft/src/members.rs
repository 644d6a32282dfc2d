//! Changes of a group's members and of its leader.
//!
//! Guarantees: the new node votes in a group only after it has the group's state, and only if every
//! node that goes on voting has met it; each group passes through a joint quorum, so the promise
//! holds at every step. Sending the same change again goes on where the last one stopped.
//!
//! Leaves out: which change to make, and when; see `membership::steward`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use oncekey_types::NodeId;
use openraft::{ChangeMembers, async_runtime::WatchReceiver};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    config::Member,
    error::{ChangeError, chain},
    group::Group,
    peer::{GroupRequest, PeerPool, Request, Response, ShardRequest},
};

const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a group's leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Time for a node that was given the lead to take it.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

/// A change that the leader of a group makes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    /// These nodes are to vote and those to learn, and no others, each where it is reached.
    Reshape { voters: BTreeMap<u64, Member>, learners: BTreeMap<u64, Member> },
    /// The voter `to` becomes the leader.
    HandOver { to: u64 },
}

/// Why a group is still as it was.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ChangeFailure {
    NotLeader { leader: Option<u64> },
    NotAVoter { node: u64 },
    NotMet { node: u64, by: u64 },
    Other(String),
}

/// Has the leader of `group`, as `leader` knows it, make the change. Tries until `deadline`.
pub(crate) async fn change(
    me: u64,
    group: &Group,
    pool: &PeerPool,
    leader: impl Fn() -> Option<u64>,
    change: &Change,
    deadline: Instant,
) -> Result<(), ChangeError> {
    let mut hint = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let result = match hint.take().or_else(&leader) {
            Some(leader) if leader == me => timeout(left, make(me, group, pool, change))
                .await
                .unwrap_or_else(|_| Err(ChangeFailure::Other("no quorum in time".to_owned()))),
            Some(leader) => ask(leader, group, pool, change, left).await,
            None => Err(ChangeFailure::NotLeader { leader: None }),
        };
        let failure = match result {
            Ok(()) => return Ok(()),
            Err(failure @ ChangeFailure::NotAVoter { .. }) => return Err(failure.given_up(group)),
            Err(failure) => failure,
        };
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(failure.given_up(group));
        }
        if let ChangeFailure::NotLeader { leader } = failure {
            hint = leader;
        }
        sleep(RETRY_PAUSE).await;
    }
}

async fn ask(
    leader: u64,
    group: &Group,
    pool: &PeerPool,
    change: &Change,
    left: Duration,
) -> Result<(), ChangeFailure> {
    let request = ShardRequest::Group(GroupRequest::Change(change.clone()));
    match pool.call(leader, Request::Shard(group.id.0, request), left).await {
        Ok(Response::Changed(result)) => result,
        Ok(Response::Failed { reason }) => Err(ChangeFailure::Other(reason)),
        Ok(_) => Err(ChangeFailure::Other("an answer to another question".to_owned())),
        Err(error) => Err(ChangeFailure::Other(error.to_string())),
    }
}

impl ChangeFailure {
    /// The error of a change that is not tried again.
    fn given_up(self, group: &Group) -> ChangeError {
        let reason = match self {
            Self::NotMet { node, by } => {
                return ChangeError::NotMet { node: NodeId(node), by: NodeId(by) };
            }
            Self::NotAVoter { node } => return ChangeError::NotAVoter { node: NodeId(node) },
            Self::NotLeader { .. } => "no leader was found in time".to_owned(),
            Self::Other(reason) => reason,
        };
        ChangeError::Shard { shard: group.id, reason }
    }
}

/// Makes the change, if this node leads `group`.
pub(crate) async fn make(
    me: u64,
    group: &Group,
    pool: &PeerPool,
    change: &Change,
) -> Result<(), ChangeFailure> {
    let leader = group.leader();
    if leader != Some(me) {
        return Err(ChangeFailure::NotLeader { leader });
    }
    // A leader that was idle must hear from a quorum before it takes a change.
    if group.confirm_lead().await.is_err() {
        return Err(ChangeFailure::NotLeader { leader: None });
    }
    match change {
        Change::Reshape { voters, learners } => reshape(me, group, pool, voters, learners).await,
        Change::HandOver { to } => hand_over(me, group, *to).await,
    }
}

async fn reshape(
    me: u64,
    group: &Group,
    pool: &PeerPool,
    voters: &BTreeMap<u64, Member>,
    learners: &BTreeMap<u64, Member>,
) -> Result<(), ChangeFailure> {
    let wanted: BTreeSet<u64> = voters.keys().copied().collect();
    for (node, member) in voters.iter().chain(learners) {
        pool.learn_if_unknown(*node, member);
    }
    if !wanted.contains(&me)
        && let Some(heir) = heir(me, group, &wanted)
    {
        hand_over(me, group, heir).await?;
        return Err(ChangeFailure::NotLeader { leader: Some(heir) });
    }
    let current = self::voters(group);
    for new in wanted.difference(&current) {
        for voter in wanted.iter().filter(|voter| *voter != new) {
            if !has_met(me, pool, *voter, *new).await {
                return Err(ChangeFailure::NotMet { node: *new, by: *voter });
            }
        }
        let member = voters.get(new).cloned().unwrap_or_default();
        group.raft.add_learner(*new, member, true).await.map_err(|error| other(&error))?;
        tracing::info!(group = %group.id, node = new, "the new voter has caught up");
    }
    if current != wanted || is_joint(group) {
        let change = ChangeMembers::ReplaceAllVoters(wanted.clone());
        group.raft.change_membership(change, false).await.map_err(|error| other(&error))?;
        tracing::info!(group = %group.id, voters = ?wanted, "the voters have changed");
    }
    let nodes = nodes(group);
    for (node, member) in learners.iter().filter(|(node, _)| !nodes.contains(node)) {
        let added = group.raft.add_learner(*node, member.clone(), false).await;
        added.map_err(|error| other(&error))?;
    }
    let belongs = |node: &u64| wanted.contains(node) || learners.contains_key(node);
    let strays: BTreeSet<u64> = nodes.into_iter().filter(|node| !belongs(node)).collect();
    if !strays.is_empty() {
        let change = ChangeMembers::RemoveNodes(strays);
        group.raft.change_membership(change, false).await.map_err(|error| other(&error))?;
    }
    Ok(())
}

fn other(error: &dyn std::error::Error) -> ChangeFailure {
    ChangeFailure::Other(chain(error))
}

/// Gives the lead to `to` and waits until it is taken.
async fn hand_over(me: u64, group: &Group, to: u64) -> Result<(), ChangeFailure> {
    if to == me {
        return Ok(());
    }
    if !voters(group).contains(&to) {
        return Err(ChangeFailure::NotAVoter { node: to });
    }
    group.raft.trigger().transfer_leader(to).await.map_err(|error| other(&error))?;
    let taken = timeout(HAND_OVER_TIMEOUT, group.leader_other_than(Some(me))).await;
    taken.map_err(|_| ChangeFailure::Other(format!("node {to} did not take the lead in time")))?;
    match group.leader() {
        leader if leader == Some(to) => Ok(()),
        leader => Err(ChangeFailure::NotLeader { leader }),
    }
}

/// The voter among `wanted`, other than this node, that has most of the log, as its leader knows.
pub(crate) fn heir(me: u64, group: &Group, wanted: &BTreeSet<u64>) -> Option<u64> {
    let metrics = group.metrics();
    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let may = |node: &u64| *node != me && voters.contains(node) && wanted.contains(node);
    metrics
        .replication
        .into_iter()
        .flatten()
        .filter(|(node, _)| may(node))
        .max_by_key(|(_, matched)| *matched)
        .map(|(node, _)| node)
}

pub(crate) fn voters(group: &Group) -> BTreeSet<u64> {
    group.raft.metrics().borrow_watched().membership_config.voter_ids().collect()
}

fn nodes(group: &Group) -> BTreeSet<u64> {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.nodes().map(|(node, _)| *node).collect()
}

fn is_joint(group: &Group) -> bool {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().get_joint_config().len() > 1
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
