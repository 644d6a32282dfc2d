//! Nodes that come, go, and take each other's place.

use std::collections::{BTreeSet, btree_map::Entry};

use futures_util::FutureExt as _;
use oncekey_raft::{ChangeError, NodeStatus, Refusal};
use tokio::time::timeout;

use super::*;

/// A node with an empty disk that is told nothing in its configuration.
fn fresh(cluster: &mut Cluster, node: NodeId) -> NodeConfig {
    if let Entry::Vacant(place) = cluster.members.entry(node) {
        let (member, port) = hold_port();
        place.insert(member);
        cluster.ports.push(port);
    }
    NodeConfig { members: BTreeMap::new(), ..cluster.config(node) }
}

/// A node that asks to join.
async fn join(cluster: &mut Cluster, node: NodeId) {
    let mut config = fresh(cluster, node);
    config.join = vec![cluster.members[&NodeId(1)].peer.clone()];
    cluster.nodes.insert(node, Node::start(config).await.unwrap());
    cluster
        .wait("the node has asked to join", |seen| seen.status().members.contains_key(&node))
        .await;
}

fn holders(status: &NodeStatus) -> Vec<BTreeSet<u64>> {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    status.placement.iter().map(|placed| ids(&placed.replicas)).collect()
}

fn is_calm(status: &NodeStatus) -> bool {
    status.placement.iter().all(|placed| placed.target.is_none())
}

