//! Starting, ending and replacing nodes.
//!
//! Guarantees: what was done to a node is in the history, and how its process ended is known.

use std::{fs, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use hyper::Method;
use oncekey_api::{cluster as api, path};
use oncekey_types::NodeId;
use rustix::process::Signal;
use serde::Serialize;

use super::{Cluster, Home};
use crate::{
    history::record::EventKind,
    host::Host,
    ports::Port,
    process::{Process, describe, expect_success},
    wait::{self, Seen},
};

/// Time for a node to end after `SIGTERM`.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A node that ended and was not told to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EndedByItself(String);

impl Cluster {
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
        self.kill_for(node, EventKind::Kill)
    }

    /// Kills `node`, whose disk was just cut off, and records a power cut.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn lose_power(&mut self, node: NodeId) -> Result<()> {
        self.kill_for(node, EventKind::PowerCut)
    }

    fn kill_for(&mut self, node: NodeId, reason: EventKind) -> Result<()> {
        let process = self.take(node)?;
        self.recorder.event(reason, Some(node), "");
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
        let ports = [Port::any()?, Port::any()?, Port::any()?];
        self.join(Home::Ports(ports))
    }

    /// The same on a host of its own, perhaps one that a [retired](Self::retire) node has left.
    ///
    /// # Errors
    ///
    /// As [`launch_joining`](Self::launch_joining).
    pub fn launch_joining_on(&mut self, host: Host) -> Result<NodeId> {
        self.join(Home::Host(host))
    }

    /// Takes `node`, which does not run, off the list of nodes for good. Its id is not used again.
    ///
    /// # Errors
    ///
    /// When it runs.
    pub fn retire(&mut self, node: NodeId) -> Result<()> {
        ensure!(self.node(node)?.process.is_none(), "node {node} runs");
        self.retired = self.retired.max(Some(node));
        self.nodes.remove(&node);
        self.plan.nodes.remove(&node);
        self.plan.write(self.dir())
    }

    fn join(&mut self, home: Home) -> Result<NodeId> {
        let last = self.nodes.keys().next_back().copied().max(self.retired);
        let node = NodeId(last.unwrap_or(NodeId(0)).0 + 1);
        self.plan.nodes.insert(node, home.addresses(true));
        self.plan.write(self.dir())?;
        self.add(node, home, None, Vec::new())?;
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
        self.change(new, via, note, path::CLUSTER_REPLACE, &request).await
    }

    /// Lets `node`, which joins, hold replicas, through the node `via`.
    ///
    /// # Errors
    ///
    /// When the cluster does not take the change in time.
    pub async fn let_in(&self, node: NodeId, via: NodeId) -> Result<()> {
        let note = format!("node {node} joins");
        let request = api::Join { node: Some(node) };
        self.change(node, via, note, path::CLUSTER_JOIN, &request).await
    }

    /// Has everything moved away from `node`, and it removed then, through the node `via`. Does not
    /// wait for that.
    ///
    /// # Errors
    ///
    /// When the cluster does not take the change in time.
    pub async fn drain(&self, node: NodeId, via: NodeId) -> Result<()> {
        let note = format!("node {node} is drained");
        self.change(node, via, note, path::CLUSTER_DRAIN, &api::Drain { node }).await
    }

    /// Asks `via` for a change of the members until it is taken.
    async fn change(
        &self,
        node: NodeId,
        via: NodeId,
        note: String,
        path: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<()> {
        let url = format!("{}{path}", self.admin(via));
        let http = self.http.clone().within(self.ready_limit);
        self.recorder.event(EventKind::Membership, Some(node), note.clone());
        wait::until(self.ready_limit, &note, async || {
            let reply = http.json(Method::POST, &url, &[], request).await;
            Ok(match reply.and_then(|reply| reply.expect_success()) {
                Ok(()) => Seen::Done(()),
                Err(error) => Seen::not_yet(format!("{error:#}")),
            })
        })
        .await
        .with_context(|| self.with_log(via, "did not carry out the change"))
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
                    let text = format!("it ended with {}", describe(status));
                    return Err(EndedByItself(text).into());
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

    /// Waits until `node` has killed itself, as it was told to, and records it as a kill. False when
    /// it does not within `limit`.
    ///
    /// # Errors
    ///
    /// When it does not run, or ends in another way.
    pub async fn wait_killed(&mut self, node: NodeId, note: &str, limit: Duration) -> Result<bool> {
        let mut process = self.take(node)?;
        match process.wait(limit).await {
            Ok(status) => {
                self.recorder.event(EventKind::Kill, Some(node), note);
                self.node(node)?.ended = Some(status);
                if status.signal() != Some(Signal::KILL.as_raw()) {
                    let text = self.with_log(node, "was not killed but ended");
                    return Err(EndedByItself(text).into());
                }
                Ok(true)
            }
            Err(_) => {
                self.node(node)?.process = Some(process);
                Ok(false)
            }
        }
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
                let text = self.with_log(node, &format!("ended with {how}"));
                return Err(EndedByItself(text).into());
            }
        }
        Ok(())
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
}
