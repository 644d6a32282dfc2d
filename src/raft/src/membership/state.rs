//! The state machine of the membership: who belongs to the cluster, and which nodes hold which shard.
//!
//! Guarantees: pure and deterministic; a refusal is a verdict, the same on every replica, and changes
//! nothing; every command may come twice. The id of a node that was removed is never taken again.
//! Leaves out: carrying a decision out, which is the steward's part: what stands here is what was
//! decided and what is done.

use std::collections::{BTreeMap, BTreeSet};

use oncekey_types::{NodeId, ShardId, limits};
use serde::{Deserialize, Serialize};

use crate::{config::Member, identity::Incarnation, peer::Protocols};

/// Everything that the group has agreed on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// None until the cluster's own facts are noted.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) shards: BTreeMap<u16, Placement>,
    /// The ids of nodes that were removed, for good.
    pub(crate) removed: BTreeSet<u64>,
}

/// The cluster as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    /// Drawn when the cluster was formed.
    pub(crate) id: u64,
    /// Nodes that should hold each shard, when there are as many.
    pub(crate) replicas: u16,
}

/// A node that belongs to the cluster or wants to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) standing: Standing,
    pub(crate) member: Member,
    /// What it told of itself; none until it has.
    pub(crate) told: Option<Told>,
}

/// What a node tells of itself, beside its addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) incarnation: Incarnation,
    pub(crate) location: Location,
    /// Versions of the peer protocol that it speaks.
    pub(crate) protocols: Protocols,
    /// Version of its program.
    pub(crate) program: String,
}

/// Where a node stands, as its operator labels it. An empty label says nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Location {
    /// Say, a data centre.
    pub region: String,
    /// Say, a part of it with its own power.
    pub zone: String,
}

/// How far a node belongs to the cluster. Ordinals are stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// It has asked to join and waits for the operator's word.
    Joining,
    /// It holds replicas.
    Active,
    /// Its replicas are moved away; then it is removed.
    Draining {
        /// The node that takes its place in every shard, when there is one.
        heir: Option<NodeId>,
    },
}

/// Which nodes hold a shard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Placement {
    /// The voters of its group, as of the last change that was made.
    pub(crate) replicas: BTreeSet<u64>,
    /// The voters that it is to have, while a change is under way.
    pub(crate) target: Option<BTreeSet<u64>>,
}

impl Placement {
    /// The nodes that hold it or are to.
    pub(crate) fn wanted(&self) -> &BTreeSet<u64> {
        self.target.as_ref().unwrap_or(&self.replicas)
    }

    pub(crate) fn names(&self, node: u64) -> bool {
        self.replicas.contains(&node) || self.wanted().contains(&node)
    }
}

/// A change of the state. Ordinals are stable, never reuse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Note the cluster as it was formed. Only the first counts.
    Found { cluster: Cluster, nodes: BTreeMap<u64, Member>, shards: BTreeMap<u16, BTreeSet<u64>> },
    /// A node tells of itself; one that is not known asks to join with that.
    Announce { node: u64, member: Member, told: Told },
    /// A node that is joining or draining is to hold replicas.
    Activate { node: u64 },
    /// Move everything away from a node, then remove it.
    Drain { node: u64 },
    /// Let `new` take the place of `old`, which is removed then.
    Replace { old: u64, new: u64, member: Member },
    /// The voters of a shard are to change, if they are still those.
    Move { shard: u16, from: Placement, to: BTreeSet<u64> },
    /// The voters of a shard are these now, if they were to be.
    Moved { shard: u16, to: BTreeSet<u64> },
    /// A node that is draining has nothing left.
    Remove { node: u64 },
}

