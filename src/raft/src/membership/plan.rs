//! What should change next: replicas, leaders, and the voters of the membership itself.
//!
//! Guarantees: pure; one replica of a shard at a time; each step brings the placement nearer to one
//! in which every shard has as many replicas as asked for, on nodes that are active, in as many
//! regions and zones as there are, and no node holds two more than another without need; so planning
//! ends. Leaves out: how busy a shard is; all shards count the same.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{Location, Placement, Standing, State};

/// Shards whose voters change at the same time.
pub(crate) const MOVES_MAX: usize = 2;
/// Voters of the membership's own group.
const VOTERS_MAX: usize = 5;

/// A change of one shard's voters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Move {
    pub(crate) shard: u16,
    /// What it starts from.
    pub(crate) from: Placement,
    pub(crate) to: BTreeSet<u64>,
}

/// The next change of placement; none while as many as allowed are under way.
pub(crate) fn next_move(state: &State) -> Option<Move> {
    let view = View::of(state);
    // A change to a node that is not to hold replicas any more is planned anew.
    let stands = |placement: &Placement| {
        placement.target.as_ref().is_some_and(|target| target.is_subset(&view.active))
    };
    if state.shards.values().filter(|placement| stands(placement)).count() >= MOVES_MAX {
        return None;
    }
    let open = || state.shards.iter().filter(|(_, placement)| !stands(placement));
    let first = |better: &dyn Fn(&BTreeSet<u64>) -> Option<BTreeSet<u64>>| {
        open().find_map(|(shard, placement)| {
            let to = better(placement.wanted())?;
            Some(Move { shard: *shard, from: placement.clone(), to })
        })
    };
    first(&|nodes| view.number(nodes))
        .or_else(|| first(&|nodes| view.spread(nodes)))
        .or_else(|| view.balance(open()))
}

/// What planning looks at.
struct View<'a> {
    state: &'a State,
    active: BTreeSet<u64>,
    /// Replicas of each active node.
    load: BTreeMap<u64, usize>,
}

/// How often two replicas share a region, and a zone. Less is better.
type Crowding = (usize, usize);

impl<'a> View<'a> {
    fn of(state: &'a State) -> Self {
        let active: BTreeSet<u64> = state.active().collect();
        let mut load: BTreeMap<u64, usize> = active.iter().map(|node| (*node, 0)).collect();
        for node in state.shards.values().flat_map(Placement::wanted) {
            if let Some(load) = load.get_mut(node) {
                *load += 1;
            }
        }
        Self { state, active, load }
    }

    /// The right number of replicas, all on active nodes.
    fn number(&self, nodes: &BTreeSet<u64>) -> Option<BTreeSet<u64>> {
        let replicas = self.state.cluster.as_ref().map_or(1, |cluster| cluster.replicas);
        let wanted = usize::from(replicas).min(self.active.len()).max(1);
        if let Some(leaving) = nodes.difference(&self.active).next() {
            let mut rest = without(nodes, *leaving);
            let heir = self.heir(*leaving).filter(|heir| !rest.contains(heir));
            if let Some(heir) = heir {
                rest.insert(heir);
            } else if rest.len() < wanted {
                rest.insert(self.best(&rest)?);
            }
            return Some(rest).filter(|rest| !rest.is_empty());
        }
        if nodes.len() < wanted {
            return Some(with(nodes, self.best(nodes)?));
        }
        if nodes.len() > wanted {
            let out = nodes.iter().copied().min_by_key(|out| {
                let load = self.load.get(out).copied().unwrap_or_default();
                (self.crowding(&without(nodes, *out)), usize::MAX - load, *out)
            })?;
            return Some(without(nodes, out));
        }
        None
    }

