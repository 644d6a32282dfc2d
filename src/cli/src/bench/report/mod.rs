//! What the benchmark found: as JSON, as tables and as a verdict.
//!
//! Guarantees: the figures of a step are medians over its runs; a ratio is the median of the ratios
//! of pairs that were measured one right after the other. Leaves out: judgement of speed; the bars
//! are told, but only a broken promise makes the command fail.

mod bars;
mod tables;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    clients::Counts, failover::Failover, figures::median, idle::Idle, measure::Run, publish::Stock,
    restart::Restart, svg::Panel, target::NodeSize, usage::Machine,
};
use bars::Bar;

/// Version of the form of the JSON; readers refuse what they do not know.
const VERSION: u32 = 1;

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    version: u32,
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) loads: Vec<Load>,
    pub(super) idle: Option<Idle>,
    pub(super) steps: Vec<Step>,
    pub(super) failover: Option<Failover>,
    pub(super) restarts: Vec<Restart>,
    pub(super) sizes_at_end: Vec<NodeSize>,
    pub(super) counts: Counts,
    pub(super) stock: Stock,
    bars: Vec<Bar>,
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
    pub(super) leader_first: bool,
    pub(super) threads: u16,
    /// Whether local nodes talked TLS.
    pub(super) tls: bool,
    /// Whether the nodes wanted tokens and signatures.
    pub(super) tokens: bool,
}

/// Keys published before measurements.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Load {
    /// Keys that the nodes hold then.
    pub(super) stored_opks: u64,
    /// Keys published for it.
    pub(super) opks: u64,
    pub(super) users: u64,
    pub(super) seconds: f64,
    /// Time from then until the state on the disks kept its size; none when it did not in time, or
    /// the nodes are elsewhere.
    pub(super) settled_s: Option<f64>,
    /// Once it had settled.
    pub(super) sizes: Vec<NodeSize>,
}

impl Load {
    /// One line for who watches.
    pub(super) fn summary(&self) -> String {
        let Self { stored_opks, opks, users, seconds, settled_s, sizes } = self;
        #[expect(clippy::cast_precision_loss, reason = "exact to 2^53")]
        let rate = *opks as f64 / seconds.max(1e-3);
        let settled = match settled_s {
            Some(settled_s) => format!("; the disks were still after {settled_s:.0} s"),
            None if sizes.is_empty() => String::new(),
            None => "; the disks were never still".to_owned(),
        };
        format!(
            "{opks} one-time prekeys of {users} users published in {seconds:.1} s, {rate:.0}/s; \
             {stored_opks} are stored{settled}"
        )
    }
}

/// One number of clients.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    clients: u16,
    /// Keys that the nodes held when the first run began.
    stored_opks: u64,
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
    entries_per_second: Option<f64>,
    answers_per_entry: Option<f64>,
    syncs_per_second: Option<f64>,
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
            entries_per_second: maybe(|run| run.entries_per_second),
            answers_per_entry: maybe(|run| run.answers_per_entry),
            syncs_per_second: maybe(|run| run.syncs_per_second),
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
            stored_opks: runs.first()?.stored_opks,
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
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            version: VERSION,
            machine: Machine::here(),
            settings,
            loads: Vec::new(),
            idle: None,
            steps: Vec::new(),
            failover: None,
            restarts: Vec::new(),
            sizes_at_end: Vec::new(),
            counts: Counts::default(),
            stock: Stock::default(),
            bars: Vec::new(),
        }
    }

    /// The same with every figure that has a bar beside it, once all is measured.
    pub(super) fn judged(self) -> Self {
        let bars = bars::all(&self);
        Self { bars, ..self }
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

fn clients(number: u16) -> String {
    if number == 1 { "1 client".to_owned() } else { format!("{number} clients") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Latency;

    pub(super) fn run(per_second: f64, p50_us: u32) -> Run {
        Run {
            seconds: 1.0,
            answers: 1,
            per_second,
            latency: Latency { p50_us, ..Latency::default() },
            server_cpu_s_per_1000: Some(0.1),
            own_cpu_s_per_1000: None,
            device_bytes_per_answer: None,
            written_bytes_per_answer: None,
            entries_per_second: Some(50.0),
            answers_per_entry: None,
            syncs_per_second: None,
            retries: 0,
            course: Vec::new(),
        }
    }

    pub(super) fn report() -> Report {
        let settings = Settings {
            endpoints: 3,
            local: true,
            engine: None,
            shards: None,
            warm_up_ms: 1,
            duration_ms: 1,
            leader_first: false,
            threads: 1,
            tls: false,
            tokens: false,
        };
        Report::new(settings)
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
        assert_eq!(step.median.entries_per_second, Some(50.0));
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
}
