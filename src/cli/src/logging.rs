//! Logs, on standard error.
//!
//! Guarantees: `RUST_LOG` goes before what the command wants; as JSON every line is one event, the
//! error that ends the command and panics included. Leaves out: files and rotation; the
//! service manager has those.

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow};
use oncekey_server::config::LogFormat;
use tracing_subscriber::EnvFilter;

use crate::output;

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
    started.map_err(|error| anyhow!("logging does not start: {error}"))?;
    if format == LogFormat::Json {
        // A reader of JSON must not find a line of anything else.
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a thread panicked")));
        let _ = IN_JSON.set(());
    }
    Ok(())
}

/// Set when standard error has JSON only.
static IN_JSON: OnceLock<()> = OnceLock::new();

/// Tells the error that ended the command, with its causes, in the form of the log.
pub(crate) fn error(error: &anyhow::Error) {
    if IN_JSON.get().is_some() {
        tracing::error!(error = format!("{error:#}"), "the command failed");
    } else {
        output::error(error);
    }
}
