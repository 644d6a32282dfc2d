//! A store is many times larger than the log of a shard: a follower that was away for ten logs
//! catches up by snapshot and holds the same keys as the others.

use anyhow::{Result, bail, ensure};
use oncekey_cluster::{
    wait::{self, Seen},
    workload::{Load, Workload},
};
use oncekey_tests::{Bob, LIMIT, expect_log_line, judge, small};

/// The smallest that a configuration may say.
const LOG_ENTRIES_MAX: u64 = 100;
/// Entries written while the follower is away.
const ENTRIES: u64 = 10 * LOG_ENTRIES_MAX;
const POOL: usize = 1000;
/// Users whose keys only lie there: some 400 KB, where a log holds some 20 KB.
const OTHERS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_ten_logs_behind_catches_up_by_snapshot() -> Result<()> {
    let builder = small().shards(1).set("raft.log_entries_max", i64::try_from(LOG_ENTRIES_MAX)?);
    let mut cluster = builder.start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let leader = cluster.leader_of(&bob.user).await?;
    let followers: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != leader).collect();
    let [away, other] = followers[..] else { bail!("{followers:?}") };
    cluster.kill(away)?;

    let before = cluster.status(leader).await?.shards[0].last_log;
    let mut others = Vec::new();
    for number in 0..OTHERS {
        others.push(Bob::publish(&cluster, &format!("other-{number}"), 1, POOL).await?);
    }
    let fetcher = bob.fetcher(&[cluster.endpoint(leader), cluster.endpoint(other)])?;
    // One caller: each fetch is an entry of its own.
    let load = Load::new("meanwhile", 1, usize::try_from(ENTRIES)?);
    Workload::start(&fetcher, &load).finish().await?;
    let written = cluster.status(leader).await?.shards[0].last_log - before;
    ensure!(written >= ENTRIES, "only {written} entries were written");

    cluster.restart(away).await?;
    wait::until(LIMIT, "the follower to catch up", async || {
        let ahead = cluster.status(leader).await?.shards[0].applied;
        let behind = cluster.status(away).await?.shards[0].applied;
        Ok(Seen::when(behind >= ahead, || format!("it has applied {behind} of {ahead}")))
    })
    .await?;
    expect_log_line(&cluster, away, "snapshot fetched")?;

    // What it holds is what it got: the one that knew everything is gone.
    cluster.kill(leader)?;
    let endpoints = [cluster.endpoint(away), cluster.endpoint(other)];
    for bob in others {
        let bob = bob.through(&endpoints)?;
        bob.settle(&bob.fetcher(&endpoints)?).await?;
    }
    bob.through(&endpoints)?.settle(&fetcher.through(&endpoints)?).await?;
    judge(&cluster)?;
    cluster.restart(leader).await?;
    cluster.finish().await
}
