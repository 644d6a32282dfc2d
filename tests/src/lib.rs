//! What the end-to-end tests share: a small cluster, a Bob, and the judgement at the end.
//!
//! The tests run real `oncekey` processes; `cargo test --workspace` builds the program first, and
//! so does `cargo build -p oncekey-cli`. A test that fails leaves configurations, logs and data of
//! its nodes and says where. What happens is up to the scheduler: there is no seed to repeat a run
//! with, only the folder to read.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use oncekey_client::{
    Client, NewDevice, SqliteKeyStore,
    http::{AnyNode, Config},
};
use oncekey_cluster::{
    Builder, Cluster, Engine, check,
    history::{History, Key},
    workload::{Fetcher, Load, Workload},
};
use oncekey_types::{DeviceId, NodeId, OneTimePreKeyId, UserId};

/// Time for anything that a test waits for.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Callers that drain a pool.
const DRAINERS: usize = 8;
/// One in so many requests is sent again at the end.
const RESEND_EVERY: usize = 5;

/// Three nodes, two shards, short logs, no limits on callers.
#[must_use]
pub fn small() -> Builder {
    Cluster::builder()
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
    pub devices: Vec<Client<AnyNode>>,
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
        let endpoints = cluster.endpoints();
        let devices = (1..=devices)
            .map(|device| {
                let nodes = any_node(&endpoints, &format!("{user}/{device}"))?;
                let new = NewDevice::new(user.clone(), device);
                Ok(Client::create(SqliteKeyStore::in_memory()?, nodes, new)?)
            })
            .collect::<Result<_>>()?;
        Ok(Self { user, devices })
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

    /// Every key that was accepted so far: the client numbers them from 1 and leaves none out.
    ///
    /// # Errors
    ///
    /// When the cluster does not answer.
    pub async fn uploaded(&self) -> Result<BTreeSet<Key>> {
        let mut keys = BTreeSet::new();
        for (device, client) in self.numbered() {
            let highest = client.status().await?.server.pool.highest_accepted;
            let ids = 1..=highest.map_or(0, |id| id.0);
            keys.extend(ids.map(|id| Key { device, id: OneTimePreKeyId(id) }));
        }
        Ok(keys)
    }

    /// A fetcher of this user's bundles through `endpoints`.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub fn fetcher(&self, endpoints: &[String]) -> Result<Fetcher> {
        Fetcher::new(self.user.clone(), endpoints)
    }

    /// Judges what the callers saw: sends some requests again, has every undecided one decided,
    /// drains the pools through all nodes, and checks every rule.
    ///
    /// # Errors
    ///
    /// The rules that are broken, or whatever kept the judge from finding out.
    pub async fn judge(&self, fetcher: &Fetcher, mut history: History) -> Result<()> {
        history.uploaded = self.uploaded().await?;
        let requests: Vec<_> = history.by_request().into_keys().cloned().collect();
        let answered: BTreeSet<_> = history
            .operations
            .iter()
            .filter(|operation| operation.is_committed())
            .map(|operation| operation.request.clone())
            .collect();
        for (number, request) in requests.iter().enumerate() {
            if number % RESEND_EVERY == 0 || !answered.contains(request) {
                let caller = caller_of(request.as_str()).parse()?;
                history.operations.push(fetcher.fetch(&caller, request, number).await?);
            }
        }
        let left: usize = history.uploaded.len().saturating_sub(history.handed().len());
        let each = left / self.devices.len().max(1) / DRAINERS + 2;
        // Requests of all users share a table in their shard: the label has the user.
        let drain = Load::new(format!("drain-{}", self.user), DRAINERS, each);
        let before = history.operations.len();
        Workload::start(fetcher, &drain).finish(&mut history).await?;
        if let Some(odd) = history.operations[before..].iter().find(|op| !op.is_committed()) {
            bail!("a fetch of the drain was not carried out: {odd:?}");
        }
        check::history(&history)?;
        check::conservation(&history, &BTreeSet::new())?;
        for (_, device) in self.numbered() {
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
        let Self { user, devices } = self;
        let devices = devices
            .into_iter()
            .zip(1..)
            .map(|(device, number): (_, u32)| {
                Ok(device.with_transport(any_node(endpoints, &format!("{user}/{number}"))?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { user, devices })
    }

    fn numbered(&self) -> impl Iterator<Item = (DeviceId, &Client<AnyNode>)> {
        (1..).map(DeviceId).zip(&self.devices)
    }
}

/// A client of the nodes at `endpoints` that gives its name as `caller`.
///
/// # Errors
///
/// When there are no endpoints.
pub fn any_node(endpoints: &[String], caller: &str) -> Result<AnyNode> {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    Ok(AnyNode::new(Config::new(endpoints, caller.parse()?)?))
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

/// The caller of a request of a [`Load`]: a request is named after its caller and a number.
fn caller_of(request: &str) -> &str {
    request.rsplit_once('-').map_or(request, |(caller, _)| caller)
}
