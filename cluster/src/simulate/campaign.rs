//! Runs one seed after the other, as many at a time as asked for, until the time is over.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{Report, Summary};

/// Every so many seeds one is run a second time.
const REPEAT_EVERY: u64 = 20;

/// Many runs.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The program `oncekey-simulator`.
    pub program: PathBuf,
    /// The first seed; the others follow.
    pub first_seed: u64,
    /// Runs at the same time.
    pub jobs: NonZeroUsize,
    /// Simulated seconds with faults in each run.
    pub seconds: u64,
    /// When no more runs are begun.
    pub until: Until,
}

/// When a campaign ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so long.
    Elapsed(Duration),
    /// After so many seeds.
    Seeds(u64),
}

/// How far a campaign is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What has come in.
    pub report: &'a Report,
    /// The run that came in last found this.
    pub found: &'a [String],
    /// The seed of that run.
    pub seed: u64,
}

/// A run as it ended.
struct Run {
    seed: u64,
    is_repeated: bool,
    result: Result<Summary>,
}

impl Campaign {
    /// Runs it and tells `progress` after each run.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn run(&self, mut progress: impl FnMut(Progress<'_>)) -> Result<Report> {
        let begun = Instant::now();
        let mut report = Report::new(self.seconds);
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (sender, runs) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.jobs.get() {
                let (sender, next, stop) = (sender.clone(), &next, &stop);
                scope.spawn(move || self.work(begun, next, stop, &sender));
            }
            drop(sender);
            for run in runs {
                let Run { seed, is_repeated, result } = run;
                let found = match result {
                    Ok(summary) if is_repeated => report.compare(&summary),
                    Ok(summary) => report.add(summary),
                    Err(error) => report.fail(seed, format!("{error:#}")),
                };
                report.elapsed_ms = millis(begun.elapsed());
                progress(Progress { report: &report, found: &found, seed });
            }
        });
        Ok(report)
    }

    /// Runs seeds until it is time to stop.
    fn work(&self, begun: Instant, next: &AtomicU64, stop: &AtomicBool, runs: &mpsc::Sender<Run>) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let is_over = match self.until {
                Until::Elapsed(limit) => begun.elapsed() >= limit,
                Until::Seeds(seeds) => number >= seeds,
            };
            if is_over || stop.load(Ordering::Relaxed) {
                return;
            }
            let seed = self.first_seed.wrapping_add(number);
            let times = if number.is_multiple_of(REPEAT_EVERY) { 2 } else { 1 };
            for time in 0..times {
                let run = Run { seed, is_repeated: time > 0, result: self.simulate(seed) };
                if runs.send(run).is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn simulate(&self, seed: u64) -> Result<Summary> {
        let program = &self.program;
        let Output { status, stdout, stderr } = Command::new(program)
            .args(["--seed", &seed.to_string(), "--seconds", &self.seconds.to_string()])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let line = stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        let summary = line.and_then(|line| serde_json::from_slice::<Summary>(line).ok());
        let summary = summary.with_context(|| {
            let said = String::from_utf8_lossy(&stderr);
            let said: Vec<_> = said.lines().rev().take(5).collect();
            format!("the run ended with {status}: {}", said.join(" / "))
        })?;
        ensure!(summary.seed == seed, "seed {} ran in the place of {seed}", summary.seed);
        Ok(summary)
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
