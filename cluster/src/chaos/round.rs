//! One round: a cluster from its first start to the judgement.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use oncekey_types::{LogIndex, NodeId};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    Options,
    arena::Machines,
    disk::Journal,
    fault::Deck,
    load::People,
    report::{Deeds, RoundReport},
};
use crate::{
    Cluster,
    check::{self, Finding, Invariant},
    history::{
        Replica,
        record::{At, Phase},
    },
    wait::{self, Seen},
};

/// Time for all nodes to be ready once all is well. Long, like all limits here: a virtual machine
/// may stand still for a minute.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(240);
/// Time for the replicas of an idle cluster to be equally far.
const LEVEL_LIMIT: Duration = Duration::from_secs(240);
/// Shards of a cluster; more only cost time.
pub(super) const SHARDS: u16 = 3;
/// Users of a round.
const USERS: usize = 4;
/// Entries of a log: few, so that logs are cut and snapshots sent all the time.
pub(super) const LOG_ENTRIES_MAX: u32 = 150;
/// For how long answers are kept, in milliseconds: clocks that jump must not end it.
const RETRY_WINDOW_MS: i64 = 24 * 60 * 60 * 1000;
/// What every round has to give evidence for; few accounts are small enough for a search.
const MUST_JUDGE: [Invariant; 10] = [
    Invariant::Unique,
    Invariant::Provenance,
    Invariant::Idempotence,
    Invariant::Empty,
    Invariant::Conservation,
    Invariant::Count,
    Invariant::Register,
    Invariant::Fifo,
    Invariant::Replicas,
    Invariant::Witness,
];

/// A round on its way.
pub(super) struct Round<'a> {
    pub(super) cluster: Cluster,
    pub(super) machines: &'a mut Machines,
    pub(super) people: People,
    pub(super) deeds: Deeds,
    pub(super) rng: StdRng,
    /// The points at which the nodes can be told to die; none in a build without failpoints.
    pub(super) points: Vec<String>,
}

impl<'a> Round<'a> {
    /// Makes a cluster in `dir` and has people use it.
    pub(super) async fn start(
        options: &Options,
        machines: &'a mut Machines,
        dir: &Path,
        seed: u64,
    ) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let journal = if rng.random() { Journal::Ordered } else { Journal::Writeback };
        machines.renew(journal)?;
        let mut builder = Cluster::builder()
            .recorded()
            .dir(dir)
            .program(&options.server)
            .nodes(options.nodes)
            .engine(options.engine)
            .shards(SHARDS)
            .ready_limit(READY_LIMIT)
            .set("policy.per_caller_capacity", 0)
            .set("http.address_requests_per_s", 0)
            .set("policy.per_target_capacity", 0)
            .set("policy.retry_window_ms", RETRY_WINDOW_MS)
            .set("storage.wal_segment_bytes", 8 * 1024 * 1024)
            .set("storage.cache_bytes", 8 * 1024 * 1024)
            .set("raft.log_entries_max", LOG_ENTRIES_MAX);
        for (node, host) in machines.residents() {
            builder = builder.host(node, machines.host(host)?);
        }
        let cluster = builder.start().await.context("the cluster does not start")?;
        let people = People::start(&cluster, USERS, rng.next_u64()).await?;
        people.progress(20, READY_LIMIT).await?;
        let points = super::nemesis::points(&cluster).await;
        Ok(Self { cluster, machines, people, deeds: Deeds::default(), rng, points })
    }

    /// Does what `deck` says for the given time, then judges.
    pub(super) async fn chaos(
        mut self,
        duration: Duration,
        deck: &mut Deck,
    ) -> Result<RoundReport> {
        let began = Instant::now();
        while began.elapsed() < duration {
            if let Err(error) = self.step(deck).await {
                // That a node has ended says more than what came of it.
                self.cluster.check_running()?;
                return Err(error.context(format!("after {}", self.deeds.trace())));
            }
        }
        self.deeds.chaos = began.elapsed();
        self.end().await
    }

    /// Ends the load, and judges what was seen.
    pub(super) async fn end(mut self) -> Result<RoundReport> {
        let recorder = self.cluster.recorder().clone();
        recorder.mark(Phase::Heal);
        self.heal().await?;
        recorder.mark(Phase::Settle);
        let settled = self.people.settle().await;
        self.cluster.check_running()?;
        settled?;
        compare_replicas(&self.cluster).await?;
        recorder.mark(Phase::End);
        let report = check::check(&recorder.history()?).into_result()?;
        for invariant in MUST_JUDGE {
            let judged = report.finding(invariant).is_some_and(Finding::is_judged_in_full);
            ensure!(judged, "{invariant} was not judged in full\n{report}");
        }
        ensure!(report.summary.undecided == 0, "operations are left without an outcome\n{report}");
        self.cluster.check_running()?;
        self.cluster.stop_all().await?;
        self.cluster.finish().await?;
        Ok(RoundReport { deeds: self.deeds, report })
    }

    /// Any running node.
    pub(super) fn any_node(&mut self) -> Result<NodeId> {
        let running = self.cluster.running();
        ensure!(!running.is_empty(), "no node runs");
        Ok(running[self.rng.random_range(0..running.len())])
    }

    /// The leader of some shard.
    pub(super) async fn any_leader(&mut self) -> Result<NodeId> {
        let user = self.people.user(self.rng.random_range(0..USERS));
        self.cluster.leader_of(user).await
    }

    /// Lets time pass, between the given numbers of milliseconds.
    pub(super) async fn hold(&mut self, from_ms: u64, to_ms: u64) {
        let time = Duration::from_millis(self.rng.random_range(from_ms..to_ms));
        tokio::time::sleep(time).await;
    }
}

/// Waits until all replicas are equally far, and records what each holds.
async fn compare_replicas(cluster: &Cluster) -> Result<()> {
    wait::until(LEVEL_LIMIT, "all replicas to be equally far", async || {
        let mut states = Vec::new();
        for node in cluster.running() {
            match cluster.states(node).await {
                Ok(status) => states.push((node, status.shards)),
                Err(error) => return Ok(Seen::not_yet(format!("node {node}: {error:#}"))),
            }
        }
        let applied = |shards: &[oncekey_api::cluster::Shard]| -> Vec<_> {
            shards.iter().map(|shard| shard.state.as_ref().map(|state| state.applied)).collect()
        };
        let level = states.windows(2).all(|pair| applied(&pair[0].1) == applied(&pair[1].1));
        if !level {
            let seen: Vec<_> =
                states.iter().map(|(node, shards)| (node, applied(shards))).collect();
            return Ok(Seen::not_yet(format!("{seen:?}")));
        }
        for (node, shards) in states {
            for shard in shards {
                let state = shard.state.context("a node says nothing of its state")?;
                cluster.recorder().replica(Replica {
                    at_ns: At::START,
                    node,
                    shard: shard.shard,
                    applied: LogIndex(state.applied),
                    state: state.sha256,
                });
            }
        }
        Ok(Seen::Done(()))
    })
    .await
}
