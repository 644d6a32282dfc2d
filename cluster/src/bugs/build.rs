//! Builds what the layers run, once, with the bugs armed.
//!
//! Guarantees: in a target folder of its own, so that no armed program gets among the others.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Layer;

const ARMED: &str = "oncekey-planted/armed";

/// What the layers run.
#[derive(Clone, Debug)]
pub struct Programs {
    pub(super) tests: Vec<TestProgram>,
    pub(super) simulator: Option<PathBuf>,
    /// With failpoints.
    pub(super) server: Option<PathBuf>,
    /// The program that is running, for `chaos`.
    pub(super) harness: PathBuf,
}

/// The tests of one crate, or some of them.
#[derive(Clone, Debug)]
pub(super) struct TestProgram {
    /// The folder of the crate, in which its tests run.
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
}

/// What cargo says of something that it has built.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    executable: Option<PathBuf>,
    profile: Profile,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Programs {
    /// Builds what `layers` need of the workspace in the folder `workspace`.
    ///
    /// # Errors
    ///
    /// When something does not build.
    pub fn build(workspace: &Path, layers: &[Layer]) -> Result<Self> {
        let mut programs = Self {
            tests: Vec::new(),
            simulator: None,
            server: None,
            harness: env::current_exe().context("the running program has no path")?,
        };
        if layers.iter().any(|layer| layer.is_tests()) {
            let crates = ["-p", "oncekey-store", "-p", "oncekey-storage", "-p", "oncekey-raft"];
            let built = cargo(workspace, &[&["test", "--no-run"], &crates[..]].concat(), ARMED)?;
            let tests = built.into_iter().filter(|artifact| artifact.profile.test);
            let tests = tests.filter_map(|artifact| {
                let folder = artifact.manifest_path.parent()?.to_owned();
                Some(TestProgram { folder, program: artifact.executable? })
            });
            programs.tests.extend(tests);
        }
        if layers.contains(&Layer::Simulation) {
            programs.simulator = Some(program(workspace, "oncekey-simulator", ARMED)?);
        }
        if layers.contains(&Layer::Processes) {
            let features = format!("oncekey-cli/failpoints,{ARMED}");
            programs.server = Some(program(workspace, "oncekey-cli", &features)?);
        }
        Ok(programs)
    }
}

/// The program of `package`, as it is shipped but for `features`.
fn program(workspace: &Path, package: &str, features: &str) -> Result<PathBuf> {
    // A package that is built has its features to give, whoever depends on it.
    let packages = ["-p", package, "-p", "oncekey-planted"];
    let built = cargo(workspace, &[&["build", "--release"], &packages[..]].concat(), features)?;
    let program = built.into_iter().find_map(|artifact| artifact.executable);
    program.with_context(|| format!("cargo has built no program of {package}"))
}

/// Runs cargo in a target folder of its own.
fn cargo(workspace: &Path, arguments: &[&str], features: &str) -> Result<Vec<Artifact>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .args(["--features", features, "--quiet", "--message-format", "json", "--target-dir"])
        .arg(workspace.join("target").join("planted"))
        .current_dir(workspace)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    ensure!(output.status.success(), "`cargo {}` failed", arguments.join(" "));
    let lines = output.stdout.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}
