//! What is done to the world, and when.
//!
//! Guarantees: drawn from the seed and from what the world looks like, so a run repeats; everything
//! is undone at the end of the faults; a leader dies when a fetch is on its way, so that what it
//! does in that moment is put to the test. Most of the time a majority lives.
//!
//! Leaves out: what must hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use oncekey_cluster::history::record::EventKind;
use oncekey_types::NodeId;
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    node::host,
    plan::{self, Plan},
    world::{CLIENTS, World},
};

/// Longest time that a process is gone.
const DOWN_MAX_MS: u64 = 900;
/// Longest time that any other fault lasts.
const FAULT_MAX_MS: u64 = 1_500;
/// Longest time until a node loses its quorum, and until it does again. Not soon, so that short runs stay
/// as they were.
const OUTAGE_EVERY_MS: RangeInclusive<u64> = 10_000..=40_000;
/// How long that lasts: longer than a node waits for a quorum before it answers that it has none.
const OUTAGE_MS: RangeInclusive<u64> = 4_000..=7_000;
/// Time until a leader loses its state, and until one does again. Not soon, either.
const LOSS_EVERY_MS: RangeInclusive<u64> = 8_000..=14_000;
/// How long it is cut off before that, in which it logs what may never be committed.
const LOSS_AFTER_MS: RangeInclusive<u64> = 20..=200;
/// How long it is gone then: shortly, so that the others are not far ahead of its log.
const LOSS_DOWN_MS: RangeInclusive<u64> = 20..=150;
/// Changing operations of a disk within which it is made to stop.
const OPERATIONS_MAX: u64 = 12;
/// Furthest that a wall clock is ever from the time of the simulation. Servers remember a fetch for
/// ten minutes of their clock, and nobody may ask again later.
const CLOCK_MAX_MS: i64 = 120_000;

/// Does things to the world.
pub(crate) struct Faults {
    rng: StdRng,
    plan: Plan,
    next_kill: Duration,
    next_fault: Duration,
    next_replacement: Duration,
    outages: StdRng,
    next_outage: Duration,
    /// Which node is kept from the others, and until when.
    outage: Option<(NodeId, Duration)>,
    losses: StdRng,
    next_loss: Duration,
    /// Who is about to lose its state, and when.
    losing: Option<(NodeId, Duration)>,
    /// What is to be undone, and when.
    undo: Vec<(Duration, Undo)>,
    /// Machines whose disk stops soon.
    stopping: BTreeSet<NodeId>,
    /// How often what was done.
    pub(crate) done: BTreeMap<&'static str, u64>,
    /// Leaders that died with a fetch on its way.
    pub(crate) leaders_hit: u64,
}

enum Undo {
    Repair(String, String),
    Release(String, String),
    Latency(String, String),
    Disk(NodeId),
}

impl Faults {
    pub(crate) fn new(plan: Plan, now: Duration) -> Self {
        let mut rng = plan::rng(plan.seed, "faults");
        let within = |rng: &mut StdRng, ms| now + Duration::from_millis(rng.random_range(0..=ms));
        let mut outages = plan::rng(plan.seed, "outages");
        let mut losses = plan::rng(plan.seed, "losses");
        Self {
            next_outage: now + Duration::from_millis(outages.random_range(OUTAGE_EVERY_MS)),
            outages,
            outage: None,
            next_loss: now + Duration::from_millis(losses.random_range(LOSS_EVERY_MS)),
            losses,
            losing: None,
            next_kill: within(&mut rng, plan.kill_every_max_ms),
            next_fault: within(&mut rng, plan.fault_every_max_ms),
            next_replacement: now + plan.safety.mul_f64(rng.random_range(0.1..0.9)),
            rng,
            plan,
            undo: Vec::new(),
            stopping: BTreeSet::new(),
            done: BTreeMap::new(),
            leaders_hit: 0,
        }
    }

