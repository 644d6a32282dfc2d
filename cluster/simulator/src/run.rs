//! One run: form a cluster, let faults loose, heal, settle, drain, judge.
//!
//! Guarantees: what must not be is in the summary: an invariant that is broken or was not judged, a
//! node that ended by itself, a panic, a client that was told what cannot be, an outcome that nobody
//! knows, a cluster that does not come back within [`SETTLE_MAX`].

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use oncekey_cluster::{
    check::{self, Verdict},
    history::{
        History,
        record::{Phase, Record},
    },
    simulate::Summary,
};
use parking_lot::Mutex;

use crate::{faults::Faults, log::Messages, plan::Plan, world::World};

/// Time for a cluster to form and to take its first writes.
const FORM_MAX: Duration = Duration::from_secs(30);
/// Time for everything to be decided when the faults are over, and for the pools to be emptied.
const SETTLE_MAX: Duration = Duration::from_secs(90);
/// Time for all replicas to be even then.
const EVEN_MAX: Duration = Duration::from_secs(20);
/// Time between two looks at the replicas.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What happened, for whoever asks.
pub(crate) struct Outcome {
    pub(crate) summary: Summary,
    /// The history, as in a file.
    pub(crate) history: Vec<u8>,
}

/// Runs `plan` to its end.
pub(crate) fn run(plan: Plan, messages: &Messages, panics: &Mutex<Vec<String>>) -> Result<Outcome> {
    let history = Arc::new(Mutex::new(Vec::new()));
    let mut world = World::new(plan, Arc::clone(&history));
    let mut run = Run { faults: Faults::new(plan, Duration::ZERO), violations: Vec::new() };
    if let Err(error) = run.live(&mut world) {
        run.violations.push(format!("{error:#}"));
    }
    let simulated = world.now();
    world.recorder.check()?;
    let trace = world.trace.clone();
    let Run { faults, mut violations } = run;
    drop(world);

    let history = std::mem::take(&mut *history.lock());
    trace.add(simulated, 0, &history);
    violations.extend(panics.lock().iter().cloned());
    let mut summary = judge(&history, violations)?;
    summary.seed = plan.seed;
    summary.trace = trace.hash();
    summary.simulated_ms = u64::try_from(simulated.as_millis()).unwrap_or(u64::MAX);
    summary.leaders_hit = faults.leaders_hit;
    summary.faults =
        faults.done.into_iter().map(|(kind, times)| (kind.to_owned(), times)).collect();
    summary.reached = messages.counts();
    Ok(Outcome { summary, history })
}

struct Run {
    faults: Faults,
    violations: Vec<String>,
}

impl Run {
    fn live(&mut self, world: &mut World) -> Result<()> {
        let registered = |world: &World| world.shared.registered.load(Ordering::Relaxed);
        if !self.until(world, FORM_MAX, registered)? {
            self.violations.push(format!("no cluster formed within {FORM_MAX:?}"));
            return Ok(());
        }
        let begun = world.now();
        self.faults = Faults::new(world.plan, begun);
        while world.now() < begun + world.plan.safety {
            world.step()?;
            self.tend(world);
            self.faults.step(world);
        }

        world.recorder.mark(Phase::Heal);
        self.faults.end(world);
        world.shared.ending.store(true, Ordering::Relaxed);
        world.recorder.mark(Phase::Settle);
        let drained = |world: &World| world.shared.drained.load(Ordering::Relaxed);
        if !self.until(world, SETTLE_MAX, drained)? {
            self.violations.push(format!("not everything was settled within {SETTLE_MAX:?}"));
            return Ok(());
        }
        let deadline = world.now() + EVEN_MAX;
        loop {
            let look = world.now() + LOOK_EVERY;
            self.until(world, LOOK_EVERY, |world| world.now() >= look)?;
            if world.compare_replicas()? {
                break;
            }
            if world.now() > deadline {
                self.violations.push(format!("the replicas were not even within {EVEN_MAX:?}"));
                break;
            }
        }
        world.recorder.mark(Phase::End);
        Ok(())
    }

    /// Goes on until `done`, for at most `limit`.
    fn until(
        &mut self,
        world: &mut World,
        limit: Duration,
        done: impl Fn(&World) -> bool,
    ) -> Result<bool> {
        let deadline = world.now() + limit;
        while !done(world) {
            if world.now() > deadline {
                return Ok(false);
            }
            world.step()?;
            self.tend(world);
        }
        Ok(true)
    }

    fn tend(&mut self, world: &mut World) {
        for (id, why) in world.tend() {
            self.violations.extend(self.faults.ended(world, id, &why));
        }
    }
}

/// Reads and judges what was recorded.
fn judge(history: &[u8], mut violations: Vec<String>) -> Result<Summary> {
    let lines = history.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records: Vec<Record> =
        lines.map(serde_json::from_slice).collect::<Result<_, _>>().context("the history")?;
    let history = History::from_records(records)?;
    let report = check::check(&history);
    let mut not_judged = Vec::new();
    for finding in &report.findings {
        if finding.verdict() == Verdict::Violated {
            let messages = finding.violations.iter().map(|violation| violation.message.clone());
            let messages: Vec<_> = messages.collect();
            violations.push(format!("{}: {}", finding.invariant, messages.join("; ")));
        }
        let whys = finding.not_judged.iter();
        not_judged.extend(whys.map(|why| format!("{}: {why}", finding.invariant)));
    }
    let figures = &report.summary;
    Ok(Summary {
        seed: 0,
        trace: String::new(),
        simulated_ms: 0,
        operations: figures.operations,
        answered: figures.answered as u64,
        retried: figures.retried as u64,
        alone: figures.alone as u64,
        issued: figures.issued as u64,
        writes: figures.writes as u64,
        reads: figures.reads as u64,
        leaders_hit: 0,
        faults: Default::default(),
        reached: Default::default(),
        undecided: figures.undecided as u64,
        violations,
        not_judged,
    })
}
