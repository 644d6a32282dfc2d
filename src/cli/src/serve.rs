//! `oncekey serve`: one node, until it is told to end.

use anyhow::{Context, Result, bail};
use oncekey_server::{Config, Overrides, Server};
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::Serve, logging, runtime};

pub(crate) fn run(arguments: &Serve) -> Result<()> {
    if let Some(parent) = arguments.parent {
        die_with(parent)?;
    }
    let overrides = arguments
        .set
        .iter()
        .fold(Overrides::default(), |overrides, (key, value)| overrides.set(key, value));
    let config = Config::load(arguments.config.as_deref(), &overrides)?;
    logging::start(&config.log.filter, config.log.format)?;
    runtime()?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut asked = async move || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    // A node that still starts may be ended too.
    let server = tokio::select! {
        server = Server::start(config) => server.context("the node does not start")?,
        _ = asked() => return Ok(()),
    };
    let reload = server.reload();
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            reload.notify_one();
        }
    });
    let (first, again) = tokio::sync::oneshot::channel();
    let signals = tokio::spawn(async move {
        let signal = asked().await;
        tracing::info!(signal, "asked to end");
        // The server may have ended by itself.
        let _ = first.send(());
        asked().await
    });
    tokio::select! {
        ended = server.run_until(async { drop(again.await) }) => Ok(ended?),
        signal = signals => bail!("ended by a second signal, {}", signal.unwrap_or_default()),
    }
}

/// Asks to be killed when the parent ends, which is the process `parent`.
#[cfg(target_os = "linux")]
pub(crate) fn die_with(parent: i32) -> Result<()> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).context("--parent")?;
    // It may have ended before the kernel was asked.
    if getppid() != Pid::from_raw(parent) {
        bail!("the parent {parent} is gone");
    }
    Ok(())
}

/// Other systems have no such thing; the parent ends its nodes itself.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
pub(crate) fn die_with(_parent: i32) -> Result<()> {
    Ok(())
}
