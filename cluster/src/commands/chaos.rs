//! `oncekey-cluster chaos`: real nodes, and everything that can happen to them.
//!
//! Guarantees: exit code 0 only for a run that did what it was asked to and found nothing; 1 when it
//! found something; 2 when it could not be done here, or showed too little.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use oncekey_cluster::chaos::{self, Options, Outcome, sandbox};

use crate::args::Chaos;

/// Something is wrong.
const BAD: u8 = 1;
/// The run could not be done, or shows too little.
const NOTHING_SHOWN: u8 = 2;

/// The folder of the workspace that this program was built from.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub(crate) fn run(arguments: &Chaos) -> ExitCode {
    let result = if sandbox::is_inside() { inside(arguments) } else { outside(arguments) };
    result.unwrap_or_else(|error| {
        // Nobody is left to tell when this fails.
        let _ = writeln!(io::stderr(), "oncekey-cluster: {error:#}");
        NOTHING_SHOWN.into()
    })
}

/// Makes sure that everything is there, then runs the same command in a sandbox.
fn outside(arguments: &Chaos) -> Result<ExitCode> {
    if arguments.install {
        sandbox::install()?;
    }
    if let Some(obstacle) = sandbox::obstacle() {
        bail!("{obstacle} (--install installs what is missing)");
    }
    if arguments.server.is_none() {
        build()?;
    }
    // On this very thread, which lasts: the kernel ties the life of the sandbox to it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(sandbox::run_inside(&arguments.out))?.into())
}

fn inside(arguments: &Chaos) -> Result<ExitCode> {
    sandbox::settle_in()?;
    let minute = 60.0;
    let options = Options {
        duration: Duration::from_secs_f64(arguments.minutes * minute),
        round: Duration::from_secs(arguments.round_seconds),
        power_cuts: arguments.power_cuts,
        nodes: arguments.nodes,
        seed: arguments.seed.unwrap_or_else(rand::random),
        faults: arguments.faults(),
        server: match &arguments.server {
            Some(server) => server.clone(),
            None => built()?,
        },
        engine: arguments.engine,
        dir: arguments.out.clone(),
        keep: arguments.keep,
    };
    let mut out = io::stdout();
    writeln!(out, "seed {}", options.seed)?;
    // Progress on a terminal that is gone is no reason to end.
    let mut say = |line: &str| drop(writeln!(io::stdout(), "{line}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(chaos::run(&options, &mut say))?;
    writeln!(out, "\n{}", report.markdown())?;
    Ok(match report.outcome {
        Outcome::Good => ExitCode::SUCCESS,
        Outcome::Bad => BAD.into(),
        Outcome::Vacuous => NOTHING_SHOWN.into(),
    })
}

/// Builds nodes with failpoints.
fn build() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--profile", "chaos", "--package", "oncekey-cli"])
        .args(["--features", "failpoints"])
        .current_dir(WORKSPACE)
        .status()
        .context("cargo cannot be run; name a program with --server")?;
    ensure!(status.success(), "the nodes cannot be built; name a program with --server");
    Ok(())
}

/// Where [`build`] puts the program: beside the folder of this one.
fn built() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let target =
        own.parent().and_then(Path::parent).context("this program has no target folder")?;
    let program = target.join("chaos").join("oncekey");
    ensure!(program.is_file(), "there is no program at {}", program.display());
    Ok(program)
}
