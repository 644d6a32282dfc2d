//! The simulated world: hosts, the network between them, and what can be done to them.
//!
//! Guarantees: what was done is in the history; a process that is killed leaves its machine, which
//! refuses connections and closes those it had; a machine without power is silent. Leaves out:
//! when to do what, see `faults`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Result, anyhow};
use oncekey_cluster::history::{
    Recorder, Replica,
    record::{At, EventKind},
};
use oncekey_raft::Node;
use oncekey_types::NodeId;
use parking_lot::Mutex;
use turmoil::Sim;

use crate::{
    network::SimNetwork,
    node::{EPOCH_MS, Machine},
    plan::Plan,
    trace::Trace,
    workload::{self, Shared},
};

/// The host of all clients.
pub(crate) const CLIENTS: &str = "clients";
/// How far the simulation goes in one step.
const TICK: Duration = Duration::from_millis(2);
/// Connections that wait for a listener, and segments on their way; more would end the simulation.
const TCP_CAPACITY: usize = 4096;

/// The simulated world.
pub(crate) struct World {
    sim: Sim<'static>,
    pub(crate) plan: Plan,
    pub(crate) recorder: Recorder,
    pub(crate) shared: Arc<Shared>,
    pub(crate) trace: Trace,
    machines: BTreeMap<NodeId, Arc<Machine>>,
    /// Machines without a process.
    down: BTreeMap<NodeId, Down>,
    /// Machines that never come back.
    gone: BTreeSet<NodeId>,
    /// Machines that lost their state and have not served since.
    stateless: BTreeSet<NodeId>,
    /// The time of the simulation between two steps, for the history.
    now_ns: Arc<AtomicU64>,
    network: SimNetwork,
}

/// A machine without a process.
#[derive(Clone, Copy)]
struct Down {
    until: Duration,
    powerless: bool,
}

