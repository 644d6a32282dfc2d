//! Alice and Bob, with real keys.
//!
//! Guarantees: a handshake counts as agreed when both sides hold the same keys, compared byte for
//! byte, and a message as opened when Bob reads what Alice wrote.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use oncekey_api::bundle::OneTimePreKeyStatus;
use oncekey_client::{
    Client, DeviceBundle, FetchOptions, NewDevice, Received, Session, SqliteKeyStore, StoreKey,
    http::{AnyNode, Config},
};
use oncekey_cluster::{
    Cluster, Recorded,
    history::Recorder,
    workload::{Answer, Key, Operation},
};
use oncekey_types::{CallerId, DeviceId, RequestId, UserId};

/// Bound to every handshake by both sides.
const APP_AD: &[u8] = b"oncekey demo";
/// How long an Alice tries to have one fetch committed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before a fetch that was answered without a quorum is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// Any node; what is sent is recorded.
type Nodes = Recorded<AnyNode>;

/// Bob's devices. Their secrets lie in files, beside the nodes' data.
pub(super) struct Bob {
    user: UserId,
    devices: Vec<(DeviceId, Arc<Client<Nodes>>)>,
}

impl Bob {
    /// Makes and publishes `devices` devices with `keys` one-time prekeys each.
    pub(super) async fn publish(
        cluster: &Cluster,
        user: &UserId,
        devices: u32,
        keys: usize,
    ) -> Result<Self> {
        let mut bob = Self { user: user.clone(), devices: Vec::new() };
        for device in 1..=devices {
            let name = format!("{user}-{device}");
            let lock = StoreKey::generate().into();
            let store = SqliteKeyStore::open(cluster.dir().join(&name), &lock)?;
            let nodes = nodes(cluster, 0, &name, user.as_str())?;
            let client = Client::create(store, nodes, NewDevice::new(user.clone(), device))?;
            client.publish(keys).await.with_context(|| format!("{name} cannot publish"))?;
            bob.devices.push((DeviceId(device), Arc::new(client)));
        }
        Ok(bob)
    }

    pub(super) fn user(&self) -> &UserId {
        &self.user
    }

    /// Reads every pool, for the history.
    pub(super) async fn read_pools(&self) -> Result<()> {
        for (_, client) in &self.devices {
            client.status().await?;
        }
        Ok(())
    }

    /// Opens a first message on `device`; what came out, and the session.
    async fn open(&self, device: DeviceId, message: Vec<u8>) -> Result<(Vec<u8>, Session)> {
        let client = self.devices.iter().find(|(id, _)| *id == device);
        let client = Arc::clone(&client.context("Bob has no such device")?.1);
        // The key store writes to disk.
        let received =
            tokio::task::spawn_blocking(move || client.receive(&message, APP_AD)).await??;
        match received {
            Received::New { payload, session } => Ok((payload.as_bytes().to_vec(), session)),
            Received::Duplicate { .. } => anyhow::bail!("a message came twice"),
        }
    }
}

/// Somebody who writes to Bob.
pub(super) struct Alice {
    number: usize,
    client: Client<Nodes>,
    requests: std::sync::Mutex<BTreeSet<RequestId>>,
}

/// One fetch and what followed from it.
pub(super) struct Fetch {
    pub(super) operation: Operation,
    /// Whether the server said that it gave this answer before.
    pub(super) repeated: bool,
    /// Reasons of the devices without a key.
    pub(super) without: Vec<OneTimePreKeyStatus>,
    /// Handshakes whose two sides hold the same keys.
    pub(super) agreed: usize,
    /// Messages that Bob read as Alice wrote them.
    pub(super) opened: usize,
    /// What went wrong.
    pub(super) failures: Vec<String>,
}

impl Alice {
    /// Alice `number`, who asks the node of that number first.
    pub(super) fn new(number: usize, cluster: &Cluster) -> Result<Self> {
        let name = format!("alice-{number}");
        let nodes = nodes(cluster, number, &name, &name)?;
        let new = NewDevice::new(name.parse()?, 1);
        let client = Client::create(SqliteKeyStore::in_memory()?, nodes, new)?;
        Ok(Self { number, client, requests: std::sync::Mutex::default() })
    }

    /// The same Alice, who asks the next node first.
    pub(super) fn through_another_node(self, cluster: &Cluster) -> Result<Self> {
        let name = format!("alice-{}", self.number);
        let nodes = nodes(cluster, self.number + 1, &name, &name)?;
        Ok(Self { client: self.client.with_transport(nodes), ..self })
    }

