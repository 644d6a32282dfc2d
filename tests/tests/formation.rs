//! Nodes that belong to no cluster are made into one by `oncekey cluster init`, once and for good; and
//! with more nodes than replicas, each shard has one in every zone.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use hyper::Method;
use oncekey_api::{cluster as api, path};
use oncekey_cluster::{
    Builder, Cluster,
    http::Http,
    wait::{self, Seen},
};
use oncekey_tests::{
    Bob, LIMIT, judge,
    program::{fails, succeeds},
    small,
};
use oncekey_types::NodeId;

const POOL: usize = 50;

/// Nodes whose configuration names no cluster, of one name, so that they could belong to one.
fn loose() -> Builder {
    small().set("cluster.name", "loose").set("cluster.members", Vec::<String>::new())
}

/// One such node, with the id `node`. The harness knows it by another.
fn alone(node: i64) -> Builder {
    loose().set("node.id", node).nodes(1)
}

/// Starts all nodes and waits until each says that it belongs to no cluster.
async fn launch(cluster: &mut Cluster) -> Result<()> {
    for node in cluster.nodes() {
        cluster.launch(node)?;
    }
    for node in cluster.nodes() {
        is_loose(cluster, node).await?;
    }
    Ok(())
}

/// Waits until `node` says that it belongs to no cluster.
async fn is_loose(cluster: &Cluster, node: NodeId) -> Result<()> {
    let ready = format!("{}{}", cluster.admin(node), path::READYZ);
    wait::until(LIMIT, "the node to wait for a cluster", async || {
        let told = Http::default().bare(Method::GET, &ready).await;
        let told = told.map_or_else(|error| error.to_string(), |reply| reply.text());
        Ok(Seen::when(told.contains("belongs to no cluster yet"), || told.clone()))
    })
    .await
}

/// The arguments that have `via` form a cluster with `peers`.
fn init<'a>(via: &'a str, peers: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["cluster", "init", "--admin", via];
    peers.iter().for_each(|peer| arguments.extend(["--peer", peer]));
    arguments
}

