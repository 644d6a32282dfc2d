//! What is measured: a cluster somewhere, or one on this machine.
//!
//! Guarantees: a local cluster is that of `oncekey serve` with the default configuration, but for
//! engine and shards; no guarantee and no limit is relaxed for it. Leaves out: processor time, disk
//! and memory of nodes elsewhere.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use oncekey_client::http::Tls;
use oncekey_cluster::{
    Certs, Cluster,
    issuer::{Issuer, KEY_FILE},
};
use oncekey_types::{NodeId, limits};
use serde::Serialize;

use super::{
    callers::Callers,
    counters::{self, Reading},
    usage::{Memory, Usage, device_written_bytes, disk_bytes},
    wire::Address,
};
use crate::args::Bench;

const NODES: u16 = 3;
/// Time for a local node to be ready: long, for a slow start is a figure and not a failure.
const READY_LIMIT: Duration = Duration::from_secs(600);

pub(super) struct Target {
    pub(super) endpoints: Arc<[Address]>,
    /// The admin listeners of the local nodes.
    admins: Arc<[SocketAddr]>,
    cluster: Option<Cluster>,
}

/// What one local node takes up.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeSize {
    pub(super) node: NodeId,
    #[serde(flatten)]
    pub(super) memory: Option<Memory>,
    pub(super) state_bytes: u64,
    /// The state over the keys that are stored.
    pub(super) state_bytes_per_opk: f64,
    pub(super) log_bytes: u64,
}

impl Target {
    pub(super) async fn start(arguments: &Bench) -> Result<Self> {
        if !arguments.local {
            let endpoints = resolve(&arguments.endpoints, arguments.ca.as_deref()).await?;
            return Ok(Self { endpoints, admins: Arc::default(), cluster: None });
        }
        let mut builder =
            Cluster::builder().nodes(NODES).engine(arguments.engine).ready_limit(READY_LIMIT);
        if let Some(shards) = arguments.shards {
            builder = builder.shards(shards);
        }
        if arguments.tls {
            builder = builder.tls();
        }
        if arguments.tokens {
            builder = builder.authenticated();
        }
        let cluster = builder.start().await?;
        let ca = cluster.certs().map(Certs::ca);
        let endpoints = resolve(&cluster.endpoints(), ca.as_deref()).await?;
        let admins: Vec<_> = cluster.nodes().iter().map(|node| cluster.admin(*node)).collect();
        let admins = resolve(&admins, None).await?;
        let admins = admins.iter().map(|admin| admin.at).collect();
        Ok(Self { endpoints, admins, cluster: Some(cluster) })
    }

    /// Who the benchmark is to the nodes.
    pub(super) fn callers(&self, arguments: &Bench) -> Result<Callers> {
        let Bench { token_key, token_issuer, token_audience, .. } = arguments;
        let key = match (&self.cluster, token_key) {
            (Some(cluster), _) if cluster.issuer().is_some() => cluster.dir().join(KEY_FILE),
            (None, Some(key)) => key.clone(),
            _ => return Ok(Callers::Named),
        };
        Ok(Callers::proven(Issuer::open(&key)?, token_issuer, token_audience))
    }

    /// What all local nodes have used; none when there are none, or one of them is down.
    pub(super) fn usage(&self) -> Option<Usage> {
        let cluster = self.cluster.as_ref()?;
        let ids: Option<Vec<u32>> =
            cluster.nodes().into_iter().map(|node| cluster.process_id(node)).collect();
        Usage::sum(&ids?)
    }

