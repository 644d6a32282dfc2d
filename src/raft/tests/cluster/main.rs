//! Three nodes in one process, over real sockets and real disks.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod asleep;
mod guard;
mod membership;
mod old_disk;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use futures_util::future::join_all;
use oncekey_raft::{
    EngineKind, Environment, Location, Member, Node, NodeConfig, Protocols, ShardStatus, Standing,
    StartError, SubmitError, Timing,
};
use oncekey_store::{
    command::{
        AddOneTimePreKeys, BucketPolicy, Command, Dispense, IdentityKey, KeyBytes, OneTimePreKey,
        Policy, Register, SignedPreKey, WriteTag,
    },
    outcome::{Issue, Outcome},
    query::{Answer, Query},
};
use oncekey_types::{
    CallerId, DeviceId, Epoch, NodeId, OneTimePreKeyId, RegistrationId, RequestId, Seq, ShardId,
    SignedPreKeyId, UnixSeconds, UserId,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::Instant,
};

const DEADLINE: Duration = Duration::from_secs(30);
const KEYS: u32 = 100;
const SHARDS: u16 = 2;

struct Cluster {
    dir: TempDir,
    members: BTreeMap<NodeId, Member>,
    ports: Vec<TcpSocket>,
    log_entries_max: u64,
    nodes: BTreeMap<NodeId, Node>,
}

impl Cluster {
    async fn start(log_entries_max: u64) -> Self {
        Self::of(3, log_entries_max).await
    }

    async fn of(nodes: u64, log_entries_max: u64) -> Self {
        let mut cluster = Self::planned(nodes, log_entries_max);
        for id in 1..=nodes {
            cluster.start_node(NodeId(id)).await.unwrap();
        }
        cluster.formed().await;
        cluster
    }

    /// Nodes that have not been started.
    fn planned(nodes: u64, log_entries_max: u64) -> Self {
        let (members, ports) = (1..=nodes)
            .map(|id| {
                let (member, port) = hold_port();
                ((NodeId(id), member), port)
            })
            .unzip();
        let dir = tempfile::tempdir().unwrap();
        Self { dir, members, ports, log_entries_max, nodes: BTreeMap::new() }
    }

    /// Waits until the nodes, which have been started, are a cluster.
    async fn formed(&self) {
        self.wait("every shard has a leader", |node| {
            let shards = node.status().shards;
            shards.len() == usize::from(SHARDS) && shards.iter().all(|shard| shard.is_ready())
        })
        .await;
        let active = |standing| standing == Standing::Active;
        self.wait("all are members", |node| {
            let members = node.status().members;
            let members = members.values().filter(|member| active(member.standing)).count();
            members == self.members.len()
        })
        .await;
    }

    fn folder(&self, node: NodeId) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    fn config(&self, node: NodeId) -> NodeConfig {
        NodeConfig {
            node,
            cluster: "test".to_owned(),
            data_dir: self.folder(node),
            peer_listen: self.members[&node].peer.parse().unwrap(),
            me: self.members[&node].clone(),
            members: self.members.clone(),
            join: Vec::new(),
            replicas: None,
            location: Location::default(),
            protocols: Protocols::default(),
            shards: SHARDS,
            engine: EngineKind::Fjall,
            state_cache_bytes: 8 << 20,
            policy: Policy {
                per_caller: BucketPolicy { capacity: 0, refill_ms: 1 },
                per_target: BucketPolicy { capacity: 0, refill_ms: 1 },
                ..Policy::default()
            },
            timing: Timing::default(),
            wal_segment_bytes: 1 << 20,
            log_entries_max: self.log_entries_max,
            environment: Environment::default(),
        }
    }

