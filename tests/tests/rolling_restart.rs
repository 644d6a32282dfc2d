//! Every node is restarted in turn under load, in good order and by SIGKILL: nothing is lost and
//! nothing doubled, and fetches are answered all the time.

use std::time::Duration;

use anyhow::{Result, ensure};
use oncekey_cluster::{
    Cluster,
    workload::{Load, Workload},
};
use oncekey_tests::{Bob, LIMIT, judge, small};
use oncekey_types::NodeId;

const POOL: usize = 1000;
/// Fetches that must be answered between two restarts.
const BETWEEN: usize = 20;
/// A restart may hold up answers for an election and a few retries, no longer.
const GAP_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_can_be_restarted_in_good_order_under_load() -> Result<()> {
    roll("orderly", async |cluster, node| cluster.stop(node).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_can_be_killed_and_restarted_under_load() -> Result<()> {
    roll("killed", async |cluster, node| cluster.kill(node)).await
}

async fn roll(label: &str, down: impl AsyncFn(&mut Cluster, NodeId) -> Result<()>) -> Result<()> {
    let mut cluster = small().start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    let pause = Duration::from_millis(40);
    let load = Load { pause, ..Load::new(label, 8, usize::MAX) };
    let workload = Workload::start(&fetcher, &load);
    for node in cluster.nodes() {
        workload.decide(BETWEEN, LIMIT).await?;
        down(&mut cluster, node).await?;
        workload.decide(BETWEEN, LIMIT).await?;
        cluster.restart(node).await?;
        bob.replenish(POOL).await?;
    }
    workload.decide(BETWEEN, LIMIT).await?;
    workload.stop();
    workload.finish().await?;
    let gap = cluster.recorder().history()?.longest_gap();
    ensure!(gap < GAP_MAX, "no fetch was answered for {gap:?}");
    bob.settle(&fetcher).await?;
    judge(&cluster)?;
    cluster.finish().await
}
