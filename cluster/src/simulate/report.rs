//! What many simulated runs came to, for people and for programs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{FAULTS, REACHED, Summary};

/// Runs that found something and are told; the rest is counted.
const FOUND_MAX: usize = 20;
/// Fetches that a run must have answered for each second of faults, on average.
const ANSWERED_PER_SECOND_MIN: u64 = 5;

/// What many simulated runs came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Simulated seconds with faults in each run.
    pub seconds: u64,
    /// Runs, repetitions left out.
    pub runs: u64,
    /// Runs that were repeated and left the same trace.
    pub repeated: u64,
    /// Wall-clock time, in milliseconds.
    pub elapsed_ms: u64,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Calls of every kind.
    pub operations: u64,
    /// Fetches that were answered.
    pub answered: u64,
    /// Those that took more than one attempt.
    pub retried: u64,
    /// Answers to fetches that were given without a quorum.
    pub alone: u64,
    /// One-time prekeys handed out.
    pub issued: u64,
    /// Registrations, uploads and rotations.
    pub writes: u64,
    /// Reads of pools.
    pub reads: u64,
    /// Leaders that died while a fetch was on its way.
    pub leaders_hit: u64,
    /// What was done, how often.
    pub faults: BTreeMap<String, u64>,
    /// What nodes logged, how often.
    pub reached: BTreeMap<String, u64>,
    /// Operations whose outcome nobody knows at the end.
    pub undecided: u64,
    /// Runs with a violation, a different trace, or no end.
    pub violations: u64,
    /// What was found, by seed; the first ones.
    pub found: Vec<Found>,
    /// Invariants that were not judged in full, and in how many runs.
    pub not_judged: BTreeMap<String, u64>,
    /// Traces of runs that are to be repeated.
    #[serde(skip)]
    traces: BTreeMap<u64, String>,
}

/// A run that found something.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// What repeats it.
    pub seed: u64,
    /// What was found.
    pub what: Vec<String>,
}

/// What a report comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing was found, and enough was done to find something.
    Good,
    /// Something was found.
    Violated,
    /// Too little was done, and what is missing.
    Vacuous(Vec<String>),
}

impl Report {
    pub(super) fn new(seconds: u64) -> Self {
        Self {
            seconds,
            runs: 0,
            repeated: 0,
            elapsed_ms: 0,
            simulated_ms: 0,
            operations: 0,
            answered: 0,
            retried: 0,
            alone: 0,
            issued: 0,
            writes: 0,
            reads: 0,
            leaders_hit: 0,
            faults: BTreeMap::new(),
            reached: BTreeMap::new(),
            undecided: 0,
            violations: 0,
            found: Vec::new(),
            not_judged: BTreeMap::new(),
            traces: BTreeMap::new(),
        }
    }

    /// Adds a run; returns what it found.
    pub(super) fn add(&mut self, run: Summary) -> Vec<String> {
        self.runs += 1;
        self.simulated_ms += run.simulated_ms;
        self.operations += run.operations;
        self.answered += run.answered;
        self.retried += run.retried;
        self.alone += run.alone;
        self.issued += run.issued;
        self.writes += run.writes;
        self.reads += run.reads;
        self.leaders_hit += run.leaders_hit;
        self.undecided += run.undecided;
        for (counts, more) in [(&mut self.faults, &run.faults), (&mut self.reached, &run.reached)] {
            for (kind, times) in more {
                *counts.entry(kind.clone()).or_default() += times;
            }
        }
        for why in &run.not_judged {
            *self.not_judged.entry(why.clone()).or_default() += 1;
        }
        self.traces.insert(run.seed, run.trace);
        let mut found = run.violations;
        if run.undecided > 0 {
            found.push(format!("{} operations without an outcome at the end", run.undecided));
        }
        self.note(run.seed, found)
    }

    /// Compares a repetition with its run.
    pub(super) fn compare(&mut self, again: &Summary) -> Vec<String> {
        if self.traces.get(&again.seed) == Some(&again.trace) {
            self.repeated += 1;
            return Vec::new();
        }
        self.note(again.seed, vec!["a repetition left another trace".to_owned()])
    }

