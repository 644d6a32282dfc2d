//! A leader that stands still while another takes its place, and wakes up with answers from before.

use std::{io, net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;
use oncekey_raft::environment::{Listener, Network, Stream, Tcp};
use oncekey_types::{LogIndex, ShardId};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::*;

/// A way that can be held up in both directions; what is sent meanwhile waits.
struct Way {
    there: watch::Sender<bool>,
    back: watch::Sender<bool>,
}

/// The ways of one node to the addresses of the others.
struct Ways(BTreeMap<String, Way>);

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

/// Three nodes and the ways between them. The first takes nobody for lost for a long time, as one
/// that does not run does not either.
async fn linked() -> (Cluster, BTreeMap<NodeId, Arc<Ways>>) {
    let mut cluster = Cluster::planned(3, 1000);
    let mut all = BTreeMap::new();
    for id in cluster.members.keys().copied().collect::<Vec<_>>() {
        let way = || Way { there: watch::Sender::new(true), back: watch::Sender::new(true) };
        let others = cluster.members.iter().filter(|(other, _)| **other != id);
        let ways = Arc::new(Ways(others.map(|(_, at)| (at.peer.clone(), way())).collect()));
        let mut config = cluster.config(id);
        config.environment.network = Arc::<Ways>::clone(&ways);
        if id == SLEEPER {
            config.timing.node_timeout_ms = 60_000;
        }
        all.insert(id, ways);
        cluster.nodes.insert(id, Node::start(config).await.unwrap());
    }
    cluster.formed().await;
    (cluster, all)
}

const SLEEPER: NodeId = NodeId(1);

fn shard(node: &Node, id: ShardId) -> oncekey_raft::ShardStatus {
    node.status().shards.into_iter().find(|shard| shard.shard == id).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_up_is_not_confirmed_by_answers_from_before_its_sleep() {
    let (cluster, ways) = linked().await;
    let sleeper = &cluster.nodes[&SLEEPER];
    let deadline = Instant::now() + DEADLINE;
    submit(sleeper, register()).await;
    let id = sleeper.shard_of(&bob());
    if shard(sleeper, id).leader != Some(SLEEPER) {
        sleeper.transfer_leader(id, SLEEPER, deadline).await.unwrap();
    }
    cluster.wait("it leads", |node| shard(node, id).leader == Some(SLEEPER)).await;
    // Something of its own is committed.
    assert_eq!(issued(&submit(sleeper, dispense(1)).await), 1);

    // The others have an entry, and it does not hear so.
    let logged = shard(sleeper, id).last_log;
    let way = |from: NodeId, to: NodeId| &ways[&from].0[&cluster.members[&to].peer];
    let others = [2, 3].map(NodeId);
    for other in others {
        way(SLEEPER, other).back.send_replace(false);
    }
    let asleep = async {
        cluster.wait("all have the entry", |node| shard(node, id).last_log > logged).await;
        for other in others {
            way(SLEEPER, other).there.send_replace(false);
            way(other, SLEEPER).there.send_replace(false);
            way(other, SLEEPER).back.send_replace(false);
        }
        cluster
            .wait("another leads", |node| {
                let leader = shard(node, id).leader;
                node.status().node == SLEEPER || leader.is_some_and(|leader| leader != SLEEPER)
            })
            .await;
        assert_eq!(issued(&submit(&cluster.nodes[&others[0]], dispense(3)).await), 3);
        // The question first, then the answers from before. By the first of them the entry is
        // committed, which the other one has yet to be told when its answer comes.
        tokio::join!(keys_left(sleeper, deadline), async {
            for other in others {
                way(SLEEPER, other).back.send_replace(true);
                cluster
                    .wait("it hears who has the entry", |node| {
                        let seen = shard(node, id);
                        let has = |matched: &LogIndex| *matched > logged;
                        let heard = seen.followers.get(&other).is_some_and(has);
                        node.status().node != SLEEPER || heard && seen.applied > logged
                    })
                    .await;
            }
            for other in others {
                way(SLEEPER, other).there.send_replace(true);
                way(other, SLEEPER).there.send_replace(true);
                way(other, SLEEPER).back.send_replace(true);
            }
        })
    };
    let (second, (left, ())) = tokio::join!(submit(sleeper, dispense(2)), asleep);
    assert_eq!(issued(&second), 2);
    assert_eq!(left, KEYS - 3, "three keys were handed out before it was asked");
}

/// What `node` says of the pool, which it is asked again while it finds no quorum.
async fn keys_left(node: &Node, deadline: Instant) -> u32 {
    let query = Query::Status { user: bob(), device: DeviceId(1) };
    loop {
        match node.query(&query, deadline).await.map(|read| read.answer) {
            Ok(Answer::Status(Some(status))) => return status.pool.count,
            Ok(answer) => panic!("no device: {answer:?}"),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}
