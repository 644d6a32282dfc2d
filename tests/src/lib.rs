//! What the end-to-end tests share: a small cluster, a Bob, and the judgement at the end.
//!
//! The tests run real `oncekey` processes; `cargo test --workspace` builds the program first, and
//! so does `cargo build -p oncekey-cli`. A test that fails leaves configurations, logs and data of
//! its nodes and says where. What happens is up to the scheduler: there is no seed to repeat a run
//! with, only the folder to read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use oncekey_client::{
    Client, NewDevice, SqliteKeyStore,
    http::{AnyNode, Config},
};
use oncekey_cluster::{
    Builder, Cluster, Engine, Recorded,
    check::{self, Finding, Invariant, Report},
    history::{Recorder, record::Phase},
    workload::{Fetcher, Load, Workload},
};
use oncekey_types::{CallerId, NodeId, UserId};

/// Time for anything that a test waits for.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Callers that drain a pool.
const DRAINERS: usize = 8;
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
/// One in so many requests is sent again at the end.
const RESEND_EVERY: usize = 5;

/// Any node; what is sent is recorded.
pub type Nodes = Recorded<AnyNode>;

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

/// A user with devices that publish.
pub struct Bob {
    /// The user.
    pub user: UserId,
    /// The devices, in the order of their ids.
    pub devices: Vec<Client<Nodes>>,
    recorder: Recorder,
}

impl Bob {
    /// A user whose `devices` devices have `keys` one-time prekeys each.
    ///
    /// # Errors
    ///
    /// When the cluster does not take them.
    pub async fn publish(cluster: &Cluster, name: &str, devices: u32, keys: usize) -> Result<Self> {
        let bob = Self::unpublished(cluster, name, devices)?;
        for device in &bob.devices {
            device.publish(keys).await.context("a device cannot publish")?;
        }
        Ok(bob)
    }

    /// A user whose devices have published nothing.
    ///
    /// # Errors
    ///
    /// When the devices cannot be made.
    pub fn unpublished(cluster: &Cluster, name: &str, devices: u32) -> Result<Self> {
        let user: UserId = name.parse()?;
        let (endpoints, recorder) = (cluster.endpoints(), cluster.recorder().clone());
        let devices = (1..=devices)
            .map(|device| {
                let nodes = any_node(&endpoints, &format!("{user}/{device}"), &recorder)?;
                let new = NewDevice::new(user.clone(), device);
                Ok(Client::create(SqliteKeyStore::in_memory()?, nodes, new)?)
            })
            .collect::<Result<_>>()?;
        Ok(Self { user, devices, recorder })
    }

    /// Has every device fill its pool up to `keys`.
    ///
    /// # Errors
    ///
    /// When the cluster does not take the keys.
    pub async fn replenish(&self, keys: usize) -> Result<()> {
        for device in &self.devices {
            device.replenish(keys).await.context("a device cannot replenish")?;
        }
        Ok(())
    }

    /// A fetcher of this user's bundles through `endpoints`.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub fn fetcher(&self, endpoints: &[String]) -> Result<Fetcher> {
        Fetcher::new(self.user.clone(), endpoints, self.recorder.clone())
    }

    /// Sends some requests again, has every undecided one decided, and drains the pools through
    /// all nodes of `fetcher`.
    ///
    /// # Errors
    ///
    /// When the cluster does not answer.
    pub async fn settle(&self, fetcher: &Fetcher) -> Result<()> {
        let mut again = Vec::new();
        {
            let history = self.recorder.history()?;
            let own = history.names.find(self.user.as_str());
            for (number, fetch) in history.fetches.iter().enumerate() {
                let undecided = fetch.answer().is_none();
                // The fetcher asks for all devices, with or without a key.
                let own = own == Some(fetch.user) && !fetch.require_opk && fetch.devices.is_none();
                if own && (number % RESEND_EVERY == 0 || undecided) {
                    let (caller, request) = (fetch.client, fetch.request);
                    let text = |name| history.names.text(name);
                    again.push((text(caller).parse()?, text(request).parse()?, number));
                }
            }
        }
        for (caller, request, number) in again {
            fetcher.fetch(&caller, &request, number).await?;
        }
        let mut left = 0;
        for device in &self.devices {
            left = device.status().await?.server.pool.count.max(left);
        }
        let each = usize::try_from(left)? / DRAINERS + 2;
        // Requests of all users share a table in their shard: the label has the user.
        let drain = Load::new(format!("drain-{}", self.user), DRAINERS, each);
        Workload::start(fetcher, &drain).finish().await?;
        for device in &self.devices {
            let count = device.status().await?.server.pool.count;
            ensure!(count == 0, "{count} keys are left after the drain");
        }
        Ok(())
    }

    /// The same user, with devices that ask other nodes.
    ///
    /// # Errors
    ///
    /// When there are no endpoints.
    pub fn through(self, endpoints: &[String]) -> Result<Self> {
        let Self { user, devices, recorder } = self;
        let devices = devices
            .into_iter()
            .zip(1..)
            .map(|(device, number): (_, u32)| {
                let nodes = any_node(endpoints, &format!("{user}/{number}"), &recorder)?;
                Ok(device.with_transport(nodes))
            })
            .collect::<Result<_>>()?;
        Ok(Self { user, devices, recorder })
    }
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

/// A client of the nodes at `endpoints` that gives its name as `caller`.
///
/// # Errors
///
/// When there are no endpoints.
pub fn any_node(endpoints: &[String], caller: &str, recorder: &Recorder) -> Result<Nodes> {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    let caller: CallerId = caller.parse()?;
    let nodes = AnyNode::new(Config::new(endpoints, caller.clone())?);
    Ok(Recorded::new(nodes, recorder.clone(), caller))
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
