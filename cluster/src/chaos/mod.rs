//! Real nodes, each on a host of its own, and everything that can happen to them.
//!
//! A run is a sequence of rounds. Each makes a cluster anew, on fresh disks, has users publish and
//! callers fetch through all nodes, does one thing after the other to nodes, links, disks and
//! clocks, then heals all, settles what is open, drains the pools and judges the history.
//!
//! Guarantees: the nodes are `oncekey serve` processes; each has a network namespace, an address
//! and an ext4 file system of its own, and a power cut loses what that file system was not told to
//! sync. Everything happens inside namespaces that the kernel takes away with the run. A run that
//! hit too little is no success, whatever it found.
//!
//! Leaves out: repeating a run exactly. The seed repeats what is done and in which order, not when
//! the threads of the nodes run. What a disk does to blocks that are on their way, and torn
//! sectors, are left to the simulated disk of `oncekey-storage`.

mod arena;
mod clock;
mod delay;
mod disk;
mod fault;
mod load;
mod nemesis;
mod network;
mod power;
mod report;
mod round;
pub mod sandbox;
mod stall;
mod tools;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub use fault::Fault;
pub use report::{Outcome, Report};

use crate::{
    Engine, builder,
    check::{self, Broken},
    history::History,
};
use arena::Machines;
use report::Tally;
use stall::Watch;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to do things to the clusters of the rounds, all rounds together.
    pub duration: Duration,
    /// How long to do so in one round.
    pub round: Duration,
    /// Power cuts in rounds that have nothing else.
    pub power_cuts: usize,
    /// Nodes of a cluster.
    pub nodes: u16,
    /// What decides what is done.
    pub seed: u64,
    /// What is done.
    pub faults: Vec<Fault>,
    /// The program of the nodes.
    pub server: PathBuf,
    /// The engine of the nodes.
    pub engine: Engine,
    /// Where the report goes and what it rests on.
    pub dir: PathBuf,
    /// Keep histories and logs of rounds that were good.
    pub keep: bool,
}

/// Runs all rounds; to be called inside the [`sandbox`]. The report is in the folder of the run as
/// well.
///
/// # Errors
///
/// When the machine does not give what is needed. What the nodes do is in the report.
pub async fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut machines = Machines::build(&options.dir.join("disks"), options.nodes)?;
    let mut tally = Tally::new(options, machines.has_clocks());
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut deck = fault::Deck::new(&tally.possible(&options.faults));
    let (began, watch) = (Instant::now(), Watch::start());
    let mut number = 0;
    while tally.is_well() && (tally.chaos_time() < options.duration || tally.cuts_left() > 0) {
        number += 1;
        let dir = options.dir.join(format!("round-{number:03}"));
        let _ = fs::remove_dir_all(&dir);
        let seed = rng.random();
        let round = round::Round::start(options, &mut machines, &dir, seed).await;
        let result = match round {
            Ok(round) if tally.chaos_time() < options.duration => {
                let left = options.duration.saturating_sub(tally.chaos_time());
                round.chaos(left.min(options.round), &mut deck).await
            }
            Ok(round) => round.power_cuts(tally.cuts_left()).await,
            Err(error) => Err(error),
        };
        let failed = result.is_err();
        tally.add(number, result.map_err(|error| judge_all_the_same(&dir, error)), watch.longest());
        if !failed && !options.keep {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        tally.took(began.elapsed());
        say(&tally.progress());
        tally.report().write(&options.dir)?;
    }
    drop(machines);
    let report = tally.report();
    report.write(&options.dir)?;
    Ok(report)
}

/// Judges what was recorded in `dir` until a round failed: what is broken says more than `error`.
fn judge_all_the_same(dir: &Path, error: anyhow::Error) -> anyhow::Error {
    let history = History::open(&dir.join(builder::HISTORY));
    let broken = history.ok().and_then(|history| check::check(&history).into_result().err());
    match broken {
        Some(broken) if !error.is::<Broken>() => {
            anyhow::Error::new(broken).context(format!("{error:#}"))
        }
        _ => error,
    }
}
