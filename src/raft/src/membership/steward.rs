//! Carrying out what the membership decided. Done by the node that leads its group.
//!
//! Guarantees: the voters of at most [`plan::MOVES_MAX`] shards change at a time, one replica each;
//! leads move one by one and never to a node that has just come. Two stewards, one of which does not
//! know yet that it was followed, do no harm: what they ask of a shard's leader is to have the voters
//! that were decided, and each step is the shard's own.
//!
//! Leaves out: patience with a node that does not come back. A change that cannot be made is tried
//! again until the operator decides something else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use oncekey_types::ShardId;
use openraft::async_runtime::WatchReceiver;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Command, GROUP, Membership, Standing, State, Verdict, plan, state::Cluster};
use crate::{
    config::Member,
    error::ChangeError,
    formation::Founders,
    identity::Identity,
    members::{self, Change},
    router::Router,
};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time for one change of a group, catching up included; then it is begun anew.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest time between two transfers of a lead.
const TRANSFER_EVERY: Duration = Duration::from_secs(2);
/// How long a node must have been there before it is given a lead.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// Looks after the cluster while this node leads the membership.
pub(crate) struct Steward {
    router: Arc<Router>,
    founding: Founding,
    /// Changes under way, and the groups that they change.
    changes: JoinSet<Changed>,
    busy: BTreeSet<u16>,
    transferred: Instant,
}

/// Where this node learns of which nodes the cluster was formed.
pub(crate) struct Founding {
    /// As the configuration says.
    pub(crate) configured: Option<Founders>,
    pub(crate) identity: Arc<Identity>,
}

impl Founding {
    pub(crate) fn founders(&self) -> Option<Founders> {
        self.configured.clone().or_else(|| self.identity.founders())
    }
}

/// A change that has ended.
struct Changed {
    group: u16,
    /// The voters of a shard that it was to have.
    moved: Option<BTreeSet<u64>>,
    result: Result<(), ChangeError>,
}

impl Steward {
    pub(crate) fn new(router: Arc<Router>, founding: Founding) -> Self {
        let (changes, busy) = (JoinSet::new(), BTreeSet::new());
        Self { router, founding, changes, busy, transferred: Instant::now() }
    }

