//! A node whose disk goes back to before what it acknowledged last.

use std::{fs, path::Path};

use super::*;

/// Longer than it takes to write a little, so that acknowledgements alone tell of it.
const PING_MS: u64 = 5_000;
const OLD: NodeId = NodeId(3);

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_acknowledged_counts_though_no_ping_told_of_it() {
    let mut cluster = Cluster::start(1000).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    for id in [1, 2].map(NodeId) {
        let mut config = cluster.config(id);
        config.timing = Timing { ping_ms: PING_MS, node_timeout_ms: 20 * PING_MS };
        cluster.stop(id).await;
        cluster.restart(id, &config).await;
        cluster.formed().await;
    }

    cluster.stop(OLD).await;
    let aside = cluster.dir.path().join("aside");
    copy(&cluster.folder(OLD), &aside);
    cluster.start_node(OLD).await.unwrap();
    for request in 0..20 {
        submit(&cluster.nodes[&OLD], dispense(request)).await;
    }
    let shard = cluster.nodes[&OLD].shard_of(&bob());
    let applied = |node: &Node| {
        node.status().shards.into_iter().find(|status| status.shard == shard).unwrap().applied
    };
    let goal = applied(&cluster.nodes[&OLD]);
    cluster.wait("the others have applied it", |node| applied(node) >= goal).await;
    cluster.stop(OLD).await;
    fs::remove_dir_all(cluster.folder(OLD)).unwrap();
    fs::rename(&aside, cluster.folder(OLD)).unwrap();

    cluster.start_node(OLD).await.unwrap();
    let old = cluster.nodes.remove(&OLD).unwrap();
    let fault = tokio::time::timeout(DEADLINE, old.faulted()).await.unwrap();
    assert!(fault.to_string().contains("went back in time"), "{fault}");
    old.shutdown().await;
}