/// Why a change was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The cluster has no such node.
    #[error("the cluster has no node {node}")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// The node was removed; its id is never taken again.
    #[error("node {node} was removed from the cluster, and its id is not taken again")]
    Removed {
        /// The node.
        node: NodeId,
    },
    /// The id belongs to a node with another disk.
    #[error("the id {node} belongs to a node with another disk")]
    OtherIncarnation {
        /// The node.
        node: NodeId,
    },
    /// Nobody would be left to hold the shards.
    #[error("node {node} is the last one that is active")]
    LastActive {
        /// The node.
        node: NodeId,
    },
    /// A replacement needs two nodes.
    #[error("node {node} cannot take its own place")]
    SameNode {
        /// The node.
        node: NodeId,
    },
    /// The cluster has as many nodes as are allowed.
    #[error("the cluster has {limit} nodes, and no more are allowed", limit = limits::NODES_MAX)]
    TooManyNodes,
    /// Something else was decided in the meantime.
    #[error("shard {shard} has changed in the meantime")]
    Overtaken {
        /// The shard.
        shard: ShardId,
    },
    /// The node still holds replicas.
    #[error("node {node} still holds replicas")]
    StillHolds {
        /// The node.
        node: NodeId,
    },
}

/// What a command came to.
pub(crate) type Verdict = Result<(), Refusal>;

/// Carries `command` out on `state`.
pub(crate) fn apply(state: &mut State, command: Command) -> Verdict {
    match command {
        Command::Found { cluster, nodes, shards } => found(state, cluster, nodes, shards),
        Command::Announce { node, member, told } => announce(state, node, member, told),
        Command::Activate { node } => {
            state.known(node)?.standing = Standing::Active;
            Ok(())
        }
        Command::Drain { node } => drain(state, node, None),
        Command::Replace { old, new, member } => replace(state, old, new, member),
        Command::Move { shard, from, to } => {
            let overtaken = Refusal::Overtaken { shard: ShardId(shard) };
            let placement = state.shards.get_mut(&shard).ok_or(overtaken.clone())?;
            if *placement != from || to.is_empty() {
                return Err(overtaken);
            }
            placement.target = Some(to);
            Ok(())
        }
        Command::Moved { shard, to } => {
            let overtaken = Refusal::Overtaken { shard: ShardId(shard) };
            let placement = state.shards.get_mut(&shard).ok_or(overtaken.clone())?;
            if *placement.wanted() != to {
                return Err(overtaken);
            }
            *placement = Placement { replicas: to, target: None };
            Ok(())
        }
        Command::Remove { node } => remove(state, node),
    }
}

impl State {
    /// The nodes that may hold replicas.
    pub(crate) fn active(&self) -> impl Iterator<Item = u64> {
        let active = |(_, node): &(&u64, &Node)| node.standing == Standing::Active;
        self.nodes.iter().filter(active).map(|(id, _)| *id)
    }

    /// Whether `node` holds a replica of any shard, or is to.
    pub(crate) fn holds_any(&self, node: u64) -> bool {
        self.shards.values().any(|placement| placement.names(node))
    }

    fn known(&mut self, node: u64) -> Result<&mut Node, Refusal> {
        if self.removed.contains(&node) {
            return Err(Refusal::Removed { node: NodeId(node) });
        }
        self.nodes.get_mut(&node).ok_or(Refusal::UnknownNode { node: NodeId(node) })
    }

    fn admit(&mut self, id: u64, node: Node) -> Verdict {
        if self.nodes.len() >= limits::NODES_MAX {
            return Err(Refusal::TooManyNodes);
        }
        self.nodes.insert(id, node);
        Ok(())
    }
}

fn found(
    state: &mut State,
    cluster: Cluster,
    nodes: BTreeMap<u64, Member>,
    shards: BTreeMap<u16, BTreeSet<u64>>,
) -> Verdict {
    if state.cluster.is_some() {
        return Ok(());
    }
    state.cluster = Some(cluster);
    for (id, member) in nodes {
        // It may have told of itself before.
        let told = state.nodes.remove(&id).and_then(|node| node.told);
        state.nodes.insert(id, Node { standing: Standing::Active, member, told });
    }
    let placed = |replicas| Placement { replicas, target: None };
    state.shards = shards.into_iter().map(|(shard, nodes)| (shard, placed(nodes))).collect();
    Ok(())
}

