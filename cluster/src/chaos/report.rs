//! What a run did and found, for people and for programs.
//!
//! Guarantees: figures come from what was done and from the judged histories. A run that never hit
//! a kind of fault that it was to bring about, or in which too few fetches were answered, is called
//! vacuous. Leaves out: what could not be done on this machine, which is listed as left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Options, fault::Fault, stall};
use crate::{
    EndedByItself,
    check::{Broken, Invariant, Report as Judgement},
};

/// Answered fetches for each second of chaos below which a run shows too little.
const ANSWERED_PER_S_MIN: u64 = 10;
/// A run shows too little when more than one round in so many is void.
const VOID_PART: usize = 4;
/// Deeds that are named with an error.
const TRACE_MAX: usize = 12;

/// What was done in a round.
#[derive(Clone, Debug, Default)]
pub(super) struct Deeds {
    /// Time in which things were done.
    pub(super) chaos: Duration,
    faults: BTreeMap<Fault, usize>,
    missed: BTreeMap<Fault, usize>,
    points: BTreeMap<String, usize>,
    power_cuts: usize,
    disks_cut: usize,
    cut_in_flight: usize,
    trace: Vec<String>,
}

impl Deeds {
    /// `fault` was brought about, or was to be and was not.
    pub(super) fn did(&mut self, fault: Fault, done: bool) {
        let counter = if done { &mut self.faults } else { &mut self.missed };
        *counter.entry(fault).or_default() += 1;
        self.trace.push(if done { fault.to_string() } else { format!("{fault} (missed)") });
    }

    /// A node died at `point`.
    pub(super) fn died_at(&mut self, point: &str) {
        *self.points.entry(point.to_owned()).or_default() += 1;
    }

    /// The power of `nodes` nodes was cut at once.
    pub(super) fn power_cuts(&mut self, nodes: usize) {
        self.power_cuts += 1;
        self.disks_cut += nodes;
    }

    /// So many fetches were on their way when the power was cut.
    pub(super) fn caught_in_flight(&mut self, fetches: usize) {
        self.cut_in_flight += usize::from(fetches > 0);
    }

    /// What was done last.
    pub(super) fn trace(&self) -> String {
        let from = self.trace.len().saturating_sub(TRACE_MAX);
        if self.trace.is_empty() { "nothing".to_owned() } else { self.trace[from..].join(", ") }
    }
}

/// A round that was judged good.
#[derive(Debug)]
pub(super) struct RoundReport {
    pub(super) deeds: Deeds,
    pub(super) report: Judgement,
}

/// What a run comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Enough was done, and nothing was wrong.
    Good,
    /// An invariant is broken, a node ended by itself, or the cluster did not come back.
    Bad,
    /// Nothing was wrong, but too little was done to say so.
    Vacuous,
}

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it comes to.
    pub outcome: Outcome,
    /// Why it is bad or vacuous.
    pub reasons: Vec<String>,
    /// What decided what was done.
    pub seed: u64,
    /// Nodes of each cluster.
    pub nodes: u16,
    /// Their engine.
    pub engine: String,
    /// Rounds that were judged.
    pub rounds: usize,
    /// Rounds that came to nothing because the machine stood still, and how; in no other figure.
    pub void: Vec<String>,
    /// Time in which faults were brought about, in seconds.
    pub chaos_s: u64,
    /// Time of everything, in seconds.
    pub took_s: u64,
    /// Calls of every kind.
    pub operations: u64,
    /// Fetches that were answered.
    pub answered: u64,
    /// Those of them that were sent more than once.
    pub retried: u64,
    /// One-time prekeys handed out.
    pub issued: u64,
    /// Registrations, uploads and rotations.
    pub writes: u64,
    /// Operations whose outcome nobody knows.
    pub undecided: u64,
    /// Violations of all invariants.
    pub violations: u64,
    /// How often each kind of fault was brought about.
    pub faults: BTreeMap<Fault, usize>,
    /// How often one was tried and did not come about, such as a point that was not reached.
    pub missed: BTreeMap<Fault, usize>,
    /// How often a node died at each failpoint.
    pub failpoints: BTreeMap<String, usize>,
    /// Leaders killed, or cut off from power, with pops in flight.
    pub leaders_killed_in_flight: u64,
    /// Pops in flight when nodes were killed or cut off from power.
    pub in_flight_at_kills: u64,
    /// Moments at which power was cut.
    pub power_cuts: usize,
    /// Disks that were cut then.
    pub disks_cut: usize,
    /// Longest time of any round in which no fetch was answered, in milliseconds.
    pub longest_gap_ms: u64,
    /// Longest time for which the machine stood still, in milliseconds.
    pub longest_stall_ms: u64,
    /// How much was judged by each invariant.
    pub judged: BTreeMap<Invariant, u64>,
    /// Faults that cannot be brought about here, and why.
    pub left_out: Vec<String>,
}