impl World {
    /// A cluster about to form, and its clients.
    pub(crate) fn new(plan: Plan, history: Arc<Mutex<Vec<u8>>>) -> Self {
        let trace = Trace::default();
        let network = SimNetwork { trace: trace.clone() };
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
            .simulation_duration(Duration::MAX)
            .tick_duration(TICK)
            .tcp_capacity(TCP_CAPACITY)
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::from_millis(plan.latency_max_ms))
            .enable_random_order()
            .build();
        let now_ns = Arc::new(AtomicU64::new(0));
        let recorder = recorder(plan, history, Arc::clone(&now_ns));
        let machines: BTreeMap<_, _> = (1..=plan.nodes)
            .map(|id| (NodeId(id), Machine::new(id, plan, network.clone())))
            .collect();
        let shared = Arc::new(Shared::default());
        *shared.endpoints.lock() = machines.values().map(|machine| machine.public()).collect();
        for machine in machines.values() {
            add_host(&mut sim, machine);
        }
        {
            let (network, shared, recorder) =
                (network.clone(), Arc::clone(&shared), recorder.clone());
            sim.client(CLIENTS, async move {
                workload::run(plan, network, shared, recorder).await.map_err(Into::into)
            });
        }
        let mut world = Self {
            sim,
            plan,
            recorder,
            shared,
            trace,
            machines,
            down: BTreeMap::new(),
            gone: BTreeSet::new(),
            stateless: BTreeSet::new(),
            now_ns,
            network,
        };
        for id in world.machines.keys().copied().collect::<Vec<_>>() {
            world.start(id);
        }
        world
    }

    /// The time of the simulation.
    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Goes on by one tick.
    pub(crate) fn step(&mut self) -> Result<()> {
        self.sim.step().map_err(|error| anyhow!("a client broke down: {error}"))?;
        let now = u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX);
        self.now_ns.store(now, Ordering::Relaxed);
        Ok(())
    }

    /// The members, down or not.
    pub(crate) fn members(&self) -> Vec<NodeId> {
        self.machines.keys().filter(|id| !self.gone.contains(id)).copied().collect()
    }

    /// The members with a process.
    pub(crate) fn living(&self) -> Vec<NodeId> {
        self.members().into_iter().filter(|id| !self.down.contains_key(id)).collect()
    }

    /// Members that are down, or need another's state before they serve.
    pub(crate) fn lacking(&self) -> usize {
        self.stateless.iter().chain(self.down.keys()).collect::<BTreeSet<_>>().len()
    }

    /// Whether every member serves, and knows of these members and of no other voters.
    pub(crate) fn is_whole(&self) -> bool {
        let members = self.members();
        let is_settled = |id: &NodeId| {
            self.node(*id).map(|node| node.status()).is_some_and(|status| {
                let mut voters = status.shards.iter().flat_map(|shard| &shard.voters);
                status.members.keys().eq(&members) && voters.all(|voter| members.contains(voter))
            })
        };
        members.iter().all(is_settled) && self.shared.replacement.lock().is_none()
    }

    pub(crate) fn machine(&self, id: NodeId) -> Option<&Arc<Machine>> {
        self.machines.get(&id)
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.machines.get(&id)?.node()
    }

    /// The living members that lead a shard, as they see it, with the number of shards.
    pub(crate) fn leaders(&self) -> Vec<(NodeId, usize)> {
        let leads = |id: NodeId| {
            let shards = self.node(id)?.status().shards;
            let leads = shards.iter().filter(|shard| shard.leader == Some(id) && shard.in_contact);
            Some((id, leads.count())).filter(|(_, shards)| *shards > 0)
        };
        self.living().into_iter().filter_map(leads).collect()
    }

    /// Starts the processes that are due, and takes those down that ended by themselves. Returns
    /// them, with the reason.
    pub(crate) fn tend(&mut self) -> Vec<(NodeId, String)> {
        let now = self.now();
        let due: Vec<_> =
            self.down.iter().filter(|(_, down)| down.until <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.restart(id);
        }
        let machines = &self.machines;
        self.stateless
            .retain(|id| machines.get(id).is_some_and(|machine| machine.node().is_none()));
        let exit = |id: NodeId| Some((id, self.machines.get(&id)?.exit()?));
        self.living().into_iter().filter_map(exit).collect()
    }

    /// Ends a process; its machine goes on.
    pub(crate) fn kill(&mut self, id: NodeId, back_after: Duration, note: &str) {
        let Some(machine) = self.machines.get(&id).cloned() else { return };
        self.event(EventKind::Kill, Some(id), note);
        machine.disks.kill();
        machine.forget();
        // The host goes on without a process, so that it refuses connections.
        self.sim.bounce(machine.host());
        self.take_down(id, back_after, false);
    }

    /// Ends a process and takes its state; its log is left to it.
    pub(crate) fn lose_state(&mut self, id: NodeId, back_after: Duration) {
        self.kill(id, back_after, "its state is lost");
        if let Some(machine) = self.machine(id) {
            machine.disks.state.lose();
            self.stateless.insert(id);
        }
    }

    /// Cuts the power of a machine; `seed` chooses what its disks keep.
    pub(crate) fn power_cut(&mut self, id: NodeId, back_after: Duration, seed: u64, note: &str) {
        let Some(machine) = self.machines.get(&id).cloned() else { return };
        self.event(EventKind::PowerCut, Some(id), note);
        let host = machine.host();
        for other in self.hosts_but(id) {
            self.sim.partition(host.as_str(), other.as_str());
        }
        machine.disks.power_cut(seed);
        machine.forget();
        self.sim.crash(host);
        self.take_down(id, back_after, true);
    }

    fn take_down(&mut self, id: NodeId, back_after: Duration, powerless: bool) {
        self.down.insert(id, Down { until: self.now() + back_after, powerless });
    }

    fn restart(&mut self, id: NodeId) {
        let Some(down) = self.down.remove(&id) else { return };
        let Some(machine) = self.machines.get(&id).cloned() else { return };
        if down.powerless {
            let host = machine.host();
            for other in self.hosts_but(id) {
                self.sim.repair(host.as_str(), other.as_str());
            }
            self.sim.bounce(host);
        }
        self.start(id);
    }

    fn start(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get(&id).cloned() else { return };
        self.event(EventKind::Start, Some(id), &machine.public());
        machine.start();
    }

    /// Brings every process back.
    pub(crate) fn restart_all(&mut self) {
        for id in self.down.keys().copied().collect::<Vec<_>>() {
            self.restart(id);
        }
    }

    /// Puts a new machine in the place of `old`, whose disk is lost, as soon as an administrator
    /// gets it done. `false` while another one is on its way.
    pub(crate) fn replace(&mut self, old: NodeId) -> bool {
        if self.shared.replacement.lock().is_some() {
            return false;
        }
        let Some(new) = self.machines.keys().last().map(|last| last.0 + 1) else { return false };
        self.power_cut(old, Duration::ZERO, 0, "for good");
        self.down.remove(&old);
        self.gone.insert(old);
        self.event(EventKind::Wipe, Some(old), "");
        let machine = Machine::new(new, self.plan, self.network.clone());
        add_host(&mut self.sim, &machine);
        self.sim.partition(crate::node::host(old), machine.host());
        let others: Vec<_> = self.members();
        let admin = |id: &NodeId| format!("{}:{}", crate::node::host(*id), crate::node::ADMIN);
        let member = oncekey_api::cluster::Member {
            id: machine.id,
            peer: machine.peer(),
            public: machine.public(),
        };
        *self.shared.replacement.lock() = Some(workload::Replacement {
            old,
            new: member,
            admins: others.iter().map(admin).collect(),
        });
        self.machines.insert(machine.id, machine);
        let members = self.members();
        *self.shared.endpoints.lock() = members
            .iter()
            .filter_map(|id| self.machine(*id))
            .map(|machine| machine.public())
            .collect();
        self.event(EventKind::Membership, Some(old), &format!("replaced by node {new}"));
        self.start(NodeId(new));
        true
    }

    /// Lets `act` change the network.
    pub(crate) fn network(&self, act: impl FnOnce(&Sim<'static>)) {
        act(&self.sim);
    }

    /// Hosts of all other members and of the clients.
    pub(crate) fn hosts_but(&self, id: NodeId) -> Vec<String> {
        let others = self.machines.keys().filter(|other| **other != id);
        others.map(|other| crate::node::host(*other)).chain([CLIENTS.to_owned()]).collect()
    }

    /// Notes in the history and in the trace that something was done.
    pub(crate) fn event(&self, kind: EventKind, node: Option<NodeId>, note: &str) {
        tracing::info!(at = ?self.now(), ?kind, ?node, note, "fault");
        self.trace.add(
            self.now(),
            node.map_or(0, |node| node.0),
            format!("{kind:?} {note}").as_bytes(),
        );
        self.recorder.event(kind, node, note);
    }

    /// Records what every replica holds, and says whether all have applied the same entries.
    pub(crate) fn compare_replicas(&self) -> Result<bool> {
        let mut applied = BTreeMap::new();
        let mut are_even = true;
        for id in self.members() {
            let Some(node) = self.node(id) else { return Ok(false) };
            for (shard, index, digest) in node.digests()? {
                are_even &= *applied.entry(shard).or_insert(index) == index;
                self.recorder.replica(Replica {
                    at_ns: At::START,
                    node: id,
                    shard,
                    applied: index,
                    state: hex::encode(digest),
                });
            }
        }
        Ok(are_even)
    }
}

fn add_host(sim: &mut Sim<'static>, machine: &Arc<Machine>) {
    let machine = Arc::clone(machine);
    sim.host(machine.host(), move || Arc::clone(&machine).run());
}

/// Records by the time of the simulation, which never goes back.
fn recorder(plan: Plan, history: Arc<Mutex<Vec<u8>>>, now_ns: Arc<AtomicU64>) -> Recorder {
    let clock = move || {
        let between = Duration::from_nanos(now_ns.load(Ordering::Relaxed));
        let now = turmoil::sim_elapsed().map_or(between, |now| now.max(between));
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(now_ns.fetch_max(now, Ordering::Relaxed).max(now))
    };
    Recorder::new(Shelf(history), clock, "simulation", Some(plan.seed))
}

/// Keeps what is written to it.
struct Shelf(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
