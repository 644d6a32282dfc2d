//! The final table, and whether it is as it must be.

use std::{collections::BTreeSet, fmt, time::Duration};

use anyhow::{Result, bail};
use oncekey_cluster::{
    check::{self, Violation},
    history::{History, Key},
};
use oncekey_types::NodeId;

use super::{Repeated, people::Fetch};

/// Failures shown below the table.
const FAILURES_SHOWN: usize = 5;

/// The kill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) node: NodeId,
    /// When, since the fetches began.
    pub(super) at: Duration,
}

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
    #[expect(clippy::too_many_arguments, reason = "every figure of the table has its own source")]
    pub(super) fn new(
        pops: usize,
        history: &History,
        remaining: &BTreeSet<Key>,
        fetches: &[Fetch],
        kill: Kill,
        gap: Duration,
        repeated: Repeated,
        exhausted: bool,
    ) -> Self {
        let popped: usize = fetches.iter().map(|fetch| fetch.operation.keys().len()).sum();
        let broken: Vec<Violation> =
            [check::history(history), check::conservation(history, remaining)]
                .into_iter()
                .filter_map(Result::err)
                .flat_map(|violations| violations.0)
                .collect();
        let doubles =
            broken.iter().filter(|broken| matches!(broken, Violation::DoubleIssue { .. })).count();
        let in_flight = fetches
            .iter()
            .filter(|fetch| {
                let operation = &fetch.operation;
                operation.invoked < kill.at && operation.returned.is_some_and(|at| at > kill.at)
            })
            .count();
        let retried = fetches.iter().filter(|fetch| fetch.operation.attempts > 1).count();
        let agreed = fetches.iter().map(|fetch| fetch.agreed).sum();
        let opened = fetches.iter().map(|fetch| fetch.opened).sum();
        let rows = vec![
            Row::all("pops", popped, pops),
            Row::all("distinct keys", history.handed().len(), pops),
            Row::new("double issues", doubles, doubles == 0),
            Row::new("other broken rules", broken.len() - doubles, broken.len() == doubles),
            Row::new(
                format!("fetches in flight when node {} was killed", kill.node),
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
        let failures = broken
            .iter()
            .map(|violation| format!("{violation:?}"))
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
