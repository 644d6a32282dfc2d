//! Callers that fetch at the same time through all nodes.
//!
//! Guarantees: a fetch whose outcome is unknown, or that was answered without a quorum, is sent
//! again under the same idempotency key until it is decided or the caller's patience ends. What
//! every caller saw is in the [`History`].
//!
//! Leaves out: whether bundles are genuine, and what to do with them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use oncekey_api::{
    bundle::{Fetch, Fetched},
    path,
};
use oncekey_client::{
    CallError,
    http::{AnyNode, Config},
    transport::{Answer as Reply, Call, Method, Transport as _},
};
use oncekey_types::{CallerId, DeviceId, OneTimePreKeyId, RequestId, Slot, UserId};
use tokio::task::JoinSet;

use crate::history::{Answer, Handed, History, Key, Operation};

/// How long a caller tries to have one fetch decided.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for one attempt; short, so that a caller of a dead node soon asks another.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// Pause before a fetch that was answered without a quorum is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// Sends fetches for one user through given nodes and notes what it sees.
#[derive(Clone, Debug)]
pub struct Fetcher {
    user: UserId,
    endpoints: Vec<String>,
    nodes: AnyNode,
    began: Instant,
    patience: Duration,
}

impl Fetcher {
    /// A fetcher of the bundles of `user`.
    ///
    /// # Errors
    ///
    /// When `endpoints` is empty or one of them is no endpoint.
    pub fn new(user: UserId, endpoints: &[String]) -> Result<Self> {
        ensure!(!endpoints.is_empty(), "no endpoints");
        let caller = CallerId::new("workload").context("a caller")?;
        let nodes = AnyNode::new(config(endpoints, caller)?);
        Ok(Self {
            user,
            endpoints: endpoints.to_vec(),
            nodes,
            began: Instant::now(),
            patience: PATIENCE,
        })
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The user whose bundles are fetched.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Fetches as `caller` under `request`, asking the endpoint number `first` first, until the
    /// fetch is decided.
    ///
    /// # Errors
    ///
    /// When the request cannot be built; whatever a node does is an answer.
    pub async fn fetch(
        &self,
        caller: &CallerId,
        request: &RequestId,
        first: usize,
    ) -> Result<Operation> {
        let first = first % self.endpoints.len();
        let order: Vec<_> =
            self.endpoints[first..].iter().chain(&self.endpoints[..first]).cloned().collect();
        let nodes = self.nodes.with_config(config(&order, caller.clone())?);
        let call = Call {
            method: Method::Post,
            path: path::user_bundles(&self.user),
            body: serde_json::to_vec(&Fetch::default())?.into(),
            idempotency_key: Some(request.clone()),
            slot: Slot::of(&self.user),
        };
        let invoked = self.began.elapsed();
        let mut attempts = 0;
        let answer = loop {
            let result = nodes.call::<Fetched>(&call).await;
            attempts += match &result {
                Ok(reply) => reply.attempts.len(),
                Err(error) => error.attempts().len(),
            };
            let answer = answer(result);
            let over = self.began.elapsed().saturating_sub(invoked) > self.patience;
            if over || !matches!(answer, Answer::Undecided(_)) {
                break answer;
            }
            tokio::time::sleep(PAUSE).await;
        };
        let returned = match answer {
            Answer::Committed { .. } | Answer::Refused(_) => Some(self.began.elapsed()),
            Answer::Undecided(_) => None,
        };
        let asked = order.into_iter().next().unwrap_or_default();
        Ok(Operation { request: request.clone(), asked, invoked, returned, attempts, answer })
    }
}

/// Many callers at the same time.
#[derive(Debug)]
pub struct Workload {
    callers: JoinSet<Result<Vec<Operation>>>,
    progress: Arc<Progress>,
}

/// How far a workload is.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicUsize,
    decided: AtomicUsize,
}

impl Progress {
    /// Fetches that have a decision.
    #[must_use]
    pub fn decided(&self) -> usize {
        self.decided.load(Ordering::SeqCst)
    }

    /// Fetches that were sent and have no decision yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sent.load(Ordering::SeqCst).saturating_sub(self.decided())
    }
}

impl Workload {
    /// Starts `callers` callers who make `each` fetches each, one after the other. Their requests
    /// are named after `label`, which must not be used twice for a user.
    #[must_use]
    pub fn start(fetcher: &Fetcher, label: &str, callers: usize, each: usize) -> Self {
        let progress = Arc::new(Progress::default());
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (fetcher, progress) = (fetcher.clone(), Arc::clone(&progress));
            let label = label.to_owned();
            tasks.spawn(async move {
                let name = CallerId::new(format!("{label}-{caller}")).context("a caller")?;
                let mut operations = Vec::with_capacity(each);
                for number in 0..each {
                    let request = RequestId::new(format!("{label}-{caller}-{number}"))
                        .context("a request id")?;
                    progress.sent.fetch_add(1, Ordering::SeqCst);
                    operations.push(fetcher.fetch(&name, &request, caller + number).await?);
                    progress.decided.fetch_add(1, Ordering::SeqCst);
                }
                Ok(operations)
            });
        }
        Self { callers: tasks, progress }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Waits for all callers and adds what they saw to `history`.
    ///
    /// # Errors
    ///
    /// When a caller could not even ask.
    pub async fn finish(mut self, history: &mut History) -> Result<()> {
        while let Some(operations) = self.callers.join_next().await {
            history.operations.extend(operations.context("a caller broke down")??);
        }
        Ok(())
    }
}

/// The keys of `device` that the ranges of a status name.
pub fn keys_of(device: DeviceId, ranges: &[(OneTimePreKeyId, OneTimePreKeyId)]) -> BTreeSet<Key> {
    ranges
        .iter()
        .flat_map(|(first, last)| first.0..=last.0)
        .map(|id| Key { device, id: OneTimePreKeyId(id) })
        .collect()
}

fn config(endpoints: &[String], caller: CallerId) -> Result<Config> {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    let mut config = Config::new(endpoints, caller)?;
    config.attempt_timeout = ATTEMPT_LIMIT;
    // Every node is to be asked, not the leader only.
    config.leader_first = false;
    Ok(config)
}

/// What a fetch's result says.
fn answer(result: Result<Reply<Fetched>, CallError>) -> Answer {
    let Reply { reply, route, .. } = match result {
        Ok(reply) => reply,
        Err(error) => {
            return match error.refusal() {
                Some(problem) => Answer::Refused(problem.code),
                None => Answer::Undecided(error.to_string()),
            };
        }
    };
    if reply.as_of.is_some() {
        return Answer::Undecided("an answer without a quorum".to_owned());
    }
    let mut keys = Vec::new();
    let mut without = Vec::new();
    for bundle in reply.bundles {
        let device = bundle.device;
        match bundle.one_time_prekey {
            Some(opk) => keys.push(Handed { key: Key { device, id: opk.id }, public: opk.key }),
            None => without.push((device, bundle.one_time_prekey_status)),
        }
    }
    Answer::Committed { index: route.index, repeated: reply.repeated, keys, without }
}
