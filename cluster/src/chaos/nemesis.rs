//! How each fault is brought about, and how all is healed.
//!
//! Guarantees: a node that ends without being made to is an error of the run, and so is one that
//! does not come back once all is healed. Leaves out: faults that nobody could survive by design,
//! such as two lost disks of three.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use oncekey_api::{cluster::Arm, path};
use oncekey_types::NodeId;
use rand::{RngExt as _, seq::SliceRandom as _};

use super::{
    fault::{Deck, Fault},
    round::{LOG_ENTRIES_MAX, READY_LIMIT, Round, SHARDS},
    tools,
};
use crate::{
    Cluster,
    history::record::EventKind,
    http::Http,
    wait::{self, Seen},
};

/// Time for a node to reach a point.
const POINT_LIMIT: Duration = Duration::from_secs(3);
/// Time for a node that is behind to be sent a snapshot.
const INSTALL_LIMIT: Duration = Duration::from_secs(30);
/// Time for a node with a full disk to notice.
const FULL_LIMIT: Duration = Duration::from_secs(120);
/// Time for a node to notice that it may not go on.
const REFUSAL_LIMIT: Duration = Duration::from_secs(120);
/// Fetches that show that the cluster works again.
const PROGRESS: usize = 20;
/// Fetches while a disk that will come back is put aside: entries for more than a whole log.
const AWAY: usize = 600;
/// Entries by which a node falls behind, all shards together, until one of them has to send it a
/// snapshot: its log was cut more than once meanwhile.
const BEHIND: u64 = 2 * LOG_ENTRIES_MAX as u64 * SHARDS as u64;
/// Exit code of a node that met a fault of its disk.
const FAULT_CODE: i32 = 3;

/// Where a pop can be interrupted, in the order of its steps.
const POP: [&str; 7] = [
    "before_propose",
    "before_log_write",
    "before_log_sync",
    "before_log_ack",
    "before_apply",
    "before_outcome",
    "before_reply",
];
const VOTE: [&str; 2] = ["before_vote", "after_vote"];
const INSTALL: &str = "before_install";
const CHECKPOINT: [&str; 2] = ["before_checkpoint", "after_checkpoint"];

/// The points at which the nodes of `cluster` can be told to die.
pub(super) async fn points(cluster: &Cluster) -> Vec<String> {
    let Some(node) = cluster.running().first().copied() else { return Vec::new() };
    let url = format!("{}{}", cluster.admin(node), path::FAILPOINTS);
    let reply = Http::default().bare(Method::GET, &url).await;
    reply.and_then(|reply| reply.parse()).unwrap_or_default()
}

