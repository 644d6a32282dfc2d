//! A node whose disk is an old copy of itself has forgotten what it acknowledged: it is turned
//! away, says so, and does not start again; a new node takes its place. A node whose state alone is
//! old repairs it from its log or from the others.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use oncekey_cluster::{
    Cluster,
    workload::{Load, Workload},
};
use oncekey_tests::{Bob, LIMIT, expect_log_line, for_every_engine, judge, small};
use oncekey_types::NodeId;

const POOL: usize = 800;
/// One after the other, so that each is an entry of its own: more than a log keeps.
const FETCHES: usize = 250;
const NODE: NodeId = NodeId(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_an_old_copy_of_its_disk_is_turned_away() -> Result<()> {
    let mut cluster = small().start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    let data = data_dir(&cluster)?;
    go_back(&mut cluster, &data, async || {
        Workload::start(&fetcher, &Load::new("forgotten", 1, FETCHES)).finish().await
    })
    .await?;
    for start in ["first", "second"] {
        cluster.launch(NODE)?;
        let status = cluster.wait_exit(NODE, LIMIT).await?;
        ensure!(!status.success(), "the {start} start ended as if all were well");
        expect_log_line(&cluster, NODE, "must not vote under its old id")?;
    }

    let new = cluster.launch_joining()?;
    cluster.replace(NODE, new, NodeId(1)).await?;
    cluster.wait_ready_of(&[new]).await?;
    cluster.kill(NodeId(1))?;
    let endpoints = [cluster.endpoint(NodeId(2)), cluster.endpoint(new)];
    let bob = bob.through(&endpoints)?;
    bob.settle(&fetcher.through(&endpoints)?).await?;
    judge(&cluster)?;
    cluster.restart(NodeId(1)).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_state_beside_the_log_is_repaired() -> Result<()> {
    for_every_engine(async |engine| {
        let mut cluster = small().engine(engine).start().await?;
        let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
        let fetcher = bob.fetcher(&cluster.endpoints())?;
        let state = data_dir(&cluster)?.join("state");
        go_back(&mut cluster, &state, async || {
            Workload::start(&fetcher, &Load::new("replayed", 1, FETCHES)).finish().await
        })
        .await?;
        cluster.restart(NODE).await?;

        // It and one other are a quorum.
        cluster.kill(NodeId(1))?;
        let endpoints = [cluster.endpoint(NodeId(2)), cluster.endpoint(NODE)];
        let bob = bob.through(&endpoints)?;
        bob.settle(&fetcher.through(&endpoints)?).await?;
        judge(&cluster)?;
        cluster.restart(NodeId(1)).await?;
        cluster.finish().await
    })
    .await
}

/// Has `folder` of the node be as it was before `meanwhile`. The node is down then.
async fn go_back(
    cluster: &mut Cluster,
    folder: &Path,
    meanwhile: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let aside = folder.with_extension("aside");
    cluster.kill(NODE)?;
    copy(folder, &aside)?;
    cluster.restart(NODE).await?;
    meanwhile().await?;
    cluster.kill(NODE)?;
    fs::remove_dir_all(folder)?;
    Ok(fs::rename(aside, folder)?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn data_dir(cluster: &Cluster) -> Result<PathBuf> {
    Ok(cluster.data_dir(NODE).context("the node has a folder")?.to_owned())
}
