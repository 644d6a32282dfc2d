//! A machine, or what passes for one: an address, a disk and a clock of its own.

use std::{net::Ipv4Addr, path::PathBuf};

/// Where a node runs when it does not run on any free ports of 127.0.0.1.
#[derive(Clone, Debug)]
pub struct Host {
    /// The address that its listeners are bound to, at ports that are its own.
    pub address: Ipv4Addr,
    /// A command that enters the network of the host and becomes the command behind it.
    pub enter: Vec<String>,
    /// The folder of the node's data.
    pub data_dir: PathBuf,
    /// Variables of the node's environment.
    pub environment: Vec<(String, String)>,
}