impl Round<'_> {
    /// One fault or two, and the healing.
    pub(super) async fn step(&mut self, deck: &mut Deck) -> Result<()> {
        let Some(fault) = deck.draw(&mut self.rng) else { bail!("no faults to choose from") };
        self.inject(fault).await.with_context(|| format!("during {fault}"))?;
        if fault.lasts() {
            self.hold(200, 1200).await;
            if self.rng.random()
                && let Some(fault) = deck.draw_quick(&mut self.rng)
            {
                self.inject(fault).await.with_context(|| format!("during {fault} on top"))?;
                self.hold(100, 800).await;
            }
            self.hold(100, 1500).await;
        }
        self.heal().await.with_context(|| format!("healing after {fault}"))
    }

    /// Makes everything well, and sees that it is.
    pub(super) async fn heal(&mut self) -> Result<()> {
        self.cluster.check_running()?;
        self.machines.network.heal()?;
        if let Some(clocks) = &self.machines.clocks {
            for host in self.machines.network.hosts() {
                clocks.right(host)?;
            }
        }
        self.cluster.recorder().event(EventKind::Heal, None, "");
        self.cluster.start_all().await?;
        self.people.progress(PROGRESS, READY_LIMIT).await
    }

    async fn inject(&mut self, fault: Fault) -> Result<()> {
        let done = match fault {
            Fault::LeaderMidPop => self.kill_leader_mid_pop().await?,
            Fault::VoterMidVote => self.kill_voter_mid_vote().await?,
            Fault::MidCheckpoint => self.kill_mid_checkpoint().await?,
            Fault::MidInstall => self.kill_mid_install().await?,
            Fault::Kill => {
                let node = self.any_node()?;
                self.cluster.kill(node)?;
                self.hold(0, 1000).await;
                true
            }
            Fault::KillAll => {
                for node in self.cluster.running() {
                    self.cluster.kill(node)?;
                }
                true
            }
            Fault::Stop => {
                let node = self.any_node()?;
                self.cluster.stop(node).await?;
                true
            }
            Fault::Pause => self.pause().await?,
            Fault::Partition => self.partition()?,
            Fault::OneWay => self.cut_one_way()?,
            Fault::LeaderCutOff => self.cut_off_leader().await?,
            Fault::Loss => self.lose_packets()?,
            Fault::Delay => self.delay_packets()?,
            Fault::PowerCut => {
                let node =
                    if self.rng.random() { self.any_node()? } else { self.any_leader().await? };
                self.cut_power(&[node])?;
                true
            }
            Fault::PowerCutAll => {
                let nodes = self.cluster.running();
                self.cut_power(&nodes)?;
                true
            }
            Fault::DiskFull => self.fill_disk().await?,
            Fault::Clock => self.move_clocks()?,
            Fault::OldState => self.bring_back_state().await?,
            Fault::OldDisk => self.bring_back_disk().await?,
            Fault::Replace => {
                let node = self.any_node()?;
                self.cluster.kill(node)?;
                self.replace(node).await?;
                true
            }
        };
        self.deeds.did(fault, done);
        Ok(())
    }

    /// Kills the leader of a shard at some step of a pop; at any moment when the nodes have no
    /// failpoints.
    async fn kill_leader_mid_pop(&mut self) -> Result<bool> {
        let node = self.any_leader().await?;
        if self.points.is_empty() {
            self.people.progress(1, READY_LIMIT).await?;
            self.cluster.kill(node)?;
            return Ok(true);
        }
        let point = POP[self.rng.random_range(0..POP.len())];
        let count = self.rng.random_range(1..20);
        let reached = self.die_at(node, point, count).await?;
        self.hold(0, 500).await;
        Ok(reached)
    }

    async fn kill_voter_mid_vote(&mut self) -> Result<bool> {
        let leader = self.any_leader().await?;
        let mut others = self.cluster.running();
        others.retain(|node| *node != leader);
        ensure!(!others.is_empty(), "no node is left to vote");
        let voter = others[self.rng.random_range(0..others.len())];
        let point = VOTE[self.rng.random_range(0..VOTE.len())];
        self.arm(voter, point, 1).await?;
        self.cluster.kill(leader)?;
        self.wait_for(voter, point, POINT_LIMIT).await
    }

    async fn kill_mid_checkpoint(&mut self) -> Result<bool> {
        let node = self.any_node()?;
        let point = CHECKPOINT[self.rng.random_range(0..CHECKPOINT.len())];
        self.die_at(node, point, 1).await
    }

    /// Keeps a node away until the logs of the others begin behind its own, and kills it when it
    /// has fetched what it missed.
    async fn kill_mid_install(&mut self) -> Result<bool> {
        let node = self.any_node()?;
        let host = self.machines.host_of(node)?;
        let goal = logged(&self.cluster, node).await? + BEHIND;
        self.cluster.kill(node)?;
        wait::until(READY_LIMIT, &format!("node {node} to fall behind"), async || {
            let longest = self.longest_log().await?;
            Ok(Seen::when(longest >= goal, || format!("the others have {longest} of {goal}")))
        })
        .await?;
        // Alone, so that it fetches nothing before it is told where to die.
        for other in self.machines.network.hosts().filter(|other| *other != host) {
            self.machines.network.cut(host, other)?;
            self.machines.network.cut(other, host)?;
        }
        self.cluster.launch(node)?;
        self.arm(node, INSTALL, 1).await?;
        self.machines.network.heal()?;
        self.wait_for(node, INSTALL, INSTALL_LIMIT).await
    }

    /// Has `node` die when it reaches `point` for the `count`-th time; false when it does not.
    async fn die_at(&mut self, node: NodeId, point: &str, count: u32) -> Result<bool> {
        self.arm(node, point, count).await?;
        self.wait_for(node, point, POINT_LIMIT).await
    }

    async fn arm(&mut self, node: NodeId, point: &str, count: u32) -> Result<()> {
        let url = self.point(node, point);
        let what = format!("node {node} to arm {point}");
        wait::until(READY_LIMIT, &what, async || {
            // Packets to it may be lost.
            match Http::default().json(Method::PUT, &url, &[], &Arm { count }).await {
                Ok(reply) => reply.expect_success().map(Seen::Done),
                Err(error) => Ok(Seen::not_yet(format!("{error:#}"))),
            }
        })
        .await
    }

    async fn wait_for(&mut self, node: NodeId, point: &str, limit: Duration) -> Result<bool> {
        if self.cluster.wait_killed(node, point, limit).await? {
            self.deeds.died_at(point);
            return Ok(true);
        }
        // It may die just now, and then does not answer.
        let disarmed = Http::default().bare(Method::DELETE, &self.point(node, point)).await;
        if disarmed.is_err() {
            self.cluster.wait_killed(node, point, POINT_LIMIT).await?;
        }
        Ok(false)
    }

    fn point(&self, node: NodeId, point: &str) -> String {
        format!("{}{}", self.cluster.admin(node), path::FAILPOINT.replace("{name}", point))
    }

    async fn pause(&mut self) -> Result<bool> {
        let node = if self.rng.random() { self.any_node()? } else { self.any_leader().await? };
        self.cluster.pause(node)?;
        self.hold(200, 3000).await;
        self.cluster.resume(node)?;
        Ok(true)
    }

    fn partition(&mut self) -> Result<bool> {
        let mut hosts: Vec<_> = self.machines.network.hosts().collect();
        hosts.shuffle(&mut self.rng);
        let (left, right) = hosts.split_at(self.rng.random_range(1..hosts.len()));
        for (one, other) in left.iter().flat_map(|one| right.iter().map(move |two| (*one, *two))) {
            self.machines.network.cut(one, other)?;
            self.machines.network.cut(other, one)?;
        }
        let note = format!("{left:?} and {right:?}");
        self.cluster.recorder().event(EventKind::Partition, None, note);
        Ok(true)
    }

    fn cut_one_way(&mut self) -> Result<bool> {
        let node = self.any_node()?;
        let host = self.machines.host_of(node)?;
        let hears: bool = self.rng.random();
        for other in self.machines.network.hosts().filter(|other| *other != host) {
            if hears {
                self.machines.network.cut(host, other)?;
            } else {
                self.machines.network.cut(other, host)?;
            }
        }
        let note = if hears { "it is not heard" } else { "it hears nobody" };
        self.cluster.recorder().event(EventKind::Partition, Some(node), note);
        Ok(true)
    }

    async fn cut_off_leader(&mut self) -> Result<bool> {
        let leader = self.any_leader().await?;
        let host = self.machines.host_of(leader)?;
        let mut others: Vec<_> = self.machines.network.hosts().filter(|at| *at != host).collect();
        others.shuffle(&mut self.rng);
        // The leader keeps as many as do not make a quorum.
        let with_leader = self.rng.random_range(0..=(others.len() - 1) / 2);
        let (kept, cut) = others.split_at(with_leader);
        for one in kept.iter().chain([&host]) {
            for other in cut {
                self.machines.network.cut(*one, *other)?;
                self.machines.network.cut(*other, *one)?;
            }
        }
        self.cluster.recorder().event(EventKind::Partition, Some(leader), "with the minority");
        Ok(true)
    }

    fn lose_packets(&mut self) -> Result<bool> {
        let percent = self.rng.random_range(2..25);
        for host in self.machines.network.hosts() {
            self.machines.network.lose(host, percent)?;
        }
        let note = format!("{percent} % are lost");
        self.cluster.recorder().event(EventKind::Degrade, None, note);
        Ok(true)
    }

    fn delay_packets(&mut self) -> Result<bool> {
        let longest = Duration::from_millis(self.rng.random_range(5..120));
        for host in self.machines.network.hosts() {
            self.machines.network.slow(host, longest, self.rng.random())?;
        }
        let note = format!("up to {longest:?} late");
        self.cluster.recorder().event(EventKind::Degrade, None, note);
        Ok(true)
    }

    /// Cuts the power of `nodes` at once. Their disks are there again when it returns.
    pub(super) fn cut_power(&mut self, nodes: &[NodeId]) -> Result<()> {
        // A node whose process goes on for a moment finds that every write fails; one that was
        // stopped first finds nothing.
        if self.rng.random() {
            for node in nodes {
                self.cluster.pause(*node)?;
            }
        }
        for node in nodes {
            self.machines.disk_of(*node)?.cut()?;
        }
        for node in nodes {
            self.cluster.lose_power(*node)?;
        }
        for node in nodes {
            self.machines.disk_of(*node)?.restore()?;
        }
        self.deeds.power_cuts(nodes.len());
        Ok(())
    }

    async fn fill_disk(&mut self) -> Result<bool> {
        let node = self.any_node()?;
        self.cluster.recorder().event(EventKind::Disk, Some(node), "full");
        self.machines.disk_of(node)?.fill()?;
        let ended = self.cluster.wait_exit(node, FULL_LIMIT).await;
        self.machines.disk_of(node)?.clear()?;
        self.cluster.recorder().event(EventKind::DiskHeal, Some(node), "");
        let status = ended?;
        ensure!(status.code() == Some(FAULT_CODE), "node {node} with a full disk: {status}");
        Ok(true)
    }

    fn move_clocks(&mut self) -> Result<bool> {
        let Some(clocks) = &self.machines.clocks else { return Ok(false) };
        let mut notes = Vec::new();
        for host in self.machines.network.hosts() {
            let setting = match self.rng.random_range(0..5) {
                0 => format!("+{}", self.rng.random_range(1..1000)),
                1 => format!("-{}", self.rng.random_range(1..1000)),
                2 => "+0 x3".to_owned(),
                _ => continue,
            };
            clocks.set(host, &setting)?;
            notes.push(format!("host {host}: {setting}"));
        }
        let note = notes.join(", ");
        self.cluster.recorder().event(EventKind::Clock, None, note);
        Ok(!notes.is_empty())
    }

    /// A node finds the state of some time ago beside its log.
    async fn bring_back_state(&mut self) -> Result<bool> {
        let node = self.any_node()?;
        let data = self.machines.disk_of(node)?.data_dir();
        let (state, aside) =
            (data.join("state"), self.machines.disk_of(node)?.path().join("aside"));
        self.put_aside(node, &state, &aside).await?;
        self.cluster.kill(node)?;
        self.put_back(node, &aside, &state)?;
        self.cluster.recorder().event(EventKind::Other("old_state".to_owned()), Some(node), "");
        Ok(true)
    }

    /// A node finds its whole disk as it was some time ago: it must not go on, and is replaced.
    async fn bring_back_disk(&mut self) -> Result<bool> {
        let node = self.any_node()?;
        let data = self.machines.disk_of(node)?.data_dir();
        let aside = self.machines.disk_of(node)?.path().join("aside");
        self.put_aside(node, &data, &aside).await?;
        self.cluster.kill(node)?;
        self.put_back(node, &aside, &data)?;
        self.cluster.recorder().event(EventKind::Other("old_disk".to_owned()), Some(node), "");
        self.expect_refusal(node).await?;
        self.replace(node).await?;
        Ok(true)
    }

    /// Copies `from` to `to` while `node` is down, then has much happen.
    async fn put_aside(&mut self, node: NodeId, from: &Path, to: &Path) -> Result<()> {
        self.cluster.kill(node)?;
        tools::run(["cp", "-a", tools::text(from)?, tools::text(to)?])?;
        self.cluster.restart(node).await?;
        self.people.progress(AWAY, READY_LIMIT).await?;
        self.catch_up(node).await
    }

    /// Waits until the log of `node` has come to where those of the others are now: only then has
    /// it something to forget.
    async fn catch_up(&mut self, node: NodeId) -> Result<()> {
        let goal = self.longest_log().await?;
        wait::until(READY_LIMIT, &format!("node {node} to catch up"), async || {
            let logged = logged(&self.cluster, node).await?;
            Ok(Seen::when(logged >= goal, || format!("it has {logged} of {goal} entries")))
        })
        .await
    }

    /// Entries in the longest log of the running nodes.
    async fn longest_log(&self) -> Result<u64> {
        let mut longest = 0;
        for node in self.cluster.running() {
            longest = logged(&self.cluster, node).await?.max(longest);
        }
        Ok(longest)
    }

    /// Has `aside` be `place` again, whatever power cuts come.
    fn put_back(&self, node: NodeId, aside: &Path, place: &Path) -> Result<()> {
        fs::remove_dir_all(place)?;
        fs::rename(aside, place)?;
        tools::run(["sync", "-f", tools::text(self.machines.disk_of(node)?.path())?])
    }

    /// Puts a new node in the place of `old`, which is down and lost its disk.
    async fn replace(&mut self, old: NodeId) -> Result<()> {
        let data = self.machines.disk_of(old)?.data_dir();
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        self.cluster.recorder().event(EventKind::Wipe, Some(old), "");
        self.expect_refusal(old).await?;
        fs::remove_dir_all(&data)?;
        let host = self.machines.host(self.machines.host_of(old)?)?;
        let new = self.cluster.launch_joining_on(host)?;
        let via = self.any_of_others(new)?;
        self.cluster.replace(old, new, via).await?;
        self.cluster.wait_ready_of(&[new]).await?;
        self.machines.succeed(old, new)?;
        self.cluster.retire(old)
    }

    /// Starts `node`, which may not take part, and waits until it says so.
    async fn expect_refusal(&mut self, node: NodeId) -> Result<()> {
        self.cluster.launch(node)?;
        let status = self.cluster.wait_exit(node, REFUSAL_LIMIT).await?;
        ensure!(!status.success(), "node {node} ended as if all were well");
        let log = self.cluster.log_tail(node, 20)?;
        ensure!(
            log.contains("must not vote under its old id"),
            "node {node} ended for another reason:\n{log}"
        );
        Ok(())
    }

    fn any_of_others(&mut self, node: NodeId) -> Result<NodeId> {
        let others: Vec<_> =
            self.cluster.running().into_iter().filter(|other| *other != node).collect();
        ensure!(!others.is_empty(), "no other node runs");
        Ok(others[self.rng.random_range(0..others.len())])
    }
}

/// Entries in the logs of `node`, all shards together, those that were purged included.
async fn logged(cluster: &Cluster, node: NodeId) -> Result<u64> {
    Ok(cluster.status(node).await?.shards.iter().map(|shard| shard.last_log).sum())
}
