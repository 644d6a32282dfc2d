//! What a cluster uses that nobody asks anything.
//!
//! Guarantees: nothing was sent to the nodes meanwhile. Leaves out: processor time below the tick of
//! the kernel's clock, a hundredth of a second.

use std::time::{Duration, Instant};

use oncekey_types::NodeId;
use serde::Serialize;
use tokio::time::sleep;

use super::{figures::median, target::Target};

/// Processor time of the nodes without load.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Idle {
    pub(super) seconds: f64,
    /// Of one core.
    pub(super) median_cpu_percent: Option<f64>,
    pub(super) nodes: Vec<NodeIdle>,
}

/// That of one node.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct NodeIdle {
    pub(super) node: NodeId,
    pub(super) cpu_percent: f64,
}

impl Idle {
    /// One line for who watches.
    pub(super) fn summary(&self) -> String {
        let median = self.median_cpu_percent.unwrap_or_default();
        format!("without load for {:.0} s: {median:.2} % of a core, the median node", self.seconds)
    }
}

/// Leaves the nodes alone for `length`.
pub(super) async fn idle(target: &Target, length: Duration) -> Idle {
    let started = Instant::now();
    let before = target.usages();
    sleep(length).await;
    let seconds = started.elapsed().as_secs_f64();
    let after = target.usages();
    let nodes: Vec<_> = before
        .into_iter()
        .zip(after)
        // A node that went down meanwhile has no figure.
        .filter(|((before, _), (after, _))| before == after)
        .map(|((node, before), (_, after))| NodeIdle {
            node,
            cpu_percent: after.since(before).cpu.as_secs_f64() * 100.0 / seconds,
        })
        .collect();
    let median_cpu_percent = median(nodes.iter().map(|node| node.cpu_percent));
    Idle { seconds, median_cpu_percent, nodes }
}
