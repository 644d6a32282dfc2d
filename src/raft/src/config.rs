//! What a node needs to know to start.
//!
//! Guarantees: nothing here is read twice; values are valid when they get here. Leaves out: files,
//! flags and environment, which the server turns into this.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use oncekey_storage::state::EngineKind;
use oncekey_store::command::Policy;
use oncekey_types::NodeId;
use serde::{Deserialize, Serialize};

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
    /// running cluster.
    pub members: BTreeMap<NodeId, Member>,
    /// Peer addresses of running nodes, when the node joins their cluster.
    pub join: Vec<String>,
    /// Number of shards, set when the cluster is formed.
    pub shards: u16,
    /// Which engine keeps the state.
    pub engine: EngineKind,
    /// Cache of the state engine in bytes.
    pub state_cache_bytes: u64,
    /// Limits stamped on every batch that this node proposes.
    pub policy: Policy,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Size of one segment of the write-ahead log in bytes.
    pub wal_segment_bytes: u64,
    /// Entries of a shard's log after which its state is made durable and the log purged.
    pub log_entries_max: u64,
}

/// How to reach a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Member {
    /// Address for other nodes, `host:port`.
    pub peer: String,
    /// Address for clients, `host:port` or a URL.
    pub public: String,
}

/// Heartbeats and elections, in milliseconds.
///
/// The heartbeat must be longer than one round trip between nodes plus one sync of the log; it is
/// also the time limit of one append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Time between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// Shortest silence after which a follower campaigns.
    pub election_min_ms: u64,
    /// Longest silence after which a follower campaigns.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 100, election_min_ms: 450, election_max_ms: 600 }
    }
}
