//! How a cluster is made of nodes with empty disks.
//!
//! Guarantees: a shard's first membership is written only when every founder has met every other one,
//! with its incarnation on disk, so that one that loses its disk later is always recognised; shards
//! are shared out so that each node begins as the leader of its part. A node that restarts in the
//! middle goes on where it stopped. A disk serves one founding: of two that name it, one is refused.
//! All nodes are asked before the first is told, and asking leaves no trace: a founding that one of
//! them refuses leaves all as fresh as they were.
//!
//! Leaves out: a deadline. A cluster forms when all its founders are up, and says in the log whom it
//! waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use oncekey_types::{NodeId, ShardId, limits};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{
    config::Member,
    error::{ChangeError, Fault, chain},
    group::Group,
    identity::Identity,
    peer::{PeerPool, Request, Response},
};

const PAUSE: Duration = Duration::from_millis(50);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// The nodes that a cluster is formed of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Founders {
    pub(crate) members: BTreeMap<u64, Member>,
    /// Replicas of each shard; all founders hold all when it is not said.
    pub(crate) replicas: Option<u16>,
}

impl Founders {
    /// The first voters of `shard`, beginning with the one that forms it.
    fn in_order(&self, shard: ShardId) -> Vec<(u64, Member)> {
        let count = self.replicas.map_or(self.members.len(), usize::from).min(self.members.len());
        let first = usize::from(shard.0) % self.members.len().max(1);
        let around = self.members.iter().cycle().skip(first).take(count);
        around.map(|(node, member)| (*node, member.clone())).collect()
    }

    /// The first voters of `shard`.
    pub(crate) fn voters(&self, shard: ShardId) -> BTreeMap<u64, Member> {
        self.in_order(shard).into_iter().collect()
    }

    /// Replicas that each shard should have when there are nodes enough.
    pub(crate) fn replicas_wanted(&self) -> u16 {
        let all = u16::try_from(self.members.len()).unwrap_or(limits::REPLICAS_MAX);
        self.replicas.unwrap_or(limits::REPLICAS_DEFAULT.max(all))
    }
}

/// Forms the groups of `shards`, as far as it is this node's part. Returns when that is done.
pub(crate) async fn form(
    identity: Arc<Identity>,
    pool: Arc<PeerPool>,
    founders: Founders,
    shards: Vec<Arc<Group>>,
) {
    let me = identity.node();
    let mine: Vec<_> = shards
        .into_iter()
        .filter(|group| {
            let first = founders.in_order(group.id).first().map(|(node, _)| *node);
            group.log.is_pristine() && first == Some(me.0)
        })
        .collect();
    if mine.is_empty() {
        return;
    }
    wait_until_all_have_met(&identity, &pool, &founders).await;
    for group in mine {
        if let Err(error) = group.raft.initialize(founders.voters(group.id)).await {
            // Another node's log has reached this one in the meantime.
            tracing::debug!(shard = %group.id, error = chain(&error), "shard is formed already");
        }
    }
    tracing::info!(node = %me, members = founders.members.len(), "the cluster is formed");
}

/// Waits until all founders have met, and know that they are founders.
async fn wait_until_all_have_met(identity: &Identity, pool: &PeerPool, founders: &Founders) {
    let all: BTreeSet<u64> = founders.members.keys().copied().collect();
    let me = identity.node().0;
    let named = identity.founders().is_some();
    let mut report = Instant::now() + REPORT_EVERY;
    loop {
        let mut missing = BTreeSet::new();
        for node in all.iter().copied().filter(|node| *node != me) {
            let request =
                if named { Request::Found(founders.clone()) } else { Request::Acquaintances };
            let met = match pool.call(node, request, CALL_TIMEOUT).await {
                Ok(Response::Acquaintances { met, .. } | Response::Founding { met }) => met,
                Ok(_) | Err(_) => Vec::new(),
            };
            let met: BTreeSet<u64> = met.into_iter().chain([node]).collect();
            if !all.is_subset(&met) {
                missing.insert(node);
            }
        }
        if missing.is_empty() {
            return;
        }
        if Instant::now() >= report {
            tracing::info!(waiting_for = ?missing, "a new cluster forms when all its members have met");
            report = Instant::now() + REPORT_EVERY;
        }
        sleep(PAUSE).await;
    }
}

/// What a fresh node needs to take part in a founding that an operator asks for.
pub(crate) struct Foundation {
    pub(crate) identity: Arc<Identity>,
    pub(crate) pool: Arc<PeerPool>,
    pub(crate) shards: Vec<Arc<Group>>,
    /// That of the membership.
    pub(crate) membership: Arc<Group>,
    /// Whether the configuration says to which cluster the node belongs.
    pub(crate) is_configured: bool,
}

