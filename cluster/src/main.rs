//! The binary `oncekey-cluster`: judges recorded runs and simulates others.
mod args;
mod commands;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};

fn main() -> ExitCode {
    match Arguments::parse().command {
        #[cfg(target_os = "linux")]
        Command::Chaos(arguments) => commands::chaos::run(&arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Simulate(arguments) => commands::simulate::run(&arguments),
        Command::Bugs(arguments) => commands::bugs::run(&arguments),
    }
}