fn announce(state: &mut State, id: u64, member: Member, told: Told) -> Verdict {
    match state.known(id) {
        Ok(node) => {
            let known = node.told.as_ref().map(|told| told.incarnation);
            if known.is_some_and(|known| known != told.incarnation) {
                return Err(Refusal::OtherIncarnation { node: NodeId(id) });
            }
            node.member = member;
            node.told = Some(told);
            Ok(())
        }
        Err(Refusal::UnknownNode { .. }) => {
            let standing = Standing::Joining;
            state.admit(id, Node { standing, member, told: Some(told) })
        }
        Err(refusal) => Err(refusal),
    }
}

fn drain(state: &mut State, id: u64, heir: Option<NodeId>) -> Verdict {
    if state.removed.contains(&id) {
        // It was done before.
        return Ok(());
    }
    state.known(id)?;
    if !state.active().any(|other| other != id) {
        return Err(Refusal::LastActive { node: NodeId(id) });
    }
    state.known(id)?.standing = Standing::Draining { heir };
    Ok(())
}

fn replace(state: &mut State, old: u64, new: u64, member: Member) -> Verdict {
    if old == new {
        return Err(Refusal::SameNode { node: NodeId(old) });
    }
    if state.removed.contains(&old) && state.nodes.contains_key(&new) {
        // It was done before.
        return Ok(());
    }
    state.known(old)?;
    match state.known(new) {
        Ok(node) => node.standing = Standing::Active,
        Err(Refusal::UnknownNode { .. }) => {
            state.admit(new, Node { standing: Standing::Active, member, told: None })?;
        }
        Err(refusal) => return Err(refusal),
    }
    drain(state, old, Some(NodeId(new)))
}

