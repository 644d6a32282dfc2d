//! When to campaign, and when a leader must be heard.
//!
//! openraft's own timers are switched off. A shard without a living leader gets a new one like this:
//! its living voters line up, in an order that differs from shard to shard so that the shards of a
//! lost node spread over the others; the first campaigns at once, each further one a step later.
//!
//! Guarantees: liveness, as far as nodes can reach each other; a node campaigns only by pre-vote,
//! and a node that sees a living leader grants none, so a node that is cut off disturbs nobody when
//! it comes back. Nothing here is needed for safety.
//!
//! Leaves out: choosing the best leader; moving leadership while all is well.

use std::{sync::Arc, time::Duration};

use openraft::{metrics::RaftMetrics, raft::VoteRequest};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{config::Timing, group::Group, liveness::Liveness, type_config::TypeConfig};

/// Time between two heartbeats of an idle leader.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Drives the elections and heartbeats of all groups of a node.
pub(crate) struct Elections {
    me: u64,
    timing: Timing,
    liveness: Arc<Liveness>,
    groups: Vec<(Arc<Group>, State)>,
}

/// What is remembered of a group between two looks.
struct State {
    vacant_since: Option<Instant>,
    campaign_at: Option<Instant>,
    heartbeat_at: Instant,
    /// The term in which this node was seen to lead.
    led: Option<u64>,
}

impl Elections {
    pub(crate) fn new(
        me: u64,
        timing: Timing,
        liveness: Arc<Liveness>,
        groups: impl IntoIterator<Item = Arc<Group>>,
    ) -> Self {
        let state = || State {
            vacant_since: None,
            campaign_at: None,
            heartbeat_at: Instant::now(),
            led: None,
        };
        let groups = groups.into_iter().map(|group| (group, state())).collect();
        Self { me, timing, liveness, groups }
    }

    /// Looks after the groups until dropped.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let liveness = Arc::clone(&self.liveness);
        loop {
            let found_or_lost = tokio::select! {
                _ = ticks.tick() => false,
                () = liveness.changed.notified() => true,
            };
            for (group, state) in &mut self.groups {
                let metrics = group.metrics();
                let result = if metrics.current_leader == Some(self.me) {
                    state.vacant_since = None;
                    state.campaign_at = None;
                    if state.led.replace(metrics.current_term) != Some(metrics.current_term) {
                        tracing::info!(shard = %group.id, term = metrics.current_term, "leads");
                    }
                    tell(group, state, found_or_lost).await
                } else if is_vacant(self.me, &self.liveness, group, &metrics) {
                    campaign(self.me, self.timing, &self.liveness, group, &metrics, state).await
                } else {
                    state.vacant_since = None;
                    state.campaign_at = None;
                    Ok(())
                };
                // A group that has ended is noticed by the upkeep.
                if result.is_err() {
                    return;
                }
            }
        }
    }
}

type Triggered = Result<(), openraft::errors::Fatal<TypeConfig>>;

/// Whether `group` has no leader that is alive, as far as this voter can see.
fn is_vacant(
    me: u64,
    liveness: &Liveness,
    group: &Group,
    metrics: &RaftMetrics<TypeConfig>,
) -> bool {
    let voter = metrics.membership_config.voter_ids().any(|voter| voter == me);
    voter && !liveness.has_leader(group.id)
}

/// Campaigns when it is this node's turn.
async fn campaign(
    me: u64,
    timing: Timing,
    liveness: &Liveness,
    group: &Group,
    metrics: &RaftMetrics<TypeConfig>,
    state: &mut State,
) -> Triggered {
    let now = Instant::now();
    let vacant_since = *state.vacant_since.get_or_insert(now);
    // A leader that is alive but does not list the shard may just have been elected.
    let settling = match metrics.current_leader {
        Some(leader) if liveness.is_alive(leader) => Duration::from_millis(timing.ping_ms * 3),
        Some(_) | None => Duration::ZERO,
    };
    let rank = rank(me, liveness, group, metrics);
    let step = Duration::from_millis(timing.election_ms() / 2);
    let campaign_at = state.campaign_at.unwrap_or(vacant_since + settling + step * rank);
    // Until then every voter's lease of the old leader refuses.
    let lease = Duration::from_millis(timing.lease_ms());
    if now < campaign_at || group.silent_for(Duration::MAX) < lease {
        return Ok(());
    }
    state.campaign_at = Some(now + Duration::from_millis(timing.election_ms()) + step * rank);
    group.measures.elections.one();
    tracing::info!(shard = %group.id, term = metrics.current_term + 1, "campaigning");
    group.raft.trigger().elect(true).await
}

/// This node's place among the living voters, in the order of this group.
fn rank(me: u64, liveness: &Liveness, group: &Group, metrics: &RaftMetrics<TypeConfig>) -> u32 {
    let mut living: Vec<u64> = metrics
        .membership_config
        .voter_ids()
        .filter(|voter| *voter == me || liveness.is_alive(*voter))
        .collect();
    living.sort_unstable();
    let first = usize::from(group.id.0) % living.len().max(1);
    living.rotate_left(first);
    let rank = living.iter().position(|voter| *voter == me).unwrap_or_default();
    u32::try_from(rank).unwrap_or(u32::MAX)
}

/// As the leader: is heard now and then, and at once by a node that was just found.
async fn tell(group: &Group, state: &mut State, found_or_lost: bool) -> Triggered {
    let now = Instant::now();
    if !found_or_lost && now < state.heartbeat_at {
        return Ok(());
    }
    state.heartbeat_at = now + HEARTBEAT_EVERY;
    group.raft.trigger().heartbeat().await
}

/// Whether this node refuses a pre-vote because the shard has a leader that is alive.
pub(crate) fn refuses_pre_vote(
    me: u64,
    liveness: &Liveness,
    group: &Group,
    request: &VoteRequest<TypeConfig>,
) -> bool {
    let metrics = group.metrics();
    let candidate = request.vote.leader_id.node_id;
    match metrics.current_leader {
        Some(leader) if leader == candidate => false,
        Some(leader) if leader == me => {
            let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
            let living =
                voters.iter().filter(|voter| **voter == me || liveness.is_alive(**voter)).count();
            living > voters.len() / 2
        }
        Some(leader) => liveness.leads(leader, group.id),
        None => false,
    }
}
