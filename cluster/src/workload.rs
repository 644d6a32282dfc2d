//! Callers that fetch at the same time through all nodes.
//!
//! Guarantees: a fetch whose outcome is unknown, or that was answered without a quorum, is sent
//! again under the same idempotency key until it is decided or the caller's patience ends. What
//! every caller saw is in the [`History`](crate::history::History).
//!
//! Leaves out: whether bundles are genuine, and what to do with them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use oncekey_api::{
    Code,
    bundle::{Fetch, Fetched, OneTimePreKeyStatus},
    path,
};
use oncekey_client::{
    CallError,
    http::{AnyNode, Config},
    transport::{Answer as Reply, Call, Credentials, Method, Transport as _},
};
use oncekey_types::{CallerId, DeviceId, LogIndex, OneTimePreKeyId, RequestId, Slot, UserId};
use tokio::task::JoinSet;

use crate::{
    Recorded,
    history::Recorder,
    issuer::Issuer,
    wait::{self, Seen},
};

/// How long a caller tries to have one fetch decided.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for one attempt; short, so that a caller of a dead node soon asks another.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// Pause before a fetch that was answered without a quorum is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// Names a one-time prekey of a user.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The device.
    pub device: DeviceId,
    /// The key's id.
    pub id: OneTimePreKeyId,
}

/// A fetch, from its first attempt to its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The idempotency key.
    pub request: RequestId,
    /// Attempts that it took.
    pub attempts: usize,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It was committed.
    Committed {
        /// Log index of the commit; of the first one when the answer was repeated.
        index: Option<LogIndex>,
        /// Whether the server said that it gave this answer before.
        repeated: bool,
        /// The keys handed out.
        keys: Vec<Key>,
        /// The devices without a key, and why.
        without: Vec<(DeviceId, OneTimePreKeyStatus)>,
    },
    /// It was refused and changed nothing.
    Refused(Code),
    /// It may have been committed or may not. The text says what was seen last.
    Undecided(String),
}

impl Operation {
    /// The keys that it was handed.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        match &self.answer {
            Answer::Committed { keys, .. } => keys,
            Answer::Refused(_) | Answer::Undecided(_) => &[],
        }
    }

    /// Whether the answer is one of the log's.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        matches!(self.answer, Answer::Committed { .. })
    }
}

/// Sends fetches for one user through given nodes and records them.
#[derive(Clone, Debug)]
pub struct Fetcher {
    user: UserId,
    endpoints: Vec<String>,
    nodes: AnyNode,
    recorder: Recorder,
    issuer: Option<Arc<Issuer>>,
    patience: Duration,
}

impl Fetcher {
    /// A fetcher of the bundles of `user`, who records into `recorder`.
    ///
    /// # Errors
    ///
    /// When `endpoints` is empty or one of them is no endpoint.
    pub fn new(user: UserId, endpoints: &[String], recorder: Recorder) -> Result<Self> {
        ensure!(!endpoints.is_empty(), "no endpoints");
        let caller = CallerId::new("workload").context("a caller")?;
        let nodes = AnyNode::new(config(endpoints, caller)?);
        let endpoints = endpoints.to_vec();
        Ok(Self { user, endpoints, nodes, recorder, issuer: None, patience: PATIENCE })
    }

    /// The same with a token of every caller's, made by `issuer`.
    #[must_use]
    pub fn with_tokens_of(mut self, issuer: Arc<Issuer>) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same, in the same history, through other nodes.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn through(&self, endpoints: &[String]) -> Result<Self> {
        let (issuer, patience) = (self.issuer.clone(), self.patience);
        let other = Self::new(self.user.clone(), endpoints, self.recorder.clone())?;
        Ok(Self { issuer, patience, ..other })
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
        let call = Call {
            method: Method::Post,
            path: path::user_bundles(&self.user),
            body: serde_json::to_vec(&Fetch::default())?.into(),
            idempotency_key: Some(request.clone()),
            slot: Slot::of(&self.user),
            credentials: Credentials::Token,
        };
        let began = Instant::now();
        let mut attempts = 0;
        // Each time from the next node on: one that is cut off has an answer, too.
        let answer = loop {
            let first = (first + attempts) % self.endpoints.len();
            let nodes = self.nodes_from(first, caller)?;
            let result = nodes.call::<Fetched>(&call).await;
            attempts += match &result {
                Ok(reply) => reply.attempts.len(),
                Err(error) => error.attempts().len(),
            };
            let answer = answer(result);
            let over = began.elapsed() > self.patience;
            if over || !matches!(answer, Answer::Undecided(_)) {
                break answer;
            }
            tokio::time::sleep(PAUSE).await;
        };
        Ok(Operation { request: request.clone(), attempts, answer })
    }

