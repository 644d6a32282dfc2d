//! What the nodes tell each other about themselves, for whoever looks at the cluster through one of
//! them.
//!
//! Each node asks every other once in a second and keeps the last answer, so a look costs nothing
//! and waits for nobody, and tells how old each answer is.
//!
//! Guarantees: a report names no user and is of bounded size. Leaves out: truth; a node that is cut
//! off keeps what it heard last.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use oncekey_storage::disk::Space;
use oncekey_types::{LogIndex, NodeId, ShardId, TimestampMs};
use openraft::metrics::RaftMetrics;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    environment::Clock,
    liveness::Liveness,
    measures::NodeMeasures,
    peer::{PeerPool, Request, Response},
    shard::Shard,
    type_config::{LogId, TypeConfig},
};

const EVERY: Duration = Duration::from_secs(1);

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    /// Version of its program.
    pub version: String,
    /// When it started, by its own clock.
    pub started: TimestampMs,
    /// Its clock.
    pub now: TimestampMs,
    /// What it has handed out as a leader since it started.
    pub totals: Totals,
    /// Pools that fetches met at it, by size: for each of [`POOL_SIZES`](crate::POOL_SIZES) those up
    /// to it, then those above.
    pub pools: Vec<u64>,
    /// Room on its disk in bytes, all of it and what is left, when it knows.
    pub disk: Option<(u64, u64)>,
    /// The shards that it votes in, in order.
    pub shards: Vec<ShardReport>,
}

/// What has been handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Bundles with a one-time prekey.
    pub issued: u64,
    /// Bundles without, because the pool was empty.
    pub exhausted: u64,
    /// Bundles without, because of a limit.
    pub withheld: u64,
    /// Fetches that came again and were answered as before.
    pub repeated: u64,
}

/// One shard at the node that reports.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardReport {
    /// The shard.
    pub shard: ShardId,
    /// Last entry of its log.
    pub last_log: LogIndex,
    /// Last entry applied.
    pub applied: LogIndex,
    /// When it leads: how many entries each other replica is behind its log, as it knows.
    pub lags: Option<BTreeMap<NodeId, u64>>,
}

/// A node as another sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenNode {
    /// Whether it answers.
    pub alive: bool,
    /// What it said last, and how long ago.
    pub report: Option<(NodeReport, Duration)>,
}

/// Makes the reports of a node.
pub(crate) struct Reporter {
    pub(crate) started: TimestampMs,
    pub(crate) clock: Clock,
    /// On the disk that is reported; none in a simulation.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) measures: Arc<NodeMeasures>,
    pub(crate) shards: Vec<Arc<Shard>>,
}

impl Reporter {
    pub(crate) fn report(&self) -> NodeReport {
        let mut totals = Totals::default();
        let shards = self.shards.iter().filter_map(|shard| {
            totals.issued += shard.measures.issued.total();
            totals.exhausted += shard.measures.exhausted.total();
            totals.withheld += shard.measures.withheld.total();
            totals.repeated += shard.measures.repeated.total();
            let metrics = shard.group.metrics();
            if !shard.group.has_voter(metrics.id) {
                return None;
            }
            let last_log = metrics.last_log_index.unwrap_or(0);
            let lags = (metrics.current_leader == Some(metrics.id)).then(|| {
                let lag = |(node, matched): (NodeId, LogIndex)| {
                    (node, last_log.saturating_sub(matched.0))
                };
                followers(&metrics).into_iter().map(lag).collect()
            });
            Some(ShardReport {
                shard: shard.id(),
                last_log: LogIndex(last_log),
                applied: LogIndex(metrics.last_applied.map_or(0, |log_id| log_id.index)),
                lags,
            })
        });
        let shards = shards.collect();
        NodeReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            now: self.clock.now(),
            totals,
            pools: self.measures.pool_sizes.distribution().counts,
            disk: self.space().map(|space| (space.total, space.free)),
            shards,
        }
    }

    /// Room on the node's disk, if that can be told.
    pub(crate) fn space(&self) -> Option<Space> {
        Space::around(self.folder.as_deref()?).ok()
    }
}

/// How far the other replicas of a shard that this node leads are.
pub(crate) fn followers(metrics: &RaftMetrics<TypeConfig>) -> BTreeMap<NodeId, LogIndex> {
    let replicas = metrics.replication.iter().flatten();
    let others = replicas.filter(|(node, _)| **node != metrics.id);
    let index = |matched: &Option<LogId>| LogIndex(matched.map_or(0, |log_id| log_id.index));
    others.map(|(node, matched)| (NodeId(*node), index(matched))).collect()
}

/// The last report of each other node.
#[derive(Default)]
pub(crate) struct Reports(Mutex<BTreeMap<u64, (Instant, NodeReport)>>);

impl Reports {
    /// The nodes that `pool` knows, as `liveness` and their last reports have them.
    pub(crate) fn seen(&self, pool: &PeerPool, liveness: &Liveness) -> BTreeMap<NodeId, SeenNode> {
        let reports = self.0.lock();
        let seen = pool.others().into_keys().map(|node| {
            let report = reports.get(&node).map(|(at, report)| (report.clone(), at.elapsed()));
            (NodeId(node), SeenNode { alive: liveness.is_alive(node), report })
        });
        seen.collect()
    }
}

/// Asks all nodes that `pool` knows, until dropped.
pub(crate) async fn gather(pool: Arc<PeerPool>, reports: Arc<Reports>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = BTreeSet::new();
    let mut questions = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(Ok((node, answer))) = questions.join_next() => {
                asked.remove(&node);
                if let Ok(Response::Report(report)) = answer {
                    reports.0.lock().insert(node, (Instant::now(), report));
                }
                continue;
            }
        }
        for node in pool.others().into_keys().filter(|node| asked.insert(*node)).collect::<Vec<_>>()
        {
            let pool = Arc::clone(&pool);
            questions.spawn(async move { (node, pool.call(node, Request::Report, EVERY).await) });
        }
    }
}