    /// Adds a run that did not come to its end.
    pub(super) fn fail(&mut self, seed: u64, why: String) -> Vec<String> {
        self.note(seed, vec![why])
    }

    fn note(&mut self, seed: u64, what: Vec<String>) -> Vec<String> {
        if !what.is_empty() {
            self.violations += 1;
            if self.found.len() < FOUND_MAX {
                self.found.push(Found { seed, what: what.clone() });
            }
        }
        what
    }

    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.violations > 0 {
            return Verdict::Violated;
        }
        let mut missing = Vec::new();
        let never = |counts: &BTreeMap<String, u64>, kind: &str| !counts.contains_key(kind);
        missing.extend(
            FAULTS.iter().filter(|kind| never(&self.faults, kind)).map(|kind| format!("no {kind}")),
        );
        missing.extend(
            REACHED
                .iter()
                .filter(|message| never(&self.reached, message))
                .map(|message| format!("never reached: {message}")),
        );
        if self.leaders_hit == 0 {
            missing.push("no leader died with a fetch on its way".to_owned());
        }
        if self.alone == 0 {
            missing.push("nothing was answered without a quorum".to_owned());
        }
        if self.answered < self.runs * self.seconds * ANSWERED_PER_SECOND_MIN || self.runs == 0 {
            missing.push(format!("only {} fetches were answered", self.answered));
        }
        if self.repeated == 0 {
            missing.push("no run was repeated".to_owned());
        }
        if missing.is_empty() { Verdict::Good } else { Verdict::Vacuous(missing) }
    }

    /// The command that repeats a run.
    #[must_use]
    pub fn repeats(&self, seed: u64) -> String {
        format!(
            "cargo run --release -p oncekey-simulator -- --seed {seed} --seconds {}",
            self.seconds
        )
    }
}

/// As Markdown.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = |ms: u64| format!("{} h", Hours(ms));
        writeln!(f, "# Simulation\n")?;
        match self.verdict() {
            Verdict::Good => writeln!(f, "Nothing was found.\n")?,
            Verdict::Violated => writeln!(f, "**{} runs found something.**\n", self.violations)?,
            Verdict::Vacuous(missing) => {
                writeln!(f, "**This shows too little:** {}.\n", missing.join("; "))?;
            }
        }
        let rows = [
            ("runs", self.runs.to_string()),
            ("repeated with the same trace", self.repeated.to_string()),
            ("wall-clock time", hours(self.elapsed_ms)),
            ("simulated time", hours(self.simulated_ms)),
            ("operations", self.operations.to_string()),
            ("fetches answered", self.answered.to_string()),
            ("of them after a retry", self.retried.to_string()),
            ("answers without a quorum", self.alone.to_string()),
            ("one-time prekeys handed out", self.issued.to_string()),
            ("writes", self.writes.to_string()),
            ("reads", self.reads.to_string()),
            ("leaders that died with a fetch on its way", self.leaders_hit.to_string()),
            ("operations without an outcome at the end", self.undecided.to_string()),
            ("runs with a violation", self.violations.to_string()),
        ];
        writeln!(f, "| | |\n|---|---:|")?;
        for (name, value) in rows {
            writeln!(f, "| {name} | {value} |")?;
        }
        for (title, counts) in [
            ("fault", &self.faults),
            ("what nodes logged", &self.reached),
            ("not judged in full, in runs", &self.not_judged),
        ] {
            if !counts.is_empty() {
                writeln!(f, "\n| {title} | times |\n|---|---:|")?;
            }
            for (name, times) in counts {
                writeln!(f, "| {name} | {times} |")?;
            }
        }
        for Found { seed, what } in &self.found {
            writeln!(f, "\nSeed {seed}: `{}`\n", self.repeats(*seed))?;
            for what in what {
                writeln!(f, "- {what}")?;
            }
        }
        Ok(())
    }
}

/// Hours of a time in milliseconds.
struct Hours(u64);

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.0 / 36_000;
        write!(f, "{}.{:02}", hundredths / 100, hundredths % 100)
    }
}