    /// The nodes for `caller`, asked in their order from the one at `first` on.
    fn nodes_from(&self, first: usize, caller: &CallerId) -> Result<Recorded<AnyNode>> {
        let order: Vec<_> =
            self.endpoints[first..].iter().chain(&self.endpoints[..first]).cloned().collect();
        let mut config = config(&order, caller.clone())?;
        if let Some(issuer) = &self.issuer {
            config = config.with_tokens(issuer.source(caller.as_str()));
        }
        let nodes = self.nodes.with_config(config);
        Ok(Recorded::new(nodes, self.recorder.clone(), caller.clone()))
    }
}

/// How much is asked for.
#[derive(Clone, Debug)]
pub struct Load {
    /// Names callers and requests; must not be used twice for a user.
    pub label: String,
    /// Callers at the same time.
    pub callers: usize,
    /// Fetches of each caller, one after the other; fewer when the workload is [stopped].
    ///
    /// [stopped]: Workload::stop
    pub each: usize,
    /// Pause between two fetches of a caller.
    pub pause: Duration,
}

impl Load {
    /// `callers` callers who make `each` fetches each, without a pause.
    #[must_use]
    pub fn new(label: impl Into<String>, callers: usize, each: usize) -> Self {
        Self { label: label.into(), callers, each, pause: Duration::ZERO }
    }
}

/// Many callers at the same time.
#[derive(Debug)]
pub struct Workload {
    callers: JoinSet<Result<()>>,
    progress: Arc<Progress>,
}

/// How far a workload is.
#[derive(Debug, Default)]
struct Progress {
    sent: AtomicUsize,
    decided: AtomicUsize,
    stopped: AtomicBool,
}

impl Workload {
    /// Starts the callers of `load`.
    #[must_use]
    pub fn start(fetcher: &Fetcher, load: &Load) -> Self {
        let progress = Arc::new(Progress::default());
        let mut callers = JoinSet::new();
        for caller in 0..load.callers {
            callers.spawn(call(fetcher.clone(), load.clone(), caller, Arc::clone(&progress)));
        }
        Self { callers, progress }
    }

    /// Fetches that have a decision.
    #[must_use]
    pub fn decided(&self) -> usize {
        self.progress.decided.load(Ordering::SeqCst)
    }

    /// Fetches that were sent and have no decision yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.progress.sent.load(Ordering::SeqCst).saturating_sub(self.decided())
    }

    /// Waits until `count` more fetches than now are decided.
    ///
    /// # Errors
    ///
    /// When they are not within `limit`.
    pub async fn decide(&self, count: usize, limit: Duration) -> Result<()> {
        let goal = self.decided() + count;
        wait::until(limit, &format!("{count} more fetches to be decided"), async || {
            let decided = self.decided();
            Ok(Seen::when(decided >= goal, || format!("{decided} of {goal}")))
        })
        .await
    }

    /// Has every caller end after the fetch that it is at.
    pub fn stop(&self) {
        self.progress.stopped.store(true, Ordering::SeqCst);
    }

    /// Waits for all callers.
    ///
    /// # Errors
    ///
    /// When a caller could not even ask.
    pub async fn finish(mut self) -> Result<()> {
        while let Some(caller) = self.callers.join_next().await {
            caller.context("a caller broke down")??;
        }
        Ok(())
    }
}

/// The life of one caller.
async fn call(fetcher: Fetcher, load: Load, caller: usize, progress: Arc<Progress>) -> Result<()> {
    let label = &load.label;
    let name = CallerId::new(format!("{label}-{caller}")).context("a caller")?;
    for number in 0..load.each {
        if progress.stopped.load(Ordering::SeqCst) {
            break;
        }
        let request =
            RequestId::new(format!("{label}-{caller}-{number}")).context("a request id")?;
        progress.sent.fetch_add(1, Ordering::SeqCst);
        fetcher.fetch(&name, &request, caller + number).await?;
        progress.decided.fetch_add(1, Ordering::SeqCst);
        if !load.pause.is_zero() {
            tokio::time::sleep(load.pause).await;
        }
    }
    Ok(())
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
            Some(opk) => keys.push(Key { device, id: opk.id }),
            None => without.push((device, bundle.one_time_prekey_status)),
        }
    }
    Answer::Committed { index: route.index, repeated: reply.repeated, keys, without }
}
