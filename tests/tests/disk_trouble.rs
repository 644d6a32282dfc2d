//! A node whose disk is full or fails to sync stops with one clear line; the others go on, and
//! once the disk is well the node comes back.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use oncekey_cluster::{
    Cluster,
    workload::{Load, Workload},
};
use oncekey_tests::{Bob, LIMIT, judge, small};
use oncekey_types::NodeId;
use tempfile::TempDir;

/// The node in trouble.
const NODE: NodeId = NodeId(3);
const POOL: usize = 1000;
/// Size of the disk that fills up, in MiB.
const DISK_MIB: usize = 96;
/// Exit code of a node that met a fault of its disk.
const FAULT: i32 = 3;
const OPERATOR_LINE: &str = "this node stops";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_node_and_not_the_cluster() -> Result<()> {
    let Some(disk) = SmallDisk::mount()? else {
        println!("skipped: a_full_disk_stops_the_node_and_not_the_cluster needs to mount a tmpfs");
        return Ok(());
    };
    let cluster = small().data_dir(NODE, disk.path().join("data")).start().await?;
    let filler = disk.path().join("filler");
    trouble(cluster, "No space left", || fill(&filler), || Ok(fs::remove_file(&filler)?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_node_and_not_the_cluster() -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("skipped: a_failed_sync_stops_the_node_and_not_the_cluster needs LD_PRELOAD");
        return Ok(());
    }
    let dir = TempDir::new()?;
    let shim = compile_shim(dir.path())?;
    let trigger = dir.path().join("trigger");
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
    let cluster = small()
        .variable(NODE, "LD_PRELOAD", path(&shim)?)
        .variable(NODE, "ONCEKEY_TEST_FAIL_SYNC", path(&trigger)?)
        .start()
        .await?;
    let begin = || Ok(fs::write(&trigger, [])?);
    trouble(cluster, "Input/output error", begin, || Ok(fs::remove_file(&trigger)?)).await
}

/// Has the trouble `begin` under load, and `end` once the node is gone.
async fn trouble(
    mut cluster: Cluster,
    reason: &str,
    begin: impl Fn() -> Result<()>,
    end: impl Fn() -> Result<()>,
) -> Result<()> {
    let bob = Bob::publish(&cluster, "bob", 1, POOL).await?;
    let fetcher = bob.fetcher(&cluster.endpoints())?;
    let workload = Workload::start(&fetcher, &Load::new("trouble", 4, usize::MAX));
    workload.decide(20, LIMIT).await?;
    begin()?;
    let status = cluster.wait_exit(NODE, LIMIT).await?;
    ensure!(status.code() == Some(FAULT), "the node ended with {status}");
    let lines = operator_lines(&cluster)?;
    let [line] = &lines[..] else { bail!("not one line for the operator: {lines:#?}") };
    ensure!(line.contains(reason), "the line does not say why: {line}");

    workload.decide(20, LIMIT).await?;
    cluster.check_running()?;
    end()?;
    cluster.restart(NODE).await?;
    workload.stop();
    workload.finish().await?;
    bob.settle(&fetcher).await?;
    judge(&cluster)?;
    cluster.finish().await
}

/// What the node in trouble told its operator.
fn operator_lines(cluster: &Cluster) -> Result<Vec<String>> {
    let log = fs::read_to_string(cluster.log(NODE))?;
    Ok(log.lines().filter(|line| line.contains(OPERATOR_LINE)).map(str::to_owned).collect())
}

/// Writes to `path` until there is no room left.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    for size in [64 * 1024, 4096, 1] {
        let block = vec![0; size];
        while file.write(&block).is_ok_and(|written| written > 0) {}
    }
    Ok(())
}

fn compile_shim(dir: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/fail_sync.c");
    let shim = dir.join("fail_sync.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-o"])
        .args([&shim, &source])
        .status()
        .with_context(|| format!("{compiler} cannot be run"))?;
    ensure!(status.success(), "{compiler} failed");
    Ok(shim)
}

/// A small disk in memory.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None when this user may not mount anything.
    fn mount() -> Result<Option<Self>> {
        let dir = TempDir::with_prefix("oncekey-disk-")?;
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        Ok(mounted.then_some(Self(dir)))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node may still be ending. The folder itself is removed by `TempDir`.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