    async fn start_node(&mut self, node: NodeId) -> Result<(), StartError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match Node::start(self.config(node)).await {
                // A node that was stopped in this process lets go of its folder a moment later.
                Err(StartError::Identity(reason))
                    if reason.contains("is in use") && Instant::now() < deadline =>
                {
                    tokio::task::yield_now().await;
                }
                started => {
                    self.nodes.insert(node, started?);
                    return Ok(());
                }
            }
        }
    }

    /// Ends a node as a crash would, as far as one process can.
    async fn stop(&mut self, node: NodeId) {
        self.nodes.remove(&node).unwrap().shutdown().await;
    }

    /// Starts a node anew as soon as the one that was stopped has let go of its folder.
    async fn restart(&mut self, node: NodeId, config: &NodeConfig) {
        let deadline = Instant::now() + DEADLINE;
        let mut poll = tokio::time::interval(Duration::from_millis(10));
        let started = loop {
            match Node::start(config.clone()).await {
                Err(error) if error.to_string().contains("in use") => {
                    assert!(Instant::now() < deadline, "its folder stayed in use: {error}");
                    poll.tick().await;
                }
                started => break started,
            }
        };
        self.nodes.insert(node, started.unwrap());
    }

    async fn wait(&self, what: &str, condition: impl Fn(&Node) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut poll = tokio::time::interval(Duration::from_millis(10));
        while !self.nodes.values().all(&condition) {
            let status: Vec<_> = self.nodes.values().map(Node::status).collect();
            assert!(Instant::now() < deadline, "never happened: {what}; last seen: {status:#?}");
            poll.tick().await;
        }
    }
}

/// A port of this machine, held by a socket that never listens: nobody else is given it, and a node
/// may listen there, because both set `SO_REUSEADDR`.
fn hold_port() -> (Member, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let peer = socket.local_addr().unwrap().to_string();
    (Member { peer, public: String::new() }, socket)
}

fn bob() -> UserId {
    UserId::new("bob").unwrap()
}

fn keys(ids: std::ops::Range<u32>) -> Vec<OneTimePreKey> {
    ids.map(|id| OneTimePreKey {
        id: OneTimePreKeyId(id),
        key: KeyBytes(id.to_be_bytes().to_vec()),
        signature: KeyBytes(vec![1; 64]),
    })
    .collect()
}

fn register() -> Command {
    Command::Register(Register {
        user: bob(),
        device: DeviceId(1),
        tag: WriteTag { seq: Seq(1), digest: [1; 32] },
        follows: oncekey_store::command::Follows::Nothing,
        identity_key: IdentityKey { kind: 1, key: KeyBytes(vec![2; 32]) },
        authentication_key: KeyBytes(vec![3; 32]),
        authentication_signature: KeyBytes(vec![4; 64]),
        signed_prekey: SignedPreKey {
            id: SignedPreKeyId(1),
            key: KeyBytes(vec![5; 32]),
            created: UnixSeconds(1),
            expires: UnixSeconds(2),
            signature: KeyBytes(vec![6; 64]),
        },
        one_time_prekeys: keys(1..KEYS + 1),
        device_list: None,
        epoch: Epoch::FIRST,
    })
}

fn dispense(request: u32) -> Command {
    Command::Dispense(Dispense {
        user: bob(),
        devices: None,
        caller: CallerId::new("alice").unwrap(),
        request: RequestId::new(format!("request-{request}")).unwrap(),
        require_one_time_prekey: false,
    })
}

async fn submit(node: &Node, command: Command) -> Outcome {
    node.submit(&bob(), command, Instant::now() + DEADLINE).await.unwrap().outcome
}

fn shard(node: &Node, id: ShardId) -> ShardStatus {
    node.status().shards.into_iter().find(|shard| shard.shard == id).unwrap()
}

/// What the node's own replica holds.
fn local(node: &Node, query: &Query) -> Answer {
    node.query_local(query).unwrap().unwrap().answer
}

