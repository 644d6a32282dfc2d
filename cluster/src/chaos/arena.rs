//! The hosts of a run, with network, disks and clocks, and who lives where.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use oncekey_types::NodeId;

use super::{
    clock::Clocks,
    disk::{Disk, Journal},
    network::{self, HostId, Network},
};
use crate::Host;

/// All hosts. Network and clocks last for the run, disks for a round.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) network: Network,
    pub(super) clocks: Option<Clocks>,
    dir: PathBuf,
    disks: BTreeMap<HostId, Disk>,
    residents: BTreeMap<NodeId, HostId>,
}

impl Machines {
    /// `count` hosts without disks, whose files lie in `dir`.
    pub(super) fn build(dir: &Path, count: u16) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = fs::canonicalize(dir)?;
        let network = Network::build(count)?;
        let clocks = Clocks::find(&dir);
        Ok(Self { network, clocks, dir, disks: BTreeMap::new(), residents: BTreeMap::new() })
    }

    /// Whether clocks can be moved.
    pub(super) fn has_clocks(&self) -> bool {
        self.clocks.is_some()
    }

    /// Gives every host a fresh disk, and node N host N; heals everything.
    pub(super) fn renew(&mut self, journal: Journal) -> Result<()> {
        self.network.heal()?;
        self.disks.clear();
        self.residents.clear();
        for host in self.network.hosts() {
            self.disks.insert(host, Disk::make(&self.dir, &format!("host{host}"), journal)?);
            self.residents.insert(NodeId(host.into()), host);
        }
        Ok(())
    }

    /// The nodes and their hosts.
    pub(super) fn residents(&self) -> impl Iterator<Item = (NodeId, HostId)> {
        self.residents.iter().map(|(node, host)| (*node, *host))
    }

    /// `new` lives where `old` lived.
    pub(super) fn succeed(&mut self, old: NodeId, new: NodeId) -> Result<()> {
        let host = self.residents.remove(&old).with_context(|| format!("no node {old}"))?;
        self.residents.insert(new, host);
        Ok(())
    }

    /// Where `node` lives.
    pub(super) fn host_of(&self, node: NodeId) -> Result<HostId> {
        self.residents.get(&node).copied().with_context(|| format!("node {node} has no host"))
    }

    /// The disk of `node`.
    pub(super) fn disk_of(&self, node: NodeId) -> Result<&Disk> {
        let host = self.host_of(node)?;
        self.disks.get(&host).with_context(|| format!("host {host} has no disk"))
    }

    /// `host` as a node needs it.
    pub(super) fn host(&self, host: HostId) -> Result<Host> {
        let disk = self.disks.get(&host).with_context(|| format!("host {host} has no disk"))?;
        let environment = match &self.clocks {
            Some(clocks) => clocks.environment(host)?,
            None => Vec::new(),
        };
        Ok(Host {
            address: network::address(host),
            enter: network::enter(host),
            data_dir: disk.data_dir(),
            environment,
        })
    }
}