    /// Does what is due.
    pub(crate) fn step(&mut self, world: &mut World) {
        let now = world.now();
        self.undo_due(world, now);
        if now >= self.next_kill && self.kill_a_leader(world) {
            self.next_kill = now + self.draw_ms(300, self.plan.kill_every_max_ms);
        }
        if now >= self.next_fault {
            self.disturb(world);
            self.next_fault = now + self.draw_ms(100, self.plan.fault_every_max_ms);
        }
        self.keep_apart(world, now);
        self.lose_states(world, now);
        if now >= self.next_replacement && world.lacking() == 0 {
            let members = world.members();
            if let Some(old) = members.choose(&mut self.rng).copied()
                && world.replace(old)
            {
                self.count("membership");
                self.stopping.remove(&old);
                self.next_replacement = now + self.plan.safety;
            }
        }
    }

    /// A process that ended by itself: why it should not have, if so. Its power is cut, as its disk
    /// has stopped.
    pub(crate) fn ended(&mut self, world: &mut World, id: NodeId, why: &str) -> Option<String> {
        let planned = self.stopping.remove(&id);
        let (back_after, seed) = (self.draw_ms(50, DOWN_MAX_MS), self.rng.random());
        if planned {
            self.count("stop in mid-write");
            self.note_hit(world, id);
        }
        world.power_cut(id, back_after, seed, &format!("its disk stopped: {why}"));
        (!planned).then(|| format!("node {id} ended by itself: {why}"))
    }