    /// What each local node has used; nodes that are down are left out.
    pub(super) fn usages(&self) -> Vec<(NodeId, Usage)> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let usage = |node| Some((node, Usage::of(cluster.process_id(node)?)?));
        cluster.nodes().into_iter().filter_map(usage).collect()
    }

    /// What each local node has counted; empty when there are none, or one does not answer.
    pub(super) async fn counters(&self) -> Vec<Reading> {
        counters::read(&self.admins).await.unwrap_or_default()
    }

    /// Bytes that reached the disk of the local nodes, of whichever process.
    pub(super) fn device_written_bytes(&self) -> Option<u64> {
        device_written_bytes(self.dir()?)
    }

    /// What each local node takes up while it stores `opks` keys.
    pub(super) fn sizes(&self, opks: u64) -> Result<Vec<NodeSize>> {
        let Some(cluster) = &self.cluster else { return Ok(Vec::new()) };
        let size = |node| {
            let data = cluster.data_dir(node).context("the node has no data")?;
            let state_bytes = disk_bytes(&data.join("state"))?;
            #[expect(clippy::cast_precision_loss, reason = "exact to 2^53")]
            let state_bytes_per_opk = state_bytes as f64 / opks.max(1) as f64;
            Ok(NodeSize {
                node,
                memory: cluster.process_id(node).and_then(Memory::of),
                state_bytes,
                state_bytes_per_opk,
                log_bytes: disk_bytes(&data.join("log"))?,
            })
        };
        cluster.nodes().into_iter().map(size).collect()
    }

    /// Whether the nodes are ours.
    pub(super) fn is_local(&self) -> bool {
        self.cluster.is_some()
    }

    /// A folder on the disk of the local nodes.
    pub(super) fn dir(&self) -> Option<&Path> {
        self.cluster.as_ref().map(Cluster::dir)
    }

    pub(super) fn cluster(&mut self) -> Result<&mut Cluster> {
        self.cluster.as_mut().context("the cluster is not ours")
    }

    /// The local node that leads most shards by its own account, and how many.
    pub(super) async fn busiest(&mut self) -> Result<(NodeId, usize)> {
        let cluster = self.cluster()?;
        let mut busiest = None;
        for node in cluster.running() {
            let status = cluster.status(node).await?;
            let led = status.shards.iter().filter(|shard| shard.leader == Some(node)).count();
            busiest = busiest.max(Some((led, node)));
        }
        match busiest {
            Some((led, node)) if led > 0 => Ok((node, led)),
            _ => bail!("no node leads a shard"),
        }
    }

    /// Ends a local cluster and removes its data.
    pub(super) async fn finish(self) -> Result<()> {
        match self.cluster {
            Some(cluster) => cluster.finish().await,
            None => Ok(()),
        }
    }
}

async fn resolve(endpoints: &[String], ca: Option<&Path>) -> Result<Arc<[Address]>> {
    ensure!(endpoints.len() <= limits::ENDPOINTS_MAX, "more than {} URLs", limits::ENDPOINTS_MAX);
    let tls = match ca {
        None => Tls::public(),
        Some(ca) => {
            let pem = std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
            Tls::from_pem(&pem).with_context(|| ca.display().to_string())?
        }
    };
    let mut addresses = Vec::new();
    for endpoint in endpoints {
        let (plain, secure) = (endpoint.strip_prefix("http://"), endpoint.strip_prefix("https://"));
        let host = plain.or(secure).unwrap_or(endpoint).trim_end_matches('/');
        let mut found = tokio::net::lookup_host(host)
            .await
            .with_context(|| format!("{endpoint:?} is not the URL of a node"))?;
        let at = found.next().with_context(|| format!("{endpoint:?} has no address"))?;
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let tls = secure.map(|_| (name.into(), tls.clone()));
        addresses.push(Address { at, authority: host.into(), tls });
    }
    Ok(addresses.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_is_a_url_or_an_address() {
        let given = [
            "http://127.0.0.1:8080".into(),
            "127.0.0.1:8081".into(),
            "https://localhost:8443".into(),
        ];
        let addresses = resolve(&given, None).await.unwrap();
        let at: Vec<_> = addresses.iter().map(|address| address.at.to_string()).collect();
        assert_eq!(at[..2], ["127.0.0.1:8080", "127.0.0.1:8081"]);
        let names = addresses.iter().map(|address| address.tls.as_ref().map(|(name, _)| &**name));
        assert_eq!(names.collect::<Vec<_>>(), [None, None, Some("localhost")]);
        let error = resolve(&["ftp://127.0.0.1:1".into()], None).await.unwrap_err();
        assert!(error.to_string().contains("is not the URL of a node"), "{error:#}");
    }
}
