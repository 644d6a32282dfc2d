//! The oncekey command.
//!
//! Exit codes are part of the interface: see the end of `oncekey --help`.

mod args;
mod bench;
mod certs;
mod cluster;
#[cfg(feature = "conformance")]
mod conformance;
mod demo;
mod dev;
mod device;
mod exit;
mod health;
mod keep;
mod logging;
mod operator;
mod output;
mod secret;
mod serve;
mod table;
mod token;

use std::{io, process::ExitCode};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

use args::{Arguments, Command};

// A node allocates on many threads at once; glibc's arenas contend there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::error(&error);
            exit::code(&error)
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Health(arguments) => runtime()?.block_on(health::run(&arguments)),
        Command::Dev(arguments) => runtime()?.block_on(dev::run(&arguments)),
        Command::Demo(arguments) => runtime()?.block_on(demo::run(&arguments)),
        Command::Cluster(arguments) => runtime()?.block_on(cluster::run(arguments)),
        Command::Device(arguments) => runtime()?.block_on(device::run(&arguments)),
        Command::Token(arguments) => token::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::BenchNoop(arguments) => bench::noop::serve(&arguments),
        Command::Backup(arguments) => runtime()?.block_on(keep::backup(&arguments)),
        Command::Restore(arguments) => runtime()?.block_on(keep::restore(&arguments)),
        Command::Certs(arguments) => certs::run(&arguments),
        Command::Config => {
            output::line(oncekey_server::config::example().trim_end());
            Ok(())
        }
        Command::Completions(arguments) => {
            let mut command = Arguments::command();
            clap_complete::generate(arguments.shell, &mut command, "oncekey", &mut io::stdout());
            Ok(())
        }
        #[cfg(feature = "conformance")]
        Command::Conformance => conformance::run(io::stdin().lock(), io::stdout().lock()),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")
}
