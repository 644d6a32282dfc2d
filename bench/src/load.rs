//! The closed loop: every client sends its next pop when its last one is answered.
//!
//! All clients share one thread, so that the load costs little beside what it measures, the same
//! for every rival. A pop counts if its answer came in the measured time; the time of the slowest
//! is in the figures too. An empty pool, a refusal or a key that comes twice ends the measurement
//! with an error.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    http::Connection,
    pool::{Issued, Turn, Turns},
    store::{Address, Store},
};

/// Pops of one client that may fail.
const ERRORS_MAX: usize = 100;

/// What the clients talk to.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// The store itself.
    Bare(&'a Address),
    /// A front at this port, or the no-op.
    Front(u16),
}

/// How long a measurement takes.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    /// Load that is not counted.
    pub(crate) warm_up: Duration,
    /// Load that is.
    pub(crate) measured: Duration,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Measured {
    /// Rate over the measured time.
    pub(crate) pops_per_second: f64,
    /// Half of the pops were answered within this time.
    pub(crate) p50_us: u32,
    /// 99 of 100.
    pub(crate) p99_us: u32,
    /// 999 of 1,000.
    pub(crate) p999_us: u32,
    /// Pops that failed, of which nobody knows whether they took a key.
    pub(crate) errors: usize,
}

/// One client.
enum Client {
    Bare(Arc<Store>),
    Front { port: u16, connection: Connection },
}

/// What one client saw, or all of them.
#[derive(Default)]
struct Seen {
    latencies_us: Vec<u32>,
    ids: Vec<u64>,
    errors: usize,
}

/// Runs `clients` clients against `target` and notes every key they got.
pub(crate) async fn run(
    target: Target<'_>,
    clients: usize,
    turns: &Arc<Turns>,
    issued: &mut Issued,
    span: Span,
) -> Result<Measured> {
    let mut connected = Vec::with_capacity(clients);
    match target {
        Target::Bare(address) => {
            let store = Arc::new(Store::connect(address, clients).await?);
            connected.extend((0..clients).map(|_| Client::Bare(store.clone())));
        }
        Target::Front(port) => {
            for _ in 0..clients {
                let connection = Connection::open(port).await?;
                connected.push(Client::Front { port, connection });
            }
        }
    }
    let start = Instant::now() + span.warm_up;
    let mut running = JoinSet::new();
    for client in connected {
        running.spawn(client.run(turns.clone(), start, start + span.measured));
    }
    let mut all = Seen::default();
    while let Some(seen) = running.join_next().await {
        let seen = seen??;
        all.latencies_us.extend(seen.latencies_us);
        all.errors += seen.errors;
        seen.ids.into_iter().try_for_each(|id| issued.note(id))?;
    }
    summary(all.latencies_us, all.errors, span.measured)
}

impl Client {
    async fn run(mut self, turns: Arc<Turns>, start: Instant, end: Instant) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut sent = Instant::now();
        while sent < end {
            let popped = self.pop(turns.next()).await;
            let answered = Instant::now();
            match popped {
                Ok(id) => {
                    seen.ids.extend(id);
                    if (start..end).contains(&answered) {
                        let micros = (answered - sent).as_micros();
                        seen.latencies_us.push(u32::try_from(micros).unwrap_or(u32::MAX));
                    }
                }
                Err(error) => {
                    seen.errors += 1;
                    if seen.errors > ERRORS_MAX {
                        return Err(error);
                    }
                    self.recover().await?;
                }
            }
            sent = answered;
        }
        Ok(seen)
    }

    /// The id of the key that was popped; none from the no-op.
    async fn pop(&mut self, turn: Turn) -> Result<Option<u64>> {
        match self {
            Self::Bare(store) => {
                let key = store.pop(turn).await?;
                Ok(Some(key.context("a pool is empty: too few keys were loaded")?.id))
            }
            Self::Front { connection, .. } => connection.pop(turn).await,
        }
    }

    /// Makes ready for the next pop after one that failed.
    async fn recover(&mut self) -> Result<()> {
        if let Self::Front { port, connection } = self {
            // There may be a rest of the last answer in the old one.
            *connection = Connection::open(*port).await?;
        }
        Ok(())
    }
}

fn summary(mut latencies_us: Vec<u32>, errors: usize, measured: Duration) -> Result<Measured> {
    latencies_us.sort_unstable();
    let count = u32::try_from(latencies_us.len())?;
    let within = |per_mille: usize| {
        let rank = (latencies_us.len() * per_mille).div_ceil(1000);
        latencies_us.get(rank.saturating_sub(1)).copied().context("no pop was answered")
    };
    Ok(Measured {
        pops_per_second: f64::from(count) / measured.as_secs_f64(),
        p50_us: within(500)?,
        p99_us: within(990)?,
        p999_us: within(999)?,
        errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_latencies() -> Result<()> {
        let measured = summary((1..=1000).rev().collect(), 0, Duration::from_secs(2))?;
        assert_eq!((measured.p50_us, measured.p99_us, measured.p999_us), (500, 990, 999));
        assert!((measured.pops_per_second - 500.0).abs() < 1e-9, "{measured:?}");
        Ok(())
    }

    #[test]
    fn a_run_without_answers_is_an_error() {
        assert!(summary(Vec::new(), 0, Duration::from_secs(1)).is_err());
    }
}
