//! What an operator sees of a real cluster: the status page in a real browser, traces in a
//! collector, logs, and the alerts and the dashboard in a real Prometheus.
//!
//! A test whose program is not installed (`chromium` and `chromedriver`, `promtool`, `prometheus`)
//! says so by name and passes; `.ci/run` installs them.
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod browser;
mod dashboard;
mod logs;
mod status_page;
mod tracing;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use hyper::Method;
use oncekey_cluster::{Builder, Cluster, http::Http};
use oncekey_types::NodeId;

/// Time for anything that a test waits for; a busy machine and a browser are slow together.
const LIMIT: Duration = Duration::from_secs(120);

/// Three nodes, four shards, no limits on callers.
fn cluster() -> Builder {
    Cluster::builder()
        .shards(4)
        .set("policy.per_caller_capacity", 0)
        .set("policy.per_target_capacity", 0)
        .set("storage.wal_segment_bytes", 8 * 1024 * 1024)
}

/// Where `program` is, or a word that `what` is skipped without it.
fn installed(program: &str, what: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&paths).map(|dir| dir.join(program)).find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: {what}: {program} is not installed");
    }
    found
}

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What `node` serves at `/metrics`.
async fn metrics(cluster: &Cluster, node: NodeId) -> Result<String> {
    let url = format!("{}{}", cluster.admin(node), oncekey_api::path::METRICS);
    let reply = Http::default().bare(Method::GET, &url).await?;
    reply.expect_success()?;
    Ok(reply.text())
}
