//! The clients of a run: devices that publish and callers that fetch.
//!
//! Guarantees: a call whose outcome is not known is sent again, under the same idempotency key or
//! number, until it is; when the load has ended nothing is open, and then every pool is emptied
//! through changing nodes and read. Everything is recorded before it is sent.
//!
//! Leaves out: judging what comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use oncekey_api::{
    bundle::{Fetch, Fetched, OneTimePreKeyStatus},
    cluster::{Member, Replace},
    device::{Pool, Registered, Status},
    path,
};
use oncekey_client::{
    CallError,
    http::{AnyNode, Config},
    transport::{Call, Credentials, Method, Transport as _},
};
use oncekey_cluster::{
    Recorded,
    history::{Recorder, record::Phase},
};
use oncekey_types::{CallerId, DeviceId, NodeId, RequestId, Slot, UserId};
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    keys::Device,
    network::SimNetwork,
    plan::{self, Plan},
};

/// Time for one attempt; short, so that a caller of a dead node soon asks another.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(700);
/// Time for one call, all attempts together.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// Longest pause before a call without an outcome is sent again.
const PAUSE_MAX_MS: u64 = 60;

/// What the clients and whoever drives the run tell each other.
#[derive(Default)]
pub(crate) struct Shared {
    /// The load is over: finish what is open.
    pub(crate) ending: AtomicBool,
    /// Every device is registered.
    pub(crate) registered: AtomicBool,
    /// Nothing is open any more.
    pub(crate) settled: AtomicBool,
    /// Every pool is empty and read.
    pub(crate) drained: AtomicBool,
    /// Fetches that are on their way.
    pub(crate) in_flight: AtomicUsize,
    /// Public addresses of the nodes that are members.
    pub(crate) endpoints: Mutex<Vec<String>>,
    /// Asked for and not done yet.
    pub(crate) replacement: Mutex<Option<Replacement>>,
}

/// A node in the place of another.
#[derive(Clone, Debug)]
pub(crate) struct Replacement {
    pub(crate) old: NodeId,
    pub(crate) new: Member,
    /// Admin addresses of the others.
    pub(crate) admins: Vec<String>,
}

/// Everything that a client task needs.
#[derive(Clone)]
struct Clients {
    plan: Plan,
    shared: Arc<Shared>,
    recorder: Recorder,
    nodes: AnyNode,
}

/// The life of all clients.
pub(crate) async fn run(
    plan: Plan,
    network: SimNetwork,
    shared: Arc<Shared>,
    recorder: Recorder,
) -> Result<()> {
    let config = config(&shared.endpoints.lock(), CallerId::new("clients")?)?;
    let nodes = AnyNode::with_dial(config, Arc::new(network));
    let clients = Clients { plan, shared: Arc::clone(&shared), recorder: recorder.clone(), nodes };
    let users: Vec<_> = (0..plan.users)
        .map(|number| UserId::new(format!("user-{number}")))
        .collect::<Result<_, _>>()?;

    let mut registering = JoinSet::new();
    for user in &users {
        for device in 1..=plan.devices {
            let rng = plan::rng(plan.seed, &format!("device {user} {device}"));
            let device = Device::new(user.clone(), DeviceId(device), rng);
            registering.spawn(clients.clone().register(device));
        }
    }
    let mut owners = Vec::new();
    while let Some(registered) = registering.join_next().await {
        owners.push(registered??);
    }
    owners.sort_by_key(|owner| (owner.user.clone(), owner.id));
    shared.registered.store(true, Ordering::Relaxed);

    let mut tasks = JoinSet::new();
    for owner in owners {
        tasks.spawn(clients.clone().own(owner));
    }
    for caller in 0..plan.callers {
        tasks.spawn(clients.clone().call_for_bundles(caller, users.clone()));
    }
    tasks.spawn(clients.clone().administer());
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    shared.settled.store(true, Ordering::Relaxed);
    recorder.mark(Phase::Drain);
    for user in &users {
        clients.drain(user).await?;
    }
    shared.drained.store(true, Ordering::Relaxed);
    Ok(())
}

impl Clients {
    fn is_ending(&self) -> bool {
        self.shared.ending.load(Ordering::Relaxed)
    }

