//! What a node knows of its cluster.
//!
//! Guarantees: a snapshot of this node's own view, taken without asking anybody. Leaves out: truth;
//! a node that is cut off reports what it knew.

use std::collections::BTreeMap;

use oncekey_storage::wal::WalStats;
use oncekey_types::{LogIndex, NodeId, ShardId};

use crate::config::Member;

/// A node and its shards.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Name of the cluster.
    pub cluster: String,
    /// The node that answers.
    pub node: NodeId,
    /// The members it knows, from the memberships of its shards.
    pub members: BTreeMap<NodeId, Member>,
    /// Its shards, in order.
    pub shards: Vec<ShardStatus>,
    /// Counters of its write-ahead log.
    pub wal: WalStats,
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
