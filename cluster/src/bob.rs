//! Bob, whose devices publish keys that others fetch.
//!
//! Guarantees: Bob's devices use the client library as an application does; what they send and
//! what is fetched of them is recorded. A Bob who was [settled](Bob::settle) has left nothing
//! undecided and his pools are empty, so that a checker can count.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use oncekey_client::{
    Client, NewDevice, SqliteKeyStore, WriteError,
    http::{AnyNode, Config},
};
use oncekey_types::{CallerId, UserId};

use crate::{
    Cluster, Recorded,
    history::Recorder,
    issuer::Issuer,
    workload::{Fetcher, Load, Workload},
};

/// Callers that drain a pool.
const DRAINERS: usize = 8;
/// One in so many requests is sent again at the end.
const RESEND_EVERY: usize = 5;
/// Most requests of one Bob that are sent again though they have an answer.
const RESEND_MAX: usize = 200;

/// How often a device tries what may succeed later.
const TRIES: usize = 10;

/// Any node; what is sent is recorded.
pub type Nodes = Recorded<AnyNode>;

/// A user with devices that publish.
pub struct Bob {
    /// The user.
    pub user: UserId,
    /// The devices, in the order of their ids.
    pub devices: Vec<Client<Nodes>>,
    recorder: Recorder,
    issuer: Option<Arc<Issuer>>,
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
            insist(async || device.publish(keys).await).await.context("a device cannot publish")?;
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
        let mut bob = Self {
            user,
            devices: Vec::new(),
            recorder: cluster.recorder().clone(),
            issuer: cluster.issuer().cloned(),
        };
        for device in 1..=devices {
            let nodes = bob.nodes(&cluster.endpoints(), device)?;
            let new = NewDevice::new(bob.user.clone(), device);
            bob.devices.push(Client::create(SqliteKeyStore::in_memory()?, nodes, new)?);
        }
        Ok(bob)
    }

    /// Has every device fill its pool up to `keys`.
    ///
    /// # Errors
    ///
    /// When the cluster does not take the keys.
    pub async fn replenish(&self, keys: usize) -> Result<()> {
        for device in &self.devices {
            insist(async || device.replenish(keys).await)
                .await
                .context("a device cannot replenish")?;
        }
        Ok(())
    }

    /// A fetcher of this user's bundles through `endpoints`.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub fn fetcher(&self, endpoints: &[String]) -> Result<Fetcher> {
        let fetcher = Fetcher::new(self.user.clone(), endpoints, self.recorder.clone())?;
        Ok(match &self.issuer {
            Some(issuer) => fetcher.with_tokens_of(Arc::clone(issuer)),
            None => fetcher,
        })
    }

    /// Sends some requests again, has every undecided one decided, and drains the pools through
    /// all nodes of `fetcher`.
    ///
    /// # Errors
    ///
    /// When the cluster does not answer.
    pub async fn settle(&self, fetcher: &Fetcher) -> Result<()> {
        let mut again = Vec::new();
        let mut answered = 0;
        {
            let history = self.recorder.history()?;
            let own = history.names.find(self.user.as_str());
            for (number, fetch) in history.fetches.iter().enumerate() {
                let undecided = fetch.answer().is_none();
                // The fetcher asks for all devices, with or without a key.
                let own = own == Some(fetch.user) && !fetch.require_opk && fetch.devices.is_none();
                let sample = number % RESEND_EVERY == 0 && answered < RESEND_MAX;
                if own && (sample || undecided) {
                    answered += usize::from(!undecided);
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
            left = insist(async || device.status().await).await?.server.pool.count.max(left);
        }
        let each = usize::try_from(left)? / DRAINERS + 2;
        // Requests of all users share a table in their shard: the label has the user.
        let drain = Load::new(format!("drain-{}", self.user), DRAINERS, each);
        Workload::start(fetcher, &drain).finish().await?;
        for device in &self.devices {
            let count = insist(async || device.status().await).await?.server.pool.count;
            ensure!(count == 0, "{count} keys are left after the drain");
        }
        Ok(())
    }

    /// The same user, with devices that ask other nodes.
    ///
    /// # Errors
    ///
    /// When there are no endpoints.
    pub fn through(mut self, endpoints: &[String]) -> Result<Self> {
        for (number, device) in (1..).zip(std::mem::take(&mut self.devices)) {
            let nodes = self.nodes(endpoints, number)?;
            self.devices.push(device.with_transport(nodes));
        }
        Ok(self)
    }

    /// What the device `number` asks the nodes at `endpoints` through.
    fn nodes(&self, endpoints: &[String], number: u32) -> Result<Nodes> {
        let caller = format!("{}/{number}", self.user);
        recorded(endpoints, &caller, &self.recorder, |config| match &self.issuer {
            Some(issuer) => config.with_tokens(issuer.source(self.user.as_str())),
            None => config,
        })
    }
}

/// Tries again what may succeed later.
async fn insist<T>(mut call: impl AsyncFnMut() -> Result<T, WriteError>) -> Result<T, WriteError> {
    for _ in 1..TRIES {
        match call().await {
            Err(error) if error.is_retryable() => {}
            result => return result,
        }
    }
    call().await
}

/// A client of the nodes at `endpoints` that gives its name as `caller`.
///
/// # Errors
///
/// When there are no endpoints.
pub fn any_node(endpoints: &[String], caller: &str, recorder: &Recorder) -> Result<Nodes> {
    recorded(endpoints, caller, recorder, |config| config)
}

fn recorded(
    endpoints: &[String],
    caller: &str,
    recorder: &Recorder,
    configure: impl FnOnce(Config) -> Config,
) -> Result<Nodes> {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    let caller: CallerId = caller.parse()?;
    let nodes = AnyNode::new(configure(Config::new(endpoints, caller.clone())?));
    Ok(Recorded::new(nodes, recorder.clone(), caller))
}
