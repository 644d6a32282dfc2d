//! `oncekey bench`: pops per second, how long they take, what a killed leader costs, and what stored
//! keys take up.
//!
//! Guarantees: every figure was measured in this one run, on real nodes with everything on that a
//! node has by default; every key that came was compared with all others, and at the end with what
//! the nodes say is gone. Ratios compare neighbours in time: the no-op server is measured right
//! before each run, one small write with its sync right before each run with one client.
//!
//! The generator shares the machine with the nodes. It writes and reads HTTP by hand, on one
//! thread; what it costs stands beside what the nodes cost, for the nodes and for the no-op server.
//!
//! Leaves out: other stores; open loops.

mod callers;
mod clients;
mod counters;
mod failover;
mod figures;
mod idle;
mod leaders;
mod measure;
pub(crate) mod noop;
mod population;
mod progress;
mod publish;
mod report;
mod restart;
mod settle;
mod svg;
mod target;
mod usage;
mod wire;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use oncekey_server::config::LogFormat;
use oncekey_types::limits;

use crate::{args::Bench, logging, output};
use clients::{Counts, Work};
use failover::Failover;
use measure::{Plan, STEP_MS, Snapshot, measure};
use noop::Noop;
use population::{KEYS_PER_USER, Population};
use report::{Load, Pair, Report, Settings, Step};
use restart::{Restart, Way};
use svg::Picture;
use target::Target;
use usage::Usage;

/// Rate that keys are kept ready for before any rate is known.
const RATE_ASSUMED: f64 = 20_000.0;
/// How much faster than the fastest run so far a run may be before its keys run out.
const RATE_MARGIN: f64 = 1.5;
/// Clients while leaders are killed, unless the most that were asked for are fewer.
const FAILOVER_CLIENTS: u16 = 64;

pub(crate) fn run(arguments: &Bench) -> Result<()> {
    logging::start("error", LogFormat::Text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads.into())
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = bench(arguments) => report,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("Ctrl-C cannot be waited for")?;
                bail!("interrupted");
            }
        }
    })?;
    output::line(&report);
    if let Some(path) = &arguments.json {
        write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    if let Some(path) = &arguments.svg {
        let picture = Picture { panels: &report.panels(), step_ms: STEP_MS };
        write(path, picture.to_string())?;
    }
    report.verdict()
}

async fn bench(arguments: &Bench) -> Result<Report> {
    let target = Target::start(arguments).await?;
    let population = Population::new(rand::random()).asked_by(target.callers(arguments)?);
    let mut session = Session {
        target,
        noop: if arguments.noop { Some(Noop::start().await?) } else { None },
        population: Arc::new(population),
        best_rate: RATE_ASSUMED / RATE_MARGIN,
        counts: Counts::default(),
    };
    let mut report = Report::new(settings(arguments, session.target.endpoints.len()));
    let stored: BTreeSet<u64> = arguments.stored.iter().copied().collect();
    for opks in &stored {
        let load = session.load(*opks).await?;
        output::line(load.summary());
        report.loads.push(load);
        if arguments.idle_s > 0 && stored.last() == Some(opks) {
            let length = Duration::from_secs(arguments.idle_s);
            let idle = idle::idle(&session.target, length).await;
            output::line(idle.summary());
            report.idle = Some(idle);
        }
        for clients in &arguments.clients {
            if let Some(step) = session.step(plan(arguments, *clients), arguments.runs).await? {
                output::line(step.summary());
                report.steps.push(step);
            }
        }
    }
    if arguments.kill_leader > 0 {
        let most = arguments.clients.iter().copied().max().unwrap_or(FAILOVER_CLIENTS);
        let plan = failover::plan(plan(arguments, most.min(FAILOVER_CLIENTS)));
        report.failover = Some(session.kill_leaders(plan, arguments.kill_leader).await?);
    }
    report.sizes_at_end = session.target.sizes(session.population.stored())?;
    if arguments.restart {
        report.restarts = session.restart_nodes().await?;
    }
    report.counts = session.counts;
    report.stock = publish::take_stock(&session.population, &session.target.endpoints).await?;
    session.target.finish().await?;
    Ok(report.judged())
}

fn settings(arguments: &Bench, endpoints: usize) -> Settings {
    Settings {
        endpoints,
        local: arguments.local,
        engine: arguments.local.then(|| arguments.engine.to_string()),
        shards: arguments.local.then(|| arguments.shards.unwrap_or(limits::SHARDS_DEFAULT)),
        warm_up_ms: arguments.warm_up_ms,
        duration_ms: arguments.duration_ms,
        leader_first: arguments.leader_first,
        threads: arguments.threads,
        tls: arguments.tls,
        tokens: arguments.tokens || arguments.token_key.is_some(),
    }
}

