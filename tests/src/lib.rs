//! What the end-to-end tests share: a small cluster, a Bob, and the judgement at the end.
//!
//! The tests run real `oncekey` processes; `cargo test --workspace` builds the program first, and
//! so does `cargo build -p oncekey-cli`. A test that fails leaves configurations, logs and data of
//! its nodes and says where. What happens is up to the scheduler: there is no seed to repeat a run
//! with, only the folder to read.

pub mod hostile_table;
pub mod program;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
pub use oncekey_cluster::bob::{Bob, Nodes, any_node};
use oncekey_cluster::{
    Builder, Cluster, Engine,
    check::{self, Finding, Invariant, Report},
    history::record::Phase,
};
use oncekey_types::NodeId;

/// Time for anything that a test waits for.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What every run has to give evidence for. Its replicas are not compared, and few accounts are
/// small enough for a search.
const MUST_JUDGE: [Invariant; 9] = [
    Invariant::Unique,
    Invariant::Provenance,
    Invariant::Idempotence,
    Invariant::Empty,
    Invariant::Conservation,
    Invariant::Count,
    Invariant::Register,
    Invariant::Fifo,
    Invariant::Witness,
];

/// Three nodes, two shards, short logs, no limits on callers, a history.
#[must_use]
pub fn small() -> Builder {
    Cluster::builder()
        .recorded()
        .shards(2)
        .set("policy.per_caller_capacity", 0)
        .set("policy.per_target_capacity", 0)
        .set("storage.wal_segment_bytes", 8 * 1024 * 1024)
        .set("raft.log_entries_max", 100)
}

/// Runs `test` for every engine, one after the other.
///
/// # Errors
///
/// The first failure, with the engine.
pub async fn for_every_engine(mut test: impl AsyncFnMut(Engine) -> Result<()>) -> Result<()> {
    for engine in [Engine::Fjall, Engine::Sled] {
        test(engine).await.with_context(|| format!("over {engine}"))?;
    }
    Ok(())
}

/// Judges the history of `cluster`, all of whose users have been [settled](Bob::settle).
///
/// # Errors
///
/// The invariants that are broken, or could not be judged though they should.
pub fn judge(cluster: &Cluster) -> Result<Report> {
    cluster.recorder().mark(Phase::End);
    let report = check::check(&cluster.recorder().history()?).into_result()?;
    for invariant in MUST_JUDGE {
        let judged = report.finding(invariant).is_some_and(Finding::is_judged_in_full);
        ensure!(judged, "{invariant} was not judged in full\n{report}");
    }
    Ok(report)
}

/// Fails unless the log of `node` has a line with `text`.
///
/// # Errors
///
/// The end of the log.
pub fn expect_log_line(cluster: &Cluster, node: NodeId, text: &str) -> Result<()> {
    let log = std::fs::read_to_string(cluster.log(node))?;
    ensure!(
        log.lines().any(|line| line.contains(text)),
        "the log of node {node} has no line with {text:?}; its end:\n{}",
        cluster.log_tail(node, 20)?
    );
    Ok(())
}
