//! Whom a node takes the other end of a connection for.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::BoxFuture;
use oncekey_raft::environment::{Guard, Guarded, Stream};

use super::*;

/// Proves whatever it is told to, in eight bytes.
struct Claims {
    node: u64,
    proofs: AtomicUsize,
}

impl Claims {
    fn to_be(node: u64) -> Arc<Self> {
        Arc::new(Self { node, proofs: AtomicUsize::new(0) })
    }
}

impl Guard for Claims {
    fn dialled(&self, mut stream: Box<dyn Stream>) -> BoxFuture<'_, io::Result<Guarded>> {
        Box::pin(async move {
            self.proofs.fetch_add(1, Ordering::SeqCst);
            stream.write_u64(self.node).await?;
            stream.flush().await?;
            let node = Some(NodeId(stream.read_u64().await?));
            Ok(Guarded { stream, node })
        })
    }

    fn accepted(&self, stream: Box<dyn Stream>) -> BoxFuture<'_, io::Result<Guarded>> {
        self.dialled(stream)
    }
}

/// Starts node 1, which proves to be node `first`, and node 2, which joins it and proves to be node
/// `second`; returns whether they meet.
async fn meet(first: u64, second: u64) -> bool {
    let (founder, founder_port) = hold_port();
    let (joiner, joiner_port) = hold_port();
    let members = [(NodeId(1), founder.clone()), (NodeId(2), joiner)].into();
    let mut cluster = Cluster {
        dir: tempfile::tempdir().unwrap(),
        members,
        ports: vec![founder_port, joiner_port],
        log_entries_max: 1000,
        nodes: BTreeMap::new(),
    };
    let (first, second) = (Claims::to_be(first), Claims::to_be(second));
    let mut config = cluster.config(NodeId(1));
    config.members.remove(&NodeId(2));
    config.environment.guard = Arc::<Claims>::clone(&first);
    cluster.nodes.insert(NodeId(1), Node::start(config).await.unwrap());
    let mut config = cluster.config(NodeId(2));
    config.members.clear();
    config.join = vec![founder.peer];
    config.environment.guard = Arc::<Claims>::clone(&second);
    cluster.nodes.insert(NodeId(2), Node::start(config).await.unwrap());

    let knows = |of: u64, whom: u64| cluster.nodes[&NodeId(of)].member(NodeId(whom)).is_some();
    let deadline = Instant::now() + DEADLINE;
    let mut poll = tokio::time::interval(Duration::from_millis(10));
    let met = loop {
        let met = knows(1, 2) && knows(2, 1);
        if met || second.proofs.load(Ordering::SeqCst) >= 3 {
            break met;
        }
        assert!(Instant::now() < deadline, "the two neither meet nor try");
        poll.tick().await;
    };
    for node in cluster.nodes.into_values() {
        node.shutdown().await;
    }
    met
}

#[tokio::test]
async fn a_node_that_proves_to_be_another_is_refused_at_either_end() {
    assert!(meet(1, 2).await, "two honest nodes do not meet");
    assert!(!meet(1, 3).await, "a liar was let in");
    assert!(!meet(3, 2).await, "a liar was joined");
}