    /// Nodes in an order that changes from call to call.
    fn nodes(&self, caller: &CallerId, rng: &mut StdRng) -> Result<Recorded<AnyNode>> {
        let mut endpoints = self.shared.endpoints.lock().clone();
        endpoints.shuffle(rng);
        let mut config = config(&endpoints, caller.clone())?;
        config.leader_first = rng.random();
        let nodes = self.nodes.with_config(config);
        Ok(Recorded::new(nodes, self.recorder.clone(), caller.clone()))
    }

    /// Sends `call` until its outcome is known.
    async fn decide<R: DeserializeOwned + Send>(
        &self,
        caller: &CallerId,
        rng: &mut StdRng,
        call: &Call,
        is_decided: impl Fn(&R) -> bool,
    ) -> Result<Option<R>> {
        loop {
            match self.nodes(caller, rng)?.call::<R>(call).await {
                Ok(answer) if is_decided(&answer.reply) => return Ok(Some(answer.reply)),
                Err(CallError::Refused { .. }) => return Ok(None),
                Ok(_) | Err(_) => {}
            }
            sleep(Duration::from_millis(rng.random_range(1..=PAUSE_MAX_MS))).await;
        }
    }

    async fn write<R: DeserializeOwned + Send>(
        &self,
        device: &Device,
        rng: &mut StdRng,
        method: Method,
        path: String,
        body: &impl Serialize,
    ) -> Result<R> {
        let caller = CallerId::new(format!("{}/{}", device.user, device.id))?;
        let call = call(method, path, serde_json::to_vec(body)?.into(), &device.user);
        let reply = self.decide(&caller, rng, &call, |_| true).await?;
        reply.with_context(|| format!("a write of {caller} was refused"))
    }

    async fn register(self, mut device: Device) -> Result<Device> {
        let mut rng = self.rng(&format!("register {} {}", device.user, device.id));
        let body = device.register(rng.random_range(1..=12));
        let path = path::device(&device.user, device.id);
        let registered: Registered =
            self.write(&device, &mut rng, Method::Put, path, &body).await?;
        device.registration = Some(registered.registration);
        Ok(device)
    }

