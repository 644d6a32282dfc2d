//! What the benchmark found: as JSON, as a table and as a verdict.
//!
//! Guarantees: the figures of a step are medians over its runs; a ratio is the median of the ratios
//! of pairs that were measured one right after the other. Leaves out: judgement of speed; only a
//! broken promise makes the command fail.

use std::fmt;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    clients::Counts,
    failover::{Failover, Round},
    figures::median,
    measure::Run,
    publish::Stock,
    svg::Panel,
    target::NodeSize,
    usage::Machine,
};

/// Version of the form of the JSON; readers refuse what they do not know.
const VERSION: u32 = 1;

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    version: u32,
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) preload: Preload,
    pub(super) steps: Vec<Step>,
    pub(super) failover: Option<Failover>,
    pub(super) sizes_at_end: Vec<NodeSize>,
    pub(super) counts: Counts,
    pub(super) stock: Stock,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Settings {
    pub(super) endpoints: usize,
    pub(super) local: bool,
    /// Of the local nodes.
    pub(super) engine: Option<String>,
    pub(super) shards: Option<u16>,
    pub(super) warm_up_ms: u64,
    pub(super) duration_ms: u64,
    pub(super) threads: u16,
}

/// The keys published before the first measurement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Preload {
    pub(super) opks: u64,
    pub(super) users: u64,
    pub(super) seconds: f64,
    pub(super) sizes: Vec<NodeSize>,
}

/// One number of clients.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    clients: u16,
    median: Figures,
    noop_median: Option<Figures>,
    /// Pops per second over answers per second of the no-op server.
    over_noop: Option<f64>,
    /// Median latency over the median of one small write and its sync.
    p50_over_sync: Option<f64>,
    runs: Vec<Pair>,
}

/// One run and what was measured beside it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pair {
    /// Keys that the nodes held when the run began.
    pub(super) stored_opks: u64,
    pub(super) pops: Run,
    pub(super) noop: Option<Run>,
    /// Median of one small write and its sync, before a run with one client.
    pub(super) sync_p50_us: Option<f64>,
}

/// Medians over runs, each figure for itself.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    per_second: f64,
    /// Slowest and fastest run.
    per_second_range: [f64; 2],
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    server_cpu_s_per_1000: Option<f64>,
    own_cpu_s_per_1000: Option<f64>,
    device_bytes_per_answer: Option<f64>,
    written_bytes_per_answer: Option<f64>,
}

impl Figures {
    /// Of `runs`; none when there are none.
    fn of(runs: &[&Run]) -> Option<Self> {
        let of = |figure: fn(&Run) -> f64| median(runs.iter().map(|run| figure(run)));
        let maybe =
            |figure: fn(&Run) -> Option<f64>| median(runs.iter().filter_map(|run| figure(run)));
        let rates = || runs.iter().map(|run| run.per_second);
        Some(Self {
            per_second: of(|run| run.per_second)?,
            per_second_range: [rates().reduce(f64::min)?, rates().reduce(f64::max)?],
            p50_us: of(|run| run.latency.p50_us.into())?,
            p99_us: of(|run| run.latency.p99_us.into())?,
            p999_us: of(|run| run.latency.p999_us.into())?,
            server_cpu_s_per_1000: maybe(|run| run.server_cpu_s_per_1000),
            own_cpu_s_per_1000: maybe(|run| run.own_cpu_s_per_1000),
            device_bytes_per_answer: maybe(|run| run.device_bytes_per_answer),
            written_bytes_per_answer: maybe(|run| run.written_bytes_per_answer),
        })
    }
}

impl Step {
    /// The step of these runs; none when there are none.
    pub(super) fn new(clients: u16, runs: Vec<Pair>) -> Option<Self> {
        let pops: Vec<&Run> = runs.iter().map(|pair| &pair.pops).collect();
        let noops: Vec<&Run> = runs.iter().filter_map(|pair| pair.noop.as_ref()).collect();
        let over_noop = runs.iter().filter_map(|pair| {
            pair.noop.as_ref().map(|noop| pair.pops.per_second / noop.per_second)
        });
        let over_sync = runs.iter().filter_map(|pair| {
            pair.sync_p50_us.map(|sync| f64::from(pair.pops.latency.p50_us) / sync)
        });
        Some(Self {
            clients,
            median: Figures::of(&pops)?,
            noop_median: Figures::of(&noops),
            over_noop: median(over_noop),
            p50_over_sync: median(over_sync),
            runs,
        })
    }

    /// One line for who watches.
    pub(super) fn summary(&self) -> String {
        let Figures { per_second, p50_us, p99_us, .. } = &self.median;
        format!(
            "{}: {per_second:.0} pops/s, p50 {:.2} ms, p99 {:.2} ms",
            clients(self.clients),
            p50_us / 1e3,
            p99_us / 1e3
        )
    }
}

impl Report {
    pub(super) fn new(settings: Settings, preload: Preload) -> Self {
        Self {
            version: VERSION,
            machine: Machine::here(),
            settings,
            preload,
            steps: Vec::new(),
            failover: None,
            sizes_at_end: Vec::new(),
            counts: Counts::default(),
            stock: Stock::default(),
        }
    }

