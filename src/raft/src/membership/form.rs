//! How the membership begins, and how nodes take part in it.
//!
//! Guarantees: the group is formed of the voters of shard 0, by their leader, so all of them have met
//! one another and two groups cannot come about; a cluster from before there was a membership gets
//! one in the same way. A node that was removed is neither greeted nor pinged any more.
//!
//! Leaves out: an end while there is no leader; a cluster without a membership serves all the same.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oncekey_types::NodeId;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Command, Membership, Refusal, Told};
use crate::{
    config::Member,
    error::{ChangeError, Fault, FaultSink, chain},
    group::Group,
    identity::{self, Identity},
    peer::PeerPool,
};

const LOOK_EVERY: Duration = Duration::from_millis(100);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Forms the group when this node leads `first`, the group of shard 0. Returns when there is one.
pub(crate) async fn form(membership: Arc<Membership>, first: Arc<Group>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while membership.group.log.is_pristine() {
        ticks.tick().await;
        let leads = first.leader() == Some(membership.me);
        if !leads || first.confirm_lead().await.is_err() {
            continue;
        }
        let metrics = first.metrics();
        let membership_of_shard = metrics.membership_config.membership();
        let voters: BTreeMap<u64, Member> = membership_of_shard
            .voter_ids()
            .filter_map(|voter| Some((voter, membership_of_shard.get_node(&voter)?.clone())))
            .collect();
        if let Err(error) = membership.group.raft.initialize(voters).await {
            // Another node's log has reached this one in the meantime.
            tracing::debug!(error = chain(&error), "the membership is formed already");
        }
    }
}

/// Tells the cluster of this node, once. A node that is not known yet asks to join with that.
pub(crate) async fn announce(
    membership: Arc<Membership>,
    member: Member,
    told: Told,
    faults: FaultSink,
) {
    let node = membership.me;
    let command = Command::Announce { node, member, told };
    loop {
        match membership.propose(&command, Instant::now() + PROPOSE_TIMEOUT).await {
            Ok(()) => return,
            Err(ChangeError::Refused(refusal @ Refusal::TooManyNodes)) => {
                tracing::warn!(%refusal, "this node cannot join yet");
            }
            Err(ChangeError::Refused(refusal)) => {
                faults.raise(&Fault::new(format!(
                    "{refusal}: give this node an empty disk and a new node id, and let it join"
                )));
                return;
            }
            // No leader yet, or a node that is still alone.
            Err(_) => {}
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Keeps the addresses of the members and forgets who was removed, until dropped.
pub(crate) async fn follow(
    membership: Arc<Membership>,
    pool: Arc<PeerPool>,
    identity: Arc<Identity>,
) {
    let mut states = membership.watch();
    let mut known = BTreeMap::new();
    while states.changed().await.is_ok() {
        let state = Arc::clone(&states.borrow_and_update());
        for (id, node) in &state.nodes {
            match known.insert(*id, node.member.clone()) {
                Some(before) if before != node.member => pool.learn(*id, &node.member),
                // What this node heard itself may be newer than what stands here.
                Some(_) | None => pool.learn_if_unknown(*id, &node.member),
            }
        }
        if identity.forget(&state.removed) {
            pool.forget_removed();
            tracing::info!(removed = ?state.removed, "nodes were removed from the cluster");
        }
        if state.removed.contains(&membership.me) {
            let node = NodeId(membership.me);
            tracing::warn!("{}", identity::removed_advice(node));
        }
    }
}
