//! The figures that have a bar.
//!
//! Guarantees: a bar stands only beside a figure that was measured under its conditions; under
//! others the figure stands alone. Of several nodes the worst counts, unless the figure is a median.
//! Leaves out: the ratios to other stores; `bench/` measures those.

use std::fmt;

use serde::Serialize;

use super::{Report, Step, clients};

/// Stored keys that disk, memory, restart and the rate under many keys are judged with. Of few keys
/// an engine may hold most in memory.
const MANY: u64 = 10_000_000;
/// Stored keys, about, whose rate the one with many is compared with.
const FEW: u64 = 500_000;
/// Shards that the processor time without load is judged with.
const SHARDS: u16 = 16;

/// A figure, and what it must be.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bar {
    pub(super) figure: &'static str,
    /// What it was measured with.
    pub(super) with: String,
    pub(super) must_be: Option<Limit>,
    pub(super) is: f64,
}

/// The bar itself.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {bar}"),
            Self::AtMost(bar) => write!(f, "≤ {bar}"),
        }
    }
}

impl Limit {
    fn when(self, holds: bool) -> Option<Self> {
        holds.then_some(self)
    }
}

/// All figures of `report` that have one.
pub(super) fn all(report: &Report) -> Vec<Bar> {
    let mut bars = speed(report);
    bars.extend(failover(report));
    bars.extend(many(report));
    bars.extend(sizes(report));
    bars.extend(idle_and_restart(report));
    bars
}

fn speed(report: &Report) -> Vec<Bar> {
    let with = |step: &Step| format!("{}, {} stored", clients(step.clients), step.stored_opks);
    let over_noop = report.steps.iter().filter_map(|step| {
        let must_be = match step.clients {
            64 => Some(Limit::AtLeast(0.33)),
            256 => Some(Limit::AtLeast(0.40)),
            _ => None,
        };
        Some(Bar { figure: "pops/s over no-op", with: with(step), must_be, is: step.over_noop? })
    });
    let over_sync = report.steps.iter().filter_map(|step| {
        let must_be = Limit::AtMost(4.0).when(step.clients == 1);
        Some(Bar {
            figure: "p50 over one sync",
            with: with(step),
            must_be,
            is: step.p50_over_sync?,
        })
    });
    over_noop.chain(over_sync).collect()
}

