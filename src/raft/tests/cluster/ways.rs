//! Ways between nodes that can be held up.

use std::{io, net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;
use oncekey_raft::environment::{Listener, Network, Stream, Tcp};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::*;

/// A way that can be held up in both directions; what is sent meanwhile waits.
pub(crate) struct Way {
    pub(crate) there: watch::Sender<bool>,
    pub(crate) back: watch::Sender<bool>,
}

/// The ways of one node to the addresses of the others.
pub(crate) struct Ways(BTreeMap<String, Way>);

impl Ways {
    pub(crate) fn to(&self, member: &Member) -> &Way {
        &self.0[&member.peer]
    }
}

impl Network for Ways {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Tcp.bind(address)
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let way = self.0.get(address).ok_or(io::ErrorKind::HostUnreachable)?;
            let (far_read, far_write) = TcpStream::connect(address).await?.into_split();
            let between = TcpListener::bind("127.0.0.1:0").await?;
            let near = Tcp.connect(&between.local_addr()?.to_string()).await?;
            let (near_read, near_write) = between.accept().await?.0.into_split();
            tokio::spawn(carry(near_read, far_write, way.there.subscribe()));
            tokio::spawn(carry(far_read, near_write, way.back.subscribe()));
            Ok(near)
        })
    }
}

/// Carries bytes while the way is open, to their end.
async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut open: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 || open.wait_for(|open| *open).await.is_err() {
            return Ok(());
        }
        to.write_all(&bytes[..length]).await?;
    }
}

/// Three nodes and the ways between them. The `patient` ones take nobody for lost for a long time.
pub(crate) async fn linked(patient: &[NodeId]) -> (Cluster, BTreeMap<NodeId, Arc<Ways>>) {
    let mut cluster = Cluster::planned(3, 1000);
    let mut all = BTreeMap::new();
    for id in cluster.members.keys().copied().collect::<Vec<_>>() {
        let way = || Way { there: watch::Sender::new(true), back: watch::Sender::new(true) };
        let others = cluster.members.iter().filter(|(other, _)| **other != id);
        let ways = Arc::new(Ways(others.map(|(_, at)| (at.peer.clone(), way())).collect()));
        let mut config = cluster.config(id);
        config.environment.network = Arc::<Ways>::clone(&ways);
        if patient.contains(&id) {
            config.timing.node_timeout_ms = 60_000;
        }
        all.insert(id, ways);
        cluster.nodes.insert(id, Node::start(config).await.unwrap());
    }
    cluster.formed().await;
    (cluster, all)
}
