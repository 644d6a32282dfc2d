//! A node whose disk goes back to before what it told last.

use std::{fs, io, path::Path};

use super::{ways::linked, *};

/// Longer than it takes to write a little, so that acknowledgements alone tell of it.
const PING_MS: u64 = 5_000;
const OLD: NodeId = NodeId(3);

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

/// Copies what a node that runs has on its disk, at a moment in which it writes nothing.
async fn copy_at_rest(node: &Node, from: &Path, to: &Path) {
    let deadline = Instant::now() + DEADLINE;
    let mut poll = tokio::time::interval(Duration::from_millis(100));
    let syncs = || node.wal_times().sync.distribution();
    loop {
        poll.tick().await;
        let before = syncs();
        let copied = copy(from, to);
        if copied.is_ok() && syncs() == before {
            return;
        }
        assert!(Instant::now() < deadline, "it never came to rest: {copied:?}");
        let _ = fs::remove_dir_all(to);
    }
}

/// Has the others apply as much as `OLD` has.
async fn catch_up(cluster: &Cluster) {
    let id = cluster.nodes[&OLD].shard_of(&bob());
    let goal = shard(&cluster.nodes[&OLD], id).applied;
    cluster.wait("the others have applied it", |node| shard(node, id).applied >= goal).await;
}

/// Puts `aside` in the place of what `OLD` has, starts it, and waits until it is turned away.
async fn is_turned_away(mut cluster: Cluster, aside: &Path) {
    fs::remove_dir_all(cluster.folder(OLD)).unwrap();
    fs::rename(aside, cluster.folder(OLD)).unwrap();
    cluster.start_node(OLD).await.unwrap();
    let old = cluster.nodes.remove(&OLD).unwrap();
    let fault = tokio::time::timeout(DEADLINE, old.faulted()).await.unwrap();
    assert!(fault.to_string().contains("went back in time"), "{fault}");
    old.shutdown().await;
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
    copy(&cluster.folder(OLD), &aside).unwrap();
    cluster.start_node(OLD).await.unwrap();
    for request in 0..20 {
        submit(&cluster.nodes[&OLD], dispense(request)).await;
    }
    catch_up(&cluster).await;
    cluster.stop(OLD).await;
    is_turned_away(cluster, &aside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_wrote_counts_though_it_answered_nobody() {
    let others = [1, 2].map(NodeId);
    let (mut cluster, ways) = linked(&others).await;
    let old = &cluster.nodes[&OLD];
    submit(old, register()).await;
    let id = old.shard_of(&bob());
    old.transfer_leader(id, OLD, Instant::now() + DEADLINE).await.unwrap();
    cluster.wait("it leads", |node| shard(node, id).leader == Some(OLD)).await;

    // The others ask it and hear nothing; what it asks of them is answered.
    for other in others {
        ways[&other].to(&cluster.members[&OLD]).back.send_replace(false);
    }
    let aside = cluster.dir.path().join("aside");
    copy_at_rest(old, &cluster.folder(OLD), &aside).await;
    for request in 0..20 {
        submit(old, dispense(request)).await;
    }
    catch_up(&cluster).await;
    assert_eq!(shard(old, id).leader, Some(OLD), "it has led all the time");
    cluster.stop(OLD).await;
    is_turned_away(cluster, &aside).await;
}