    /// Whether this Alice made the fetch.
    pub(super) fn made(&self, operation: &Operation) -> bool {
        self.requests.lock().is_ok_and(|requests| requests.contains(&operation.request))
    }

    /// Fetches the bundles of `user`, again and again under one idempotency key until a quorum has
    /// answered.
    pub(super) async fn fetch(
        &self,
        user: &UserId,
        request: Option<RequestId>,
    ) -> Result<(Fetch, Vec<DeviceBundle>)> {
        let mut options = FetchOptions { request, ..FetchOptions::default() };
        let began = Instant::now();
        let mut attempts = 0;
        let fetched = loop {
            let patient = began.elapsed() < PATIENCE;
            match self.client.fetch(user, &options).await {
                Ok(fetched) if fetched.as_of.is_some() && patient => {
                    attempts += fetched.attempts.len();
                    options.request = Some(fetched.request);
                }
                Ok(fetched) => break fetched,
                Err(oncekey_client::FetchError::Call { request, error })
                    if error.is_retryable() && patient =>
                {
                    attempts += error.attempts().len();
                    options.request = Some(request);
                }
                Err(error) => return Err(error).context("a fetch failed"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        attempts += fetched.attempts.len();
        if let Ok(mut requests) = self.requests.lock() {
            requests.insert(fetched.request.clone());
        }
        let keys = keys(&fetched.bundles);
        let without: Vec<_> = fetched
            .bundles
            .iter()
            .filter(|bundle| bundle.one_time_prekey.is_none())
            .map(|bundle| (bundle.device, bundle.one_time_prekey_status))
            .collect();
        let reasons = without.iter().map(|(_, status)| *status).collect();
        let answer = Answer::Committed {
            index: fetched.route.index,
            repeated: fetched.repeated,
            keys,
            without,
        };
        let operation = Operation { request: fetched.request, attempts, answer };
        let fetch = Fetch {
            operation,
            repeated: fetched.repeated,
            without: reasons,
            agreed: 0,
            opened: 0,
            failures: Vec::new(),
        };
        Ok((fetch, fetched.bundles))
    }

    /// Starts a handshake with one of Bob's devices, which opens the message. Says whether it did.
    pub(super) async fn shake_hands(
        &self,
        bob: &Bob,
        bundle: DeviceBundle,
        fetch: &mut Fetch,
    ) -> Result<bool> {
        let device = bundle.device;
        let text = format!("Hello Bob, this is Alice {} for your device {device}.", self.number);
        let verified = match bundle.bundle {
            Ok(verified) => verified,
            Err(refused) => {
                fetch.failures.push(refused.to_string());
                return Ok(false);
            }
        };
        let outgoing = self.client.initiate(verified, text.as_bytes(), APP_AD)?;
        match bob.open(device, outgoing.message).await {
            Ok((read, session)) => {
                fetch.agreed += usize::from(agree(&outgoing.session, &session));
                let opened = read == text.as_bytes();
                fetch.opened += usize::from(opened);
                Ok(opened)
            }
            Err(error) => {
                fetch.failures.push(format!("{error:#}"));
                Ok(false)
            }
        }
    }
}

/// Whether both sides hold the same root key, chain key and transcript.
fn agree(alice: &Session, bob: &Session) -> bool {
    let (Ok(alice), Ok(bob)) = (alice.keys(), bob.keys()) else { return false };
    alice.root().as_bytes() == bob.root().as_bytes()
        && alice.chain().as_bytes() == bob.chain().as_bytes()
        && alice.transcript() == bob.transcript()
}

/// The keys handed out.
fn keys(bundles: &[DeviceBundle]) -> Vec<Key> {
    let key =
        |bundle: &DeviceBundle| Some(Key { device: bundle.device, id: bundle.one_time_prekey? });
    bundles.iter().filter_map(key).collect()
}

/// The cluster as `user` sees it, with node number `first` asked first.
fn nodes(cluster: &Cluster, first: usize, caller: &str, user: &str) -> Result<Nodes> {
    let endpoints = cluster.endpoints();
    let (behind, ahead) = endpoints.split_at(first % endpoints.len().max(1));
    let order = ahead.iter().chain(behind).map(|endpoint| endpoint.parse());
    let caller: CallerId = caller.parse()?;
    let mut config = Config::new(order.collect::<Result<_, _>>()?, caller.clone())?;
    // Every node is to be asked, not the leader only.
    config.leader_first = false;
    let recorder: Recorder = cluster.recorder().clone();
    let nodes = AnyNode::new(cluster.as_user(config, user));
    Ok(Recorded::new(nodes, recorder, caller))
}