/// Fails unless `oncekey` refuses `arguments` with `reason`.
async fn refused(arguments: &[&str], reason: &str) -> Result<()> {
    let told = fails(arguments).await?;
    ensure!(told.contains(reason), "{arguments:?}: not {reason:?} but {told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_formed_into_one_cluster_once_and_for_good() -> Result<()> {
    let mut cluster = loose().prepare()?;
    let mut late = alone(9).prepare()?;
    let nodes = cluster.nodes();
    let peers: Vec<_> = nodes.iter().map(|node| cluster.peer(*node)).collect();
    let [one, two, three] = [&*peers[0], &*peers[1], &*peers[2]];
    let (first, second) = (cluster.admin(nodes[0]), cluster.admin(nodes[1]));
    let (nine, admin) = (late.peer(NodeId(1)), late.admin(NodeId(1)));

    // What cannot be formed is refused, and nobody is bound by it.
    launch(&mut cluster).await?;
    refused(&init(&first, &[two, &nine]), "cannot connect to").await?;
    refused(&init(&first, &[two, two]), "node 2 is named twice").await?;
    refused(&init(&first, &[one]), "node id 1 is taken by the node that answers").await?;
    for node in &nodes {
        is_loose(&cluster, *node).await?;
    }

    // By any of them, and again with the same nodes, as a command may be given twice.
    for _ in 0..2 {
        let told = succeeds(&init(&second, &[one, three])).await?;
        ensure!(told.contains("the nodes form a cluster"), "{told}");
    }
    cluster.wait_ready().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;

    // Not with others, and not by others: they are bound, and have data.
    launch(&mut late).await?;
    let bound = "belongs to a cluster already";
    refused(&init(&first, &[]), &format!("node 1 {bound}")).await?;
    refused(&init(&first, &[two]), &format!("node 1 {bound}")).await?;
    refused(&init(&admin, &[three]), &format!("node 3 {bound}")).await?;
    refused(&init(&second, &[one, three, &nine]), &format!("node 2 {bound}")).await?;

    // They know each other, whatever restarts, and have lost nothing.
    for node in &nodes {
        cluster.kill(*node)?;
    }
    cluster.start_all().await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    bob.settle(&fetcher).await?;
    judge(&cluster)?;

    late.finish().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_configuration_names_its_cluster_is_not_formed_into_another() -> Result<()> {
    let mut named = small().set("cluster.name", "loose").nodes(1).start().await?;
    let mut loose = alone(2).prepare()?;
    launch(&mut loose).await?;
    let node = NodeId(1);
    let (named_admin, loose_admin) = (named.admin(node), loose.admin(node));
    let (named_peer, loose_peer) = (named.peer(node), loose.peer(node));
    let reason = "the configuration of node 1 has cluster.members or cluster.join";
    refused(&init(&named_admin, &[&loose_peer]), reason).await?;
    refused(&init(&loose_admin, &[&named_peer]), reason).await?;
    named.wait_ready().await?;
    named.finish().await?;
    loose.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founding_that_one_node_refuses_binds_none_of_the_others() -> Result<()> {
    let node = NodeId(1);
    let mut fresh = alone(1).prepare()?;
    let mut asked = alone(2).prepare()?;
    // It waits for a cluster to join, and is the last that is asked.
    let mut waiting = alone(3).set("cluster.join", vec![asked.peer(node)]).prepare()?;
    for cluster in [&mut fresh, &mut asked, &mut waiting] {
        launch(cluster).await?;
    }
    let reason = "the configuration of node 3 has cluster.members or cluster.join";
    let peers = [&*asked.peer(node), &*waiting.peer(node)];
    refused(&init(&fresh.admin(node), &peers), reason).await?;
    waiting.finish().await?;
    for alone in [fresh, asked] {
        is_formed_alone(alone).await?;
    }
    Ok(())
}

/// Forms a cluster of the one node of `cluster`, and waits until it serves as its only member.
async fn is_formed_alone(mut cluster: Cluster) -> Result<()> {
    is_loose(&cluster, NodeId(1)).await?;
    succeeds(&init(&cluster.admin(NodeId(1)), &[])).await?;
    cluster.wait_ready().await?;
    // A founder is ready before the membership is noted.
    let status = wait::until(LIMIT, "a member", async || {
        let status = cluster.status(NodeId(1)).await?;
        Ok(match status.members.is_empty() {
            true => Seen::not_yet("no members"),
            false => Seen::Done(status),
        })
    })
    .await?;
    ensure!(members(&status) == [status.node], "{status:?}");
    cluster.finish().await
}

fn members(status: &api::Cluster) -> Vec<NodeId> {
    status.members.iter().map(|member| member.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_founding_was_refused_can_join_or_be_formed_as_if_it_were_new() -> Result<()> {
    let mut cluster = loose().prepare()?;
    let (first, peers) = (cluster.admin(NodeId(1)), [1, 2, 3].map(|id| cluster.peer(NodeId(id))));
    launch(&mut cluster).await?;
    succeeds(&init(&first, &[&peers[1], &peers[2]])).await?;
    cluster.wait_ready().await?;
    let home = tempfile::tempdir()?;
    let joining = || alone(8).data_dir(NodeId(1), home.path());
    let (mut eight, mut nine) = (joining().prepare()?, alone(9).prepare()?);
    for late in [&mut eight, &mut nine] {
        launch(late).await?;
        for peer in &peers {
            refused(&init(&late.admin(NodeId(1)), &[peer]), "belongs to a cluster already").await?;
        }
    }

    // One is told to join the cluster that it has reached.
    eight.finish().await?;
    let mut eight = joining().set("cluster.join", peers.to_vec()).prepare()?;
    eight.launch(NodeId(1))?;
    wait::until(LIMIT, "the node to ask", async || {
        let status = cluster.status(NodeId(1)).await?;
        Ok(Seen::when(members(&status).contains(&NodeId(8)), || format!("{:?}", status.members)))
    })
    .await?;
    succeeds(&["cluster", "join", "8", "--admin", &first]).await?;
    eight.wait_ready().await?;

    // The other has asked for nothing meanwhile, and is formed into one of its own.
    let status = cluster.status(NodeId(1)).await?;
    ensure!(members(&status) == [1, 2, 3, 8].map(NodeId), "{status:?}");
    is_formed_alone(nine).await?;
    eight.finish().await?;
    cluster.finish().await
}

/// Two zones with two nodes each, and one with a single node.
const ZONES: [(u64, &str); 5] = [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_more_nodes_than_replicas_each_shard_has_one_in_every_zone() -> Result<()> {
    let builder = small().nodes(5).shards(4).set("cluster.replicas", 3);
    let builder = ZONES.into_iter().fold(builder, |builder, (node, zone)| {
        builder.variable(NodeId(node), "ONCEKEY_NODE_ZONE", zone)
    });
    let cluster = builder.start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    // It is formed before the nodes tell each other where they stand.
    let status = wait::until(2 * LIMIT, "one replica in every zone", async || {
        let status = cluster.status(NodeId(1)).await?;
        let spread = status.placement.len() == 4 && status.placement.iter().all(is_spread);
        Ok(if spread {
            Seen::Done(status)
        } else {
            Seen::not_yet(format!("{:?}", status.placement))
        })
    })
    .await?;
    for (node, zone) in ZONES {
        let member = status.members.iter().find(|member| member.id == NodeId(node));
        ensure!(member.is_some_and(|member| member.zone == zone), "{member:?}");
    }
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    bob.settle(&fetcher).await?;
    judge(&cluster)?;
    cluster.finish().await
}

/// Whether a shard stays where it is, with one replica in each of the three zones.
fn is_spread(placed: &api::Placement) -> bool {
    let zone = |node: &NodeId| ZONES.iter().find(|(id, _)| *id == node.0).map(|(_, zone)| *zone);
    let zones: BTreeSet<_> = placed.replicas.iter().filter_map(zone).collect();
    placed.target.is_none() && placed.replicas.len() == 3 && zones.len() == 3
}
