//! `oncekey-cluster check`: judges a history.
//!
//! Guarantees: exit code 0 only for a history that was read, has fetches that were answered, and
//! breaks nothing; 1 when an invariant is broken, whatever else is amiss; 2 otherwise.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Result, ensure};
use oncekey_cluster::{
    check::{self, Finding, Report},
    history::History,
};

use crate::args::Check;

/// An invariant is broken.
const BROKEN: u8 = 1;
/// The history could not be judged.
const NOT_JUDGED: u8 = 2;

pub(crate) fn run(arguments: &Check) -> ExitCode {
    match judge(arguments) {
        Ok(report) if report.violated() > 0 => BROKEN.into(),
        Ok(report) => match enough(arguments, &report) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => not_judged(&error),
        },
        Err(error) => not_judged(&error),
    }
}

/// Reads, judges and prints.
fn judge(arguments: &Check) -> Result<Report> {
    let history = History::open(&arguments.history)?;
    let report = check::check(&history);
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(report)
}

/// Fails when the history shows too little.
fn enough(arguments: &Check, report: &Report) -> Result<()> {
    let (answered, least) = (report.summary.answered, arguments.min_fetches);
    ensure!(answered >= least, "{answered} fetches were answered, asked for are {least}");
    for finding in &report.findings {
        let Finding { invariant, .. } = finding;
        let required = arguments.require.iter().any(|required| required.is(*invariant));
        ensure!(
            !required || finding.is_judged_in_full(),
            "{invariant} was required and not judged in full"
        );
    }
    Ok(())
}

fn not_judged(error: &anyhow::Error) -> ExitCode {
    // Nobody is left to tell when this fails.
    let _ = writeln!(io::stderr(), "oncekey-cluster: {error:#}");
    NOT_JUDGED.into()
}
