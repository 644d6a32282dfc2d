//! The layers of the harness, each as something that looks for a bug.
//!
//! Guarantees: a layer that has found something, or whose time is over, is ended with all that it
//! has started. A layer that cannot be run here is an error, not one that finds nothing. A test has
//! found a bug when it comes to no good end alone, too, and to a good one without the bug.

use std::{
    collections::BTreeSet,
    fmt,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use oncekey_planted::{Bug, VARIABLE};
use serde::Serialize;

use super::build::{Programs, TestProgram};
use crate::simulate::Summary;

/// Simulated seconds with faults in one run.
const SIMULATED_SECONDS: &str = "60";
/// Real processes are under fire for so long, about.
const CHAOS_MINUTES: &str = "1";
/// How often a test that has failed is run alone, with the bug and without.
const CONTROLS: usize = 3;
/// Time for a test that is run alone.
const CONTROL_LIMIT: Duration = Duration::from_secs(60);
/// What `chaos` ends with when something is wrong.
const BAD: i32 = 1;
/// What `chaos` leaves behind, unless it could not be done.
const REPORT: &str = "report.json";

/// A layer of the harness, from the quickest to the slowest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The tests of the state machine: the model, the invariants, snapshots.
    StateMachine,
    /// The tests of the log and of the state engines: crash points, damage, models.
    Storage,
    /// The tests of Raft: openraft's own suite, and nodes in one process.
    Raft,
    /// Simulated clusters.
    Simulation,
    /// Real processes and their misfortunes.
    Processes,
}

