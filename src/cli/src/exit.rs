//! Exit codes. Stable; scripts and service managers act on them.

use std::process::ExitCode;

use oncekey_server::{RunError, StartError, config};

use crate::device;

/// The command failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong. Clap uses the same.
const USAGE: u8 = 2;
/// The node met a fault of its disk or its data.
const FAULT: u8 = 3;
/// Someone's keys have changed, and a person must judge.
const QUESTIONED: u8 = 4;

/// The code for a command that ended with `error`.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    let start = error.downcast_ref::<StartError>();
    ExitCode::from(
        if error.is::<config::Error>()
            || error.is::<device::Usage>()
            || start.is_some_and(|error| matches!(error, StartError::Certificate(_)))
        {
            USAGE
        } else if error.is::<device::Questioned>() {
            QUESTIONED
        } else if error.is::<RunError>() || start.is_some_and(StartError::is_fault) {
            FAULT
        } else {
            FAILED
        },
    )
}