    /// Works until dropped.
    pub(crate) async fn run(mut self) {
        let membership = Arc::clone(&self.router.membership);
        let mut states = membership.watch();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                _ = ticks.tick() => None,
                Ok(()) = states.changed() => None,
                Some(ended) = self.changes.join_next() => ended.ok(),
            };
            if !membership.leads() {
                self.changes.abort_all();
                self.busy.clear();
                continue;
            }
            if let Some(changed) = ended {
                self.note(&membership, changed).await;
            }
            self.look(&membership).await;
        }
    }

    async fn look(&mut self, membership: &Membership) {
        let state = membership.state();
        if state.cluster.is_none() {
            if let Some(command) = self.founded() {
                decide(membership, command).await;
            }
            return;
        }
        self.keep_members(membership, &state);
        for (shard, placement) in &state.shards {
            if let Some(target) = &placement.target {
                self.make(*shard, &state, target);
            }
        }
        if let Some(plan::Move { shard, from, to }) = plan::next_move(&state) {
            tracing::info!(shard, ?to, "the voters of a shard are to change");
            decide(membership, Command::Move { shard, from, to }).await;
        }
        self.share_leads(&state);
        self.finish_drains(membership, &state).await;
    }

    /// The cluster as it was formed, once all is known of it.
    fn founded(&self) -> Option<Command> {
        // A node that came later knows of no founders.
        let founders = self.founding.founders();
        let founders = founders.unwrap_or(Founders { members: BTreeMap::new(), replicas: None });
        let mut nodes = founders.members.clone();
        let mut shards = BTreeMap::new();
        let mut others = BTreeMap::new();
        for (id, shard) in &self.router.shards {
            let metrics = shard.group.raft.metrics();
            let metrics = metrics.borrow_watched();
            let known = metrics.membership_config.membership();
            let mut voters: BTreeSet<u64> = known.voter_ids().collect();
            others.extend(known.nodes().map(|(node, member)| (*node, member.clone())));
            if voters.is_empty() {
                voters = founders.voters(*id).into_keys().collect();
            }
            shards.insert(id.0, voters);
        }
        // Founders that were replaced before there was a membership are no members.
        if others.keys().any(|node| !nodes.contains_key(node)) {
            nodes = others;
        }
        if shards.values().any(BTreeSet::is_empty) {
            return None;
        }
        let name = self.founding.identity.cluster();
        let replicas = founders.replicas_wanted();
        let cluster = Cluster { name, id: rand::random(), replicas };
        Some(Command::Found { cluster, nodes, shards })
    }

    /// Every node holds a replica of the membership; some of them vote.
    fn keep_members(&mut self, membership: &Membership, state: &State) {
        let (current, nodes, is_joint) = {
            let metrics = membership.group.raft.metrics();
            let metrics = metrics.borrow_watched();
            let known = metrics.membership_config.membership();
            let current: BTreeSet<u64> = known.voter_ids().collect();
            let nodes: BTreeSet<u64> = known.nodes().map(|(node, _)| *node).collect();
            (current, nodes, known.get_joint_config().len() > 1)
        };
        let voters = plan::voters(state, &current);
        let all: BTreeSet<u64> = state.nodes.keys().copied().collect();
        if (!is_joint && voters == current && nodes == all) || !self.busy.insert(GROUP.0) {
            return;
        }
        let learners = all.difference(&voters).copied().collect();
        let change = Change::Reshape {
            voters: addresses(state, &voters),
            learners: addresses(state, &learners),
        };
        let router = Arc::clone(&self.router);
        self.changes.spawn(async move {
            let group = &router.membership.group;
            let deadline = Instant::now() + CHANGE_TIMEOUT;
            let leader = || group.leader();
            let result =
                members::change(router.me, group, &router.pool, leader, &change, deadline).await;
            Changed { group: GROUP.0, moved: None, result }
        });
    }

    /// Has the leader of `shard` make `target` its voters.
    fn make(&mut self, shard: u16, state: &State, target: &BTreeSet<u64>) {
        if !self.busy.insert(shard) {
            return;
        }
        let voters = addresses(state, target);
        let change = Change::Reshape { voters, learners: BTreeMap::new() };
        self.spawn(shard, change, Some(target.clone()), CHANGE_TIMEOUT);
    }

    fn spawn(&mut self, shard: u16, change: Change, moved: Option<BTreeSet<u64>>, limit: Duration) {
        let router = Arc::clone(&self.router);
        self.changes.spawn(async move {
            let result = match router.shards.get(&ShardId(shard)) {
                None => Err(ChangeError::UnknownShard),
                Some(shard) => {
                    let deadline = Instant::now() + limit;
                    let leader = || router.leader_of(shard);
                    let (me, pool) = (router.me, &router.pool);
                    members::change(me, &shard.group, pool, leader, &change, deadline).await
                }
            };
            Changed { group: shard, moved, result }
        });
    }

    async fn note(&mut self, membership: &Membership, changed: Changed) {
        let Changed { group, moved, result } = changed;
        self.busy.remove(&group);
        match (result, moved) {
            (Ok(()), Some(to)) => {
                tracing::info!(shard = group, voters = ?to, "the voters of a shard have changed");
                decide(membership, Command::Moved { shard: group, to }).await;
            }
            (Ok(()), None) => {}
            (Err(error), _) => tracing::warn!(group, %error, "a change is tried again"),
        }
    }

    /// Moves one lead when they are not spread evenly.
    fn share_leads(&mut self, state: &State) {
        if self.transferred.elapsed() < TRANSFER_EVERY {
            return;
        }
        let shards = self.router.shards.values();
        let leaders = shards
            .filter_map(|shard| Some((shard.id().0, self.router.leader_of(shard)?)))
            .collect();
        let is_fit = |node: &u64| {
            let there = if *node == self.router.me {
                Some(self.router.started.elapsed())
            } else {
                self.router.liveness.alive_for(*node)
            };
            there.is_some_and(|there| there >= FRESH_FOR)
        };
        let fit = state.active().filter(is_fit).collect();
        let Some((shard, to)) = plan::next_transfer(state, &leaders, &fit) else { return };
        if self.busy.insert(shard) {
            tracing::info!(shard, to, "a lead moves, so that they are spread evenly");
            self.transferred = Instant::now();
            self.spawn(shard, Change::HandOver { to }, None, TRANSFER_TIMEOUT);
        }
    }

    /// Removes nodes that are draining and have nothing left.
    async fn finish_drains(&self, membership: &Membership, state: &State) {
        for (id, node) in &state.nodes {
            let draining = matches!(node.standing, Standing::Draining { .. });
            if draining && !state.holds_any(*id) && !membership.group.has_voter(*id) {
                decide(membership, Command::Remove { node: *id }).await;
            }
        }
    }
}

async fn decide(membership: &Membership, command: Command) -> Option<Verdict> {
    let verdict = membership.decide(&command).await;
    if let Some(Err(refusal)) = &verdict {
        // Another steward was faster; the next look sees what it did.
        tracing::debug!(%refusal, "a step was refused");
    }
    verdict
}

fn addresses(state: &State, nodes: &BTreeSet<u64>) -> BTreeMap<u64, Member> {
    let address = |node: &u64| Some((*node, state.nodes.get(node)?.member.clone()));
    nodes.iter().filter_map(address).collect()
}