/// What a layer found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Catch {
    /// The layer.
    pub layer: Layer,
    /// After how long, in milliseconds.
    pub after_ms: u64,
    /// The test that failed, or the first finding.
    pub what: String,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::StateMachine, Self::Storage, Self::Raft, Self::Simulation, Self::Processes];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StateMachine => "state-machine",
            Self::Storage => "storage",
            Self::Raft => "raft",
            Self::Simulation => "simulation",
            Self::Processes => "processes",
        }
    }

    /// Whether it is tests, which end by themselves.
    pub(super) const fn is_tests(self) -> bool {
        match self {
            Self::StateMachine | Self::Storage | Self::Raft => true,
            Self::Simulation | Self::Processes => false,
        }
    }

    /// Looks for `bug` until it is found or nothing is left to try in the time of `patience`.
    ///
    /// # Errors
    ///
    /// When the layer cannot be run.
    pub fn look(
        self,
        programs: &Programs,
        bug: Option<Bug>,
        patience: Duration,
    ) -> Result<Option<Catch>> {
        let started = Instant::now();
        let until = started + patience;
        let what = match self {
            Self::StateMachine => test(programs, "store", bug, until)?,
            Self::Storage => test(programs, "storage", bug, until)?,
            Self::Raft => test(programs, "raft", bug, until)?,
            Self::Simulation => simulate(programs, bug, until)?,
            Self::Processes => chaos(programs, bug, until)?,
        };
        let after_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(what.map(|what| Catch { layer: self, after_ms, what }))
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Runs the tests of the crate in the folder `folder`. A test that fails now and then anyway has
/// found nothing.
fn test(
    programs: &Programs,
    folder: &str,
    bug: Option<Bug>,
    until: Instant,
) -> Result<Option<String>> {
    for test in programs.tests.iter().filter(|test| test.folder.ends_with(folder)) {
        loop {
            let mut passed = BTreeSet::new();
            let ended = watch(test.command(bug), until, |line| {
                let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
                passed.insert(name.to_owned());
                (result == "FAILED").then(|| name.to_owned())
            })?;
            match ended {
                Ended::Found(name) if bug.is_none() => return Ok(Some(name)),
                Ended::Found(name) if is_due_to(bug, test, &name)? => return Ok(Some(name)),
                Ended::Found(_) => {}
                Ended::Late if bug.is_none() => return Ok(Some("a test does not end".to_owned())),
                Ended::Late => return stuck(bug, test, &passed),
                Ended::Status(Some(0)) => break,
                Ended::Status(status) => {
                    return Ok(Some(format!("the tests end with {status:?}")));
                }
            }
        }
    }
    Ok(None)
}

/// The test that does not end because of the bug, when all but `passed` had not ended in time. They
/// begin in the order of their names, as many at once as there are cores.
fn stuck(
    bug: Option<Bug>,
    test: &TestProgram,
    passed: &BTreeSet<String>,
) -> Result<Option<String>> {
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let begun = test.names()?.into_iter().filter(|name| !passed.contains(name)).take(at_once);
    for name in begun {
        if is_due_to(bug, test, &name)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether the test `name` comes to no good end with the bug when run alone, and always without it.
fn is_due_to(bug: Option<Bug>, test: &TestProgram, name: &str) -> Result<bool> {
    let passes = |bug| {
        let mut command = test.command(bug);
        command.args(["--exact", name]);
        let ended = watch(command, Instant::now() + CONTROL_LIMIT, |_| None)?;
        anyhow::Ok(matches!(ended, Ended::Status(Some(0))))
    };
    let mut fails_again = false;
    for _ in 0..CONTROLS {
        if !passes(None)? {
            return Ok(false);
        }
        fails_again = fails_again || !passes(bug)?;
    }
    Ok(fails_again)
}

impl TestProgram {
    fn command(&self, bug: Option<Bug>) -> Command {
        let mut command = planted(&self.program, bug);
        // What a bug breaks is no regression to keep.
        command.current_dir(&self.folder).env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command
    }

    /// The names of the tests, in their order.
    fn names(&self) -> Result<Vec<String>> {
        let listed = self.command(None).arg("--list").output().context("no list of the tests")?;
        let listed = String::from_utf8(listed.stdout).context("a test has a strange name")?;
        let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }
}

/// Runs one seed after the other.
fn simulate(programs: &Programs, bug: Option<Bug>, until: Instant) -> Result<Option<String>> {
    let simulator = programs.simulator.as_ref().context("there is no simulator")?;
    for seed in 1u64.. {
        let mut command = planted(simulator, bug);
        command.args(["--seed", &seed.to_string(), "--seconds", SIMULATED_SECONDS]);
        let ended = watch(command, until, |line| {
            let summary: Summary = serde_json::from_str(line).ok()?;
            // One of the many that a bug leads to.
            let first = |violations: &String| violations.split("; ").next().map(str::to_owned);
            let violation = summary.violations.first().and_then(first)?;
            Some(format!("seed {seed}: {violation}"))
        })?;
        match ended {
            Ended::Found(what) => return Ok(Some(what)),
            Ended::Late => return Ok(None),
            Ended::Status(Some(0)) => {}
            Ended::Status(status) => {
                return Ok(Some(format!("seed {seed}: the run ends with {status:?}")));
            }
        }
    }
    Ok(None)
}

/// Runs real processes until something is wrong or the time is over.
fn chaos(programs: &Programs, bug: Option<Bug>, until: Instant) -> Result<Option<String>> {
    let server = programs.server.as_ref().context("there is no server")?;
    for seed in 1u64.. {
        if Instant::now() >= until {
            break;
        }
        let out = tempfile::tempdir().context("no folder for the run")?;
        let mut command = planted(&programs.harness, bug);
        command.arg("chaos").args(["--minutes", CHAOS_MINUTES, "--seed", &seed.to_string()]);
        command.arg("--server").arg(server).arg("--out").arg(out.path());
        // A run that has begun is let go on to its verdict.
        let mut finding = None;
        let ended = watch(command, until + Duration::from_secs(600), |line| {
            if finding.is_none() {
                finding = line.strip_prefix("- ").map(str::to_owned);
            }
            None
        })?;
        match ended {
            Ended::Status(Some(BAD)) => {
                return Ok(Some(finding.unwrap_or_else(|| "something is wrong".to_owned())));
            }
            // Vacuous, in so short a time, is to be expected; a run that could not be done is not.
            Ended::Status(Some(_)) | Ended::Found(_) => ensure!(
                out.path().join(REPORT).is_file(),
                "no real processes can be run here; `oncekey-cluster chaos` says why"
            ),
            Ended::Status(None) | Ended::Late => bail!("the run with real processes does not end"),
        }
    }
    Ok(None)
}

fn planted(program: &Path, bug: Option<Bug>) -> Command {
    let mut command = Command::new(program);
    command.env_remove(VARIABLE);
    if let Some(bug) = bug {
        command.env(VARIABLE, bug.name());
    }
    command
}

/// How a program came to its end.
enum Ended {
    /// It said so, and was ended.
    Found(String),
    /// By itself, with this code unless by a signal.
    Status(Option<i32>),
    /// Its time was over.
    Late,
}

/// Runs `command` and shows each line of its output to `find`, until that finds something.
fn watch(
    mut command: Command,
    until: Instant,
    mut find: impl FnMut(&str) -> Option<String>,
) -> Result<Ended> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let output = child.stdout.take().context("the program has no output")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let ended = loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(what) = find(&line) {
                    break Ended::Found(what);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => break Ended::Late,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                break Ended::Status(child.wait().context("the program is lost")?.code());
            }
        }
    };
    end(&mut child)?;
    // It ends with the output of the program.
    let _ = reader.join();
    Ok(ended)
}

fn end(child: &mut Child) -> Result<()> {
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().map(drop).context("the program is lost")
}
