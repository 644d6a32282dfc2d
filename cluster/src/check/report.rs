//! What the checkers found, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::{Finding, Invariant, Verdict};
use crate::history::{History, Summary, Torn, record::Phase};

/// What every checker found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// What recorded the history.
    pub source: String,
    /// What repeats the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Bytes of a torn last line, which was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_bytes: Option<usize>,
    /// Whether the run came to its end.
    pub ended: bool,
    /// The figures.
    pub summary: Summary,
    /// One for each invariant, in order.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(history: &History, findings: Vec<Finding>) -> Self {
        Self {
            source: history.begin.source.clone(),
            seed: history.begin.seed,
            torn_bytes: history.torn.map(|Torn { bytes, .. }| bytes),
            ended: history.reached(Phase::End),
            summary: history.summary(),
            findings,
        }
    }

    /// What was found about `invariant`.
    #[must_use]
    pub fn finding(&self, invariant: Invariant) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.invariant == invariant)
    }

    /// Violations of all invariants.
    #[must_use]
    pub fn violated(&self) -> u64 {
        self.findings.iter().map(|finding| finding.violated).sum()
    }

    /// The invariants that are broken.
    #[must_use]
    pub fn broken(&self) -> Vec<Invariant> {
        let broken = |finding: &&Finding| finding.verdict() == Verdict::Violated;
        self.findings.iter().filter(broken).map(|finding| finding.invariant).collect()
    }

    /// Fails when an invariant is broken.
    ///
    /// # Errors
    ///
    /// The report.
    pub fn into_result(self) -> Result<Self, Broken> {
        if self.violated() == 0 { Ok(self) } else { Err(Broken(Box::new(self))) }
    }
}

/// A history that breaks an invariant.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the history breaks an invariant\n{0}")]
pub struct Broken(pub Box<Report>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { operations, fetches, answered, retried, issued, writes, reads, .. } =
            self.summary;
        write!(f, "history of {}", self.source)?;
        if let Some(seed) = self.seed {
            write!(f, ", seed {seed}")?;
        }
        writeln!(
            f,
            "\n  {operations} operations in {} ms: {fetches} fetches ({answered} answered, \
             {retried} of them after a retry), {writes} writes, {reads} reads; {issued} keys handed \
             out; {} without an outcome",
            self.summary.lasted_ms, self.summary.undecided
        )?;
        if !self.summary.events.is_empty() {
            let events: Vec<_> =
                self.summary.events.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
            writeln!(
                f,
                "  done to the cluster: {}; nodes killed with fetches on their way: {}, of them \
                 leaders: {}",
                events.join(", "),
                self.summary.killed_in_flight,
                self.summary.leaders_killed_in_flight
            )?;
        }
        if let Some(bytes) = self.torn_bytes {
            writeln!(f, "  the last line is torn; its {bytes} bytes are left out")?;
        }
        if !self.ended {
            writeln!(f, "  the history does not come to its end")?;
        }
        for finding in &self.findings {
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = Invariant::ALL.iter().position(|invariant| *invariant == self.invariant);
        let number = number.map(|number| number + 1).filter(|number| *number <= 9);
        let number = number.map_or(String::new(), |number| number.to_string());
        let verdict = match self.verdict() {
            Verdict::Holds => format!("holds, {} judged", self.judged),
            Verdict::Violated => {
                format!("VIOLATED {} times, {} judged", self.violated, self.judged)
            }
            Verdict::NotJudged => "not judged".to_owned(),
        };
        writeln!(f, "{number:>2} {:<12} {verdict}", self.invariant)?;
        for violation in &self.violations {
            writeln!(f, "     {}", violation.message)?;
        }
        let shown = u64::try_from(self.violations.len()).unwrap_or(u64::MAX);
        if self.violated > shown {
            writeln!(f, "     … and {} more", self.violated - shown)?;
        }
        for why in &self.not_judged {
            writeln!(f, "     not judged: {why}")?;
        }
        Ok(())
    }
}
