//! A node of the simulation: the machine that outlives its processes, and the process on it.
//!
//! Guarantees: what runs is the server that is shipped, with its own configuration; the disks, the
//! clock and the network are the machine's. Leaves out: when it is started and stopped.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use oncekey_raft::{
    Environment, Node,
    environment::{Blocking, Clock, Disks, Unguarded},
};
use oncekey_server::{Config, Overrides, Server};
use oncekey_storage::SimMachine;
use oncekey_types::{NodeId, TimestampMs};
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::StdRng};
use tokio::sync::Notify;

use crate::{
    network::SimNetwork,
    plan::{self, Plan},
};

pub(crate) const PUBLIC: u16 = 8000;
pub(crate) const ADMIN: u16 = 9000;
const PEER: u16 = 7000;

/// The wall clock at the beginning of every run.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;
/// Small, so that segments are reused all the time.
const SEGMENT_BYTES: u64 = 64 * 1024;

/// A machine and the process on it.
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    plan: Plan,
    /// Founders of the cluster; a machine that is none of them joins.
    founders: Vec<NodeId>,
    network: SimNetwork,
    pub(crate) disks: SimMachine,
    /// How far the wall clock is from the time of the simulation, in milliseconds.
    pub(crate) clock_offset_ms: AtomicI64,
    /// Longest time that the disk takes now, in milliseconds.
    pub(crate) disk_max_ms: AtomicU64,
    disk_rng: Mutex<StdRng>,
    powered: AtomicBool,
    power: Notify,
    jump: Mutex<Option<Duration>>,
    jumps: Notify,
    process: Mutex<Process>,
}

/// The process on a machine.
#[derive(Default)]
struct Process {
    node: Option<Node>,
    /// Why it ended by itself.
    exit: Option<String>,
}

impl Machine {
    pub(crate) fn new(id: u64, plan: Plan, network: SimNetwork) -> Arc<Self> {
        Arc::new(Self {
            id: NodeId(id),
            plan,
            founders: (1..=plan.nodes).map(NodeId).collect(),
            network,
            disks: SimMachine::new(),
            clock_offset_ms: AtomicI64::new(0),
            disk_max_ms: AtomicU64::new(plan.disk_max_ms),
            disk_rng: Mutex::new(plan::rng(plan.seed, &format!("disk {id}"))),
            powered: AtomicBool::new(false),
            power: Notify::new(),
            jump: Mutex::default(),
            jumps: Notify::new(),
            process: Mutex::default(),
        })
    }

    /// The name of its host.
    pub(crate) fn host(&self) -> String {
        host(self.id)
    }

    /// Where clients find it.
    pub(crate) fn public(&self) -> String {
        format!("{}:{PUBLIC}", self.host())
    }

    pub(crate) fn peer(&self) -> String {
        format!("{}:{PEER}", self.host())
    }

    /// Starts a process, unless there is one.
    pub(crate) fn start(&self) {
        self.powered.store(true, Ordering::Relaxed);
        self.power.notify_one();
    }

    /// Forgets the process, which is gone.
    pub(crate) fn forget(&self) {
        self.powered.store(false, Ordering::Relaxed);
        *self.process.lock() = Process::default();
    }

    /// The node of the running process.
    pub(crate) fn node(&self) -> Option<Node> {
        self.process.lock().node.clone()
    }

    /// Why the process ended by itself, if it did.
    pub(crate) fn exit(&self) -> Option<String> {
        self.process.lock().exit.clone()
    }

    /// Moves the process's own clock on at once, as if it had not been run for so long.
    pub(crate) fn jump(&self, time: Duration) {
        *self.jump.lock() = Some(time);
        self.jumps.notify_one();
    }

    /// What runs on the host: one process after the other.
    pub(crate) async fn run(self: Arc<Self>) -> turmoil::Result {
        loop {
            while !self.powered.load(Ordering::Relaxed) {
                self.power.notified().await;
            }
            let exit = tokio::select! {
                exit = self.process() => exit,
                never = self.keep_jumping() => match never {},
            };
            self.powered.store(false, Ordering::Relaxed);
            self.process.lock().exit = Some(exit);
        }
    }

