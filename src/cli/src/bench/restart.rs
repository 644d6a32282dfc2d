//! How long a node takes to come back.
//!
//! Guarantees: the time runs from the start of the process to the first time that it calls itself
//! ready, which it does once every shard has a leader, hears from it and has applied what it knows
//! to be committed; all nodes are ready before the next one is taken down. Leaves out: a cold page
//! cache; the nodes' files were in use a moment ago.

use std::{fmt, time::Instant};

use anyhow::Result;
use oncekey_types::NodeId;
use serde::Serialize;

use super::target::Target;

/// How a node was taken down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Way {
    Sigterm,
    Sigkill,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sigterm => "SIGTERM",
            Self::Sigkill => "SIGKILL",
        })
    }
}

/// One restart.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Restart {
    pub(super) node: NodeId,
    pub(super) way: Way,
    pub(super) ready_s: f64,
}

/// Takes `node` down and starts it.
pub(super) async fn restart(target: &mut Target, node: NodeId, way: Way) -> Result<Restart> {
    let cluster = target.cluster()?;
    match way {
        Way::Sigterm => cluster.stop(node).await?,
        Way::Sigkill => cluster.kill(node)?,
    }
    let started = Instant::now();
    cluster.restart(node).await?;
    let ready_s = started.elapsed().as_secs_f64();
    cluster.wait_ready().await?;
    Ok(Restart { node, way, ready_s })
}