/// Adds up rounds.
pub(super) struct Tally {
    report: Report,
    wanted: BTreeSet<Fault>,
    chaos: Duration,
    power_cuts_wanted: usize,
    /// Power cuts of the rounds that have nothing else.
    power_cuts: usize,
    has_clocks: bool,
}

impl Tally {
    pub(super) fn new(options: &Options, has_clocks: bool) -> Self {
        let report = Report {
            outcome: Outcome::Good,
            reasons: Vec::new(),
            seed: options.seed,
            nodes: options.nodes,
            engine: options.engine.to_string(),
            rounds: 0,
            void: Vec::new(),
            chaos_s: 0,
            took_s: 0,
            operations: 0,
            answered: 0,
            retried: 0,
            issued: 0,
            writes: 0,
            undecided: 0,
            violations: 0,
            faults: BTreeMap::new(),
            missed: BTreeMap::new(),
            failpoints: BTreeMap::new(),
            leaders_killed_in_flight: 0,
            in_flight_at_kills: 0,
            power_cuts: 0,
            disks_cut: 0,
            longest_gap_ms: 0,
            longest_stall_ms: 0,
            judged: BTreeMap::new(),
            left_out: Vec::new(),
        };
        let mut tally = Self {
            report,
            wanted: BTreeSet::new(),
            chaos: Duration::ZERO,
            power_cuts_wanted: options.power_cuts,
            power_cuts: 0,
            has_clocks,
        };
        if !options.duration.is_zero() {
            tally.wanted.extend(tally.possible(&options.faults));
        }
        if !has_clocks && options.faults.contains(&Fault::Clock) {
            let why = "clock: libfaketime is missing (apt-get install libfaketime)";
            tally.report.left_out.push(why.to_owned());
        }
        tally
    }

    /// The faults that can be brought about here.
    pub(super) fn possible(&self, faults: &[Fault]) -> Vec<Fault> {
        faults.iter().copied().filter(|fault| *fault != Fault::Clock || self.has_clocks).collect()
    }

    /// Time in which things were done.
    pub(super) fn chaos_time(&self) -> Duration {
        self.chaos
    }

    /// Power cuts that are still to be made.
    pub(super) fn cuts_left(&self) -> usize {
        self.power_cuts_wanted.saturating_sub(self.power_cuts)
    }

    /// Whether nothing was found.
    pub(super) fn is_well(&self) -> bool {
        self.report.outcome != Outcome::Bad
    }

    /// Adds what came of round `number`, in which the machine stood still for `stall` at most.
    pub(super) fn add(&mut self, number: usize, result: Result<RoundReport>, stall: Duration) {
        let report = &mut self.report;
        report.longest_stall_ms = report.longest_stall_ms.max(millis(stall));
        let RoundReport { deeds, report: judgement } = match result {
            Ok(round) => round,
            Err(error) => return self.fail(number, &error, stall),
        };
        report.rounds += 1;
        self.chaos += deeds.chaos;
        if deeds.chaos.is_zero() {
            self.power_cuts += deeds.power_cuts;
        }
        add(&mut report.faults, deeds.faults);
        add(&mut report.missed, deeds.missed);
        add(&mut report.failpoints, deeds.points);
        report.power_cuts += deeds.power_cuts;
        report.disks_cut += deeds.disks_cut;
        let summary = judgement.summary;
        report.operations += summary.operations;
        report.answered += large(summary.answered);
        report.retried += large(summary.retried);
        report.issued += large(summary.issued);
        report.writes += large(summary.writes);
        report.undecided += large(summary.undecided);
        report.leaders_killed_in_flight += large(summary.leaders_killed_in_flight);
        report.in_flight_at_kills += large(summary.in_flight_at_kills);
        report.longest_gap_ms = report.longest_gap_ms.max(summary.longest_gap_ms);
        for finding in judgement.findings {
            *report.judged.entry(finding.invariant).or_default() += finding.judged;
        }
    }

    /// A round that failed is bad; void only when it waited in vain while the machine stood still.
    fn fail(&mut self, number: usize, error: &anyhow::Error, stall: Duration) {
        let report = &mut self.report;
        let broken = error.downcast_ref::<Broken>();
        report.violations += broken.map_or(0, |broken| broken.0.violated());
        if broken.is_none() && !error.is::<EndedByItself>() && stall >= stall::EXCUSE {
            report.void.push(format!("round {number} after a stall of {stall:?}: {error:#}"));
        } else {
            report.outcome = Outcome::Bad;
            report.reasons.push(format!("round {number}: {error:#}"));
        }
    }

