//! The binary `oncekey-simulator`: one simulated run of a cluster and its clients.
//!
//! Guarantees: the same seed gives the same run, to the byte, on the same build. Clock and
//! randomness of the whole process are those of the simulation, also for libraries that ask the
//! system; this is why it is a program of its own, and why a run has a process of its own.
//!
//! Leaves out: real disks, threads and sockets. `oncekey-cluster simulate` runs many seeds.

mod faults;
mod keys;
mod log;
mod network;
mod node;
mod plan;
mod run;
mod trace;
mod workload;
mod world;

use std::{
    fs,
    io::{self, Write as _},
    panic,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _};

use crate::{log::Messages, plan::Plan, run::Outcome};

/// Something was found that must not be.
const VIOLATED: u8 = 1;
/// The run did not come to its end.
const BROKEN: u8 = 2;

/// Simulates a cluster, its clients and its misfortunes.
#[derive(Debug, Parser)]
#[command(name = "oncekey-simulator", version)]
struct Arguments {
    /// What the run is drawn from.
    #[arg(long)]
    seed: u64,
    /// Simulated seconds with faults.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Where to keep the history, which `oncekey-cluster check` reads.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Log to the standard error, as this filter says: `info`, `oncekey_raft=debug`.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match simulate(arguments) {
        Ok(violated) if violated => VIOLATED.into(),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails.
            let _ = writeln!(io::stderr(), "oncekey-simulator: {error:#}");
            BROKEN.into()
        }
    }
}

/// Runs and prints the summary; whether something must not be.
fn simulate(arguments: Arguments) -> Result<bool> {
    let messages = Messages::default();
    let to_stderr = arguments.log.as_deref().map(|filter| {
        let layer = tracing_subscriber::fmt::layer().without_time().with_writer(io::stderr);
        layer.with_filter(EnvFilter::new(filter))
    });
    let counted = messages.clone().with_filter(log::counted());
    tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(counted).with(to_stderr),
    )?;
    let panics = Arc::new(Mutex::new(Vec::new()));
    {
        let (panics, print) = (Arc::clone(&panics), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            panics.lock().push(panic.to_string());
            print(panic);
        }));
    }
    let plan = Plan::draw(arguments.seed, Duration::from_secs(arguments.seconds));
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(plan.seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    // On a fresh thread: what hashes are keyed with is drawn once for each.
    let running = std::thread::spawn(move || run::run(plan, &messages, &panics));
    let Outcome { summary, history } =
        running.join().map_err(|_| anyhow!("the simulation panicked"))??;
    if let Some(path) = arguments.history {
        fs::write(&path, history).with_context(|| format!("cannot write {}", path.display()))?;
    }
    writeln!(io::stdout(), "{}", serde_json::to_string(&summary)?)?;
    Ok(!summary.violations.is_empty() || summary.undecided > 0)
}