    /// The same number in more regions or zones.
    fn spread(&self, nodes: &BTreeSet<u64>) -> Option<BTreeSet<u64>> {
        let now = self.crowding(nodes);
        self.swaps(nodes)
            .map(|(_, into, swapped)| (self.crowding(&swapped), self.load.get(&into), swapped))
            .filter(|(crowding, ..)| *crowding < now)
            .min_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)))
            .map(|(.., swapped)| swapped)
    }

    /// One replica from a node with many to one with few, in as many regions and zones.
    fn balance<'p>(&self, open: impl Iterator<Item = (&'p u16, &'p Placement)>) -> Option<Move> {
        let load = |node: u64| self.load.get(&node).copied().unwrap_or_default();
        open.flat_map(|(shard, placement)| {
            let nodes = placement.wanted();
            let now = self.crowding(nodes);
            self.swaps(nodes)
                .filter(|(out, into, _)| load(*out) >= load(*into) + 2)
                .filter(move |(.., swapped)| self.crowding(swapped) <= now)
                .map(move |(out, into, to)| {
                    (load(out) - load(into), Move { shard: *shard, from: placement.clone(), to })
                })
                .collect::<Vec<_>>()
        })
        .max_by_key(|(gain, next)| (*gain, u16::MAX - next.shard))
        .map(|(_, next)| next)
    }

    /// All ways to swap one replica: out, in, and what comes of it.
    fn swaps(&self, nodes: &BTreeSet<u64>) -> impl Iterator<Item = (u64, u64, BTreeSet<u64>)> {
        let others: Vec<u64> = self.active.difference(nodes).copied().collect();
        let nodes = nodes.clone();
        nodes.clone().into_iter().flat_map(move |out| {
            let rest = without(&nodes, out);
            others.iter().map(|into| (out, *into, with(&rest, *into))).collect::<Vec<_>>()
        })
    }

    /// The node to add to `nodes`.
    fn best(&self, nodes: &BTreeSet<u64>) -> Option<u64> {
        self.active
            .difference(nodes)
            .copied()
            .min_by_key(|node| (self.crowding(&with(nodes, *node)), self.load.get(node), *node))
    }

    /// The active node that is to take the place of `leaving`.
    fn heir(&self, leaving: u64) -> Option<u64> {
        match self.state.nodes.get(&leaving)?.standing {
            Standing::Draining { heir } => {
                heir.map(|heir| heir.0).filter(|heir| self.active.contains(heir))
            }
            Standing::Joining | Standing::Active => None,
        }
    }

    fn crowding(&self, nodes: &BTreeSet<u64>) -> Crowding {
        let locations: Vec<&Location> = nodes
            .iter()
            .filter_map(|node| Some(&self.state.nodes.get(node)?.told.as_ref()?.location))
            .collect();
        let (mut regions, mut zones) = (0, 0);
        for (position, a) in locations.iter().enumerate() {
            for b in &locations[position + 1..] {
                regions += usize::from(!a.region.is_empty() && a.region == b.region);
                zones += usize::from(!a.zone.is_empty() && a == b);
            }
        }
        (regions, zones)
    }
}

/// The shard whose lead should move, and to which node: off a node that is not active, else from the
/// node with most leads to one with at least two fewer. `fit` are the nodes that may be given one.
pub(crate) fn next_transfer(
    state: &State,
    leaders: &BTreeMap<u16, u64>,
    fit: &BTreeSet<u64>,
) -> Option<(u16, u64)> {
    let active: BTreeSet<u64> = state.active().collect();
    let leads = |node: u64| leaders.values().filter(|leader| **leader == node).count();
    let heirs = leaders.iter().flat_map(|(shard, leader)| {
        let placement = state.shards.get(shard);
        let replicas = placement.filter(|placement| placement.target.is_none());
        let replicas = replicas.map(|placement| &placement.replicas).into_iter().flatten();
        let others = replicas.filter(|node| *node != leader && fit.contains(node));
        others.map(|heir| (*shard, *leader, *heir)).collect::<Vec<_>>()
    });
    heirs
        .filter_map(|(shard, leader, heir)| {
            let (more, fewer) = (leads(leader), leads(heir));
            let leaving = !active.contains(&leader);
            (leaving || more >= fewer + 2)
                .then(|| ((leaving, more.saturating_sub(fewer)), shard, heir))
        })
        .max_by_key(|(gain, shard, heir)| (*gain, u16::MAX - shard, u64::MAX - heir))
        .map(|(_, shard, heir)| (shard, heir))
}