    /// So long has the run taken.
    pub(super) fn took(&mut self, time: Duration) {
        self.report.took_s = time.as_secs();
        self.report.chaos_s = self.chaos.as_secs();
    }

    /// How far the run is, in a line.
    pub(super) fn progress(&self) -> String {
        let Report { rounds, took_s, chaos_s, answered, violations, power_cuts, .. } = &self.report;
        let faults: usize = self.report.faults.values().sum();
        let leaders = self.report.leaders_killed_in_flight;
        format!(
            "{rounds} rounds in {took_s} s ({chaos_s} s of chaos): {answered} fetches answered, \
             {faults} faults, {leaders} leaders killed with pops in flight, {power_cuts} power cuts, \
             {violations} violations"
        )
    }

    /// The report so far.
    pub(super) fn report(&self) -> Report {
        let mut report = self.report.clone();
        if report.outcome == Outcome::Bad {
            return report;
        }
        for fault in &self.wanted {
            if !report.faults.contains_key(fault) {
                report.reasons.push(format!("{fault} was never brought about"));
            }
        }
        let least = ANSWERED_PER_S_MIN * report.chaos_s.max(1);
        if report.answered < least {
            let answered = report.answered;
            report.reasons.push(format!("{answered} fetches were answered, fewer than {least}"));
        }
        if report.leaders_killed_in_flight == 0 {
            report.reasons.push("no leader was killed with pops in flight".to_owned());
        }
        if report.void.len() * VOID_PART > report.rounds {
            report.reasons.push(format!("{} rounds are void", report.void.len()));
        }
        if self.cuts_left() > 0 {
            report.reasons.push(format!("{} power cuts are still to come", self.cuts_left()));
        }
        if !report.reasons.is_empty() {
            report.outcome = Outcome::Vacuous;
        }
        report
    }
}

impl Report {
    /// Writes `report.json` and `report.md` into `dir`.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        for (name, bytes) in [("report.json", json), ("report.md", self.markdown().into_bytes())] {
            let path = dir.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The report as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let outcome = match self.outcome {
            Outcome::Good => "good",
            Outcome::Bad => "BAD",
            Outcome::Vacuous => "vacuous",
        };
        let _ = writeln!(out, "# Chaos: {outcome}\n");
        for reason in &self.reasons {
            let _ = writeln!(out, "- {reason}");
        }
        if !self.reasons.is_empty() {
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "{} nodes over {}, seed {}, {} rounds in {} s, {} s of them chaos.\n",
            self.nodes, self.engine, self.seed, self.rounds, self.took_s, self.chaos_s
        );
        let figures = [
            ("operations", self.operations),
            ("fetches answered", self.answered),
            ("of them after a retry", self.retried),
            ("one-time prekeys handed out", self.issued),
            ("writes of devices", self.writes),
            ("leaders killed with pops in flight", self.leaders_killed_in_flight),
            ("pops in flight at kills and power cuts", self.in_flight_at_kills),
            ("power cuts", large(self.power_cuts)),
            ("disks cut", large(self.disks_cut)),
            ("longest time without an answer, ms", self.longest_gap_ms),
            ("longest time that the machine stood still, ms", self.longest_stall_ms),
            ("operations left without an outcome", self.undecided),
            ("violations", self.violations),
        ];
        table(&mut out, ["figure", "value"], figures.map(|(name, value)| (name.to_owned(), value)));
        let faults = self.faults.iter().map(|(fault, times)| (fault.to_string(), large(*times)));
        table(&mut out, ["fault", "times"], faults);
        let points = self.failpoints.iter().map(|(point, times)| (point.clone(), large(*times)));
        table(&mut out, ["died at", "times"], points);
        let judged = self.judged.iter().map(|(invariant, judged)| (invariant.to_string(), *judged));
        table(&mut out, ["invariant", "judged"], judged);
        for (fault, times) in &self.missed {
            let _ = writeln!(out, "- {fault} did not come about {times} times");
        }
        for void in &self.void {
            let _ = writeln!(out, "- void: {void}");
        }
        for left_out in &self.left_out {
            let _ = writeln!(out, "- left out: {left_out}");
        }
        out
    }
}

/// A table of two columns; none without rows.
fn table(out: &mut String, head: [&str; 2], rows: impl IntoIterator<Item = (String, u64)>) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "| {} | {} |\n|---|---:|", head[0], head[1]);
    for (name, value) in rows {
        let _ = writeln!(out, "| {name} | {value} |");
    }
    out.push('\n');
}

fn add<K: Ord>(sum: &mut BTreeMap<K, usize>, more: BTreeMap<K, usize>) {
    for (key, times) in more {
        *sum.entry(key).or_default() += times;
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn large(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
