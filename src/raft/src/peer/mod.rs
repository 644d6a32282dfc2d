//! What nodes say to each other.
//!
//! Guarantees: nothing is exchanged before both sides know each other's cluster, node id and
//! incarnation; one connection from a node to another carries everything of all shards, many
//! requests at a time; requests of one shard enter its Raft core in the order they were sent; every
//! request has a deadline, and one without an answer is unknown, not failed.
//!
//! Leaves out: encryption and proof of identity, which are the business of the connection's
//! [`Guard`](crate::environment::Guard); what it proved is held against the greeting here.

mod inbound;
mod link;
mod network;
mod pool;
pub(crate) mod wire;

pub(crate) use inbound::{Greeter, Inbound, Service};
pub(crate) use link::CallError;
pub(crate) use network::NetworkFactory;
pub(crate) use pool::PeerPool;
pub use wire::Protocols;
pub(crate) use wire::{GroupRequest, Request, Response, ShardRequest, SnapshotPart};
