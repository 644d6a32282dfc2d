//! A cluster of an earlier program is upgraded node by node under load, with its data kept: nothing is
//! lost and nothing doubled, and every fetch gets its answer.
//!
//! The earlier program has to be there, and to speak a version of the peer protocol in common:
//!
//! ```sh
//! ONCEKEY_EARLIER=/path/to/oncekey cargo test -p oncekey-tests --test rolling_upgrade -- --nocapture
//! ```

use std::{env, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use oncekey_cluster::{
    binary,
    workload::{Load, Workload},
};
use oncekey_tests::{Bob, LIMIT, judge, small};

/// Names the earlier program.
const VARIABLE: &str = "ONCEKEY_EARLIER";
const POOL: usize = 1000;
/// Fetches that must be answered before, between and after the steps.
const BETWEEN: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_can_be_upgraded_under_load() -> Result<()> {
    let Some(earlier) = env::var_os(VARIABLE) else {
        println!("skipped: every_node_can_be_upgraded_under_load: {VARIABLE} names no program");
        return Ok(());
    };
    // All nodes run what this leads to when they start.
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("oncekey");
    install(Path::new(&earlier), &program)?;
    let mut cluster = small().program(&program).start().await?;
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    let load = Load { pause: Duration::from_millis(40), ..Load::new("upgrade", 8, usize::MAX) };
    let workload = Workload::start(&fetcher, &load);
    install(&binary::find()?, &program)?;
    for node in cluster.nodes() {
        workload.decide(BETWEEN, LIMIT).await?;
        cluster.stop(node).await?;
        workload.decide(BETWEEN, LIMIT).await?;
        cluster.restart(node).await?;
        println!("node {node} is upgraded; {} fetches are answered", workload.decided());
        bob.replenish(POOL).await?;
    }
    // Devices register and upload with nodes of the new program alone.
    let carol = Bob::publish(&cluster, "carol", 1, 10).await?;
    workload.decide(BETWEEN, LIMIT).await?;
    workload.stop();
    workload.finish().await?;
    bob.settle(&fetcher).await?;
    carol.settle(&carol.fetcher(&cluster.endpoints())?).await?;
    let summary = cluster.recorder().history()?.summary();
    ensure!(summary.undecided == 0, "{summary:?}");
    println!("{summary:?}\n{}", judge(&cluster)?);
    cluster.finish().await
}

/// Makes `path` lead to `program`, in one step.
fn install(program: &Path, path: &Path) -> Result<()> {
    let program = fs::canonicalize(program).with_context(|| format!("{}", program.display()))?;
    let draft = path.with_extension("new");
    std::os::unix::fs::symlink(program, &draft)?;
    Ok(fs::rename(draft, path)?)
}