/// The voters that the membership's own group should have, when it has `current`: of the active
/// nodes an odd number, up to five, in different zones when there are.
pub(crate) fn voters(state: &State, current: &BTreeSet<u64>) -> BTreeSet<u64> {
    let view = View::of(state);
    let size = match view.active.len() {
        0 => return current.clone(),
        // Two tolerate no more losses than one, but lose less with a disk.
        2 => 2,
        count => count.min(VOTERS_MAX) - usize::from(count < VOTERS_MAX && count % 2 == 0),
    };
    let mut voters: BTreeSet<u64> = current.intersection(&view.active).copied().collect();
    while voters.len() < size
        && let Some(next) = view.best(&voters)
    {
        voters.insert(next);
    }
    while voters.len() > size
        && let Some(out) = voters
            .iter()
            .copied()
            .min_by_key(|out| (view.crowding(&without(&voters, *out)), u64::MAX - out))
    {
        voters.remove(&out);
    }
    voters
}

fn with(nodes: &BTreeSet<u64>, node: u64) -> BTreeSet<u64> {
    nodes.iter().copied().chain([node]).collect()
}

fn without(nodes: &BTreeSet<u64>, node: u64) -> BTreeSet<u64> {
    nodes.iter().copied().filter(|other| *other != node).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::state::{Cluster, Command, Node, Told, apply},
        *,
    };
    use crate::{config::Member, identity::Incarnation, peer::Protocols};

    fn node(standing: Standing, region: &str, zone: &str) -> Node {
        let location = Location { region: region.to_owned(), zone: zone.to_owned() };
        let told = Told {
            incarnation: Incarnation(1),
            location,
            protocols: Protocols::default(),
            program: String::new(),
        };
        Node { standing, member: Member::default(), told: Some(told) }
    }

    fn cluster(nodes: &[(u64, Standing, &str, &str)], shards: &[&[u64]]) -> State {
        let cluster = Cluster { name: String::new(), id: 1, replicas: 3 };
        let placed =
            |nodes: &&[u64]| Placement { replicas: nodes.iter().copied().collect(), target: None };
        State {
            cluster: Some(cluster),
            nodes: nodes
                .iter()
                .map(|(id, standing, region, zone)| (*id, node(*standing, region, zone)))
                .collect(),
            shards: (0u16..).zip(shards.iter().map(placed)).collect(),
            removed: BTreeSet::new(),
        }
    }

    /// Carries all moves out; the number of them. No step may take more than one replica away.
    fn settle(state: &mut State) -> usize {
        for moves in 0..1000 {
            let Some(Move { shard, from, to }) = next_move(state) else { return moves };
            assert!(from.wanted().difference(&to).count() <= 1, "{from:?} to {to:?}");
            assert!(to.difference(from.wanted()).count() <= 1, "{from:?} to {to:?}");
            apply(state, Command::Move { shard, from, to: to.clone() }).unwrap();
            apply(state, Command::Moved { shard, to }).unwrap();
        }
        panic!("planning does not end: {state:#?}");
    }

    const ACTIVE: Standing = Standing::Active;
    const ALL: &[u64] = &[1, 2, 3];

    #[test]
    fn a_new_node_gets_its_share_and_no_more() {
        let nodes: Vec<_> = (1..=4).map(|id| (id, ACTIVE, "", "")).collect();
        let mut state = cluster(&nodes, &[ALL; 4]);
        assert_eq!(settle(&mut state), 3, "three of the twelve replicas move");
        let held = state.shards.values().filter(|placement| placement.names(4)).count();
        assert_eq!(held, 3);
    }

    #[test]
    fn the_heir_takes_each_replica_of_the_node_it_replaces() {
        let draining = Standing::Draining { heir: Some(oncekey_types::NodeId(4)) };
        let nodes =
            [(1, ACTIVE, "", ""), (2, ACTIVE, "", ""), (3, draining, "", ""), (4, ACTIVE, "", "")];
        let mut state = cluster(&nodes, &[ALL; 2]);
        assert_eq!(settle(&mut state), 2);
        assert!(
            state.shards.values().all(|placement| placement.replicas == BTreeSet::from([1, 2, 4]))
        );
    }

    #[test]
    fn a_node_that_is_drained_without_a_spare_leaves_fewer_replicas() {
        let draining = Standing::Draining { heir: None };
        let nodes = [(1, ACTIVE, "", ""), (2, ACTIVE, "", ""), (3, draining, "", "")];
        let mut state = cluster(&nodes, &[ALL]);
        settle(&mut state);
        assert_eq!(state.shards[&0].replicas, BTreeSet::from([1, 2]));
    }

    #[test]
    fn replicas_go_to_different_regions_then_to_different_zones() {
        let nodes = [
            (1, ACTIVE, "eu", "a"),
            (2, ACTIVE, "eu", "a"),
            (3, ACTIVE, "eu", "b"),
            (4, ACTIVE, "us", "a"),
            (5, ACTIVE, "us", "b"),
        ];
        let mut state = cluster(&nodes, &[ALL; 3]);
        settle(&mut state);
        let view = View::of(&state);
        for placement in state.shards.values() {
            assert_eq!(view.crowding(&placement.replicas), (1, 0), "{placement:?}");
        }
    }

    #[test]
    fn leads_move_from_the_node_with_most_to_the_one_with_fewest() {
        let nodes: Vec<_> = (1..=3).map(|id| (id, ACTIVE, "", "")).collect();
        let state = cluster(&nodes, &[ALL; 4]);
        let mut leaders = BTreeMap::from([(0, 1), (1, 1), (2, 1), (3, 2)]);
        let fit = BTreeSet::from([1, 2, 3]);
        while let Some((shard, to)) = next_transfer(&state, &leaders, &fit) {
            leaders.insert(shard, to);
        }
        let counts: Vec<_> = (1..=3)
            .map(|node| leaders.values().filter(|leader| **leader == node).count())
            .collect();
        assert_eq!(counts, [2, 1, 1]);
        assert_eq!(
            next_transfer(&state, &BTreeMap::from([(0, 1), (1, 1)]), &BTreeSet::new()),
            None
        );
    }

    #[test]
    fn leads_leave_a_node_that_is_drained_first() {
        let draining = Standing::Draining { heir: None };
        let nodes = [(1, draining, "", ""), (2, ACTIVE, "", ""), (3, ACTIVE, "", "")];
        let state = cluster(&nodes, &[ALL; 2]);
        let leaders = BTreeMap::from([(0, 1), (1, 2)]);
        let moved = next_transfer(&state, &leaders, &BTreeSet::from([2, 3]));
        assert_eq!(moved, Some((0, 3)));
    }

    #[test]
    fn the_membership_has_an_odd_number_of_voters_and_keeps_those_it_has() {
        let nodes: Vec<_> = (1..=6).map(|id| (id, ACTIVE, "", "")).collect();
        let sizes = [1, 2, 3, 3, 5, 5];
        for (count, size) in (1..=6).zip(sizes) {
            let state = cluster(&nodes[..count], &[]);
            let voters = voters(&state, &BTreeSet::new());
            assert_eq!(voters.len(), size, "of {count}");
        }
        let state = cluster(&nodes, &[]);
        let current = BTreeSet::from([2, 4, 5, 6]);
        assert!(voters(&state, &current).is_superset(&current));
    }

    proptest! {
        #[test]
        fn planning_ends_with_every_shard_whole_and_every_node_with_its_share(
            standings in prop::collection::vec(0..4u8, 1..8),
            zones in prop::collection::vec(0..4usize, 8),
            shards in prop::collection::vec(prop::collection::btree_set(1..8u64, 1..4), 1..12),
        ) {
            let zone = |position: usize| ["", "a", "b", "c"][zones[position]];
            let nodes: Vec<_> = standings
                .iter()
                .enumerate()
                .map(|(position, standing)| {
                    let id = u64::try_from(position).unwrap() + 1;
                    // The first is active, so that there is one.
                    let standing = match standing {
                        _ if position == 0 => ACTIVE,
                        0 => Standing::Draining { heir: None },
                        1 => Standing::Joining,
                        _ => ACTIVE,
                    };
                    (id, standing, "", zone(position))
                })
                .collect();
            let shards: Vec<Vec<u64>> =
                shards.iter().map(|nodes| nodes.iter().copied().collect()).collect();
            let shards: Vec<&[u64]> = shards.iter().map(Vec::as_slice).collect();
            let mut state = cluster(&nodes, &shards);
            settle(&mut state);
            let active: BTreeSet<u64> = state.active().collect();
            let labelled = nodes.iter().any(|(.., zone)| !zone.is_empty());
            let view = View::of(&state);
            for placement in state.shards.values() {
                prop_assert!(placement.replicas.is_subset(&active), "{:?}", placement);
                prop_assert_eq!(placement.replicas.len(), active.len().min(3));
            }
            if !labelled {
                let (least, most) = (view.load.values().min(), view.load.values().max());
                prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", view.load);
            }
        }
    }
}