fn failover(report: &Report) -> Vec<Bar> {
    let Some(failover) = &report.failover else { return Vec::new() };
    let with = format!("{}, kills: {}", clients(failover.clients), failover.rounds.len());
    let bar = |figure, limit, is: Option<f64>| {
        let must_be = Some(Limit::AtMost(limit));
        Some(Bar { figure, with: with.clone(), must_be, is: is? })
    };
    [
        bar("longest gap, ms, median", 500.0, failover.median_cluster_gap_ms),
        bar("worst client, ms, median", 700.0, failover.median_worst_client_gap_ms),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The rate with the most keys over that with the fewest, for each number of clients.
fn many(report: &Report) -> Vec<Bar> {
    let [few, .., many] = report.loads.as_slice() else { return Vec::new() };
    let steps = report.steps.len() / report.loads.len();
    let first = report.steps.iter().take(steps);
    let last = report.steps.iter().skip(report.steps.len() - steps);
    let bar = |(few_step, many_step): (&Step, &Step)| Bar {
        figure: "pops/s over those with fewer stored",
        with: format!(
            "{}, {} over {} stored",
            clients(many_step.clients),
            many_step.stored_opks,
            few_step.stored_opks
        ),
        must_be: Limit::AtLeast(0.8).when(few.stored_opks <= FEW && many.stored_opks >= MANY),
        is: many_step.median.per_second / few_step.median.per_second,
    };
    first.zip(last).map(bar).collect()
}

fn sizes(report: &Report) -> Vec<Bar> {
    let Some(load) = report.loads.last() else { return Vec::new() };
    let bar = |figure, must_be, worst: Option<f64>| {
        Some(Bar { figure, with: format!("{} stored", load.stored_opks), must_be, is: worst? })
    };
    let disk = load.sizes.iter().map(|size| size.state_bytes_per_opk).reduce(f64::max);
    let memory = load.sizes.iter().filter_map(|size| size.memory);
    let memory = memory.map(|memory| memory.resident_bytes).max();
    #[expect(clippy::cast_precision_loss, reason = "exact to 2^53")]
    let memory = memory.map(|bytes| bytes as f64 / f64::from(1 << 20));
    let with_many = load.stored_opks >= MANY;
    [
        bar("bytes on disk per stored key", Limit::AtMost(200.0).when(with_many), disk),
        bar("resident memory, MiB", Limit::AtMost(600.0).when(with_many), memory),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn idle_and_restart(report: &Report) -> Vec<Bar> {
    let idle = report.idle.as_ref().and_then(|idle| {
        Some(Bar {
            figure: "idle CPU, % of a core, median",
            with: format!("{} shards", report.settings.shards?),
            must_be: Limit::AtMost(3.0).when(report.settings.shards == Some(SHARDS)),
            is: idle.median_cpu_percent?,
        })
    });
    let with_many = report.loads.last().is_some_and(|load| load.stored_opks >= MANY);
    let slowest = report.restarts.iter().max_by(|one, other| one.ready_s.total_cmp(&other.ready_s));
    let restart = slowest.map(|restart| Bar {
        figure: "restart until ready, s",
        with: format!("node {}, {}", restart.node, restart.way),
        must_be: Limit::AtMost(10.0).when(with_many),
        is: restart.ready_s,
    });
    idle.into_iter().chain(restart).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{
                restart::{Restart, Way},
                target::NodeSize,
            },
            Load, Pair, tests,
        },
        *,
    };

    fn report(stored: [u64; 2], per_second: [f64; 2]) -> Report {
        let mut report = tests::report();
        for (stored_opks, per_second) in stored.into_iter().zip(per_second) {
            let sizes = [100.0, 150.0].map(|state_bytes_per_opk| NodeSize {
                node: oncekey_types::NodeId(1),
                memory: None,
                state_bytes: 0,
                state_bytes_per_opk,
                log_bytes: 0,
            });
            report.loads.push(Load {
                stored_opks,
                opks: 0,
                users: 0,
                seconds: 0.0,
                settled_s: None,
                sizes: sizes.into(),
            });
            for clients in [16, 64] {
                let noop = Some(tests::run(2.0 * per_second, 1));
                let pops = tests::run(per_second, 1);
                let pair = Pair { stored_opks, pops, noop, sync_p50_us: None };
                report.steps.extend(Step::new(clients, vec![pair]));
            }
        }
        report
    }

    fn found(report: &Report) -> Vec<(&'static str, Option<Limit>, f64)> {
        all(report).into_iter().map(|bar| (bar.figure, bar.must_be, bar.is)).collect()
    }

    #[test]
    fn the_worst_node_counts_and_the_most_keys_are_held_against_the_fewest() {
        let restart = |way, ready_s| Restart { node: oncekey_types::NodeId(1), way, ready_s };
        let mut report = report([100_000, MANY], [20.0, 15.0]);
        report.restarts = vec![restart(Way::Sigterm, 2.0), restart(Way::Sigkill, 3.0)];
        let bars = found(&report);
        let fewer = "pops/s over those with fewer stored";
        assert_eq!(
            bars,
            [
                ("pops/s over no-op", None, 0.5),
                ("pops/s over no-op", Some(Limit::AtLeast(0.33)), 0.5),
                ("pops/s over no-op", None, 0.5),
                ("pops/s over no-op", Some(Limit::AtLeast(0.33)), 0.5),
                (fewer, Some(Limit::AtLeast(0.8)), 0.75),
                (fewer, Some(Limit::AtLeast(0.8)), 0.75),
                ("bytes on disk per stored key", Some(Limit::AtMost(200.0)), 150.0),
                ("restart until ready, s", Some(Limit::AtMost(10.0)), 3.0),
            ]
        );
    }

    #[test]
    fn no_bar_stands_beside_a_figure_of_other_conditions() {
        for stored in [[100_000, MANY - 1], [FEW + 1, MANY]] {
            let bars = found(&report(stored, [20.0, 15.0]));
            let fewer = bars.iter().filter(|(figure, ..)| figure.contains("fewer"));
            let limits: Vec<_> = fewer.map(|(_, limit, _)| *limit).collect();
            assert_eq!(limits, [None, None], "{stored:?}: {bars:?}");
        }
    }

    #[test]
    fn a_limit_says_its_side() {
        assert_eq!(Limit::AtLeast(0.33).to_string(), "≥ 0.33");
        assert_eq!(Limit::AtMost(4.0).to_string(), "≤ 4");
    }
}
