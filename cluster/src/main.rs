//! The binary `oncekey-cluster`: judges recorded runs.
mod args;
mod commands;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check(arguments) => commands::check::run(&arguments),
    }
}