/// The id that a dispense gave. The first answer a test sees may already be a repetition, as a
/// node asks again when a leader is lost or unknown; so a test looks at the id.
fn issued(outcome: &Outcome) -> u32 {
    let Outcome::Dispensed(dispensed) = outcome else { panic!("not dispensed: {outcome:?}") };
    let Issue::Issued(key) = &dispensed.bundles[0].one_time_prekey else {
        panic!("no key: {dispensed:?}")
    };
    key.id.0
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_pops_each_key_once_and_repeats_its_answers() {
    let cluster = Cluster::start(1000).await;
    let nodes: Vec<_> = cluster.nodes.values().collect();
    submit(nodes[0], register()).await;
    let mut first = Vec::new();
    for request in 0..30 {
        let outcome = submit(nodes[request as usize % 3], dispense(request)).await;
        first.push(issued(&outcome));
    }
    assert_eq!(first, (1..=30).collect::<Vec<_>>(), "first in, first out");
    for request in 0..30 {
        let outcome = submit(nodes[(request as usize + 1) % 3], dispense(request)).await;
        assert_eq!(issued(&outcome), request + 1, "request {request} again");
        let repeated = matches!(&outcome, Outcome::Dispensed(dispensed) if dispensed.repeated);
        assert!(repeated, "{outcome:?}");
    }
    let query = Query::Status { user: bob(), device: DeviceId(1) };
    let read = nodes[2].query(&query, Instant::now() + DEADLINE).await.unwrap();
    let Answer::Status(Some(status)) = read.answer else { panic!("{read:?}") };
    assert_eq!(status.pool.count, KEYS - 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_ask_at_once_each_get_an_answer_of_their_own() {
    let cluster = Cluster::start(1000).await;
    let nodes: Vec<_> = cluster.nodes.values().collect();
    submit(nodes[0], register()).await;
    let ask =
        async |node: usize, request: u32| issued(&submit(nodes[node % 3], dispense(request)).await);
    let first = join_all((0..33).map(|request| ask(request as usize, request))).await;
    assert_eq!(first.iter().copied().collect::<BTreeSet<_>>(), (1..34).collect());
    for (request, key) in (0..33).zip(first) {
        let again = ask(request as usize + 1, request).await;
        assert_eq!(again, key, "request {request}, alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_the_replica_answers_and_nothing_is_popped() {
    let mut cluster = Cluster::start(1000).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    cluster
        .wait("every replica has the device", |node| {
            let query = Query::User { user: bob() };
            matches!(local(node, &query), Answer::User(Some(_)))
        })
        .await;
    cluster.stop(NodeId(2)).await;
    cluster.stop(NodeId(3)).await;
    let node = &cluster.nodes[&NodeId(1)];
    let soon = Instant::now() + Duration::from_millis(300);
    let result = node.submit(&bob(), dispense(1), soon).await;
    assert!(matches!(result, Err(SubmitError::NoQuorum { .. })), "{result:?}");
    let query = Query::Peek { user: bob(), devices: None };
    let read = node.query_local(&query).unwrap().unwrap();
    assert!(matches!(read.answer, Answer::Peek(Some(_))), "{read:?}");
    assert!(read.as_of.is_some(), "the replica knows its age: {read:?}");

    cluster.start_node(NodeId(2)).await.unwrap();
    let id = issued(&submit(&cluster.nodes[&NodeId(2)], dispense(1)).await);
    assert_eq!(id, 1, "the first key is still there, or was kept for this very request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fell_behind_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start(20).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    cluster.stop(NodeId(3)).await;
    for round in 0..8 {
        let base = KEYS + 1 + round * 10;
        let add = Command::AddOneTimePreKeys(AddOneTimePreKeys {
            user: bob(),
            device: DeviceId(1),
            tag: WriteTag { seq: Seq(u64::from(round) + 2), digest: [7; 32] },
            registration: RegistrationId(1),
            one_time_prekeys: keys(base..base + 10),
            epoch: Epoch::FIRST,
        });
        submit(&cluster.nodes[&NodeId(1)], add).await;
        for request in 0..20 {
            submit(&cluster.nodes[&NodeId(2)], dispense(round * 100 + request)).await;
        }
    }
    let shard = cluster.nodes[&NodeId(1)].shard_of(&bob());
    let of = |node: &Node| {
        node.status().shards.into_iter().find(|status| status.shard == shard).unwrap()
    };
    cluster.wait("the log is purged", |node| of(node).purged.0 > 100).await;
    let target = of(&cluster.nodes[&NodeId(1)]).applied;
    cluster.start_node(NodeId(3)).await.unwrap();
    cluster.wait("all have caught up", |node| of(node).applied >= target).await;
    let query = Query::Status { user: bob(), device: DeviceId(1) };
    let answers: Vec<_> = cluster.nodes.values().map(|node| local(node, &query)).collect();
    assert!(matches!(answers[0], Answer::Status(Some(_))));
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ: {answers:#?}");
    let again = submit(&cluster.nodes[&NodeId(3)], dispense(0)).await;
    assert_eq!(issued(&again), 1, "the retries are in the snapshot");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_disk_is_turned_away_and_replaced_under_a_new_id() {
    let mut cluster = Cluster::start(20).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    for request in 0..60 {
        submit(&cluster.nodes[&NodeId(1)], dispense(request)).await;
    }
    cluster.stop(NodeId(3)).await;
    std::fs::remove_dir_all(cluster.folder(NodeId(3))).unwrap();
    cluster.start_node(NodeId(3)).await.unwrap();
    let wiped = cluster.nodes.remove(&NodeId(3)).unwrap();
    let fault = tokio::time::timeout(DEADLINE, wiped.faulted()).await.unwrap();
    assert!(fault.to_string().contains("must not vote under its old id"), "{fault}");
    wiped.shutdown().await;

    let (member, _port) = hold_port();
    cluster.members.insert(NodeId(4), member.clone());
    let mut config = cluster.config(NodeId(4));
    config.members = BTreeMap::new();
    config.join = vec![cluster.members[&NodeId(1)].peer.clone()];
    cluster.nodes.insert(NodeId(4), Node::start(config).await.unwrap());
    let deadline = Instant::now() + DEADLINE;
    cluster.nodes[&NodeId(2)].replace_member(NodeId(3), NodeId(4), member, deadline).await.unwrap();

    cluster.stop(NodeId(1)).await;
    let outcome = submit(&cluster.nodes[&NodeId(4)], dispense(60)).await;
    assert_eq!(issued(&outcome), 61, "the new node is half of the quorum");
    assert_eq!(issued(&submit(&cluster.nodes[&NodeId(2)], dispense(7)).await), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_whose_state_was_lost_fetches_it_before_it_starts() {
    let mut cluster = Cluster::start(20).await;
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    for request in 0..60 {
        submit(&cluster.nodes[&NodeId(1)], dispense(request)).await;
    }
    let shard = cluster.nodes[&NodeId(1)].shard_of(&bob());
    let of = |node: &Node| {
        node.status().shards.into_iter().find(|status| status.shard == shard).unwrap()
    };
    cluster.wait("the log is purged", |node| of(node).purged.0 > 20).await;
    cluster.stop(NodeId(3)).await;
    std::fs::remove_dir_all(cluster.folder(NodeId(3)).join("state")).unwrap();
    cluster.start_node(NodeId(3)).await.unwrap();
    let target = of(&cluster.nodes[&NodeId(1)]).applied;
    cluster.wait("all have caught up", |node| of(node).applied >= target).await;
    cluster.stop(NodeId(1)).await;
    assert_eq!(issued(&submit(&cluster.nodes[&NodeId(3)], dispense(60)).await), 61);
    assert_eq!(issued(&submit(&cluster.nodes[&NodeId(3)], dispense(3)).await), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_the_peer_port_is_turned_away_and_harms_nobody() {
    let cluster = Cluster::start(1000).await;
    let address = cluster.nodes[&NodeId(1)].peer_addr();
    let frame = |body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes(), body].concat()
    };
    let strange: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame(&[0xff; 100]),
        frame(&[]),
        u32::MAX.to_be_bytes().to_vec(),
        frame(&[&[1][..], b"\x05other\x02\x03\x07\x00\x00\x00"].concat()),
    ];
    for bytes in strange {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A refusal, or an end without a word.
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
    }
    submit(&cluster.nodes[&NodeId(1)], register()).await;
    assert_eq!(issued(&submit(&cluster.nodes[&NodeId(2)], dispense(1)).await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_restarts_is_elected_anew_before_it_leads() {
    let mut cluster = Cluster::of(1, 1000).await;
    let terms = |cluster: &Cluster| {
        let status = cluster.nodes[&NodeId(1)].status();
        status.shards.iter().map(|shard| shard.term).collect::<Vec<_>>()
    };
    let before = terms(&cluster);
    cluster.stop(NodeId(1)).await;
    cluster.start_node(NodeId(1)).await.unwrap();
    cluster
        .wait("every shard has a leader", |node| {
            node.status().shards.iter().all(|shard| shard.leader.is_some())
        })
        .await;
    let after = terms(&cluster);
    assert!(
        before.iter().zip(&after).all(|(before, after)| before < after),
        "{before:?} {after:?}"
    );
}