    /// Serves until the node fails; says why.
    async fn process(self: &Arc<Self>) -> String {
        let config = match self.config() {
            Ok(config) => config,
            Err(error) => return error.to_string(),
        };
        let server = match Server::start(config).await {
            Ok(server) => server,
            Err(error) => return error.to_string(),
        };
        self.process.lock().node = Some(server.node().clone());
        match server.run_until(std::future::pending()).await {
            Ok(()) => "it was asked to end".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    async fn keep_jumping(&self) -> Infallible {
        loop {
            self.jumps.notified().await;
            let jump = self.jump.lock().take();
            if let Some(jump) = jump {
                tokio::time::advance(jump).await;
            }
        }
    }

    /// What the process stands on.
    fn environment(self: &Arc<Self>) -> Environment {
        let (disk, clock) = (Arc::clone(self), Arc::clone(self));
        Environment {
            spans: None,
            network: Arc::new(self.network.clone()),
            guard: Arc::new(Unguarded),
            disks: Disks::Simulated(self.disks.clone()),
            blocking: Blocking::Inline(Arc::new(move || {
                let max = disk.disk_max_ms.load(Ordering::Relaxed);
                Duration::from_millis(disk.disk_rng.lock().random_range(0..=max))
            })),
            clock: Clock::new(move || clock.wall_clock()),
        }
    }

    fn wall_clock(&self) -> TimestampMs {
        let elapsed = turmoil::sim_elapsed().unwrap_or(Duration::ZERO);
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let offset = self.clock_offset_ms.load(Ordering::Relaxed);
        TimestampMs((EPOCH_MS + elapsed).saturating_add_signed(offset))
    }

    fn config(self: &Arc<Self>) -> Result<Config, oncekey_server::config::Error> {
        let peer = |id: &NodeId| format!("{}:{PEER}", host(*id));
        let founders: Vec<_> = self
            .founders
            .iter()
            .map(|id| {
                let public = format!("{}:{PUBLIC}", host(*id));
                format!(r#"{{ id = {id}, peer = "{}", public = "{public}" }}"#, peer(id))
            })
            .collect();
        let mut settings = Overrides::default()
            .set("node.id", self.id.to_string())
            .set("node.data_dir", "/simulated")
            .set("cluster.name", "simulation")
            .set("cluster.shards", self.plan.shards.to_string())
            .set("listen.public", format!("127.0.0.1:{PUBLIC}"))
            .set("listen.admin", format!("127.0.0.1:{ADMIN}"))
            .set("listen.peer", format!("127.0.0.1:{PEER}"))
            // Nobody else is in the simulation.
            .set("auth.mode", "open");
        settings = if self.founders.contains(&self.id) {
            settings.set("cluster.members", format!("[{}]", founders.join(", ")))
        } else {
            let peers: Vec<_> = self.founders.iter().map(|id| format!("{:?}", peer(id))).collect();
            settings
                .set("cluster.join", format!("[{}]", peers.join(", ")))
                .set("advertise.peer", self.peer())
                .set("advertise.public", self.public())
        };
        let mut config = Config::from_sources(None, [], &settings)?;
        // Of a simulated network; the configuration takes the loopback address for the only safe one.
        let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        (config.public, config.admin, config.node.peer_listen) =
            (any(PUBLIC), any(ADMIN), any(PEER));
        config.node.wal_segment_bytes = SEGMENT_BYTES;
        config.node.state_cache_bytes = 1 << 20;
        config.node.log_entries_max = self.plan.log_entries_max;
        config.addresses.requests_per_s = 0;
        config.node.policy.per_caller.capacity = 0;
        config.node.policy.per_target.capacity = 0;
        config.node.environment = self.environment();
        Ok(config)
    }
}

/// The name of a node's host.
pub(crate) fn host(id: NodeId) -> String {
    format!("node-{id}")
}