fn plan(arguments: &Bench, clients: u16) -> Plan {
    Plan {
        clients,
        warm_up: Duration::from_millis(arguments.warm_up_ms),
        duration: Duration::from_millis(arguments.duration_ms),
        leader_first: arguments.leader_first,
    }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// A benchmark under way.
struct Session {
    target: Target,
    noop: Option<Noop>,
    population: Arc<Population>,
    /// Fastest run so far, in pops per second.
    best_rate: f64,
    counts: Counts,
}

impl Session {
    /// Publishes until `opks` keys are stored, and waits until the disks are still.
    async fn load(&mut self, opks: u64) -> Result<Load> {
        let (published, users) = (self.population.published(), self.population.users());
        let started = Instant::now();
        let lacking = opks.saturating_sub(self.population.stored());
        self.publish(lacking).await?;
        let seconds = started.elapsed().as_secs_f64();
        if lacking > 0 {
            let population = Arc::get_mut(&mut self.population);
            population.context("somebody still claims keys")?.pass_over_older();
        }
        let stored_opks = self.population.stored();
        let state_bytes = || {
            let sizes = self.target.sizes(stored_opks)?;
            Ok(sizes.iter().map(|size| size.state_bytes).sum())
        };
        let settled_s =
            if self.target.is_local() { settle::settle(state_bytes).await? } else { None };
        Ok(Load {
            stored_opks,
            opks: self.population.published() - published,
            users: self.population.users() - users,
            seconds,
            settled_s,
            sizes: self.target.sizes(stored_opks)?,
        })
    }

    /// Publishes at least `opks` keys.
    async fn publish(&mut self, opks: u64) -> Result<()> {
        if opks > 0 {
            let users = opks.div_ceil(KEYS_PER_USER.into());
            let grown = publish::grow(&self.population, &self.target.endpoints, users).await?;
            self.population = Arc::new(grown);
        }
        Ok(())
    }

    /// Publishes more when the keys might not last for `length`.
    async fn stock_up(&mut self, length: Duration) -> Result<()> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate that was measured, times minutes"
        )]
        let needed = (self.best_rate * RATE_MARGIN * length.as_secs_f64()) as u64;
        self.publish(needed.saturating_sub(self.population.unclaimed())).await
    }

    /// Measures one number of clients.
    async fn step(&mut self, plan: Plan, runs: u16) -> Result<Option<Step>> {
        let mut pairs = Vec::new();
        for _ in 0..runs {
            self.stock_up(plan.length()).await?;
            pairs.push(self.pair(plan).await?);
        }
        Ok(Step::new(plan.clients, pairs))
    }

    async fn pair(&mut self, plan: Plan) -> Result<Pair> {
        let sync_p50_us = match self.target.dir() {
            Some(dir) if plan.clients == 1 => {
                let dir = dir.to_owned();
                let probe = tokio::task::spawn_blocking(move || usage::sync_p50_us(&dir));
                Some(probe.await?.context("the disk cannot be measured")?)
            }
            _ => None,
        };
        let noop = match &self.noop {
            Some(noop) => {
                let look = async || Snapshot {
                    servers: noop.process_id().and_then(Usage::of),
                    ..Snapshot::default()
                };
                let at = Arc::from([noop.address.into()]);
                let (run, counts) = measure(&Work::Nothing, &at, plan, look).await?;
                self.counts.add(counts);
                Some(run)
            }
            None => None,
        };
        let stored_opks = self.population.stored();
        let work = Work::Pops(Arc::clone(&self.population));
        let look = async || Snapshot {
            servers: self.target.usage(),
            device_bytes: self.target.device_written_bytes(),
            counters: self.target.counters().await,
        };
        let (pops, counts) = measure(&work, &self.target.endpoints, plan, look).await?;
        self.counts.add(counts);
        self.best_rate = self.best_rate.max(pops.per_second);
        Ok(Pair { stored_opks, pops, noop, sync_p50_us })
    }

    async fn kill_leaders(&mut self, plan: Plan, times: u16) -> Result<Failover> {
        let mut rounds = Vec::new();
        for number in 1..=times {
            self.stock_up(plan.length()).await?;
            let (round, counts) = failover::round(&mut self.target, &self.population, plan).await?;
            self.counts.add(counts);
            output::line(format_args!(
                "kill {number} of {times}: longest gap {:.0} ms, worst client {:.0} ms",
                round.cluster_gap_ms, round.worst_client_gap_ms
            ));
            rounds.push(round);
        }
        Ok(Failover::new(plan.clients, rounds))
    }

    /// Restarts each node in each way.
    async fn restart_nodes(&mut self) -> Result<Vec<Restart>> {
        let mut restarts = Vec::new();
        for way in [Way::Sigterm, Way::Sigkill] {
            for node in self.target.cluster()?.nodes() {
                let restart = restart::restart(&mut self.target, node, way).await?;
                output::line(format_args!(
                    "node {node} restarted after {way}: ready in {:.2} s",
                    restart.ready_s
                ));
                restarts.push(restart);
            }
        }
        Ok(restarts)
    }
}
