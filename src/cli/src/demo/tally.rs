//! The final table, and whether it is as it must be.

use std::{collections::BTreeSet, fmt, time::Duration};

use anyhow::{Result, bail};
use oncekey_cluster::check::{Finding, Invariant, Report};
use oncekey_types::NodeId;

use super::{Repeated, people::Fetch};

/// Failures shown below the table.
const FAILURES_SHOWN: usize = 5;

/// What was counted.
pub(super) struct Tally {
    rows: Vec<Row>,
    failures: Vec<String>,
}

struct Row {
    name: String,
    value: String,
    holds: bool,
}

impl Row {
    fn new(name: impl Into<String>, value: impl fmt::Display, holds: bool) -> Self {
        Self { name: name.into(), value: value.to_string(), holds }
    }

    /// `part` of `whole`, which must be all of it.
    fn all(name: &str, part: usize, whole: usize) -> Self {
        Self::new(name, format_args!("{part} of {whole}"), part == whole)
    }
}

impl Tally {
    pub(super) fn new(
        pops: usize,
        report: &Report,
        fetches: &[Fetch],
        killed: NodeId,
        gap: Duration,
        repeated: Repeated,
        exhausted: bool,
    ) -> Self {
        let keys = || fetches.iter().flat_map(|fetch| fetch.operation.keys());
        let doubles = report.finding(Invariant::Unique).map_or(0, |unique| unique.violated);
        let in_flight = report.summary.in_flight_at_kills;
        let retried = fetches.iter().filter(|fetch| fetch.operation.attempts > 1).count();
        let agreed = fetches.iter().map(|fetch| fetch.agreed).sum();
        let opened = fetches.iter().map(|fetch| fetch.opened).sum();
        let others = report.violated() - doubles;
        let rows = vec![
            Row::all("pops", keys().count(), pops),
            Row::all("distinct keys", keys().collect::<BTreeSet<_>>().len(), pops),
            Row::new("double issues", doubles, doubles == 0),
            Row::new("other broken rules", others, others == 0),
            Row::new(
                format!("fetches in flight when node {killed} was killed"),
                in_flight,
                in_flight > 0,
            ),
            Row::new("fetches that needed a retry", retried, true),
            Row {
                holds: repeated.sent > 0 && repeated.same == repeated.sent,
                ..Row::all("retries answered with the same key", repeated.same, repeated.sent)
            },
            Row::new(
                "longest gap between two answers",
                format_args!("{} ms", gap.as_millis()),
                true,
            ),
            Row::all("handshakes agreed", agreed, pops),
            Row::all("messages opened", opened, pops),
            Row::new(
                "one more fetch",
                if exhausted { "exhausted" } else { "not exhausted" },
                exhausted,
            ),
        ];
        let violations = report.findings.iter().flat_map(|finding: &Finding| &finding.violations);
        let failures = violations
            .map(|violation| violation.message.clone())
            .chain(fetches.iter().flat_map(|fetch| fetch.failures.clone()))
            .take(FAILURES_SHOWN)
            .collect();
        Self { rows, failures }
    }

    /// Fails unless every row is as it must be.
    pub(super) fn verdict(&self) -> Result<()> {
        let broken: Vec<_> =
            self.rows.iter().filter(|row| !row.holds).map(|row| row.name.as_str()).collect();
        if !broken.is_empty() {
            bail!("the demo does not hold: {}", broken.join(", "));
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        let value = self.rows.iter().map(|row| row.value.len()).max().unwrap_or_default();
        let line = format!("+-{}-+-{}-+", "-".repeat(name), "-".repeat(value));
        writeln!(f, "\n{line}")?;
        for row in &self.rows {
            let mark = if row.holds { "" } else { "  <- wrong" };
            writeln!(f, "| {:name$} | {:>value$} |{mark}", row.name, row.value)?;
        }
        write!(f, "{line}")?;
        for failure in &self.failures {
            write!(f, "\n{failure}")?;
        }
        Ok(())
    }
}
