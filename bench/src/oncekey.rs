//! Oncekey itself, measured by its own `oncekey bench`.
//!
//! Its loop is of the same kind: closed, one thread for all clients, through all three endpoints.
//! It is other code all the same, so it also drives a no-op of its own: what it makes of that,
//! beside what [`crate::load`] makes of ours, tells how much of a ratio is the loop's.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use crate::{
    Run,
    load::Measured,
    process::{self, Process, User},
};

/// The form of its figures that is understood.
const VERSION: u32 = 1;

/// What is read of them.
#[derive(Deserialize)]
struct Report {
    version: u32,
    steps: Vec<Step>,
}

/// One number of clients.
#[derive(Deserialize)]
struct Step {
    clients: usize,
    runs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    pops: Pops,
    noop: Pops,
}

#[derive(Deserialize)]
struct Pops {
    per_second: f64,
    p50_us: u32,
    p99_us: u32,
    p999_us: u32,
    /// It sends a pop that failed again, until it has the answer.
    retries: usize,
}

/// How many shards its users are spread over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shards {
    /// As many as it makes by default; every node leads some.
    Default,
    /// One, so that one node leads, as with the rivals.
    One,
}

impl Shards {
    /// Both, in the order of the table.
    pub(crate) const ALL: [Self; 2] = [Self::Default, Self::One];

    /// Name and title of its figures.
    pub(crate) fn titled(self) -> (&'static str, &'static str) {
        match self {
            Self::Default => ("oncekey", "Oncekey, 3 nodes"),
            Self::One => ("oncekey-one-shard", "Oncekey, 3 nodes, 1 shard"),
        }
    }
}

/// What it measured with one number of clients.
pub(crate) struct Found {
    pub(crate) clients: usize,
    /// Oncekey.
    pub(crate) pops: Measured,
    /// Its no-op, measured beside.
    pub(crate) no_op: Measured,
}

/// One run with each number of clients.
pub(crate) async fn measure(
    program: &Path,
    dir: &Path,
    arguments: &Run,
    shards: Shards,
) -> Result<Vec<Found>> {
    let clients: Vec<_> = arguments.clients.iter().map(u16::to_string).collect();
    let json = dir.join("oncekey.json");
    let mut command = process::command(&program.canonicalize()?, User::Same, "INT");
    command
        // Its nodes keep their data below this folder.
        .env("TMPDIR", dir)
        .args(["bench", "--local", "--noop", "--runs", "1", "--clients", &clients.join(",")])
        .args(["--warm-up-ms", &arguments.warm_up_ms.to_string()])
        .args(["--duration-ms", &arguments.duration_ms.to_string()])
        .arg("--json")
        .arg(&json);
    if let Shards::One = shards {
        command.args(["--shards", "1"]);
    }
    Process::start(dir, "oncekey", command, Signal::INT)?.finished().await?;
    figures(&fs::read_to_string(&json)?).context("the figures of oncekey bench")
}

fn figures(json: &str) -> Result<Vec<Found>> {
    let report: Report = serde_json::from_str(json)?;
    ensure!(report.version == VERSION, "version {} is not known", report.version);
    let step = |step: Step| {
        let pair = step.runs.into_iter().next().context("a step without a run")?;
        Ok(Found { clients: step.clients, pops: pair.pops.into(), no_op: pair.noop.into() })
    };
    report.steps.into_iter().map(step).collect()
}

impl From<Pops> for Measured {
    fn from(pops: Pops) -> Self {
        Self {
            pops_per_second: pops.per_second,
            p50_us: pops.p50_us,
            p99_us: pops.p99_us,
            p999_us: pops.p999_us,
            errors: pops.retries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_other_versions_refused() -> Result<()> {
        let json = r#"{"version": 1, "steps": [{"clients": 64, "runs": [{
            "pops": {"per_second": 2.5, "p50_us": 1, "p99_us": 2, "p999_us": 3, "retries": 4},
            "noop": {"per_second": 9.5, "p50_us": 1, "p99_us": 2, "p999_us": 3, "retries": 0}
            }]}]}"#;
        let read = figures(json)?;
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].clients, read[0].pops.p999_us, read[0].pops.errors), (64, 3, 4));
        assert!((read[0].no_op.pops_per_second - 9.5).abs() < 1e-9);
        assert!(figures(&json.replace("\"version\": 1", "\"version\": 2")).is_err());
        Ok(())
    }
}
