//! etcd: three nodes, which sync every write before they acknowledge it.
//!
//! All are started anew after the load, as their state in memory is slow for a long time after
//! many writes. The leader is preferred.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::{
    ports,
    process::{self, Process, User},
    store::{self, Address, Protocol},
    wait,
};

const NODES: usize = 3;
/// Room for the load and every change of it.
const QUOTA_BYTES: u64 = 8 << 30;

pub(super) async fn start(dir: &Path, users: u32) -> Result<(Address, Vec<Process>)> {
    let clients = ports::free::<NODES>()?;
    let peers = ports::free::<NODES>()?;
    let mut processes = nodes(dir, clients, peers)?;
    let leader = leader(clients, &mut processes).await?;
    store::Etcd::load(leader, users).await?;

    drop(processes);
    let mut processes = nodes(dir, clients, peers)?;
    let leader = self::leader(clients, &mut processes).await?;
    Ok((Address { protocol: Protocol::Etcd, ports: vec![leader] }, processes))
}

fn nodes(dir: &Path, clients: [u16; NODES], peers: [u16; NODES]) -> Result<Vec<Process>> {
    let program = process::program("etcd")?;
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let cluster: Vec<_> =
        peers.iter().enumerate().map(|(i, peer)| format!("n{i}={}", url(*peer))).collect();
    let start = |i: usize| {
        let name = format!("n{i}");
        let mut command = process::command(&program, User::Same, "KILL");
        command
            .args(["--name", &name, "--data-dir"])
            .arg(dir.join(&name))
            .args(["--listen-client-urls", &url(clients[i])])
            .args(["--advertise-client-urls", &url(clients[i])])
            .args(["--listen-peer-urls", &url(peers[i])])
            .args(["--initial-advertise-peer-urls", &url(peers[i])])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--initial-cluster-state", "new"])
            .args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()])
            .args(["--max-txn-ops", &store::ETCD_TXN_OPS_MAX.to_string()])
            .args(["--logger", "zap", "--log-level", "warn"]);
        Process::start(dir, &format!("etcd-{name}"), command, Signal::TERM)
    };
    (0..NODES).map(start).collect()
}

/// The port of the node that leads, once all answer.
async fn leader(clients: [u16; NODES], processes: &mut [Process]) -> Result<u16> {
    wait::until("etcd's leader", processes, async || {
        let mut leader = None;
        for port in clients {
            if store::Etcd::leads(port).await? {
                leader = Some(port);
            }
        }
        leader.context("no node leads")
    })
    .await
}
