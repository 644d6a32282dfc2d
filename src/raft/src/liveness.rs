//! Which nodes are alive, and which shards they lead.
//!
//! One ping goes from each node to each other node, whatever the number of shards; the answer lists
//! the shards that the asked node leads. It takes the place of heartbeats for each group, whose cost
//! grows with the number of shards.
//!
//! Guarantees: a node is taken for lost when its connection is refused, or when it has not answered
//! for the node timeout. Being wrong costs an election, never the promise: votes and terms are
//! Raft's. Leaves out: elections, see `elections`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use oncekey_types::ShardId;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    config::Timing,
    peer::{CallError, PeerPool, Request, Response},
};

/// What this node knows of the others.
pub(crate) struct Liveness {
    timeout: Duration,
    peers: Mutex<BTreeMap<u64, Peer>>,
    /// Wakes the elections when a node was found or lost.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Peer {
    heard: Option<Instant>,
    /// The connection was refused after it was last heard.
    refused: bool,
    /// Whether the operator was told that the node is there.
    reported: bool,
    /// When it was found, while it is alive.
    found: Option<Instant>,
    leads: BTreeSet<ShardId>,
}

impl Liveness {
    pub(crate) fn new(timing: Timing) -> Self {
        Self {
            timeout: Duration::from_millis(timing.node_timeout_ms),
            peers: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Whether `node` was heard lately.
    pub(crate) fn is_alive(&self, node: u64) -> bool {
        self.peers.lock().get(&node).is_some_and(|peer| peer.is_alive(self.timeout))
    }

    /// Whether `node` is alive and says that it leads `shard`.
    pub(crate) fn leads(&self, node: u64, shard: ShardId) -> bool {
        let peers = self.peers.lock();
        peers
            .get(&node)
            .is_some_and(|peer| peer.is_alive(self.timeout) && peer.leads.contains(&shard))
    }

    /// Whether a living node says that it leads `shard`.
    pub(crate) fn has_leader(&self, shard: ShardId) -> bool {
        self.leader_of(shard).is_some()
    }

    /// A living node that says it leads `shard`.
    pub(crate) fn leader_of(&self, shard: ShardId) -> Option<u64> {
        let peers = self.peers.lock();
        let leads = |peer: &Peer| peer.is_alive(self.timeout) && peer.leads.contains(&shard);
        peers.iter().find(|(_, peer)| leads(peer)).map(|(node, _)| *node)
    }

    /// For how long `node` has been alive without a break; `None` when it is not.
    pub(crate) fn alive_for(&self, node: u64) -> Option<Duration> {
        let peers = self.peers.lock();
        let peer = peers.get(&node).filter(|peer| peer.is_alive(self.timeout))?;
        peer.found.map(|found| found.elapsed())
    }

    fn heard(&self, node: u64, leads: BTreeSet<ShardId>) {
        let mut peers = self.peers.lock();
        let known = peers.entry(node).or_default();
        let now = Instant::now();
        let found = known.found.filter(|_| known.is_alive(self.timeout)).unwrap_or(now);
        let reported = known.reported;
        let (heard, found) = (Some(now), Some(found));
        *known = Peer { heard, refused: false, reported, found, leads };
    }

    /// Forgets the nodes that `keep` is false for.
    fn retain(&self, keep: impl Fn(u64) -> bool) {
        self.peers.lock().retain(|node, _| keep(*node));
    }

    fn refused(&self, node: u64) {
        self.peers.lock().entry(node).or_default().refused = true;
    }

    /// Tells the operator and the elections of nodes that were found or lost.
    fn report(&self) {
        for (node, peer) in self.peers.lock().iter_mut() {
            let alive = peer.is_alive(self.timeout);
            if alive == peer.reported {
                continue;
            }
            peer.reported = alive;
            self.changed.notify_one();
            if alive {
                tracing::info!(node, "node found");
            } else if peer.refused {
                tracing::warn!(node, "node lost: it refuses connections");
            } else {
                tracing::warn!(node, timeout = ?self.timeout, "node lost: it is silent");
            }
        }
    }
}

impl Peer {
    fn is_alive(&self, timeout: Duration) -> bool {
        !self.refused && self.heard.is_some_and(|heard| heard.elapsed() < timeout)
    }
}

/// Pings all nodes that `pool` knows, until dropped. `contact` is told which shards a node leads
/// whenever it answers.
pub(crate) async fn run(
    pool: Arc<PeerPool>,
    liveness: Arc<Liveness>,
    timing: Timing,
    contact: impl Fn(u64, &BTreeSet<ShardId>),
) {
    let mut ticks = interval(Duration::from_millis(timing.ping_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let timeout = Duration::from_millis(timing.node_timeout_ms);
    let mut asked = BTreeSet::new();
    let mut pings = JoinSet::new();
    loop {
        liveness.report();
        tokio::select! {
            _ = ticks.tick() => {}
            Some(Ok((node, answer))) = pings.join_next() => {
                asked.remove(&node);
                let broken = matches!(answer, Err(CallError::Closed));
                match answer {
                    Ok(Response::Pong { leads, progress }) => {
                        pool.told(node, progress);
                        let leads: BTreeSet<ShardId> = leads.into_iter().map(ShardId).collect();
                        contact(node, &leads);
                        liveness.heard(node, leads);
                    }
                    Err(CallError::Unreachable(_)) => liveness.refused(node),
                    Ok(_) | Err(_) => {}
                }
                // A connection that broke is tried again at once; all else waits for its turn.
                if !broken {
                    continue;
                }
            }
        }
        let others = pool.others();
        liveness.retain(|node| others.contains_key(&node));
        for node in others.into_keys().filter(|node| asked.insert(*node)).collect::<Vec<_>>() {
            let pool = Arc::clone(&pool);
            pings.spawn(async move { (node, pool.call(node, Request::Ping, timeout).await) });
        }
    }
}