    /// Undoes everything.
    pub(crate) fn end(&mut self, world: &mut World) {
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.undo_one(world, undo);
        }
        self.outage = self.outage.map(|(id, _)| (id, Duration::ZERO));
        self.next_outage = Duration::MAX;
        self.keep_apart(world, world.now());
        world.restart_all();
        world.event(EventKind::Heal, None, "everything");
    }

    /// Takes down a leader while a fetch is on its way; `false` when that cannot be done now.
    fn kill_a_leader(&mut self, world: &mut World) -> bool {
        let minority = (world.members().len() - 1) / 2;
        if !is_busy(world) || world.lacking() >= minority || self.stopping.len() >= minority {
            return false;
        }
        let mut leaders = world.leaders();
        // It is to find out that it does not lead any more.
        leaders.retain(|(leader, _)| self.outage.is_none_or(|(apart, _)| apart != *leader));
        let Some((leader, _)) = leaders.choose(&mut self.rng).copied() else { return false };
        let back_after = self.draw_ms(20, DOWN_MAX_MS);
        match self.rng.random_range(0..20) {
            0..10 => {
                self.note_hit(world, leader);
                world.kill(leader, back_after, "");
                self.count("kill");
            }
            10..14 => {
                self.note_hit(world, leader);
                world.power_cut(leader, back_after, self.rng.random(), "");
                self.count("power cut");
            }
            14..19 => {
                let Some(machine) = world.machine(leader) else { return false };
                let log = &machine.disks.log;
                log.crash_at(log.operations() + self.rng.random_range(0..OPERATIONS_MAX));
                self.stopping.insert(leader);
            }
            _ => {
                for id in world.living() {
                    self.note_hit(world, id);
                    let back_after = self.draw_ms(20, DOWN_MAX_MS);
                    world.power_cut(id, back_after, self.rng.random(), "all");
                }
                self.count("power cut of all");
            }
        }
        true
    }

    /// Counts a leader that dies with a fetch on its way. Before it dies.
    fn note_hit(&mut self, world: &World, id: NodeId) {
        self.stopping.remove(&id);
        let leads = world.leaders().iter().any(|(leader, _)| *leader == id);
        self.leaders_hit += u64::from(leads && is_busy(world));
    }

    /// One fault that kills nobody.
    fn disturb(&mut self, world: &mut World) {
        let members = world.members();
        let Some(id) = members.choose(&mut self.rng).copied() else { return };
        let lasts = self.draw_ms(50, FAULT_MAX_MS);
        let until = world.now() + lasts;
        match self.rng.random_range(0..16) {
            0..3 => self.cut(world, id, until),
            3..5 => self.cut_one_way(world, id, until),
            5..7 => {
                for other in world.hosts_but(id) {
                    world.network(|sim| sim.partition(host(id), other.as_str()));
                    self.undo.push((until, Undo::Repair(host(id), other)));
                }
                world.event(EventKind::Partition, Some(id), "alone");
                self.count("isolation");
            }
            7..10 => self.delay(world, id, until),
            10..12 => {
                if let Some(machine) = world.machine(id) {
                    let slow = self.rng.random_range(20..=400);
                    machine.disk_max_ms.store(slow, std::sync::atomic::Ordering::Relaxed);
                    self.undo.push((until, Undo::Disk(id)));
                    world.event(EventKind::Disk, Some(id), &format!("up to {slow} ms"));
                    self.count("slow disk");
                }
            }
            12..14 => self.pause(world, id, lasts, until),
            _ => {
                if let Some(machine) = world.machine(id) {
                    let offset = self.rng.random_range(-CLOCK_MAX_MS..=CLOCK_MAX_MS);
                    machine.clock_offset_ms.store(offset, std::sync::atomic::Ordering::Relaxed);
                    world.event(EventKind::Clock, Some(id), &format!("{offset} ms off"));
                    self.count("clock");
                }
            }
        }
    }

    /// Leaves a node with the clients and without the other nodes, until it tells them so. Whoever gets its
    /// power back is connected to all, so it is done again and again.
    fn keep_apart(&mut self, world: &World, now: Duration) {
        if now >= self.next_outage {
            let until_next = self.outages.random_range(OUTAGE_EVERY_MS);
            self.next_outage = now + Duration::from_millis(until_next);
            let lasts = Duration::from_millis(self.outages.random_range(OUTAGE_MS));
            if let Some(id) = world.living().choose(&mut self.outages).copied() {
                self.outage = Some((id, now + lasts));
                world.event(EventKind::Partition, Some(id), "from all nodes");
                self.count("outage");
            }
        }
        let Some((id, until)) = self.outage else { return };
        let is_over = now >= until;
        for other in world.hosts_but(id).into_iter().filter(|other| other != CLIENTS) {
            if is_over {
                self.undo_one(world, Undo::Repair(host(id), other));
            } else {
                world.network(|sim| sim.partition(host(id), other.as_str()));
            }
        }
        self.outage = self.outage.filter(|_| !is_over);
    }

    /// Cuts a leader off from the other nodes and takes its state a moment later. All must serve, so that
    /// there is a state to fetch.
    fn lose_states(&mut self, world: &mut World, now: Duration) {
        if let Some((leader, at)) = self.losing {
            if now < at {
                return;
            }
            self.losing = None;
            if world.is_whole() && world.living().contains(&leader) {
                self.note_hit(world, leader);
                let back_after = Duration::from_millis(self.losses.random_range(LOSS_DOWN_MS));
                world.lose_state(leader, back_after);
                self.count("state lost");
            }
            return;
        }
        if now < self.next_loss || !is_busy(world) || !world.is_whole() {
            return;
        }
        let Some((leader, _)) = world.leaders().choose(&mut self.losses).copied() else { return };
        let at = now + Duration::from_millis(self.losses.random_range(LOSS_AFTER_MS));
        for other in world.hosts_but(leader).into_iter().filter(|other| other != CLIENTS) {
            world.network(|sim| sim.partition(host(leader), other.as_str()));
            self.undo.push((at, Undo::Repair(host(leader), other)));
        }
        world.event(
            EventKind::Partition,
            Some(leader),
            "from all nodes, as its state is lost soon",
        );
        self.losing = Some((leader, at));
        self.next_loss = at + Duration::from_millis(self.losses.random_range(LOSS_EVERY_MS));
    }

    fn cut(&mut self, world: &World, id: NodeId, until: Duration) {
        let Some(other) = self.other(world, id) else { return };
        world.network(|sim| sim.partition(host(id), other.as_str()));
        world.event(EventKind::Partition, Some(id), &format!("from {other}"));
        self.undo.push((until, Undo::Repair(host(id), other)));
        self.count("partition");
    }

    fn cut_one_way(&mut self, world: &World, id: NodeId, until: Duration) {
        let Some(other) = self.other(world, id) else { return };
        let (from, to) = if self.rng.random() { (host(id), other) } else { (other, host(id)) };
        world.network(|sim| sim.partition_oneway(from.as_str(), to.as_str()));
        world.event(EventKind::Partition, Some(id), &format!("nothing from {from} to {to}"));
        self.undo.push((until, Undo::Repair(from, to)));
        self.count("one-way partition");
    }

    /// Makes messages late: all until the end, as when TCP sends them again after an outage, or
    /// each by a time of its own.
    fn delay(&mut self, world: &World, id: NodeId, until: Duration) {
        let Some(other) = self.other(world, id) else { return };
        if self.rng.random() {
            world.network(|sim| sim.hold(host(id), other.as_str()));
            world.event(
                EventKind::Degrade,
                Some(id),
                &format!("nothing to or from {other} for now"),
            );
            self.undo.push((until, Undo::Release(host(id), other)));
        } else {
            let latency = self.draw_ms(20, 400);
            let (a, b) = (host(id), other.clone());
            world.network(|sim| sim.set_link_max_message_latency(a.as_str(), b.as_str(), latency));
            world.event(EventKind::Degrade, Some(id), &format!("{latency:?} to and from {other}"));
            self.undo.push((until, Undo::Latency(host(id), other)));
        }
        self.count("message delay");
    }

    /// A process that is not run for a while: nothing of it is heard, nothing reaches it, and then
    /// its clock has gone on. turmoil cannot stop a host, so the clock jumps at the beginning.
    fn pause(&mut self, world: &World, id: NodeId, lasts: Duration, until: Duration) {
        let Some(machine) = world.machine(id) else { return };
        for other in world.hosts_but(id) {
            world.network(|sim| sim.hold(host(id), other.as_str()));
            self.undo.push((until, Undo::Release(host(id), other)));
        }
        machine.jump(lasts);
        world.event(EventKind::Pause, Some(id), &format!("{lasts:?}"));
        self.count("pause");
    }

    /// Another host, seldom that of the clients.
    fn other(&mut self, world: &World, id: NodeId) -> Option<String> {
        let mut others: Vec<_> =
            world.members().into_iter().filter(|other| *other != id).map(host).collect();
        if self.rng.random_ratio(1, 6) {
            others = vec![CLIENTS.to_owned()];
        }
        others.choose(&mut self.rng).cloned()
    }

    fn undo_due(&mut self, world: &World, now: Duration) {
        let (due, later) =
            std::mem::take(&mut self.undo).into_iter().partition(|(until, _)| *until <= now);
        self.undo = later;
        for (_, undo) in due {
            self.undo_one(world, undo);
        }
    }

    fn undo_one(&self, world: &World, undo: Undo) {
        let normal = Duration::from_millis(self.plan.latency_max_ms);
        match undo {
            Undo::Repair(a, b) => world.network(|sim| sim.repair(a.as_str(), b.as_str())),
            Undo::Release(a, b) => world.network(|sim| sim.release(a.as_str(), b.as_str())),
            Undo::Latency(a, b) => world
                .network(|sim| sim.set_link_max_message_latency(a.as_str(), b.as_str(), normal)),
            Undo::Disk(id) => {
                if let Some(machine) = world.machine(id) {
                    let max = self.plan.disk_max_ms;
                    machine.disk_max_ms.store(max, std::sync::atomic::Ordering::Relaxed);
                }
            }
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.done.entry(kind).or_default() += 1;
    }

    fn draw_ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(least..=most))
    }
}

fn is_busy(world: &World) -> bool {
    world.shared.in_flight.load(std::sync::atomic::Ordering::Relaxed) > 0
}
