//! A cluster of real processes on this machine.
//!
//! Guarantees: every node is a process of its own that can be killed, stopped, paused, restarted
//! and stripped of its disk; all of them end with the [`Cluster`]. A wait has a deadline and, when
//! it fails, shows what was seen last and the end of the log. A temporary folder is removed by
//! [`finish`](Cluster::finish) only: whoever drops a cluster for another reason finds all logs.
//!
//! Leaves out: faults of network and disk.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hyper::Method;
use oncekey_api::{cluster as api, path};
use oncekey_types::{NodeId, ShardId, SlotMap, UserId};
use rustix::process::Signal;
use tempfile::TempDir;
use toml::Value;

use crate::{
    builder::{Builder, addresses},
    history::{Recorder, record::EventKind},
    http::Http,
    plan::{Engine, Plan, node_dir},
    ports::Port,
    process::{Launch, Process, describe, expect_success, log_tail},
    wait::{self, Seen},
};

/// Time for a node to end after `SIGTERM`.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Time for a shard to have a leader that a node knows.
const LEADER_LIMIT: Duration = Duration::from_secs(30);
/// Lines of a log shown with an error.
const TAIL_LINES: usize = 25;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    folder: Folder,
    plan: Plan,
    nodes: BTreeMap<NodeId, Node>,
    program: PathBuf,
    settings: BTreeMap<String, Value>,
    ready_limit: Duration,
    http: Http,
    recorder: Recorder,
}

/// What a [`Builder`] hands over.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) folder: Folder,
    pub(crate) plan: Plan,
    pub(crate) ports: BTreeMap<NodeId, [Port; 3]>,
    pub(crate) program: PathBuf,
    pub(crate) settings: BTreeMap<String, Value>,
    pub(crate) data_dirs: BTreeMap<NodeId, PathBuf>,
    pub(crate) environment: BTreeMap<NodeId, Vec<(String, String)>>,
    pub(crate) ready_limit: Duration,
    pub(crate) recorder: Recorder,
}

/// Where the cluster lies.
#[derive(Debug)]
pub(crate) enum Folder {
    /// Somebody's folder; it stays.
    Given(PathBuf),
    /// Removed at the end.
    Temporary(TempDir),
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

#[derive(Debug)]
struct Node {
    launch: Launch,
    data_dir: PathBuf,
    process: Option<Process>,
    /// How the last process ended.
    ended: Option<ExitStatus>,
    _ports: [Port; 3],
}

impl Cluster {
    /// A cluster to be built.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn assemble(parts: Parts) -> Result<Self> {
        let Parts { ports, data_dirs, environment, .. } = parts;
        let mut cluster = Self {
            folder: parts.folder,
            plan: parts.plan,
            nodes: BTreeMap::new(),
            program: parts.program,
            settings: parts.settings,
            ready_limit: parts.ready_limit,
            http: Http::default(),
            recorder: parts.recorder,
        };
        for (id, ports) in ports {
            let data_dir = data_dirs.get(&id).cloned();
            let variables = environment.get(&id).cloned().unwrap_or_default();
            cluster.add(id, ports, data_dir, variables)?;
        }
        Ok(cluster)
    }