impl Foundation {
    /// Has a cluster formed of this node, reached as `me`, and of those at `peers`. Safe to ask again.
    pub(crate) async fn lay(
        self: &Arc<Self>,
        me: Member,
        peers: &[String],
        replicas: Option<u16>,
    ) -> Result<(), ChangeError> {
        let mut members = BTreeMap::from([(self.identity.node().0, me)]);
        for address in peers {
            let (node, member) =
                self.pool.probe(address).await.map_err(|error| not_fresh(error.to_string()))?;
            if members.insert(node.0, member).is_some() {
                return Err(not_fresh(format!("node {node} is named twice")));
            }
        }
        let founders = Founders { members, replicas };
        self.check(&founders).map_err(not_fresh)?;
        for (node, member) in &founders.members {
            self.pool.learn(*node, member);
        }
        for node in founders.members.keys().filter(|node| **node != self.identity.node().0) {
            let request = Request::Found(founders.clone());
            let answer = self.pool.call(*node, request, CALL_TIMEOUT).await;
            match answer.map_err(|error| not_fresh(format!("node {node}: {error}")))? {
                Response::Founding { .. } => {}
                Response::Failed { reason } => return Err(not_fresh(reason)),
                _ => return Err(not_fresh(format!("node {node} answered another question"))),
            }
        }
        self.take_part(founders).map_err(not_fresh)
    }

    /// Notes that the cluster is formed of `founders`, and does this node's part beside.
    pub(crate) fn take_part(self: &Arc<Self>, founders: Founders) -> Result<(), String> {
        self.check(&founders)?;
        let me = self.identity.node();
        let was_known = self.identity.founders().is_some();
        match self.identity.found(&founders) {
            Ok(true) => {}
            Ok(false) => return Err(format!("node {me} was named a founder together with others")),
            Err(error) => {
                self.pool.fault(&Fault::new(format!("the identity cannot be written: {error}")));
                return Err(format!("node {me} stops"));
            }
        }
        for (node, member) in &founders.members {
            self.pool.learn(*node, member);
        }
        if !was_known {
            tokio::spawn(form(
                Arc::clone(&self.identity),
                Arc::clone(&self.pool),
                founders,
                self.shards.clone(),
            ));
        }
        Ok(())
    }

    fn check(&self, founders: &Founders) -> Result<(), String> {
        let me: NodeId = self.identity.node();
        if !founders.members.contains_key(&me.0) {
            return Err(format!("node {me} is not among the founders"));
        }
        if self.identity.founders().is_some_and(|known| known == *founders) {
            return Ok(());
        }
        self.check_fresh()
    }

    /// Says why this node cannot be a founder together with `other`, if so.
    pub(crate) fn check_with(&self, other: NodeId) -> Result<(), String> {
        match self.identity.founders() {
            Some(founders) if founders.members.contains_key(&other.0) => Ok(()),
            Some(_) | None => self.check_fresh(),
        }
    }

    fn check_fresh(&self) -> Result<(), String> {
        let me = self.identity.node();
        if self.is_configured {
            return Err(format!(
                "the configuration of node {me} has cluster.members or cluster.join; a node that is \
                 to be named a founder has neither"
            ));
        }
        let mut groups = self.shards.iter().chain([&self.membership]);
        if self.identity.founders().is_some() || groups.any(|group| !group.log.is_pristine()) {
            return Err(format!("node {me} belongs to a cluster already"));
        }
        Ok(())
    }
}

fn not_fresh(reason: impl Into<String>) -> ChangeError {
    ChangeError::NotFresh { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founders(count: u64, replicas: Option<u16>) -> Founders {
        Founders { members: (1..=count).map(|node| (node, Member::default())).collect(), replicas }
    }

    #[test]
    fn each_founder_forms_its_part_and_holds_its_share() {
        let founders = founders(5, Some(3));
        let voters = |shard| founders.voters(ShardId(shard)).into_keys().collect::<Vec<_>>();
        assert_eq!(voters(0), [1, 2, 3]);
        assert_eq!(voters(4), [1, 2, 5]);
        let first = |shard| founders.in_order(ShardId(shard))[0].0;
        assert_eq!((0..6).map(first).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 1]);
    }

    #[test]
    fn a_cluster_that_starts_small_wants_the_usual_number_of_replicas() {
        assert_eq!(founders(1, None).replicas_wanted(), 3);
        assert_eq!(founders(5, None).replicas_wanted(), 5);
        assert_eq!(founders(5, Some(3)).replicas_wanted(), 3);
        assert_eq!(founders(2, Some(3)).voters(ShardId(0)).len(), 2);
    }
}
