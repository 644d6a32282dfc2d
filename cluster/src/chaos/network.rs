//! A network of hosts: one namespace each, joined by a bridge.
//!
//! Guarantees: every host has an address of its own in the loopback network, where nodes need
//! neither certificates nor tokens, so that the nodes are those that are shipped; a link can be cut in one direction, be made
//! lossy or slow, and is well again after [`Network::heal`]. The harness reaches every host over the
//! bridge, whatever is cut between hosts. Leaves out: the world outside; there is no way to it.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;

use super::{delay::Delay, tools};

/// A host, from 1.
pub(super) type HostId = u16;

/// The address of the harness.
const HARNESS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 254);

/// The network and what is wrong with it.
#[derive(Debug)]
pub(super) struct Network {
    hosts: u16,
    delays: Vec<Delay>,
    is_hurt: bool,
}

impl Network {
    /// A network of `hosts` hosts, in the namespace of this process.
    pub(super) fn build(hosts: u16) -> Result<Self> {
        tools::run(["ip", "link", "add", "hub", "type", "bridge"])?;
        join(&[], "hub", HARNESS)?;
        for host in 1..=hosts {
            let (name, cable) = (name(host), format!("cable{host}"));
            tools::run(["ip", "netns", "add", &name])?;
            tools::run([
                "ip", "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            tools::run(["ip", "link", "set", &cable, "master", "hub", "up"])?;
            let net = format!("--net={}", namespace(host));
            join(&["nsenter", &net, "--"], "eth0", address(host))?;
        }
        Ok(Self { hosts, delays: Vec::new(), is_hurt: false })
    }

    /// All hosts.
    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        1..=self.hosts
    }

    /// What `from` sends does not reach `to`.
    pub(super) fn cut(&mut self, from: HostId, to: HostId) -> Result<()> {
        let from = address(from).to_string();
        self.rule(to, &["-s", &from, "-j", "DROP"])
    }

    /// A part of what `host` is sent is lost.
    pub(super) fn lose(&mut self, host: HostId, percent: u32) -> Result<()> {
        let part = format!("0.{percent:02}");
        let random = ["-m", "statistic", "--mode", "random", "--probability", &part];
        self.rule(host, &[&["-i", "eth0"], &random[..], &["-j", "DROP"]].concat())
    }

    /// What `host` is sent comes late, by any time up to `longest`, and so in any order.
    pub(super) fn slow(&mut self, host: HostId, longest: Duration, seed: u64) -> Result<()> {
        self.delays.push(Delay::start(namespace(host), longest, seed)?);
        let queue = ["-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"];
        self.rule(host, &[&["-i", "eth0"], &queue[..]].concat())
    }

    /// All links are well again.
    pub(super) fn heal(&mut self) -> Result<()> {
        if self.is_hurt {
            for host in self.hosts() {
                iptables(host, &["-F", "INPUT"])?;
            }
        }
        self.is_hurt = false;
        self.delays.clear();
        Ok(())
    }

    fn rule(&mut self, host: HostId, rule: &[&str]) -> Result<()> {
        self.is_hurt = true;
        iptables(host, &[&["-A", "INPUT"], rule].concat())
    }
}

/// The address of `host`.
pub(super) fn address(host: HostId) -> Ipv4Addr {
    let [_, last] = host.to_be_bytes();
    Ipv4Addr::new(127, 77, 0, last)
}

/// The file of the namespace of `host`.
pub(super) fn namespace(host: HostId) -> String {
    format!("/run/netns/{}", name(host))
}

/// The command that enters the namespace of `host` and becomes what follows.
pub(super) fn enter(host: HostId) -> Vec<String> {
    // Not `ip netns exec`, which has mounts of its own and would hold every disk.
    vec!["nsenter".to_owned(), format!("--net={}", namespace(host)), "--".to_owned()]
}

/// Gives `interface` the address `address`, in the namespace that `enter` enters. What is sent to
/// other addresses of the loopback network leaves the namespace there, but for 127.0.0.1.
fn join(enter: &[&str], interface: &str, address: Ipv4Addr) -> Result<()> {
    let address = format!("{address}/24");
    for command in [
        &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"][..],
        &["ip", "link", "set", "lo", "up"],
        &["ip", "addr", "flush", "dev", "lo"],
        &["ip", "addr", "add", "127.0.0.1/32", "dev", "lo"],
        &["ip", "addr", "add", &address, "scope", "global", "dev", interface],
        &["ip", "link", "set", interface, "up"],
    ] {
        tools::run_all(&[enter, command].concat())?;
    }
    Ok(())
}

fn iptables(host: HostId, arguments: &[&str]) -> Result<()> {
    let net = format!("--net={}", namespace(host));
    tools::run_all(&[&["nsenter", &net, "--", "iptables", "-w"], arguments].concat())
}

fn name(host: HostId) -> String {
    format!("host{host}")
}
