//! The connections of this node to all others.
//!
//! Guarantees: at most one live connection to each node; a node that does not answer is not dialled
//! more often than every [`REDIAL`]; a node found with another incarnation gets nothing.
//!
//! Leaves out: who the members are; the caller says where a node is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use oncekey_types::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    link::{CallError, Link, Telling, split},
    wire::{self, Hello, HelloReply, NOBODY, Protocols, Request, Response},
};
use crate::{
    config::Member,
    environment::{Environment, Guard, Guarded, Network},
    error::{Fault, FaultSink},
    identity::{Identity, Progress, removed_advice, went_back_advice},
    seldom::Seldom,
};

/// Shortest time between two attempts to reach the same node.
pub(super) const REDIAL: Duration = Duration::from_millis(50);
/// Time to connect and greet.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Dials nodes and keeps the connections.
pub(crate) struct PeerPool {
    identity: Arc<Identity>,
    me: Member,
    protocols: Protocols,
    network: Arc<dyn Network>,
    guard: Arc<dyn Guard>,
    faults: FaultSink,
    peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
    distrusted: Seldom,
}

#[derive(Default)]
struct Peer {
    member: Mutex<Member>,
    /// The connection, alive or not.
    current: Mutex<Option<Arc<Link>>>,
    /// When and why dialling failed last; locked while dialling, so that one task dials for all.
    failed: tokio::sync::Mutex<Option<(Instant, String)>>,
}

/// This node and one that it dialled.
struct Between {
    identity: Arc<Identity>,
    peer: NodeId,
    /// How much the peer had written when it greeted.
    greeted: Progress,
}

impl Telling for Between {
    fn written(&self) -> u64 {
        self.identity.progress().written
    }

    fn told(&self, written: u64) {
        self.identity.heard(self.peer, Progress { written, ..self.greeted });
    }
}

impl PeerPool {
    pub(crate) fn new(
        identity: Arc<Identity>,
        (me, protocols): (Member, Protocols),
        environment: &Environment,
        faults: FaultSink,
    ) -> Self {
        Self {
            identity,
            me,
            protocols,
            network: Arc::clone(&environment.network),
            guard: Arc::clone(&environment.guard),
            faults,
            peers: Mutex::default(),
            distrusted: Seldom::default(),
        }
    }

    /// Says where `node` is. A later address replaces an earlier one for the next dial.
    pub(crate) fn learn(&self, node: u64, member: &Member) {
        if node == self.identity.node().0 || self.identity.is_removed(NodeId(node)) {
            return;
        }
        let peer = Arc::clone(self.peers.lock().entry(node).or_default());
        member.clone_into(&mut peer.member.lock());
    }

    /// Ends the node with `fault`.
    pub(crate) fn fault(&self, fault: &Fault) {
        self.faults.raise(fault);
    }

    /// Notes how much `node` has written to its log, as it told.
    pub(crate) fn told(&self, node: u64, progress: Progress) {
        self.identity.heard(NodeId(node), progress);
    }

    /// Says where `node` was last seen by another node; what this one knows itself is kept.
    pub(crate) fn learn_if_unknown(&self, node: u64, member: &Member) {
        if !self.peers.lock().contains_key(&node) {
            self.learn(node, member);
        }
    }

    /// Ends the connections to nodes that were removed from the cluster.
    pub(crate) fn forget_removed(&self) {
        self.peers.lock().retain(|node, _| !self.identity.is_removed(NodeId(*node)));
    }

    /// Where `node` is, if this one was told.
    pub(crate) fn member(&self, node: u64) -> Option<Member> {
        if node == self.identity.node().0 {
            return Some(self.me.clone());
        }
        self.peers.lock().get(&node).map(|peer| peer.member.lock().clone())
    }

    /// Where the other nodes are that this one was told of.
    pub(crate) fn others(&self) -> BTreeMap<u64, Member> {
        let peers = self.peers.lock();
        peers.iter().map(|(node, peer)| (*node, peer.member.lock().clone())).collect()
    }

    /// Where all nodes are that this one was told of, itself included.
    pub(crate) fn known(&self) -> BTreeMap<u64, Member> {
        let mut known = self.others();
        known.insert(self.identity.node().0, self.me.clone());
        known
    }

