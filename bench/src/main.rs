//! Oncekey beside the stores an operator would pick instead, under one load.
//!
//! In every round each rival is started from nothing, loaded, driven by the same closed loop, bare
//! and behind an HTTP front, and ended; only one runs at a time. Prints tables in Markdown, writes
//! JSON.

mod compare;
mod front;
mod http;
mod load;
mod machine;
mod oncekey;
mod pool;
mod ports;
mod process;
mod results;
mod rivals;
mod store;
mod wait;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueHint};
use tokio::signal::unix::{SignalKind, signal};

use crate::{rivals::Rival, store::Address};

/// Oncekey beside the stores an operator would pick instead, under one load.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Run),
    Front(Front),
}

/// Compare.
///
/// Needs the rivals' programs (see install.sh) and about 5 GiB on the disk of the folder. With the
/// defaults it takes about 25 minutes. Run it on a machine that does nothing else.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  peers run --oncekey ../target/release/oncekey --json peers.json
  peers run --rivals etcd --runs 1 --duration-ms 1000 --clients 1,64")]
struct Run {
    /// The release build of oncekey; without it only the rivals are measured.
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::FilePath)]
    oncekey: Option<PathBuf>,
    /// The rivals.
    #[arg(long, value_name = "RIVAL,…", value_delimiter = ',', value_enum,
          default_values_t = Rival::ALL)]
    rivals: Vec<Rival>,
    /// Numbers of clients, measured one after the other.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,16,64,256",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: Vec<u16>,
    /// Rounds; each measures everything once.
    #[arg(long, value_name = "N", default_value = "3",
          value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// Load before each measurement, not counted.
    #[arg(long, value_name = "MS", default_value = "1000",
          value_parser = clap::value_parser!(u64).range(..=60_000))]
    warm_up_ms: u64,
    /// Length of each measurement.
    #[arg(long, value_name = "MS", default_value = "5000",
          value_parser = clap::value_parser!(u64).range(100..=60_000))]
    duration_ms: u64,
    /// Folder for the data of all, on the disk that is to be measured; emptied at the end.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    json: Option<PathBuf>,
}

/// Serve a front; `run` starts it.
#[derive(Debug, Args)]
#[command(hide = true)]
struct Front {
    /// The store behind it; without one it answers constant bytes.
    #[arg(long, value_name = "PROTOCOL:PORT")]
    store: Option<Address>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Front(arguments) => front(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Run) -> Result<()> {
    // One thread for the load: see `load`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // What is dropped here ends the processes and removes their data.
        tokio::select! {
            done = compare::run(arguments) => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

fn front(arguments: Front) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(front::serve(arguments.store))
}
