//! Rounds of nothing but power cuts.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt as _;

use super::{
    fault::Fault,
    report::RoundReport,
    round::{READY_LIMIT, Round},
};

/// Power cuts before a cluster is settled and judged, and another one is made.
const PER_ROUND: usize = 50;
/// Most fetches between two power cuts.
const BETWEEN_MAX: usize = 120;

impl Round<'_> {
    /// Cuts the power of one node, a leader, or all of them, again and again, `most` times at most;
    /// then judges. What was acknowledged before a cut must be there after it.
    pub(super) async fn power_cuts(mut self, most: usize) -> Result<RoundReport> {
        for _ in 0..most.min(PER_ROUND) {
            let fetches = self.rng.random_range(1..BETWEEN_MAX);
            self.people.progress(fetches, READY_LIMIT).await?;
            let (fault, nodes) = match self.rng.random_range(0..10) {
                0..4 => (Fault::PowerCutAll, self.cluster.running()),
                4..7 => (Fault::PowerCut, vec![self.any_leader().await?]),
                _ => (Fault::PowerCut, vec![self.any_node()?]),
            };
            self.deeds.caught_in_flight(self.people.in_flight());
            self.cluster.check_running()?;
            self.cut_power(&nodes)?;
            self.deeds.did(fault, true);
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..150))).await;
            self.cluster.start_all().await?;
        }
        self.end().await
    }
}