    /// The connection to `node`, dialled when there is none.
    pub(crate) async fn link(&self, node: u64) -> Result<Arc<Link>, CallError> {
        let peer = self.peers.lock().get(&node).cloned();
        let peer = peer.ok_or_else(|| {
            CallError::Unreachable(format!("the address of node {node} is not known"))
        })?;
        if let Some(link) = peer.live() {
            return Ok(link);
        }
        let mut failed = peer.failed.lock().await;
        if let Some(link) = peer.live() {
            return Ok(link);
        }
        if let Some((at, reason)) = &*failed
            && at.elapsed() < REDIAL
        {
            return Err(CallError::Unreachable(reason.clone()));
        }
        let address = peer.member.lock().peer.clone();
        match self.dial(Some(node), &address).await {
            Ok((_, _, link)) => {
                tracing::debug!(node, address, "connected to peer");
                *failed = None;
                let link = Arc::new(link);
                *peer.current.lock() = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(reason) => {
                tracing::debug!(node, address, reason, "peer cannot be reached");
                *failed = Some((Instant::now(), reason.clone()));
                Err(CallError::Unreachable(reason))
            }
        }
    }

    /// Sends `request` to `node` and waits for the answer; dialling counts towards `timeout`.
    pub(crate) async fn call(
        &self,
        node: u64,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let started = Instant::now();
        let link = tokio::time::timeout(timeout, self.link(node))
            .await
            .map_err(|_| CallError::Unreachable("cannot be reached in time".to_owned()))??;
        link.call(request, timeout.saturating_sub(started.elapsed())).await
    }

    /// Greets the node at `address`, whoever it is, and returns its id and how it is reached.
    pub(crate) async fn introduce(&self, address: &str) -> Result<(NodeId, Member), CallError> {
        let (node, member, _) = self.dial(None, address).await.map_err(CallError::Unreachable)?;
        self.learn(node.0, &member);
        Ok((node, member))
    }

    /// Asks the node at `address` whether it could be a founder together with this one. Neither keeps
    /// anything of it.
    pub(crate) async fn probe(&self, address: &str) -> Result<(NodeId, Member), CallError> {
        let probed = self.dial(Some(NOBODY), address).await;
        probed.map(|(node, member, _)| (node, member)).map_err(CallError::Unreachable)
    }

    async fn dial(&self, to: Option<u64>, address: &str) -> Result<(NodeId, Member, Link), String> {
        tokio::time::timeout(DIAL_TIMEOUT, self.greet(to, address))
            .await
            .map_err(|_| format!("{address} did not answer in {} ms", DIAL_TIMEOUT.as_millis()))?
    }

    async fn greet(
        &self,
        to: Option<u64>,
        address: &str,
    ) -> Result<(NodeId, Member, Link), String> {
        let node = to.filter(|to| *to != NOBODY);
        let stream = self
            .network
            .connect(address)
            .await
            .map_err(|error| format!("cannot connect to {address}: {error}"))?;
        let guarded = self.guard.dialled(stream).await;
        let Guarded { stream, node: proved } =
            guarded.map_err(|error| self.distrust(format!("{address} is not trusted: {error}")))?;
        if let (Some(node), Some(proved)) = (node, proved)
            && node != proved.0
        {
            return Err(self.distrust(format!(
                "{address} should be node {node}, its certificate is that of node {proved}"
            )));
        }
        let (mut reader, mut writer) = split(stream);
        let hello = Hello {
            protocols: self.protocols,
            cluster: self.identity.cluster(),
            shards: self.identity.shards(),
            node: self.identity.node().0,
            incarnation: self.identity.incarnation(),
            progress: self.identity.progress(),
            to,
            member: self.me.clone(),
        };
        let frame = wire::encode(&hello).map_err(|error| error.to_string())?;
        writer.send(frame).await.map_err(|error| error.to_string())?;
        let frame = match reader.next().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(format!("{address} closed the connection")),
        };
        match wire::decode(&frame).map_err(|error| error.to_string())? {
            HelloReply::Welcome { protocol, node: found, incarnation, progress, member } => {
                tracing::debug!(node = found, protocol, "greeted");
                if node.is_some_and(|node| node != found) {
                    return Err(format!("{address} is node {found}"));
                }
                if let Some(proved) = proved.filter(|proved| proved.0 != found) {
                    return Err(self.distrust(format!(
                        "{address} says that it is node {found}, its certificate is that of node \
                         {proved}"
                    )));
                }
                let found = NodeId(found);
                if to != Some(NOBODY) {
                    let met = self.identity.meet(found, incarnation, progress);
                    met.map_err(|error| error.to_string())?;
                }
                let identity = Arc::clone(&self.identity);
                let telling = Arc::new(Between { identity, peer: found, greeted: progress });
                Ok((found, member, Link::new(protocol, reader, writer, telling)))
            }
            HelloReply::Refused { reason } => Err(format!("{address} refused: {reason}")),
            HelloReply::OtherIncarnation => {
                let me = self.identity.node();
                self.faults.raise(&Fault::new(format!(
                    "node {me} was a member with another disk; a node whose disk was lost must not \
                     vote under its old id: give it a new node id and let it replace node {me}"
                )));
                Err("this node has lost its disk".to_owned())
            }
            HelloReply::Removed => {
                self.faults.raise(&Fault::new(removed_advice(self.identity.node())));
                Err("this node was removed from the cluster".to_owned())
            }
            HelloReply::WentBack => {
                if let Err(error) = self.identity.went_back() {
                    let error = format!("the identity cannot be written: {error}");
                    self.faults.raise(&Fault::new(error));
                }
                self.faults.raise(&Fault::new(went_back_advice(self.identity.node())));
                Err("the disk of this node went back in time".to_owned())
            }
        }
    }

    /// Passes on why another node is not trusted, which somebody has to look after.
    fn distrust(&self, reason: String) -> String {
        if self.distrusted.is_due() {
            tracing::warn!(reason, "a node is not trusted");
        }
        reason
    }
}

impl Peer {
    fn live(&self) -> Option<Arc<Link>> {
        self.current.lock().as_ref().filter(|link| !link.is_closed()).cloned()
    }
}
