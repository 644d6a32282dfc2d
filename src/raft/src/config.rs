//! What a node needs to know to start.
//!
//! Guarantees: nothing here is read twice; values are valid when they get here. Leaves out: files,
//! flags and environment, which the server turns into this.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use oncekey_storage::state::EngineKind;
use oncekey_store::command::Policy;
use oncekey_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::{environment::Environment, membership::Location, peer::Protocols};

/// Configuration of one node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node.
    pub node: NodeId,
    /// Name of the cluster; nodes of another cluster are refused.
    pub cluster: String,
    /// Folder for log, state and identity.
    pub data_dir: PathBuf,
    /// Where to listen for other nodes.
    pub peer_listen: SocketAddr,
    /// How others reach this node.
    pub me: Member,
    /// The members a new cluster is formed of, this node included; empty when the node joins a
    /// running cluster, or waits for an operator to name it a founder.
    pub members: BTreeMap<NodeId, Member>,
    /// Peer addresses of running nodes, when the node joins their cluster.
    pub join: Vec<String>,
    /// Replicas of each shard in a cluster that is formed of `members`; all hold all when not said.
    pub replicas: Option<u16>,
    /// Where this node stands.
    pub location: Location,
    /// Number of shards, set when the cluster is formed.
    pub shards: u16,
    /// Which engine keeps the state.
    pub engine: EngineKind,
    /// Cache of the state engine in bytes.
    pub state_cache_bytes: u64,
    /// Limits stamped on every batch that this node proposes.
    pub policy: Policy,
    /// Versions of the peer protocol that the node speaks.
    pub protocols: Protocols,
    /// Pings and elections.
    pub timing: Timing,
    /// Size of one segment of the write-ahead log in bytes.
    pub wal_segment_bytes: u64,
    /// Entries of a shard's log after which its state is made durable and the log purged.
    pub log_entries_max: u64,
    /// What the node stands on.
    pub environment: Environment,
}

/// How to reach a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Member {
    /// Address for other nodes, `host:port`.
    pub peer: String,
    /// Address for clients, `host:port` or a URL.
    pub public: String,
}

/// When a node is taken for lost, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Time between two pings to each other node.
    pub ping_ms: u64,
    /// Silence after which a node is taken for lost and others campaign for the shards it led. More
    /// than three pings, and more than three round trips plus the sync of a vote. A node whose
    /// process has ended is noticed sooner, because its connections are refused.
    pub node_timeout_ms: u64,
}

impl Timing {
    /// Time in which a vote must have been answered.
    pub(crate) fn election_ms(self) -> u64 {
        self.node_timeout_ms / 2
    }

    /// Time after a leader was heard in which no voter votes for another.
    pub(crate) fn lease_ms(self) -> u64 {
        self.node_timeout_ms * 2 / 3
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self { ping_ms: 50, node_timeout_ms: 300 }
    }
}
