//! Harness: real node processes, supervised, watched and judged.
//!
//! Guarantees: what is proven with it is proven of the program that is shipped: a [`Cluster`] runs
//! `oncekey serve` processes and talks to them over their sockets, and nothing of the server is
//! linked in. Leaves out: simulation.
pub mod binary;
pub mod bob;
pub mod bugs;
mod builder;
mod certs;
#[cfg(target_os = "linux")]
pub mod chaos;
pub mod check;
mod cluster;
pub mod history;
mod host;
pub mod http;
pub mod issuer;
mod plan;
pub mod ports;
mod process;
mod recorded;
pub mod simulate;
pub mod wait;
pub mod workload;

pub use builder::{Builder, NODES_MAX};
pub use certs::Certs;
pub use cluster::{Cluster, EndedByItself};
pub use host::Host;
pub use plan::Engine;
pub use recorded::Recorded;