    /// The nodes, in the order of their ids.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// The nodes whose process runs, as far as is known.
    #[must_use]
    pub fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.process.is_some()).map(|(id, _)| *id).collect()
    }

    /// Records what happens; nothing unless the cluster was built
    /// [recorded](Builder::recorded).
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The engine of all nodes.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.plan.engine
    }

    /// The folder that holds plan, configurations, logs and data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// URL that serves clients at `node`.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    #[must_use]
    pub fn endpoint(&self, node: NodeId) -> String {
        format!("http://{}", self.plan.nodes[&node].public)
    }

    /// URLs that serve clients, in the order of the nodes.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.plan.nodes.keys().map(|node| self.endpoint(*node)).collect()
    }

    /// URL that serves operators at `node`.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    #[must_use]
    pub fn admin(&self, node: NodeId) -> String {
        format!("http://{}", self.plan.nodes[&node].admin)
    }

    /// The log of `node`.
    #[must_use]
    pub fn log(&self, node: NodeId) -> PathBuf {
        node_dir(self.dir(), node).join("node.log")
    }

    /// The process id of `node`, when its process runs.
    #[must_use]
    pub fn process_id(&self, node: NodeId) -> Option<u32> {
        self.nodes.get(&node)?.process.as_ref().map(Process::id)
    }

    /// The folder that holds the data of `node`.
    #[must_use]
    pub fn data_dir(&self, node: NodeId) -> Option<&Path> {
        self.nodes.get(&node).map(|node| node.data_dir.as_path())
    }

    /// Starts the nodes that do not run and waits until all are ready.
    ///
    /// # Errors
    ///
    /// When a node ends or is not ready in time.
    pub async fn start_all(&mut self) -> Result<()> {
        for node in self.nodes() {
            if self.node(node)?.process.is_none() {
                self.launch(node)?;
            }
        }
        self.wait_ready().await
    }

    /// Starts the process of `node` and does not wait for it.
    ///
    /// # Errors
    ///
    /// When it runs already, or its program cannot be started.
    pub fn launch(&mut self, node: NodeId) -> Result<()> {
        let node_state = self.node(node)?;
        ensure!(node_state.process.is_none(), "node {node} runs already");
        let process = Process::start(&node_state.launch)?;
        node_state.process = Some(process);
        node_state.ended = None;
        let public = self.plan.nodes.get(&node).map(|at| at.public.to_string());
        self.recorder.event(EventKind::Start, Some(node), public.unwrap_or_default());
        Ok(())
    }

    /// Starts the process of `node` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// As [`launch`](Self::launch), and when it ends or is not ready in time.
    pub async fn restart(&mut self, node: NodeId) -> Result<()> {
        self.launch(node)?;
        self.wait_ready_of(&[node]).await
    }

    /// Kills `node` with `SIGKILL`.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn kill(&mut self, node: NodeId) -> Result<()> {
        let process = self.take(node)?;
        self.recorder.event(EventKind::Kill, Some(node), "");
        let status = process.kill()?;
        self.node(node)?.ended = Some(status);
        Ok(())
    }

    /// Asks `node` to end with `SIGTERM` and waits until it has.
    ///
    /// # Errors
    ///
    /// When it does not run, does not end in time, or does not end well.
    pub async fn stop(&mut self, node: NodeId) -> Result<()> {
        self.recorder.event(EventKind::Stop, Some(node), "");
        self.signal(node, Signal::TERM)?;
        self.wait_stopped(node).await
    }

    /// Stops all nodes at the same time with `SIGTERM`.
    ///
    /// # Errors
    ///
    /// The first error of a node; the others are stopped all the same.
    pub async fn stop_all(&mut self) -> Result<()> {
        let running = self.running();
        let mut result = Ok(());
        for node in &running {
            self.recorder.event(EventKind::Stop, Some(*node), "");
            result = result.and(self.signal(*node, Signal::TERM));
        }
        for node in running {
            let stopped = self.wait_stopped(node).await;
            result = result.and(stopped);
        }
        result
    }

    /// Pauses `node` with `SIGSTOP`.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pause(&mut self, node: NodeId) -> Result<()> {
        self.recorder.event(EventKind::Pause, Some(node), "");
        self.signal(node, Signal::STOP)
    }

    /// Lets a paused `node` go on.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume(&mut self, node: NodeId) -> Result<()> {
        self.recorder.event(EventKind::Resume, Some(node), "");
        self.signal(node, Signal::CONT)
    }

    /// Takes the data of `node` away, votes and log included.
    ///
    /// # Errors
    ///
    /// When it runs, or the data cannot be removed.
    pub fn wipe(&mut self, node: NodeId) -> Result<()> {
        let state = self.node(node)?;
        ensure!(state.process.is_none(), "node {node} runs");
        let data_dir = state.data_dir.clone();
        self.recorder.event(EventKind::Wipe, Some(node), "");
        fs::remove_dir_all(&data_dir)
            .with_context(|| format!("cannot remove {}", data_dir.display()))
    }

    /// Starts a new node that joins through all others, and does not wait until it is ready: that
    /// it is once it has taken [the place of another](Self::replace).
    ///
    /// # Errors
    ///
    /// When there are too many nodes, or its program cannot be started.
    pub fn launch_joining(&mut self) -> Result<NodeId> {
        let last = self.nodes.keys().next_back().copied().unwrap_or(NodeId(0));
        let node = NodeId(last.0 + 1);
        let ports = [Port::any()?, Port::any()?, Port::any()?];
        self.plan.nodes.insert(node, addresses(&ports, true));
        self.plan.write(self.dir())?;
        self.add(node, ports, None, Vec::new())?;
        self.launch(node)?;
        Ok(node)
    }

    /// Puts the node `new` in the place of `old` in all shards, through the node `via`.
    ///
    /// # Errors
    ///
    /// When the cluster does not take the change in time.
    pub async fn replace(&self, old: NodeId, new: NodeId, via: NodeId) -> Result<()> {
        let at = self.plan.nodes.get(&new).with_context(|| format!("no node {new}"))?;
        let member =
            api::Member { id: new, peer: at.peer.to_string(), public: at.public.to_string() };
        let request = api::Replace { old, new: member };
        let note = format!("node {new} in the place of node {old}");
        self.recorder.event(EventKind::Membership, Some(new), note);
        let url = format!("{}{}", self.admin(via), path::CLUSTER_REPLACE);
        // The new node has to be met by all others first; until then the change is refused.
        wait::until(self.ready_limit, &format!("node {new} to replace node {old}"), async || {
            let reply = Http::with_limit(self.ready_limit)
                .json(Method::POST, &url, &[], &request)
                .await
                .and_then(|reply| reply.expect_success());
            Ok(match reply {
                Ok(()) => Seen::Done(()),
                Err(error) => Seen::not_yet(format!("{error:#}")),
            })
        })
        .await
        .with_context(|| self.with_log(via, "did not carry out the replacement"))
    }

    /// Waits until all running nodes are ready.
    ///
    /// # Errors
    ///
    /// When a node ends or is not ready in time.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let running = self.running();
        self.wait_ready_of(&running).await
    }

    /// Waits until `nodes` are ready.
    ///
    /// # Errors
    ///
    /// When one of them ends or is not ready in time.
    pub async fn wait_ready_of(&mut self, nodes: &[NodeId]) -> Result<()> {
        for node in nodes {
            let url = format!("{}{}", self.admin(*node), path::READYZ);
            let (http, limit) = (self.http.clone(), self.ready_limit);
            let waited = wait::until(limit, &format!("node {node} to be ready"), async || {
                if let Some(status) = self.exit_status(*node)? {
                    bail!("it ended with {}", describe(status));
                }
                let reply = http.bare(Method::GET, &url).await;
                Ok(match reply.and_then(|reply| reply.expect_success()) {
                    Ok(()) => Seen::Done(()),
                    Err(error) => Seen::not_yet(format!("{error:#}")),
                })
            })
            .await;
            waited.with_context(|| self.with_log(*node, "is not ready"))?;
        }
        Ok(())
    }

    /// Waits until the process of `node` ends by itself, and says how.
    ///
    /// # Errors
    ///
    /// When it does not run, or does not end in time.
    pub async fn wait_exit(&mut self, node: NodeId, limit: Duration) -> Result<ExitStatus> {
        let mut process = self.take(node)?;
        let status =
            process.wait(limit).await.with_context(|| self.with_log(node, "does not end"))?;
        self.recorder.event(EventKind::Exit, Some(node), describe(status));
        self.node(node)?.ended = Some(status);
        Ok(status)
    }

    /// How the process of `node` ended, when it has.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn exit_status(&mut self, node: NodeId) -> Result<Option<ExitStatus>> {
        let state = self.node(node)?;
        if let Some(process) = &mut state.process
            && let Some(status) = process.ended()?
        {
            state.ended = Some(status);
            state.process = None;
            self.recorder.event(EventKind::Exit, Some(node), describe(status));
            return Ok(Some(status));
        }
        Ok(state.ended)
    }

    /// Fails when a node that was not asked to end has ended.
    ///
    /// # Errors
    ///
    /// The node, how it ended and the end of its log.
    pub fn check_running(&mut self) -> Result<()> {
        for node in self.running() {
            if let Some(status) = self.exit_status(node)? {
                let how = describe(status);
                bail!(self.with_log(node, &format!("ended with {how}")));
            }
        }
        Ok(())
    }

    /// The cluster as `node` sees it.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn status(&self, node: NodeId) -> Result<api::Cluster> {
        let url = format!("{}{}", self.admin(node), path::CLUSTER);
        self.http.bare(Method::GET, &url).await?.parse()
    }

    /// The shard of `user`.
    ///
    /// # Errors
    ///
    /// When the cluster has a number of shards that is not allowed.
    pub fn shard_of(&self, user: &UserId) -> Result<ShardId> {
        Ok(SlotMap::even(self.plan.shards)?.shard_of(user))
    }

    /// The running node that leads the shard of `user`, by its own account; waits for one.
    ///
    /// # Errors
    ///
    /// When there is none in time.
    pub async fn leader_of(&self, user: &UserId) -> Result<NodeId> {
        let shard = self.shard_of(user)?;
        wait::until(LEADER_LIMIT, &format!("shard {shard} to have a leader"), async || {
            let mut seen = Vec::new();
            // A deposed leader may still believe in itself; the highest term is right.
            let mut best = None;
            for node in self.running() {
                match self.status(node).await {
                    Ok(status) => {
                        let shard = status.shards.iter().find(|status| status.shard == shard);
                        let Some(shard) = shard else { continue };
                        if shard.leader == Some(node) {
                            best = best.max(Some((shard.term, node)));
                        }
                        seen.push(format!(
                            "node {node}: {:?} in term {}",
                            shard.leader, shard.term
                        ));
                    }
                    Err(error) => seen.push(format!("node {node}: {error:#}")),
                }
            }
            Ok(match best {
                Some((_, leader)) => Seen::Done(leader),
                None => Seen::not_yet(seen.join("; ")),
            })
        })
        .await
    }

    /// The last `lines` lines of the log of `node`.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub fn log_tail(&self, node: NodeId, lines: usize) -> Result<String> {
        log_tail(&self.log(node), lines)
    }

    /// Stops all nodes in good order and removes a temporary folder.
    ///
    /// # Errors
    ///
    /// When a node had ended by itself or does not stop cleanly; then everything stays.
    pub async fn finish(mut self) -> Result<()> {
        self.check_running()?;
        self.stop_all().await?;
        if let Folder::Temporary(dir) = &mut self.folder {
            let path = dir.path().to_owned();
            dir.disable_cleanup(true);
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
            self.nodes.clear();
        }
        Ok(())
    }

    fn add(
        &mut self,
        id: NodeId,
        ports: [Port; 3],
        data_dir: Option<PathBuf>,
        environment: Vec<(String, String)>,
    ) -> Result<()> {
        let dir = node_dir(self.dir(), id);
        let data_dir = data_dir.unwrap_or_else(|| dir.join("data"));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let config = dir.join("node.toml");
        fs::write(&config, self.plan.config(id, &data_dir, &self.settings)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let launch = Launch {
            program: self.program.clone(),
            config,
            log: dir.join("node.log"),
            environment,
        };
        let node = Node { launch, data_dir, process: None, ended: None, _ports: ports };
        self.nodes.insert(id, node);
        Ok(())
    }

    fn node(&mut self, node: NodeId) -> Result<&mut Node> {
        self.nodes.get_mut(&node).with_context(|| format!("no node {node}"))
    }

    fn take(&mut self, node: NodeId) -> Result<Process> {
        self.node(node)?.process.take().with_context(|| format!("node {node} does not run"))
    }

    fn signal(&mut self, node: NodeId, signal: Signal) -> Result<()> {
        let process = self.node(node)?.process.as_ref();
        process.ok_or_else(|| anyhow!("node {node} does not run"))?.signal(signal)
    }

    async fn wait_stopped(&mut self, node: NodeId) -> Result<()> {
        let status = self.wait_exit(node, STOP_LIMIT).await?;
        expect_success(status).with_context(|| self.with_log(node, "did not stop cleanly"))
    }

    fn with_log(&self, node: NodeId, what: &str) -> String {
        let tail = self.log_tail(node, TAIL_LINES).unwrap_or_else(|error| format!("{error:#}"));
        format!("node {node} {what}; the end of {}:\n{tail}\n", self.log(node).display())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.nodes.is_empty() {
            return;
        }
        self.nodes.clear();
        if let Folder::Temporary(dir) = &mut self.folder {
            dir.disable_cleanup(true);
            #[expect(clippy::print_stderr, reason = "whoever sees a run fail needs the folder")]
            {
                eprintln!(
                    "configurations, logs and data of the nodes are in {}",
                    dir.path().display()
                );
            }
        }
    }
}
