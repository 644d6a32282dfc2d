//! `oncekey-cluster bugs`: whether the harness finds what is planted.
//!
//! Guarantees: exit code 0 only when every bug was found; 1 when one was not, which is a hole in the
//! harness; 2 when it could not be found out.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use oncekey_cluster::bugs::{Hunt, Programs, Report};
use oncekey_planted::Bug;

use crate::args::Bugs;

/// A bug was not found.
const HOLE: u8 = 1;
/// It could not be run.
const NOT_RUN: u8 = 2;

/// The folder of the workspace that this program was built from.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub(crate) fn run(arguments: &Bugs) -> ExitCode {
    match hunt(arguments) {
        Ok(report) if report.holes().next().is_none() => ExitCode::SUCCESS,
        Ok(_) => HOLE.into(),
        Err(error) => {
            // Nobody is left to tell when this fails.
            let _ = writeln!(io::stderr(), "oncekey-cluster: {error:#}");
            NOT_RUN.into()
        }
    }
}

fn hunt(arguments: &Bugs) -> Result<Report> {
    // Progress on a terminal that is gone is no reason to end.
    let say = |line: &str| drop(writeln!(io::stderr(), "{line}"));
    say("building, with the bugs armed");
    let programs = Programs::build(Path::new(WORKSPACE), &arguments.layers())?;
    let hunt = Hunt {
        bugs: if arguments.bugs.is_empty() { Bug::ALL.to_vec() } else { arguments.bugs.clone() },
        layers: arguments.layers(),
        patience: Duration::from_secs(arguments.patience_s),
        all_layers: arguments.all_layers,
    };
    let report = hunt.run(&programs, say)?;
    write!(io::stdout(), "{report}")?;
    if let Some(folder) = &arguments.report {
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(folder.join("bugs.md"), report.to_string()))
            .and_then(|()| fs::write(folder.join("bugs.json"), serde_json::to_vec_pretty(&report)?))
            .with_context(|| format!("cannot write into {}", folder.display()))?;
    }
    Ok(report)
}
