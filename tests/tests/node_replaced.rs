//! A node loses its disk. Under its old id it may not come back; a new node takes its place, gets
//! the state by snapshot, and is then as good as any.

use anyhow::{Context, Result, ensure};
use oncekey_cluster::workload::{Load, Workload};
use oncekey_tests::{Bob, LIMIT, expect_log_line, judge, small};

const POOL: usize = 600;
/// One after the other, so that each is an entry of its own: more than a log keeps.
const FETCHES: usize = 250;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_is_replaced_by_a_new_one() -> Result<()> {
    let mut cluster = small().start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    Workload::start(&fetcher, &Load::new("before", 1, FETCHES)).finish().await?;

    let leader = cluster.leader_of(&bob.user).await?;
    let nodes = cluster.nodes();
    let lost = *nodes.iter().find(|node| **node != leader).context("a follower")?;
    cluster.kill(lost)?;
    cluster.wipe(lost)?;
    cluster.launch(lost)?;
    let status = cluster.wait_exit(lost, LIMIT).await?;
    ensure!(!status.success(), "a node without its disk ended as if all were well");
    expect_log_line(&cluster, lost, "must not vote under its old id")?;

    let new = cluster.launch_joining()?;
    cluster.replace(lost, new, leader).await?;
    cluster.wait_ready_of(&[new]).await?;
    expect_log_line(&cluster, new, "snapshot fetched")?;
    let members: Vec<_> =
        cluster.status(leader).await?.members.iter().map(|member| member.id).collect();
    ensure!(members.contains(&new) && !members.contains(&lost), "{members:?}");

    // The new node and one other are a quorum, without the leader that knew everything.
    cluster.kill(leader)?;
    let endpoints: Vec<_> =
        cluster.running().into_iter().map(|node| cluster.endpoint(node)).collect();
    let bob = bob.through(&endpoints)?;
    let survivors = fetcher.through(&endpoints)?;
    Workload::start(&survivors, &Load::new("after", 4, 20)).finish().await?;
    bob.settle(&survivors).await?;
    judge(&cluster)?;
    cluster.restart(leader).await?;
    cluster.finish().await
}
