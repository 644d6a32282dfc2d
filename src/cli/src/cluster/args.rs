//! The command line of `oncekey cluster`.

use clap::{Args, Subcommand};
use oncekey_types::{NodeId, ShardId, limits};

use crate::operator::Access;

/// See and change a cluster, through the admin listener of any of its nodes.
///
/// A change is decided by a quorum of the cluster and goes on whoever asked for it; asking for it
/// again does no harm. `oncekey cluster status` shows how far it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey cluster status
  oncekey cluster init --peer 10.0.0.2:7080 --peer 10.0.0.3:7080
  oncekey cluster join 4 --watch
  oncekey cluster drain 2 --watch
  oncekey cluster replace 3 4
  oncekey cluster transfer 0 2
  oncekey cluster --admin https://10.0.0.1:9080 --ca ca.pem --token-file operator.jwt status
  oncekey cluster status --json | jq .placement")]
pub(crate) struct Arguments {
    /// URL of the admin listener of a node.
    #[arg(
        long,
        global = true,
        env = "ONCEKEY_ADMIN",
        value_name = "URL",
        default_value = "http://127.0.0.1:9080"
    )]
    pub(crate) admin: String,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Print what the node answers, as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show what happens, until it is done.
    #[arg(long, global = true)]
    pub(crate) watch: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show members, shards, leaders and what moves.
    Status,
    /// Form a new cluster of the asked node and its peers, all of them fresh.
    Init {
        /// Peer address of another node; may be given several times.
        #[arg(long = "peer", value_name = "HOST:PORT")]
        peers: Vec<String>,
        /// Nodes that hold each shard; all of them when not said, and three once there are three.
        #[arg(long, value_name = "N",
              value_parser = clap::value_parser!(u16).range(1..=i64::from(limits::REPLICAS_MAX)))]
        replicas: Option<u16>,
    },
    /// Let a node hold replicas that has asked to join, or one that is draining after all.
    Join {
        /// The node; the asked one when not said.
        node: Option<NodeId>,
    },
    /// Move everything away from a node, then remove it.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// Put a node that has asked to join in the place of another, which may be lost, and wait.
    Replace {
        /// The node that goes. It must never come back.
        old: NodeId,
        /// The node that comes.
        new: NodeId,
    },
    /// Give the lead of a shard to a node that holds it. Leads are spread evenly again by and by.
    Transfer {
        /// The shard.
        shard: ShardId,
        /// The node that is to lead it.
        to: NodeId,
    },
}
