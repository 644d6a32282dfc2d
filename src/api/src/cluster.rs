//! What an operator reads and asks on the admin listener.

use oncekey_types::{NodeId, ShardId};
use serde::{Deserialize, Serialize};

/// Query that asks for a [`StateDigest`] of each shard. Dear: for diagnosis.
pub const WITH_STATE: &str = "state=digest";

/// Reply to `GET` [`CLUSTER`](crate::path::CLUSTER): the cluster as one node sees it. With the query
/// [`WITH_STATE`] it reads all records of all shards, for a digest of each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    /// Name of the cluster.
    #[serde(default)]
    pub name: String,
    /// The node that answers.
    pub node: NodeId,
    /// The members it knows, in the order of their ids; none until there is a cluster.
    pub members: Vec<MemberStatus>,
    /// The shards it hosts, in order.
    pub shards: Vec<Shard>,
    /// Where all shards are, in order; none until there is a cluster.
    pub placement: Vec<Placement>,
    /// The nodes as they report themselves, in the order of their ids: the one that answers now, the
    /// others a second ago.
    #[serde(default)]
    pub nodes: Vec<NodeState>,
}

/// A node of the cluster, as another one sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemberStatus {
    /// The node.
    pub id: NodeId,
    /// Address for the other nodes.
    pub peer: String,
    /// Address for clients.
    pub public: String,
    /// How far it belongs to the cluster.
    pub state: MemberState,
    /// Where it stands, as its operator labelled it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// A part of the region.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Version of its program; none until it has told.
    pub version: Option<String>,
    /// Whether it was heard lately.
    pub alive: bool,
}

/// How far a node belongs to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It has asked to join and waits for [`Join`].
    Joining,
    /// It holds replicas.
    Active,
    /// Its replicas are moved away; then it is removed.
    Draining,
}

/// Where one shard is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// The shard.
    pub shard: ShardId,
    /// Its leader, when known.
    pub leader: Option<NodeId>,
    /// The nodes that hold it.
    pub replicas: Vec<NodeId>,
    /// The nodes that are to hold it, while that changes.
    pub target: Option<Vec<NodeId>>,
}

/// A node as it reports itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeState {
    /// The node.
    pub id: NodeId,
    /// Whether it answers the node that is asked.
    pub alive: bool,
    /// What it said last; nothing when it was never heard.
    pub report: Option<NodeReport>,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeReport {
    /// How old this is, in milliseconds.
    pub age_ms: u64,
    /// Version of its program.
    pub version: String,
    /// Its time since it started, in milliseconds.
    pub uptime_ms: u64,
    /// Its clock, in Unix milliseconds.
    pub clock_ms: u64,
    /// What it has handed out as a leader since it started.
    pub totals: Totals,
    /// Pools that fetches met at it since it started, by size.
    pub pools: Vec<PoolCount>,
    /// Room on its disk, when it knows.
    pub disk: Option<Disk>,
    /// How far its shards are, in order.
    pub shards: Vec<Progress>,
}

/// What has been handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Totals {
    /// Bundles with a one-time prekey.
    pub issued: u64,
    /// Bundles without, because the pool was empty.
    pub exhausted: u64,
    /// Bundles without, because of a limit.
    pub withheld: u64,
    /// Fetches that came again and were answered as before.
    pub repeated: u64,
}

/// How many pools had a size above that of the entry before and up to this one's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolCount {
    /// The size; none for all that are larger.
    pub up_to: Option<u64>,
    /// How many.
    pub count: u64,
}

/// Room on a disk in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Disk {
    /// All of it.
    pub total: u64,
    /// What is left.
    pub free: u64,
}

/// How far a replica is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// The shard.
    pub shard: ShardId,
    /// Index of the last entry of its log.
    pub last_log: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// When the node leads: how far the other replicas are behind it, as it knows.
    pub replicas: Option<Vec<Lag>>,
}

/// How far a replica is behind its leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lag {
    /// The node that holds the replica.
    pub node: NodeId,
    /// Entries of the leader's log that it is not known to have.
    pub entries: u64,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// Address for the other nodes.
    pub peer: String,
    /// Address for clients.
    pub public: String,
}

/// One shard as the answering node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Shard {
    /// The shard.
    pub shard: ShardId,
    /// Its leader, when known.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// Index of the last entry of the log.
    pub last_log: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Whether a leader, or as its leader a quorum, was heard in the last seconds.
    #[serde(default)]
    pub in_contact: bool,
    /// Nodes that vote.
    pub voters: Vec<NodeId>,
    /// Nodes that catch up before they vote.
    pub learners: Vec<NodeId>,
    /// What the replica holds, when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateDigest>,
}

/// What a replica holds. Replicas that have applied the same entries hold the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StateDigest {
    /// Index of the last entry applied.
    pub applied: u64,
    /// SHA-256 of the records as a snapshot carries them, in hexadecimal.
    pub sha256: String,
}

/// `POST` [`CLUSTER_REPLACE`](crate::path::CLUSTER_REPLACE): put a new node in the place of a lost
/// one, in all shards. The reply has no body.
///
/// The lost node must never come back: its disk may hold votes that the cluster no longer counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// The lost node.
    pub old: NodeId,
    /// The new node, started and joining.
    pub new: Member,
}

/// `POST` [`CLUSTER_INIT`](crate::path::CLUSTER_INIT): form a cluster of the asked node and others, all
/// of them fresh and configured with neither members nor a cluster to join. The reply has no body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Peer addresses of the other nodes.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Replicas of each shard, when there are nodes enough.
    pub replicas: Option<u16>,
}

/// `POST` [`CLUSTER_JOIN`](crate::path::CLUSTER_JOIN): let a node that has asked to join hold replicas;
/// or one that is draining after all. The reply has no body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The node; the asked one when it is not said.
    pub node: Option<NodeId>,
}

/// `POST` [`CLUSTER_DRAIN`](crate::path::CLUSTER_DRAIN): move everything away from a node, then remove
/// it. The reply has no body and comes when that is decided; [`Cluster`] shows how far it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The node.
    pub node: NodeId,
}

/// `POST` [`CLUSTER_TRANSFER`](crate::path::CLUSTER_TRANSFER): give the lead of a shard to another node
/// that holds it. The reply has no body and comes when it leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// The shard.
    pub shard: ShardId,
    /// Who is to lead it.
    pub to: NodeId,
}

/// `PUT` [`FAILPOINT`](crate::path::FAILPOINT): die when the point is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Which time, from 1.
    pub count: u32,
}

/// Reply to `GET` [`LIVEZ`](crate::path::LIVEZ) and [`READYZ`](crate::path::READYZ) when all is
/// well; otherwise the reply is a [`Problem`](crate::Problem) with its reasons.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Always true.
    pub ok: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_names_both_nodes() {
        let json = r#"{"old":1,"new":{"id":4,"peer":"d:7000","public":"d:8000"}}"#;
        let replace: Replace = serde_json::from_str(json).unwrap();
        assert_eq!((replace.old, replace.new.id), (NodeId(1), NodeId(4)));
        assert_eq!(serde_json::to_string(&replace).unwrap(), json);
        let extra = json.replace("\"id\":4", "\"id\":4,\"zone\":1");
        assert!(serde_json::from_str::<Replace>(&extra).is_err());
    }
}
