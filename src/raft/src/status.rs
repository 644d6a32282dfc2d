//! What a node knows of its cluster.
//!
//! Guarantees: a snapshot of this node's own view, taken without asking anybody. Leaves out: truth;
//! a node that is cut off reports what it knew.

use std::collections::{BTreeMap, BTreeSet};

use oncekey_storage::wal::WalStats;
use oncekey_types::{LogIndex, NodeId, ShardId};

use crate::{
    config::Member,
    membership::{self, Location, Placement, Standing},
    reports,
    router::{OUTAGE_AFTER, Router},
    shard::Shard,
    type_config::LogId,
};

/// A node and its shards.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Name of the cluster.
    pub cluster: String,
    /// The node that answers.
    pub node: NodeId,
    /// Whether it was removed from the cluster.
    pub is_removed: bool,
    /// The members, as the membership has them; empty until there is one.
    pub members: BTreeMap<NodeId, MemberStatus>,
    /// The shards that it holds replicas of, in order.
    pub shards: Vec<ShardStatus>,
    /// Where all shards are, in order; empty until there is a membership.
    pub placement: Vec<PlacementStatus>,
    /// Counters of its write-ahead log.
    pub wal: WalStats,
}

/// A member as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    /// How to reach it.
    pub member: Member,
    /// How far it belongs to the cluster.
    pub standing: Standing,
    /// Where it stands; none until it has told.
    pub location: Option<Location>,
    /// Version of its program; none until it has told.
    pub program: Option<String>,
    /// Whether it was heard lately.
    pub is_alive: bool,
}

/// Where one shard is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacementStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its leader, as this node's replica knows it or as the nodes say.
    pub leader: Option<NodeId>,
    /// The nodes that hold it.
    pub replicas: Vec<NodeId>,
    /// The nodes that are to hold it, while that changes.
    pub target: Option<Vec<NodeId>>,
}

/// One shard as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its leader, when known.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// Last entry of the log.
    pub last_log: LogIndex,
    /// Last entry known to be committed.
    pub committed: LogIndex,
    /// Last entry applied.
    pub applied: LogIndex,
    /// Last entry purged from the log.
    pub purged: LogIndex,
    /// Nodes that vote.
    pub voters: Vec<NodeId>,
    /// Nodes that catch up before they vote.
    pub learners: Vec<NodeId>,
    /// Whether a leader, or as a leader a quorum, was heard in the last seconds.
    pub in_contact: bool,
    /// Commands that wait here for their turn.
    pub queued: usize,
    /// Last entry that each other replica is known to have, when this node leads.
    pub followers: BTreeMap<NodeId, LogIndex>,
}

impl ShardStatus {
    /// Whether the replica has a leader, hears from it and has applied what it knows to be
    /// committed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.leader.is_some() && self.in_contact && self.applied >= self.committed
    }
}

/// What the node knows, from its replicas and the membership.
pub(crate) fn of(router: &Router, cluster: String, node: NodeId, wal: WalStats) -> NodeStatus {
    let state = router.membership.state();
    let member = |(id, known): (&u64, &membership::Node)| {
        let is_alive = *id == router.me || router.liveness.is_alive(*id);
        let status = MemberStatus {
            member: known.member.clone(),
            standing: known.standing,
            location: known.told.as_ref().map(|told| told.location.clone()),
            program: known.told.as_ref().map(|told| told.program.clone()),
            is_alive,
        };
        (NodeId(*id), status)
    };
    let ids = |nodes: &BTreeSet<u64>| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
    let placed = |(shard, placement): (&u16, &Placement)| PlacementStatus {
        shard: ShardId(*shard),
        leader: router
            .shards
            .get(&ShardId(*shard))
            .and_then(|shard| router.leader_of(shard))
            .map(NodeId),
        replicas: ids(&placement.replicas),
        target: placement.target.as_ref().map(ids),
    };
    NodeStatus {
        cluster,
        node,
        is_removed: state.removed.contains(&node.0),
        members: state.nodes.iter().map(member).collect(),
        shards: router
            .shards
            .values()
            .filter(|shard| router.hosts(shard))
            .map(|shard| hosted(router, shard))
            .collect(),
        placement: state.shards.iter().map(placed).collect(),
        wal,
    }
}

fn hosted(router: &Router, shard: &Shard) -> ShardStatus {
    let metrics = shard.group.metrics();
    let index = |log_id: Option<LogId>| LogIndex(log_id.map_or(0, |log_id| log_id.index));
    let silent = shard.group.silent_for(router.started.elapsed());
    let known = &metrics.membership_config;
    ShardStatus {
        shard: shard.id(),
        leader: metrics.current_leader.map(NodeId),
        term: metrics.current_term,
        last_log: LogIndex(metrics.last_log_index.unwrap_or(0)),
        committed: index(metrics.local_committed),
        applied: index(metrics.last_applied),
        purged: index(metrics.purged),
        voters: known.voter_ids().map(NodeId).collect(),
        learners: known.membership().learner_ids().map(NodeId).collect(),
        in_contact: silent <= OUTAGE_AFTER,
        queued: shard.batcher.queued(),
        followers: reports::followers(&metrics),
    }
}