fn remove(state: &mut State, id: u64) -> Verdict {
    if state.removed.contains(&id) {
        return Ok(());
    }
    let draining = matches!(state.known(id)?.standing, Standing::Draining { .. });
    if !draining || state.holds_any(id) {
        return Err(Refusal::StillHolds { node: NodeId(id) });
    }
    state.nodes.remove(&id);
    state.removed.insert(id);
    while state.removed.len() > limits::NODES_REMOVED_MAX {
        state.removed.pop_first();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::codec;

    fn told(incarnation: u64) -> Told {
        Told {
            incarnation: Incarnation(incarnation),
            location: Location::default(),
            protocols: Protocols::default(),
            program: "1.0.0".to_owned(),
        }
    }

    fn founded() -> State {
        let mut state = State::default();
        let cluster = Cluster { name: "test".to_owned(), id: 7, replicas: 3 };
        let nodes = (1..=3).map(|id| (id, Member::default())).collect();
        let shards = (0..2).map(|shard| (shard, BTreeSet::from([1, 2, 3]))).collect();
        apply(&mut state, Command::Found { cluster, nodes, shards }).unwrap();
        state
    }

    fn announce_with(node: u64, incarnation: u64) -> Command {
        Command::Announce { node, member: Member::default(), told: told(incarnation) }
    }

    #[test]
    fn a_node_that_asks_waits_until_it_is_let_in() {
        let mut state = founded();
        apply(&mut state, announce_with(4, 1)).unwrap();
        assert_eq!(state.nodes[&4].standing, Standing::Joining);
        apply(&mut state, Command::Activate { node: 4 }).unwrap();
        assert_eq!(state.active().collect::<Vec<_>>(), [1, 2, 3, 4]);
        apply(&mut state, announce_with(4, 1)).unwrap();
        assert_eq!(state.nodes[&4].standing, Standing::Active, "telling again changes no standing");
    }

    #[test]
    fn another_disk_under_a_known_id_is_refused() {
        let mut state = founded();
        apply(&mut state, announce_with(3, 1)).unwrap();
        let refusal = apply(&mut state, announce_with(3, 2)).unwrap_err();
        assert_eq!(refusal, Refusal::OtherIncarnation { node: NodeId(3) });
    }

    #[test]
    fn a_node_is_removed_only_when_it_holds_nothing_and_never_comes_back() {
        let mut state = founded();
        let member = Member::default();
        apply(&mut state, Command::Replace { old: 3, new: 4, member }).unwrap();
        let refusal = apply(&mut state, Command::Remove { node: 3 }).unwrap_err();
        assert_eq!(refusal, Refusal::StillHolds { node: NodeId(3) });
        for shard in 0..2 {
            let from = state.shards[&shard].clone();
            let to = BTreeSet::from([1, 2, 4]);
            apply(&mut state, Command::Move { shard, from, to: to.clone() }).unwrap();
            apply(&mut state, Command::Moved { shard, to }).unwrap();
        }
        apply(&mut state, Command::Remove { node: 3 }).unwrap();
        let refusal = apply(&mut state, announce_with(3, 1)).unwrap_err();
        assert_eq!(refusal, Refusal::Removed { node: NodeId(3) });
        assert!(apply(&mut state, Command::Activate { node: 3 }).is_err());
    }

    #[test]
    fn the_last_active_node_cannot_be_drained() {
        let mut state = founded();
        for node in [1, 2] {
            apply(&mut state, Command::Drain { node }).unwrap();
        }
        let refusal = apply(&mut state, Command::Drain { node: 3 }).unwrap_err();
        assert_eq!(refusal, Refusal::LastActive { node: NodeId(3) });
    }

    #[test]
    fn of_two_moves_of_a_shard_the_second_is_refused() {
        let mut state = founded();
        let from = state.shards[&0].clone();
        let to = |last| BTreeSet::from([1, 2, last]);
        apply(&mut state, Command::Move { shard: 0, from: from.clone(), to: to(4) }).unwrap();
        assert!(apply(&mut state, Command::Move { shard: 0, from, to: to(5) }).is_err());
        assert!(apply(&mut state, Command::Moved { shard: 0, to: to(5) }).is_err());
    }

    fn command() -> impl Strategy<Value = Command> {
        let node = || 1..6u64;
        let set = || prop::collection::btree_set(1..6u64, 1..4);
        prop_oneof![
            (node(), 1..3u64).prop_map(|(node, disk)| announce_with(node, disk)),
            node().prop_map(|node| Command::Activate { node }),
            node().prop_map(|node| Command::Drain { node }),
            (node(), node()).prop_map(|(old, new)| Command::Replace {
                old,
                new,
                member: Member::default()
            }),
            (0..2u16, set(), set()).prop_map(|(shard, from, to)| Command::Move {
                shard,
                from: Placement { replicas: from, target: None },
                to
            }),
            (0..2u16, set()).prop_map(|(shard, to)| Command::Moved { shard, to }),
            node().prop_map(|node| Command::Remove { node }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_a_refusal_changes_nothing_and_what_is_removed_stays_so(
            commands in prop::collection::vec(command(), 0..60),
        ) {
            let mut state = founded();
            for command in commands {
                let before = state.clone();
                let bytes = codec::encode_command(&command).unwrap();
                prop_assert_eq!(&codec::decode_command(&bytes).unwrap(), &command);
                if apply(&mut state, command.clone()).is_err() {
                    prop_assert_eq!(&state, &before, "refused: {:?}", command);
                }
                prop_assert!(state.removed.is_superset(&before.removed));
                prop_assert!(state.removed.iter().all(|node| !state.nodes.contains_key(node)));
                prop_assert!(state.active().next().is_some(), "nobody is active: {:?}", state);
                prop_assert_eq!(&codec::decode_state(&codec::encode_state(&state).unwrap()).unwrap(), &state);
            }
        }
    }
}
