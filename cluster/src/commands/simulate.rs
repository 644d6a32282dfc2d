//! `oncekey-cluster simulate`: simulated runs for as long as asked for.
//!
//! Guarantees: exit code 0 only when nothing was found and enough was done to find something; 1
//! when something was found; 2 otherwise.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    num::NonZeroUsize,
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use oncekey_cluster::{
    binary,
    simulate::{Campaign, Progress, Report, Until, Verdict},
};

use crate::args::Simulate;

/// Something was found.
const FOUND: u8 = 1;
/// It could not be run, or it shows too little.
const VACUOUS: u8 = 2;

pub(crate) fn run(arguments: &Simulate) -> ExitCode {
    match simulate(arguments).map(|report| report.verdict()) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Violated) => FOUND.into(),
        Ok(Verdict::Vacuous(_)) => VACUOUS.into(),
        Err(error) => {
            // Nobody is left to tell when this fails.
            let _ = writeln!(io::stderr(), "oncekey-cluster: {error:#}");
            VACUOUS.into()
        }
    }
}

fn simulate(arguments: &Simulate) -> Result<Report> {
    let campaign = Campaign {
        program: binary::simulator()?,
        first_seed: arguments.seed.unwrap_or_else(|| std::process::id().into()),
        jobs: arguments
            .jobs
            .map_or_else(thread::available_parallelism, Ok)
            .unwrap_or(NonZeroUsize::MIN),
        seconds: arguments.seconds,
        until: match (arguments.seeds, arguments.minutes) {
            (Some(seeds), _) => Until::Seeds(seeds),
            (None, minutes) => Until::Elapsed(Duration::from_secs(60 * minutes)),
        },
    };
    let is_terminal = io::stderr().is_terminal();
    let mut lines = 0_u64;
    let report = campaign.run(|progress| {
        lines += 1;
        tell(&progress, is_terminal || lines.is_multiple_of(50));
    })?;
    if is_terminal {
        let _ = writeln!(io::stderr());
    }
    write!(io::stdout(), "{report}")?;
    if let Some(folder) = &arguments.report {
        keep(&report, folder)?;
    }
    Ok(report)
}

/// One line on the standard error, over the last one on a terminal.
fn tell(progress: &Progress<'_>, is_due: bool) {
    let Progress { report, found, seed } = progress;
    let mut err = io::stderr().lock();
    // Nobody is left to tell when this fails.
    for what in *found {
        let _ = writeln!(err, "\nseed {seed}: {what}\n  repeat it: {}", report.repeats(*seed));
    }
    if is_due {
        let _ = write!(
            err,
            "{}{} runs, {} simulated minutes in {} s, {} operations, {} leaders hit, {} found{}",
            if err.is_terminal() { "\r" } else { "" },
            report.runs,
            report.simulated_ms / 60_000,
            report.elapsed_ms / 1000,
            report.operations,
            report.leaders_hit,
            report.violations,
            if err.is_terminal() { "" } else { "\n" },
        );
    }
}

/// Writes the report as Markdown and as JSON.
fn keep(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(folder.join("simulation.md"), report.to_string()))
        .and_then(|()| {
            fs::write(folder.join("simulation.json"), serde_json::to_vec_pretty(report)?)
        })
        .with_context(|| format!("cannot write into {}", folder.display()))
}
