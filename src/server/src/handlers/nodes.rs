//! The nodes of the cluster as they report themselves.

use std::{collections::BTreeMap, time::Duration};

use oncekey_api::cluster::{self as api, NodeState};
use oncekey_raft::{NodeReport, POOL_SIZES, SeenNode};

use crate::app::App;

/// The nodes that this one knows, itself included, in the order of their ids.
pub(super) fn all(app: &App) -> Vec<NodeState> {
    let me = SeenNode { alive: true, report: Some((app.node.report(), Duration::ZERO)) };
    let mut nodes: BTreeMap<_, _> = app.node.others();
    nodes.insert(app.node.status().node, me);
    let state = |(id, SeenNode { alive, report })| {
        let report = report.map(|(report, age)| convert(report, age));
        NodeState { id, alive, report }
    };
    nodes.into_iter().map(state).collect()
}

fn convert(report: NodeReport, age: Duration) -> api::NodeReport {
    let NodeReport { version, started, now, totals, pools, disk, shards } = report;
    let bounds = POOL_SIZES.iter().copied().map(Some).chain([None]);
    api::NodeReport {
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        version,
        uptime_ms: now.0.saturating_sub(started.0),
        clock_ms: now.0,
        totals: api::Totals {
            issued: totals.issued,
            exhausted: totals.exhausted,
            withheld: totals.withheld,
            repeated: totals.repeated,
        },
        pools: bounds.zip(pools).map(|(up_to, count)| api::PoolCount { up_to, count }).collect(),
        disk: disk.map(|(total, free)| api::Disk { total, free }),
        shards: shards
            .into_iter()
            .map(|shard| api::Progress {
                shard: shard.shard,
                last_log: shard.last_log.0,
                applied: shard.applied.0,
                replicas: shard.lags.map(|lags| {
                    lags.into_iter().map(|(node, entries)| api::Lag { node, entries }).collect()
                }),
            })
            .collect(),
    }
}