    /// Fails when a promise was broken.
    pub(super) fn verdict(&self) -> Result<()> {
        let Counts { retries: _, double_issues, foreign_keys, without_key, refused, unanswered } =
            self.counts;
        let Stock { delivered: _, undelivered, still_held } = self.stock;
        ensure!(double_issues == 0, "{double_issues} keys came twice");
        ensure!(foreign_keys == 0, "{foreign_keys} keys came that were never published");
        ensure!(undelivered == 0, "{undelivered} keys were used up and reached nobody");
        ensure!(still_held == 0, "{still_held} keys that came are still held by the nodes");
        ensure!(unanswered == 0, "{unanswered} fetches were never answered");
        ensure!(without_key == 0, "{without_key} fetches got no key although there was one");
        ensure!(refused == 0, "{refused} fetches were refused");
        Ok(())
    }

    /// The stretches of time for the picture.
    pub(super) fn panels(&self) -> Vec<Panel> {
        let steps = self.steps.iter().flat_map(|step| {
            step.runs.iter().map(move |pair| Panel {
                label: clients(step.clients),
                course: pair.pops.course.clone(),
                killed_at_ms: None,
            })
        });
        let rounds = self.failover.iter().flat_map(|failover| &failover.rounds);
        let rounds = rounds.map(|round| Panel {
            label: "leader killed".to_owned(),
            course: round.course.clone(),
            killed_at_ms: Some(round.killed_at_ms),
        });
        steps.chain(rounds).collect()
    }
}

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
        }
        if let Some(failover) = &self.failover {
            writeln!(f, "\n{}", failovers(failover))?;
        }
        write!(f, "\n{}", self.audit())
    }
}

impl Report {
    fn speed(&self) -> Table {
        let mut table = Table::new(&[
            "clients",
            "pops/s",
            "min..max",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "node CPU s/1k",
            "own CPU s/1k",
            "disk B/pop",
            "no-op/s",
            "own, no-op",
            "over no-op",
            "p50/sync",
        ]);
        for step in &self.steps {
            let Figures { per_second_range: [min, max], .. } = step.median;
            let noop = step.noop_median.as_ref();
            table.row([
                step.clients.to_string(),
                format!("{:.0}", step.median.per_second),
                format!("{min:.0}..{max:.0}"),
                format!("{:.2}", step.median.p50_us / 1e3),
                format!("{:.2}", step.median.p99_us / 1e3),
                format!("{:.2}", step.median.p999_us / 1e3),
                optional(step.median.server_cpu_s_per_1000, 3),
                optional(step.median.own_cpu_s_per_1000, 3),
                optional(step.median.device_bytes_per_answer, 0),
                optional(noop.map(|noop| noop.per_second), 0),
                optional(noop.and_then(|noop| noop.own_cpu_s_per_1000), 3),
                optional(step.over_noop, 2),
                optional(step.p50_over_sync, 1),
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

fn clients(number: u16) -> String {
    if number == 1 { "1 client".to_owned() } else { format!("{number} clients") }
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

/// Lines whose columns stand below each other: the first to the left, the others to the right.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(|&name| name.to_owned()).collect()])
    }

    fn row<const N: usize>(&mut self, row: [String; N]) {
        self.0.push(row.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.0.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> =
            (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        for (line, row) in self.0.iter().enumerate() {
            let end = if line + 1 < self.0.len() { "\n" } else { "" };
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                })
                .collect();
            write!(f, "{}{end}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Latency;

    fn run(per_second: f64, p50_us: u32) -> Run {
        Run {
            seconds: 1.0,
            answers: 1,
            per_second,
            latency: Latency { p50_us, ..Latency::default() },
            server_cpu_s_per_1000: Some(0.1),
            own_cpu_s_per_1000: None,
            device_bytes_per_answer: None,
            written_bytes_per_answer: None,
            retries: 0,
            course: Vec::new(),
        }
    }

    fn report() -> Report {
        let settings = Settings {
            endpoints: 3,
            local: true,
            engine: None,
            shards: None,
            warm_up_ms: 1,
            duration_ms: 1,
            threads: 1,
        };
        Report::new(settings, Preload { opks: 0, users: 0, seconds: 0.0, sizes: Vec::new() })
    }

    #[test]
    fn a_ratio_is_that_of_pairs() {
        let pair = |pops, noop, sync| Pair {
            stored_opks: 0,
            pops: run(pops, 600),
            noop: Some(run(noop, 1)),
            sync_p50_us: Some(sync),
        };
        let runs = vec![pair(10.0, 20.0, 300.0), pair(30.0, 40.0, 200.0), pair(20.0, 25.0, 600.0)];
        let step = Step::new(1, runs).unwrap();
        assert_eq!(step.over_noop, Some(0.75), "the medians themselves have the ratio 0.8");
        assert_eq!(step.p50_over_sync, Some(2.0));
        assert_eq!(step.median.per_second_range, [10.0, 30.0]);
        assert_eq!(step.median.server_cpu_s_per_1000, Some(0.1));
        assert_eq!(step.median.own_cpu_s_per_1000, None);
        assert!(Step::new(1, Vec::new()).is_none());
    }

    #[test]
    fn every_broken_promise_fails_the_command() {
        assert!(report().verdict().is_ok());
        let breaks: [fn(&mut Report); 7] = [
            |report| report.counts.double_issues = 1,
            |report| report.counts.foreign_keys = 1,
            |report| report.counts.without_key = 1,
            |report| report.counts.refused = 1,
            |report| report.counts.unanswered = 1,
            |report| report.stock.undelivered = 1,
            |report| report.stock.still_held = 1,
        ];
        for (number, broken) in breaks.iter().enumerate() {
            let mut report = report();
            broken(&mut report);
            assert!(report.verdict().is_err(), "number {number}");
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(&["name", "n"]);
        table.row(["a".into(), "100".into()]);
        table.row(["bb".into(), String::new()]);
        assert_eq!(table.to_string(), "name    n\na     100\nbb");
    }
}
