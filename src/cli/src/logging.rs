//! Logs, on standard error.
//!
//! Guarantees: `RUST_LOG` goes before what the command wants. Leaves out: files and rotation; the
//! service manager has those.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, anyhow};
use oncekey_server::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Logs the events that `filter` lets through, in the form `format`.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) => EnvFilter::try_new(filter).context("RUST_LOG")?,
        Err(_) => EnvFilter::try_new(filter).context("log.filter")?,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow!("logging does not start: {error}"))
}
