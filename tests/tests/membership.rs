//! A cluster grows, shrinks and changes its nodes while fetches go on: none fails, none gets a key that
//! another one got, and every node holds what it should.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use oncekey_api::cluster as api;
use oncekey_cluster::{
    Cluster,
    wait::{self, Seen},
    workload::{Load, Workload},
};
use oncekey_tests::{Bob, LIMIT, judge, small};
use oncekey_types::NodeId;

const POOL: usize = 1000;
/// Fetches that must be answered after each change.
const BETWEEN: usize = 20;
/// Time for shards to move.
const MOVES: Duration = Duration::from_secs(120);

fn gentle(label: &str) -> Load {
    Load { pause: Duration::from_millis(40), ..Load::new(label, 8, usize::MAX) }
}

/// Waits until `via` sees a cluster as `wanted` and nothing moves any more.
async fn settled(
    cluster: &Cluster,
    via: NodeId,
    what: &str,
    wanted: impl Fn(&api::Cluster) -> bool,
) -> Result<()> {
    wait::until(MOVES, what, async || {
        let status = cluster.status(via).await?;
        let still = status.placement.iter().all(|placed| placed.target.is_none());
        let placed = status.placement.iter().map(|placed| &placed.replicas).collect::<Vec<_>>();
        Ok(Seen::when(still && wanted(&status), || format!("{:?} {placed:?}", status.members)))
    })
    .await
}

fn holds(status: &api::Cluster, node: NodeId) -> usize {
    status.placement.iter().filter(|placed| placed.replicas.contains(&node)).count()
}

fn has_three_each(status: &api::Cluster) -> bool {
    status.placement.iter().all(|placed| placed.replicas.len() == 3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_added_and_drained_while_fetches_go_on() -> Result<()> {
    let mut cluster = small().shards(4).start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    let workload = Workload::start(&fetcher, &gentle("grow"));
    workload.decide(BETWEEN, LIMIT).await?;
    let first = NodeId(1);

    for id in [4, 5] {
        let node = cluster.launch_joining()?;
        ensure!(node == NodeId(id), "node {node} came");
        cluster.let_in(node, first).await?;
        let what = format!("node {node} holds its share");
        settled(&cluster, first, &what, |status| {
            holds(status, node) >= 2 && has_three_each(status)
        })
        .await?;
        cluster.wait_ready_of(&[node]).await?;
        workload.decide(BETWEEN, LIMIT).await?;
        bob.replenish(POOL).await?;
    }
    let status = cluster.status(first).await?;
    let held: Vec<_> = (1..=5).map(|node| holds(&status, NodeId(node))).collect();
    ensure!(held.iter().all(|held| (2..=3).contains(held)), "of twelve replicas: {held:?}");

    // Whoever holds no replica of Bob's shard serves him all the same.
    let shard = cluster.shard_of(&bob.user)?;
    let replicas = status.placement.iter().find(|placed| placed.shard == shard);
    let replicas: BTreeSet<NodeId> =
        replicas.into_iter().flat_map(|placed| placed.replicas.clone()).collect();
    let without = cluster.nodes().into_iter().find(|node| !replicas.contains(node));
    let without = without.ok_or_else(|| anyhow::anyhow!("all hold shard {shard}: {status:?}"))?;
    let forwarded = fetcher.through(&[cluster.endpoint(without)])?;
    Workload::start(&forwarded, &Load::new("forwarded", 2, BETWEEN)).finish().await?;

    for node in [NodeId(2), NodeId(4)] {
        cluster.drain(node, first).await?;
        settled(&cluster, first, &format!("node {node} is removed"), |status| {
            status.members.iter().all(|member| member.id != node) && has_three_each(status)
        })
        .await?;
        workload.decide(BETWEEN, LIMIT).await?;
        cluster.stop(node).await?;
        cluster.retire(node)?;
        workload.decide(BETWEEN, LIMIT).await?;
        bob.replenish(POOL).await?;
    }
    workload.stop();
    workload.finish().await?;
    let endpoints = cluster.endpoints();
    let (bob, fetcher) = (bob.through(&endpoints)?, fetcher.through(&endpoints)?);
    bob.settle(&fetcher).await?;
    judge(&cluster)?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_nodes_with_three_replicas_one_is_lost_and_replaced_while_fetches_go_on()
-> Result<()> {
    let mut cluster = small().nodes(5).shards(4).set("cluster.replicas", 3).start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    let workload = Workload::start(&fetcher, &gentle("replace"));
    workload.decide(BETWEEN, LIMIT).await?;
    let lost = cluster.leader_of(&bob.user).await?;
    let nodes = cluster.nodes();
    let via = nodes.into_iter().find(|node| *node != lost).unwrap_or(lost);
    settled(&cluster, via, "five members", |status| {
        status.members.iter().filter(|member| member.state == api::MemberState::Active).count() == 5
            && has_three_each(status)
    })
    .await?;

    cluster.kill(lost)?;
    cluster.wipe(lost)?;
    workload.decide(BETWEEN, LIMIT).await?;
    let new = cluster.launch_joining()?;
    cluster.replace(lost, new, via).await?;
    cluster.wait_ready_of(&[new]).await?;
    let status = cluster.status(via).await?;
    ensure!(has_three_each(&status) && holds(&status, lost) == 0, "{:?}", status.placement);
    ensure!(holds(&status, new) > 0, "the new node holds nothing: {:?}", status.placement);
    ensure!(status.members.iter().all(|member| member.id != lost), "{:?}", status.members);
    cluster.retire(lost)?;
    workload.decide(BETWEEN, LIMIT).await?;
    workload.stop();
    workload.finish().await?;
    let endpoints = cluster.endpoints();
    let (bob, fetcher) = (bob.through(&endpoints)?, fetcher.through(&endpoints)?);
    bob.settle(&fetcher).await?;
    judge(&cluster)?;
    cluster.finish().await
}
