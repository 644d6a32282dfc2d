//! Packets that are held back.
//!
//! Guarantees: each packet of a queue of a namespace is let through after a time of its own, up to
//! the longest, so packets overtake each other. When the [`Delay`] is dropped, what waits is let
//! through. Leaves out: which packets; a rule of iptables sends them into queue 0.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nfq::{Message, Queue, Verdict};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Time between two looks at the queue.
const TICK: Duration = Duration::from_millis(1);
/// Packets that may wait; the kernel drops what comes on top.
const WAITING_MAX: u32 = 8192;

/// A queue that is slow until this is dropped.
#[derive(Debug)]
pub(super) struct Delay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Held {
    due: Reverse<(Instant, u64)>,
    packet: Message,
}

impl Delay {
    /// Begins to hold back what comes into queue 0 of `namespace`.
    pub(super) fn start(namespace: String, longest: Duration, seed: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::sync_channel(1);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("delay".to_owned()).spawn(move || {
            match open(&namespace) {
                Ok(queue) => {
                    let _ = ready.send(Ok(()));
                    hold(queue, longest, SmallRng::seed_from_u64(seed), &stopped);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        is_ready.recv()?.context("packets cannot be held back")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no reason to panic, and nobody to tell.
            let _ = thread.join();
        }
    }
}

/// Moves this thread, which must not be used for anything else, into `namespace`.
fn open(namespace: &str) -> io::Result<Queue> {
    let file = File::open(namespace)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    let mut queue = Queue::open()?;
    queue.bind(0)?;
    queue.set_queue_max_len(0, WAITING_MAX)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

fn hold(mut queue: Queue, longest: Duration, mut rng: SmallRng, stop: &AtomicBool) {
    let mut held: BinaryHeap<Held> = BinaryHeap::new();
    let mut number = 0;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        while let Ok(packet) = queue.recv() {
            let wait = longest.mul_f64(rng.random());
            number += 1;
            held.push(Held { due: Reverse((Instant::now() + wait, number)), packet });
        }
        let now = Instant::now();
        while held.peek().is_some_and(|held| stopped || held.due.0.0 <= now) {
            let Some(Held { mut packet, .. }) = held.pop() else { break };
            packet.set_verdict(Verdict::Accept);
            // A packet that is lost instead is no worse.
            let _ = queue.verdict(packet);
        }
        if stopped {
            return;
        }
        thread::sleep(TICK);
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
