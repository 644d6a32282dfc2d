//! A leader is killed under load.
//!
//! Guarantees: the gaps are those that clients saw, from the kill to the end of the round; the node
//! is back within the round, so what its return costs is in them too. Leaves out: failures that are
//! slower to notice than a closed connection; the tests of the cluster have those.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use oncekey_types::NodeId;
use serde::Serialize;
use tokio::time::sleep_until;

use super::{
    clients::{Clients, Counts, Work},
    figures::{Gaps, Moment, Window, course, median},
    measure::{Plan, STEP_MS, counts},
    population::Population,
    target::Target,
};

/// Time from the kill to the node's restart.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// Time from the restart to the end of the round.
const REST: Duration = Duration::from_secs(2);

/// What one kill did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Round {
    /// The node that was killed.
    pub(super) node: NodeId,
    /// Shards that it led.
    pub(super) shards_led: usize,
    /// Longest time in which nobody got an answer.
    pub(super) cluster_gap_ms: f64,
    /// Longest time in which one client got none.
    pub(super) worst_client_gap_ms: f64,
    pub(super) retries: u64,
    /// When the node was killed, on the course.
    pub(super) killed_at_ms: u32,
    pub(super) course: Vec<Moment>,
}

/// All rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Failover {
    pub(super) clients: u16,
    pub(super) median_cluster_gap_ms: Option<f64>,
    pub(super) median_worst_client_gap_ms: Option<f64>,
    pub(super) rounds: Vec<Round>,
}

impl Failover {
    pub(super) fn new(clients: u16, rounds: Vec<Round>) -> Self {
        Self {
            clients,
            median_cluster_gap_ms: median(rounds.iter().map(|round| round.cluster_gap_ms)),
            median_worst_client_gap_ms: median(
                rounds.iter().map(|round| round.worst_client_gap_ms),
            ),
            rounds,
        }
    }
}

/// How long a round is that is planned as `plan`.
pub(super) fn plan(plan: Plan) -> Plan {
    Plan { duration: RESTART_AFTER + REST, ..plan }
}

/// Kills the node that leads most shards, and restarts it.
pub(super) async fn round(
    target: &mut Target,
    population: &Arc<Population>,
    plan: Plan,
) -> Result<(Round, Counts)> {
    let work = Work::Pops(Arc::clone(population));
    let clients = Clients::start(&work, &target.endpoints, plan);
    let began = clients.began;
    sleep_until((began + plan.warm_up).into()).await;
    let (node, shards_led) = target.busiest().await?;
    let killed = began.elapsed();
    target.cluster()?.kill(node)?;
    sleep_until((began + killed + RESTART_AFTER).into()).await;
    target.cluster()?.launch(node)?;
    let traces = clients.join().await?;
    target.cluster()?.wait_ready().await?;

    let gaps = Gaps::of(&traces, Window::new(killed, plan.length()));
    let counts = counts(&traces);
    let round = Round {
        node,
        shards_led,
        cluster_gap_ms: gaps.cluster.as_secs_f64() * 1e3,
        worst_client_gap_ms: gaps.worst_client.as_secs_f64() * 1e3,
        retries: counts.retries,
        killed_at_ms: u32::try_from(killed.saturating_sub(plan.warm_up).as_millis())?,
        course: course(&traces, Window::new(plan.warm_up, plan.length()), STEP_MS),
    };
    Ok((round, counts))
}