    /// Keeps a device's pool filled.
    async fn own(self, mut device: Device) -> Result<()> {
        let mut rng = self.rng(&format!("own {} {}", device.user, device.id));
        let (user, id) = (device.user.clone(), device.id);
        while !self.is_ending() {
            sleep(Duration::from_millis(rng.random_range(100..=700))).await;
            match rng.random_range(0..40) {
                // Ids of keys must be above those of every device of the user that was set up anew;
                // a device that is alone knows them.
                0 if self.plan.devices == 1 => {
                    let body = device.register_anew(rng.random_range(1..=12));
                    let path = path::device(&user, id);
                    let registered: Registered =
                        self.write(&device, &mut rng, Method::Put, path, &body).await?;
                    device.registration = Some(registered.registration);
                }
                1..=2 => {
                    let (body, path) = (device.rotate(), path::signed_prekey(&user, id));
                    self.write::<Pool>(&device, &mut rng, Method::Put, path, &body).await?;
                }
                _ if self.status(&user, id, &mut rng).await?.pool.count < 8 => {
                    let body = device.add(rng.random_range(1..=16));
                    let path = path::one_time_prekeys(&user, id);
                    self.write::<Pool>(&device, &mut rng, Method::Post, path, &body).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn status(&self, user: &UserId, id: DeviceId, rng: &mut StdRng) -> Result<Status> {
        let caller = CallerId::new(format!("{user}/{id}"))?;
        let call = call(Method::Get, path::prekeys(user, id), Bytes::new(), user);
        let status = self.decide(&caller, rng, &call, |_| true).await?;
        status.with_context(|| format!("a read of {caller} was refused"))
    }

    /// Fetches, sometimes twice under one key, sometimes without waiting for the answer; those are
    /// asked for again at the end.
    async fn call_for_bundles(self, number: usize, users: Vec<UserId>) -> Result<()> {
        let mut rng = self.rng(&format!("caller {number}"));
        let caller = CallerId::new(format!("caller-{number}"))?;
        let mut abandoned = Vec::new();
        for request in 0.. {
            if self.is_ending() {
                break;
            }
            let think = rng.random_range(0..=self.plan.think_max_ms);
            sleep(Duration::from_millis(think)).await;
            let user = &users[rng.random_range(0..users.len())];
            let devices = (rng.random_ratio(1, 8))
                .then(|| vec![DeviceId(rng.random_range(1..=self.plan.devices))]);
            let fetch = fetch(user, &format!("c{number}-{request}"), devices)?;
            let _flight = Flight::new(&self.shared);
            match rng.random_range(0..30) {
                0 => {
                    let patience = Duration::from_millis(rng.random_range(1..=40));
                    let nodes = self.nodes(&caller, &mut rng)?;
                    let answer = timeout(patience, nodes.call::<Fetched>(&fetch)).await;
                    if !matches!(answer, Ok(Ok(answer)) if is_committed(&answer.reply)) {
                        abandoned.push(fetch);
                    }
                }
                1 => {
                    self.decide(&caller, &mut rng, &fetch, is_committed).await?;
                    self.decide(&caller, &mut rng, &fetch, is_committed).await?;
                }
                _ => drop(self.decide(&caller, &mut rng, &fetch, is_committed).await?),
            }
        }
        for fetch in abandoned {
            self.decide(&caller, &mut rng, &fetch, is_committed).await?;
        }
        Ok(())
    }

    /// Has nodes replaced when that is asked for.
    async fn administer(self) -> Result<()> {
        let mut rng = self.rng("administrator");
        let caller = CallerId::new("administrator")?;
        loop {
            let replacement = self.shared.replacement.lock().clone();
            let Some(Replacement { old, new, admins }) = replacement else {
                if self.is_ending() {
                    return Ok(());
                }
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let mut endpoints = admins;
            endpoints.shuffle(&mut rng);
            let nodes = self.nodes.with_config(config(&endpoints, caller.clone())?);
            let body = serde_json::to_vec(&Replace { old, new })?;
            let user = UserId::new("nobody")?;
            let call = call(Method::Post, path::CLUSTER_REPLACE.to_owned(), body.into(), &user);
            if nodes.call::<()>(&call).await.is_ok() {
                *self.shared.replacement.lock() = None;
            } else {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Empties the pools of `user` and reads what is left.
    async fn drain(&self, user: &UserId) -> Result<()> {
        let mut rng = self.rng(&format!("drain {user}"));
        let caller = CallerId::new("drain")?;
        for request in 0.. {
            let fetch = fetch(user, &format!("{user}-{request}"), None)?;
            let Some(fetched) = self.decide(&caller, &mut rng, &fetch, is_committed).await? else {
                bail!("the pools of {user} cannot be emptied");
            };
            let issued = |status| status == OneTimePreKeyStatus::Issued;
            if !fetched.bundles.iter().any(|bundle| issued(bundle.one_time_prekey_status)) {
                break;
            }
        }
        for device in 1..=self.plan.devices {
            self.status(user, DeviceId(device), &mut rng).await?;
        }
        Ok(())
    }

    fn rng(&self, part: &str) -> StdRng {
        plan::rng(self.plan.seed, part)
    }
}

/// A fetch on its way.
struct Flight(Arc<Shared>);

impl Flight {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_committed(fetched: &Fetched) -> bool {
    fetched.as_of.is_none()
}

fn fetch(user: &UserId, request: &str, devices: Option<Vec<DeviceId>>) -> Result<Call> {
    let body = serde_json::to_vec(&Fetch { devices, require_opk: false })?;
    let request = RequestId::new(request)?;
    let call = call(Method::Post, path::user_bundles(user), body.into(), user);
    Ok(Call { idempotency_key: Some(request), ..call })
}

fn call(method: Method, path: String, body: Bytes, user: &UserId) -> Call {
    let (slot, credentials) = (Slot::of(user), Credentials::Token);
    Call { method, path, body, idempotency_key: None, slot, credentials }
}

fn config(endpoints: &[String], caller: CallerId) -> Result<Config> {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    let mut config = Config::new(endpoints, caller)?;
    (config.attempt_timeout, config.deadline) = (ATTEMPT_TIMEOUT, CALL_DEADLINE);
    Ok(config)
}