fn deadline() -> Instant {
    Instant::now() + DEADLINE
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_nodes_form_a_cluster_when_one_of_them_is_told_to() {
    let mut cluster = Cluster::of(0, 1000).await;
    for id in 1..=3 {
        let config = fresh(&mut cluster, NodeId(id));
        cluster.nodes.insert(NodeId(id), Node::start(config).await.unwrap());
    }
    let peers: Vec<_> = [2, 3].map(|id| cluster.members[&NodeId(id)].peer.clone()).into();
    let first = cluster.nodes[&NodeId(1)].clone();
    first.found_cluster(&peers, Some(3)).await.unwrap();
    first.found_cluster(&peers, Some(3)).await.unwrap();
    cluster
        .wait("every shard has a leader", |node| {
            let status = node.status();
            status.members.len() == 3
                && status.shards.iter().filter(|shard| shard.is_ready()).count() == 2
        })
        .await;
    submit(&first, register()).await;
    let other = cluster.nodes[&NodeId(2)].found_cluster(&[], None).await;
    assert!(matches!(other, Err(ChangeError::NotFresh { .. })), "{other:?}");
    drop(first);

    // They know each other after a restart, though no configuration says so.
    for id in 1..=3 {
        cluster.stop(NodeId(id)).await;
    }
    for id in 1..=3 {
        let config = fresh(&mut cluster, NodeId(id));
        cluster.nodes.insert(NodeId(id), Node::start(config).await.unwrap());
    }
    assert_eq!(issued(&submit(&cluster.nodes[&NodeId(3)], dispense(1)).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_until_it_is_let_in_and_forwards_what_it_does_not_hold() {
    let mut cluster = Cluster::start(1000).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    join(&mut cluster, NodeId(4)).await;
    let status = cluster.nodes[&NodeId(4)].status();
    assert_eq!(status.members[&NodeId(4)].standing, Standing::Joining);
    assert_eq!(status.shards, [], "it holds nothing");
    assert_eq!(issued(&submit(&cluster.nodes[&NodeId(4)], dispense(1)).await), 1);
    let query = Query::Peek { user: bob(), devices: None };
    assert_eq!(cluster.nodes[&NodeId(4)].query_local(&query).unwrap(), None);
    let read = cluster.nodes[&NodeId(4)].query_nearby(&query, deadline()).await.unwrap().unwrap();
    assert!(read.as_of.is_some(), "another node's replica knows its age: {read:?}");

    cluster.nodes[&NodeId(2)].activate(NodeId(4), deadline()).await.unwrap();
    cluster
        .wait("the new node holds its share", |node| {
            let status = node.status();
            let held = holders(&status);
            is_calm(&status)
                && held.iter().any(|nodes| nodes.contains(&4))
                && held.iter().all(|nodes| nodes.len() == 3)
        })
        .await;
    for (number, node) in (2..).zip(cluster.nodes.values()) {
        assert_eq!(issued(&submit(node, dispense(number)).await), number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_replica_is_told_when_records_change() {
    let mut cluster = Cluster::start(1000).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    join(&mut cluster, NodeId(4)).await;
    let query = Query::Summary { user: bob(), device: DeviceId(1) };
    let fourth = cluster.nodes[&NodeId(4)].clone();
    let known = fourth.query(&query, deadline()).await.unwrap().answer;
    // Before it waits, and while it waits: neither is missed.
    submit(&cluster.nodes[&NodeId(1)], dispense(1)).await;
    timeout(DEADLINE, fourth.changed_elsewhere(&query, &known)).await.unwrap();
    let known = fourth.query(&query, deadline()).await.unwrap().answer;
    let mut waits = Box::pin(fourth.changed_elsewhere(&query, &known));
    assert!((&mut waits).now_or_never().is_none());
    submit(&cluster.nodes[&NodeId(1)], dispense(2)).await;
    timeout(DEADLINE, waits).await.unwrap();
    // Who has a replica has a watch.
    let third = &cluster.nodes[&NodeId(3)];
    assert!(third.changed_elsewhere(&query, &known).now_or_never().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_drained_is_removed_forgotten_and_turned_away() {
    let mut cluster = Cluster::of(4, 1000).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    cluster.nodes[&NodeId(2)].drain_node(NodeId(4), deadline()).await.unwrap();
    cluster
        .wait("the node is removed", |node| {
            let status = node.status();
            status.node == NodeId(4)
                || (!status.members.contains_key(&NodeId(4)) && is_calm(&status))
        })
        .await;
    let remaining = cluster.nodes[&NodeId(1)].status();
    assert!(holders(&remaining).iter().all(|nodes| *nodes == BTreeSet::from([1, 2, 3])));
    assert_eq!(cluster.nodes[&NodeId(1)].member(NodeId(4)), None, "it is not pinged any more");
    let again = cluster.nodes[&NodeId(3)].activate(NodeId(4), deadline()).await;
    assert!(matches!(again, Err(ChangeError::Refused(Refusal::Removed { .. }))), "{again:?}");

    cluster.stop(NodeId(4)).await;
    cluster.start_node(NodeId(4)).await.unwrap();
    let removed = cluster.nodes.remove(&NodeId(4)).unwrap();
    let fault = tokio::time::timeout(DEADLINE, removed.faulted()).await.unwrap();
    assert!(fault.to_string().contains("was removed from the cluster"), "{fault}");
    removed.shutdown().await;
    assert_eq!(issued(&submit(&cluster.nodes[&NodeId(3)], dispense(1)).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_of_a_shard_goes_to_the_node_that_is_named() {
    let cluster = Cluster::start(1000).await;
    let shard = cluster.nodes[&NodeId(1)].shard_of(&bob());
    for id in [1, 2, 3] {
        let asked = &cluster.nodes[&NodeId(id % 3 + 1)];
        asked.transfer_leader(shard, NodeId(id), deadline()).await.unwrap();
        cluster
            .wait("it leads", |node| {
                let leads = |status: &oncekey_raft::ShardStatus| status.leader == Some(NodeId(id));
                node.status().shards.iter().find(|status| status.shard == shard).is_some_and(leads)
            })
            .await;
    }
    let stranger = cluster.nodes[&NodeId(1)].transfer_leader(shard, NodeId(9), deadline()).await;
    assert!(matches!(stranger, Err(ChangeError::NotAVoter { .. })), "{stranger:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_two_versions_work_together_and_strangers_say_what_is_wrong() {
    let mut cluster = Cluster::start(1000).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    let now = Protocols::default();
    for (number, id) in (1..).zip(1..=3) {
        cluster.stop(NodeId(id)).await;
        let newer = Protocols { newest: now.newest + 1, oldest: now.newest };
        let config = NodeConfig { protocols: newer, ..cluster.config(NodeId(id)) };
        cluster.restart(NodeId(id), &config).await;
        // It may have been sent twice on the way, past a leader that stopped.
        let id = issued(&submit(&cluster.nodes[&NodeId(id)], dispense(number)).await);
        assert_eq!(id, number);
    }
    // A node two versions on finds nobody to talk to, and the others go on.
    cluster.stop(NodeId(3)).await;
    let newest = Protocols { newest: now.newest + 3, oldest: now.newest + 2 };
    let config = NodeConfig { protocols: newest, ..cluster.config(NodeId(3)) };
    cluster.restart(NodeId(3), &config).await;
    let lonely = cluster.nodes.remove(&NodeId(3)).unwrap();
    let soon = Instant::now() + Duration::from_secs(1);
    let refused = lonely.submit(&bob(), dispense(9), soon).await;
    assert!(matches!(refused, Err(SubmitError::NoQuorum { .. })), "{refused:?}");
    assert_eq!(issued(&submit(&cluster.nodes[&NodeId(1)], dispense(4)).await), 4);
    lonely.shutdown().await;
}
