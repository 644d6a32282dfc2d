//! Figures of all runs, their medians, and the ratios that count.
//!
//! Machines differ and so do their hours: only ratios of figures from the same round are formed,
//! and of these the median is told with the least and the greatest.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    load::Measured,
    machine::{Machine, Sync},
    oncekey::Shards,
};

/// How the clients reach what they pop from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// In the protocol of the store.
    Bare,
    /// Over HTTP, through a front.
    Front,
    /// Over HTTP, which is its own protocol.
    Http,
}

/// All figures of a comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    machine: Machine,
    warm_up_ms: u64,
    duration_ms: u64,
    /// A write of 4 KiB with `fdatasync`, at the begin of each round.
    sync: Vec<Sync>,
    series: Vec<Series>,
}

/// The runs of one target with one number of clients, one per round.
#[derive(Debug, Serialize)]
struct Series {
    name: &'static str,
    title: &'static str,
    way: Way,
    clients: usize,
    runs: Vec<Measured>,
}

/// Median, least and greatest.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// What the JSON file holds beside the figures themselves.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    results: &'a Results,
    medians: Vec<Median>,
    ratios: Vec<Ratio>,
}

#[derive(Serialize)]
struct Median {
    name: &'static str,
    way: Way,
    clients: usize,
    pops_per_second: f64,
    pops_per_second_min: f64,
    pops_per_second_max: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

#[derive(Serialize)]
struct Ratio {
    of: &'static str,
    over: &'static str,
    way: Way,
    clients: usize,
    median: f64,
    min: f64,
    max: f64,
}

impl Results {
    /// No figures yet.
    pub(crate) fn new(machine: Machine, warm_up_ms: u64, duration_ms: u64) -> Self {
        Self { machine, warm_up_ms, duration_ms, sync: Vec::new(), series: Vec::new() }
    }

    /// Adds what the disk did at the begin of a round.
    pub(crate) fn add_sync(&mut self, sync: Sync) {
        self.sync.push(sync);
    }

    /// Adds a run to its series.
    pub(crate) fn add(
        &mut self,
        (name, title): (&'static str, &'static str),
        way: Way,
        clients: usize,
        run: Measured,
    ) {
        let known = self.series.iter_mut().find(|s| s.is(name, way, clients));
        match known {
            Some(series) => series.runs.push(run),
            None => self.series.push(Series { name, title, way, clients, runs: vec![run] }),
        }
    }

    /// The figures, medians and ratios as JSON.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&Report {
            results: self,
            medians: self.series.iter().filter_map(Series::median).collect(),
            ratios: Shards::ALL
                .into_iter()
                .flat_map(|ours| self.series.iter().filter_map(move |over| self.ratio(ours, over)))
                .collect(),
        })
    }

    /// The tables, in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.machine.line());
        if self.sync.iter().any(|sync| sync.p50_us().is_none()) {
            text.push_str(
                "THE MACHINE WAS BUSY with other work: figures of this run mean little.\n\n",
            );
        }
        let syncs = self.sync.iter().filter_map(|sync| sync.p50_us()).map(f64::from);
        if let Some(sync) = Spread::of(syncs) {
            let _ =
                writeln!(text, "One write of 4 KiB with fdatasync, p50: {:.0} µs\n", sync.median);
        }
        self.table(&mut text, "Pops per second: median (least to greatest)", |series| {
            let rate = Spread::of(series.runs.iter().map(|run| run.pops_per_second))?;
            Some(format!("{:.0} ({:.0} to {:.0})", rate.median, rate.min, rate.max))
        });
        self.table(&mut text, "Milliseconds until the answer: p50 / p99 / p99.9", |series| {
            let median = series.median()?;
            let ms = |us: f64| us / 1000.0;
            let (p50, p99, p999) = (ms(median.p50_us), ms(median.p99_us), ms(median.p999_us));
            Some(format!("{p50:.2} / {p99:.1} / {p999:.1}"))
        });
        for ours in Shards::ALL {
            let (name, title) = ours.titled();
            if self.series.iter().any(|series| series.name == name) {
                self.table(&mut text, &format!("Pops per second of {title} over"), |series| {
                    let ratio = self.ratio(ours, series)?;
                    Some(format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max))
                });
                self.latency_over_sync(&mut text, ours);
            }
        }
        text
    }

    fn latency_over_sync(&self, text: &mut String, ours: Shards) {
        let (name, title) = ours.titled();
        let alone = self.series.iter().find(|series| series.is(name, Way::Http, 1));
        let pairs = alone.iter().flat_map(|series| &series.runs).zip(&self.sync);
        let ratios =
            pairs.filter_map(|(run, sync)| Some(f64::from(run.p50_us) / f64::from(sync.p50_us()?)));
        if let Some(ratio) = Spread::of(ratios) {
            let _ = writeln!(
                text,
                "p50 of {title} with one client over the p50 of one write with fdatasync: \
                 {:.2} ({:.2} to {:.2})\n",
                ratio.median, ratio.min, ratio.max
            );
        }
    }

    /// A row per target, a column per number of clients; a row without any cell is left out.
    fn table(&self, text: &mut String, title: &str, cell: impl Fn(&Series) -> Option<String>) {
        let mut columns: Vec<usize> = self.series.iter().map(|series| series.clients).collect();
        columns.sort_unstable();
        columns.dedup();
        let _ = write!(text, "{title}\n\n| clients | ");
        columns.iter().for_each(|clients| _ = write!(text, "| {clients} "));
        let _ = writeln!(text, "|\n|---|---{}|", "|--:".repeat(columns.len()));
        let mut rows: Vec<(&str, &str, Way)> = Vec::new();
        for series in &self.series {
            let row = (series.name, series.title, series.way);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        for (name, title, way) in rows {
            let of = |clients| self.series.iter().find(move |s| s.is(name, way, clients));
            let cells: Vec<_> =
                columns.iter().map(|clients| of(*clients).and_then(&cell)).collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(text, "| {title} | {} ", way.title());
            for cell in cells {
                let _ = write!(text, "| {} ", cell.unwrap_or_default());
            }
            text.push_str("|\n");
        }
        text.push('\n');
    }

    /// Oncekey over a series that is not Oncekey's, round by round.
    fn ratio(&self, ours: Shards, over: &Series) -> Option<Ratio> {
        if Shards::ALL.iter().any(|shards| shards.titled().0 == over.name) {
            return None;
        }
        let (of, _) = ours.titled();
        let ours = self.series.iter().find(|series| series.is(of, Way::Http, over.clients))?;
        let rounds = ours.runs.iter().zip(&over.runs);
        let spread = Spread::of(rounds.map(|(a, b)| a.pops_per_second / b.pops_per_second))?;
        Some(Ratio {
            of,
            over: over.name,
            way: over.way,
            clients: over.clients,
            median: spread.median,
            min: spread.min,
            max: spread.max,
        })
    }
}

