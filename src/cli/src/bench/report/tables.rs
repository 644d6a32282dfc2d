//! The report as a person reads it.
//!
//! Guarantees: nothing in it that is not in the JSON. Leaves out: single runs, and their course.

use std::fmt;

use super::{
    super::{
        clients::Counts,
        failover::{Failover, Round},
        idle::Idle,
        publish::Stock,
        restart::{Restart, Way},
        target::NodeSize,
        usage::Memory,
    },
    Figures, Report,
};
use crate::table::Table;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.machine.optimised() {
            writeln!(
                f,
                "\nThis program was built without optimisation; the figures mean nothing."
            )?;
        }
        if !self.steps.is_empty() {
            writeln!(f, "\n{}", self.speed())?;
            writeln!(f, "\n{}", self.cost())?;
        }
        if self.loads.iter().any(|load| !load.sizes.is_empty()) {
            writeln!(f, "\n{}", self.sizes())?;
        }
        if let Some(failover) = &self.failover {
            writeln!(f, "\n{}", failovers(failover))?;
        }
        if self.idle.is_some() || !self.restarts.is_empty() {
            writeln!(f, "\n{}", self.nodes())?;
        }
        if !self.bars.is_empty() {
            writeln!(f, "\n{}", self.bars())?;
        }
        write!(f, "\n{}", self.audit())
    }
}

impl Report {
    fn speed(&self) -> Table {
        let mut table = Table::new(&[
            "clients",
            "stored",
            "pops/s",
            "min..max",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "no-op/s",
            "over no-op",
            "p50/sync",
        ]);
        for step in &self.steps {
            let Figures { per_second_range: [min, max], .. } = step.median;
            table.row([
                step.clients.to_string(),
                step.stored_opks.to_string(),
                format!("{:.0}", step.median.per_second),
                format!("{min:.0}..{max:.0}"),
                format!("{:.2}", step.median.p50_us / 1e3),
                format!("{:.2}", step.median.p99_us / 1e3),
                format!("{:.2}", step.median.p999_us / 1e3),
                optional(step.noop_median.as_ref().map(|noop| noop.per_second), 0),
                optional(step.over_noop, 2),
                optional(step.p50_over_sync, 1),
            ]);
        }
        table
    }

    fn cost(&self) -> Table {
        let mut table = Table::new(&[
            "clients",
            "stored",
            "node CPU s/1k",
            "own CPU s/1k",
            "own, no-op",
            "disk B/pop",
            "entries/s",
            "pops/entry",
            "syncs/s of a node",
        ]);
        for step in &self.steps {
            let noop = step.noop_median.as_ref();
            table.row([
                step.clients.to_string(),
                step.stored_opks.to_string(),
                optional(step.median.server_cpu_s_per_1000, 3),
                optional(step.median.own_cpu_s_per_1000, 3),
                optional(noop.and_then(|noop| noop.own_cpu_s_per_1000), 3),
                optional(step.median.device_bytes_per_answer, 0),
                optional(step.median.entries_per_second, 0),
                optional(step.median.answers_per_entry, 1),
                optional(step.median.syncs_per_second, 0),
            ]);
        }
        table
    }

    fn sizes(&self) -> Table {
        let mut table = Table::new(&[
            "stored",
            "node",
            "state MiB",
            "B/key",
            "log MiB",
            "memory MiB",
            "peak MiB",
            "disk still",
        ]);
        for load in &self.loads {
            for NodeSize { node, memory, state_bytes, state_bytes_per_opk, log_bytes } in
                &load.sizes
            {
                let resident = |figure: fn(Memory) -> u64| memory.map(|memory| mib(figure(memory)));
                table.row([
                    load.stored_opks.to_string(),
                    node.to_string(),
                    format!("{:.1}", mib(*state_bytes)),
                    format!("{state_bytes_per_opk:.1}"),
                    format!("{:.1}", mib(*log_bytes)),
                    optional(resident(|memory| memory.resident_bytes), 1),
                    optional(resident(|memory| memory.resident_peak_bytes), 1),
                    load.settled_s
                        .map_or("never".to_owned(), |after| format!("after {after:.0} s")),
                ]);
            }
        }
        table
    }

    /// What was measured of each node by itself.
    fn nodes(&self) -> Table {
        let mut table =
            Table::new(&["node", "idle CPU %", "s until ready after SIGTERM", "after SIGKILL"]);
        let idle = self.idle.iter().flat_map(|Idle { nodes, .. }| nodes);
        let mut nodes: Vec<_> = idle.clone().map(|idle| idle.node).collect();
        nodes.extend(self.restarts.iter().map(|restart| restart.node));
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let cpu = idle.clone().find(|idle| idle.node == node).map(|idle| idle.cpu_percent);
            let ready = |by: Way| {
                let found = self
                    .restarts
                    .iter()
                    .find(|Restart { node: of, way, .. }| (*of, *way) == (node, by));
                optional(found.map(|restart| restart.ready_s), 2)
            };
            table.row([
                node.to_string(),
                optional(cpu, 2),
                ready(Way::Sigterm),
                ready(Way::Sigkill),
            ]);
        }
        table
    }

    fn bars(&self) -> Table {
        let mut table = Table::new(&["", "measured with", "must be", "is"]);
        for bar in &self.bars {
            table.row([
                bar.figure.to_owned(),
                bar.with.clone(),
                bar.must_be.map(|limit| limit.to_string()).unwrap_or_default(),
                format!("{:.2}", bar.is),
            ]);
        }
        table
    }

    fn audit(&self) -> Table {
        let mut table = Table::new(&["", "must be", "is"]);
        let Counts { retries, double_issues, foreign_keys, without_key, refused, unanswered } =
            self.counts;
        let Stock { delivered, undelivered, still_held } = self.stock;
        for (name, must, is) in [
            ("keys delivered", "", delivered),
            ("requests sent again", "", retries),
            ("double issues", "0", double_issues),
            ("keys never published", "0", foreign_keys),
            ("keys used up but not delivered", "0", undelivered),
            ("keys delivered but still held", "0", still_held),
            ("fetches never answered", "0", unanswered),
            ("fetches without a key", "0", without_key),
            ("fetches refused", "0", refused),
        ] {
            table.row([name.to_owned(), must.to_owned(), is.to_string()]);
        }
        table
    }
}

fn failovers(failover: &Failover) -> Table {
    let mut table = Table::new(&[
        "leader killed",
        "shards led",
        "longest gap ms",
        "worst client ms",
        "retries",
    ]);
    for Round { node, shards_led, cluster_gap_ms, worst_client_gap_ms, retries, .. } in
        &failover.rounds
    {
        table.row([
            format!("node {node}"),
            shards_led.to_string(),
            format!("{cluster_gap_ms:.0}"),
            format!("{worst_client_gap_ms:.0}"),
            retries.to_string(),
        ]);
    }
    table.row([
        "median".to_owned(),
        String::new(),
        optional(failover.median_cluster_gap_ms, 0),
        optional(failover.median_worst_client_gap_ms, 0),
        String::new(),
    ]);
    table
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact to 2^53")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}
