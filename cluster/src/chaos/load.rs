//! The people of a round: users who publish, callers who fetch.
//!
//! Guarantees: all of them go through all nodes, and what they see is in the history; what failed
//! and may be repeated is repeated. A call that can never succeed is an error of the run. Leaves
//! out: users who leave.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use oncekey_types::UserId;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;

use crate::{
    Cluster,
    bob::Bob,
    wait::{self, Seen},
    workload::{Fetcher, Load, Workload},
};

/// Keys that a device keeps in its pool.
const POOL: usize = 120;
/// Callers of each user.
const CALLERS: usize = 4;
/// Pause of a caller between two fetches.
const PAUSE: Duration = Duration::from_millis(4);
/// Longest pause of a device between two writes, in milliseconds.
const WRITE_PAUSE_MAX_MS: u64 = 700;
/// Time for the open operations to come to their end.
const SETTLE_LIMIT: Duration = Duration::from_secs(600);

/// Users and callers at work.
pub(super) struct People {
    bobs: Vec<Arc<Bob>>,
    fetchers: Vec<Fetcher>,
    workloads: Vec<Workload>,
    publishers: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
}

impl People {
    /// Has `users` users publish, and their callers begin.
    pub(super) async fn start(cluster: &Cluster, users: usize, seed: u64) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let endpoints = cluster.endpoints();
        let (mut bobs, mut fetchers, mut workloads) = (Vec::new(), Vec::new(), Vec::new());
        let stop = Arc::new(AtomicBool::new(false));
        let mut publishers = JoinSet::new();
        for user in 0..users {
            let devices = 1 + u32::try_from(user % 2)?;
            let bob = Arc::new(Bob::publish(cluster, &format!("bob-{user}"), devices, POOL).await?);
            let fetcher = bob.fetcher(&endpoints)?.with_patience(SETTLE_LIMIT);
            let load =
                Load { pause: PAUSE, ..Load::new(format!("caller-{user}"), CALLERS, usize::MAX) };
            workloads.push(Workload::start(&fetcher, &load));
            for device in 0..bob.devices.len() {
                let (bob, stop, seed) = (Arc::clone(&bob), Arc::clone(&stop), rng.random());
                publishers.spawn(write(bob, device, stop, seed));
            }
            bobs.push(bob);
            fetchers.push(fetcher);
        }
        Ok(Self { bobs, fetchers, workloads, publishers, stop })
    }

    /// A user, chosen by `number`.
    pub(super) fn user(&self, number: usize) -> &UserId {
        &self.bobs[number % self.bobs.len()].user
    }

    /// Fetches on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.workloads.iter().map(Workload::in_flight).sum()
    }

    /// Waits until `count` more fetches are decided.
    pub(super) async fn progress(&self, count: usize, limit: Duration) -> Result<()> {
        let decided = || self.workloads.iter().map(Workload::decided).sum::<usize>();
        let goal = decided() + count;
        wait::until(limit, &format!("{count} more fetches to be decided"), async || {
            let decided = decided();
            Ok(Seen::when(decided >= goal, || format!("{decided} of {goal}")))
        })
        .await
    }

    /// Ends the load, waits for what is on its way, sends again what is open, drains all pools.
    pub(super) async fn settle(mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        self.workloads.iter().for_each(Workload::stop);
        let all = async {
            while let Some(publisher) = self.publishers.join_next().await {
                publisher.context("a device broke down")??;
            }
            for workload in self.workloads {
                workload.finish().await?;
            }
            for (bob, fetcher) in self.bobs.iter().zip(&self.fetchers) {
                // A write without an answer is sent again before any other.
                bob.replenish(0).await?;
                bob.settle(fetcher).await?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(SETTLE_LIMIT, all)
            .await
            .context("what was open did not come to its end in time")?
    }
}

/// The life of a device.
async fn write(bob: Arc<Bob>, device: usize, stop: Arc<AtomicBool>, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let client = &bob.devices[device];
    while !stop.load(Ordering::SeqCst) {
        let result = match rng.random_range(0..8) {
            0 => client.rotate().await.map(drop),
            1 => client.status().await.map(drop),
            _ => client.replenish(POOL).await.map(drop),
        };
        match result {
            Err(error) if !error.is_retryable() => {
                return Err(error)
                    .with_context(|| format!("device {} of {}", device + 1, bob.user));
            }
            _ => {}
        }
        let pause = rng.random_range(50..WRITE_PAUSE_MAX_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}