impl Series {
    fn is(&self, name: &str, way: Way, clients: usize) -> bool {
        (self.name, self.way, self.clients) == (name, way, clients)
    }

    fn median(&self) -> Option<Median> {
        let of = |figure: fn(&Measured) -> f64| Spread::of(self.runs.iter().map(figure));
        let rate = of(|run| run.pops_per_second)?;
        Some(Median {
            name: self.name,
            way: self.way,
            clients: self.clients,
            pops_per_second: rate.median,
            pops_per_second_min: rate.min,
            pops_per_second_max: rate.max,
            p50_us: of(|run| f64::from(run.p50_us))?.median,
            p99_us: of(|run| f64::from(run.p99_us))?.median,
            p999_us: of(|run| f64::from(run.p999_us))?.median,
        })
    }
}

impl Way {
    /// For a reader of the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Front => "behind an HTTP front",
            Self::Http => "HTTP",
        }
    }
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pops_per_second: f64) -> Measured {
        Measured { pops_per_second, p50_us: 1, p99_us: 2, p999_us: 3, errors: 0 }
    }

    fn results() -> anyhow::Result<Results> {
        let mut results = Results::new(Machine::describe()?, 0, 1);
        for (rival, ours) in [(100.0, 300.0), (200.0, 200.0), (10.0, 20.0)] {
            results.add(("slow", "Slow"), Way::Front, 64, run(rival));
            results.add(Shards::Default.titled(), Way::Http, 64, run(ours));
        }
        Ok(results)
    }

    #[test]
    fn a_ratio_is_formed_within_each_round() -> anyhow::Result<()> {
        let results = results()?;
        let over = results.series.first();
        let ratio = over.and_then(|over| results.ratio(Shards::Default, over));
        let ratio = ratio.map(|ratio| (ratio.median, ratio.min, ratio.max));
        assert_eq!(ratio, Some((2.0, 1.0, 3.0)));
        Ok(())
    }

    #[test]
    fn oncekey_is_not_held_against_itself() -> anyhow::Result<()> {
        let markdown = results()?.markdown();
        let (_, ratios) = markdown.split_once("3 nodes over").unwrap_or_default();
        assert!(ratios.contains("| Slow |") && !ratios.contains("| Oncekey"), "{markdown}");
        Ok(())
    }

    #[test]
    fn the_median_of_two_is_their_mean() {
        let spread = Spread::of([4.0, 2.0].into_iter());
        assert_eq!(spread.map(|s| (s.median, s.min, s.max)), Some((3.0, 2.0, 4.0)));
    }
}
