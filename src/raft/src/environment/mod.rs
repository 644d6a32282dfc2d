//! What a node stands on: network, disks, threads and clock.
//!
//! Guarantees: a node reaches the world through its [`Environment`] alone, so that a simulation can
//! be all of its world; the default is the machine that it runs on. Leaves out: timers, which are
//! tokio's, and randomness, which is the operating system's.

mod blocking;
mod clock;
mod guard;
mod network;

use std::{fmt, sync::Arc};

use oncekey_storage::SimMachine;

use crate::trace::SpanSink;

pub use blocking::Blocking;
pub use clock::Clock;
pub use guard::{Guard, Guarded, Layered, Unguarded};
pub use network::{Accepted, Listener, Network, ReadHalf, Stream, Tcp, WriteHalf};

/// What a node stands on. The default is the real world.
#[derive(Clone)]
pub struct Environment {
    /// How nodes and clients are connected.
    pub network: Arc<dyn Network>,
    /// What protects the connections between nodes.
    pub guard: Arc<dyn Guard>,
    /// Where a node keeps what it has.
    pub disks: Disks,
    /// Where work is done that waits for a disk or takes long.
    pub blocking: Blocking,
    /// The wall clock.
    pub clock: Clock,
    /// Where the spans of traced requests go; none are made without.
    pub spans: Option<Arc<dyn SpanSink>>,
}

/// Where a node keeps what it has.
#[derive(Clone, Debug)]
pub enum Disks {
    /// In the folder that its configuration names.
    Folder,
    /// In memory, by way of a model that loses what was not synced.
    Simulated(SimMachine),
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            network: Arc::new(Tcp),
            guard: Arc::new(Unguarded),
            disks: Disks::Folder,
            blocking: Blocking::Threads,
            clock: Clock::system(),
            spans: None,
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { disks, blocking, .. } = self;
        f.debug_struct("Environment")
            .field("disks", disks)
            .field("blocking", blocking)
            .finish_non_exhaustive()
    }
}
