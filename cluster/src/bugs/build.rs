//! Builds everything once with the bugs armed.
//!
//! Guarantees: in a target folder of its own, so that no armed program gets among the others.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const ARMED: &str = "oncekey-planted/armed";

/// What the layers run.
#[derive(Clone, Debug)]
pub struct Programs {
    pub(super) tests: Vec<TestProgram>,
    pub(super) simulator: PathBuf,
    /// With failpoints.
    pub(super) server: PathBuf,
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
    /// Builds the programs of the workspace in the folder `workspace`.
    ///
    /// # Errors
    ///
    /// When something does not build.
    pub fn build(workspace: &Path) -> Result<Self> {
        let target = workspace.join("target").join("planted");
        let cargo = |arguments: &[&str]| {
            let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(arguments)
                .args(["--quiet", "--message-format", "json", "--target-dir"])
                .arg(&target)
                .current_dir(workspace)
                .stderr(Stdio::inherit())
                .output()
                .context("cargo cannot be run")?;
            ensure!(output.status.success(), "`cargo {}` failed", arguments.join(" "));
            let lines = output.stdout.split(|byte| *byte == b'\n');
            let artifacts = lines.filter_map(|line| serde_json::from_slice::<Artifact>(line).ok());
            anyhow::Ok(artifacts.collect::<Vec<_>>())
        };
        let tests = cargo(&[
            "test",
            "--no-run",
            "-p",
            "oncekey-store",
            "-p",
            "oncekey-storage",
            "-p",
            "oncekey-raft",
            "--features",
            ARMED,
        ])?;
        let tests = tests.into_iter().filter(|artifact| artifact.profile.test);
        let tests = tests.filter_map(|artifact| {
            let folder = artifact.manifest_path.parent()?.to_owned();
            Some(TestProgram { folder, program: artifact.executable? })
        });
        let features = format!("oncekey-cli/failpoints,{ARMED}");
        let programs = cargo(&[
            "build",
            "--release",
            "-p",
            "oncekey-simulator",
            "-p",
            "oncekey-cli",
            "-p",
            "oncekey-planted",
            "--features",
            &features,
        ])?;
        let named = |name: &str| {
            let mut built = programs.iter().filter_map(|artifact| artifact.executable.clone());
            let found = built.find(|path| path.file_stem().is_some_and(|stem| stem == name));
            found.with_context(|| format!("cargo has built no {name}"))
        };
        Ok(Self {
            tests: tests.collect(),
            simulator: named("oncekey-simulator")?,
            server: named("oncekey")?,
            harness: env::current_exe().context("the running program has no path")?,
        })
    }
}
