//! A node: all shards, and what they share.
//!
//! Guarantees: [`Node::start`] returns when every shard can answer from its own state; a shard
//! whose state the disk lost has by then fetched it anew. Leaves out: waiting for leaders, see
//! [`ShardStatus::is_ready`](crate::ShardStatus::is_ready).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use oncekey_storage::{
    disk::Space,
    state::{StateEngine, StateTimes},
    wal::{GroupId, Wal, WalTimes},
};
use oncekey_store::{command::Command, query::Query};
use oncekey_types::{LogIndex, NodeId, ShardId, SlotMap, UserId};
use openraft::SnapshotPolicy;
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    batcher::{Batcher, Proposer},
    config::{Member, NodeConfig},
    disk::OpenedDisk,
    elections::Elections,
    environment::{Disks, Environment},
    error::{Fault, FaultSink, ReplaceError, StartError, SubmitError, chain},
    formation,
    forwarder::Forwarder,
    identity::Identity,
    introduction,
    liveness::{self, Liveness},
    log_store::LogStore,
    machine::{Machine, read_header},
    measures::{NodeMeasures, ShardMeasures},
    members::{self, Replacement},
    peer::{Inbound, NetworkFactory, PeerPool},
    reports::{self, NodeReport, Reporter, Reports, SeenNode},
    router::{Committed, LocalRead, OUTAGE_AFTER, Read, Router},
    service::Services,
    shard::Shard,
    status::{NodeStatus, ShardStatus},
    transfer::{self, OpenTransfers},
    type_config::{LogId, Raft},
    upkeep,
    watchers::Watch,
};

/// Time in which the shards that a stopping node leads should find new leaders.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

/// A running node. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Arc<Identity>,
    pool: Arc<PeerPool>,
    router: Arc<Router>,
    wal: Wal,
    engine: StateEngine,
    environment: Environment,
    faults: FaultSink,
    liveness: Arc<Liveness>,
    reporter: Arc<Reporter>,
    reports: Arc<Reports>,
    peer_address: SocketAddr,
    inbound: Mutex<Option<Inbound>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Node {
    /// Opens the disk, starts listening to other nodes and starts all shards.
    ///
    /// # Errors
    ///
    /// A [`StartError`] that says what to do about it.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let faults = FaultSink::default();
        let slots =
            SlotMap::even(config.shards).map_err(|error| StartError::Config(error.to_string()))?;
        let disk = OpenedDisk::open(&config, &faults).await?;
        let environment = &config.environment;
        let pool = Arc::new(PeerPool::new(
            Arc::clone(&disk.identity),
            config.me.clone(),
            Arc::clone(&environment.network),
            faults.clone(),
        ));
        for (node, member) in &config.members {
            pool.learn(node.0, member);
        }
        let liveness = Arc::new(Liveness::new(config.timing));
        let transfers = OpenTransfers::default();
        let services = Arc::new(Services::new(
            Arc::clone(&disk.identity),
            Arc::clone(&pool),
            Arc::clone(&liveness),
            disk.engine.clone(),
            environment.blocking.clone(),
            transfers.clone(),
        ));
        let inbound = listen(&config, &disk, &faults, &services).await?;

        let mut tasks = JoinSet::new();
        let measures = Arc::new(NodeMeasures::new());
        let shards = start_shards(&config, &slots, &disk, &pool, &measures, &faults).await?;
        let router = Arc::new(Router {
            me: config.node.0,
            slots,
            shards,
            pool: Arc::clone(&pool),
            faults: faults.clone(),
            started: Instant::now(),
            spans: environment.spans.clone(),
        });
        let reporter = Arc::new(reporter(&config, &router, measures));
        services.open(Arc::clone(&router), Arc::clone(&reporter));
        let reports = Arc::new(Reports::default());
        tasks.spawn(reports::gather(Arc::clone(&pool), Arc::clone(&reports)));
        tasks.spawn(liveness::run(
            Arc::clone(&pool),
            Arc::clone(&liveness),
            config.timing,
            contact(Arc::clone(&router)),
        ));
        let shards = router.shards.values().cloned();
        let elections = Elections::new(config.node.0, config.timing, Arc::clone(&liveness), shards);
        tasks.spawn(elections.run());
        tasks.spawn(introduction::introduce(Arc::clone(&pool), config.join.clone()));
        tasks.spawn(formation::form(
            Arc::clone(&disk.identity),
            Arc::clone(&pool),
            config.members.clone(),
            router.shards.values().cloned().collect(),
        ));
        tasks.spawn(upkeep::run(
            Arc::clone(&disk.identity),
            disk.wal.clone(),
            router.shards.clone(),
            transfers,
            faults.clone(),
        ));
        Ok(Self {
            inner: Arc::new(Inner {
                identity: disk.identity,
                pool,
                router,
                wal: disk.wal,
                engine: disk.engine,
                environment: config.environment,
                faults,
                liveness,
                reporter,
                reports,
                peer_address: inbound.address(),
                inbound: Mutex::new(Some(inbound)),
                tasks: Mutex::new(tasks),
            }),
        })
    }

    /// Where this node listens to other nodes.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.inner.peer_address
    }

    /// The shard of `user`.
    #[must_use]
    pub fn shard_of(&self, user: &UserId) -> ShardId {
        self.inner.router.slots.shard_of(user)
    }

    /// Applies `command` to the shard of `user`, once, wherever its leader is.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; none of them says that the command was not applied, unless it says so.
    pub async fn submit(
        &self,
        user: &UserId,
        command: Command,
        deadline: Instant,
    ) -> Result<Committed, SubmitError> {
        self.inner.router.submit(user, command, deadline).await
    }

    /// Reads from the shard of the query's user, linearizably.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    pub async fn query(&self, query: &Query, deadline: Instant) -> Result<Read, SubmitError> {
        self.inner.router.query(query, deadline).await
    }

    /// Reads from this node's own replica, whatever its age.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the disk cannot tell; the node stops.
    pub fn query_local(&self, query: &Query) -> Result<LocalRead, Fault> {
        self.inner.router.query_local(query)
    }

    /// What the node stands on.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.inner.environment
    }

    /// Watches what is applied on this node to the records of `user`.
    #[must_use]
    pub fn watch(&self, user: &UserId) -> Watch {
        self.inner.router.shard_of(user).watchers.watch(user)
    }

    /// How to reach `node`, if this node knows it.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.inner.pool.member(node.0)
    }

    /// What this node knows of itself and its cluster.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let mut members = BTreeMap::new();
        let shards = self.inner.router.shards.values().map(|shard| {
            let metrics = shard.metrics();
            for (node, member) in metrics.membership_config.nodes() {
                members.insert(NodeId(*node), member.clone());
            }
            let index = |log_id: Option<LogId>| LogIndex(log_id.map_or(0, |log_id| log_id.index));
            let silent = shard.silent_for(self.inner.router.started.elapsed());
            ShardStatus {
                shard: shard.id,
                leader: metrics.current_leader.map(NodeId),
                term: metrics.current_term,
                last_log: LogIndex(metrics.last_log_index.unwrap_or(0)),
                committed: index(metrics.local_committed),
                applied: index(metrics.last_applied),
                purged: index(metrics.purged),
                voters: metrics.membership_config.voter_ids().map(NodeId).collect(),
                learners: metrics
                    .membership_config
                    .membership()
                    .learner_ids()
                    .map(NodeId)
                    .collect(),
                in_contact: silent <= OUTAGE_AFTER,
                queued: shard.batcher.queued(),
                followers: reports::followers(&metrics),
            }
        });
        let shards = shards.collect();
        NodeStatus {
            cluster: self.inner.identity.cluster(),
            node: self.inner.identity.node(),
            members,
            shards,
            wal: self.inner.wal.stats(),
        }
    }

    /// What this node has counted for all its shards together.
    #[must_use]
    pub fn measures(&self) -> &NodeMeasures {
        &self.inner.reporter.measures
    }

    /// What this node has counted for each of its shards.
    pub fn shard_measures(&self) -> impl Iterator<Item = (ShardId, &ShardMeasures)> {
        self.inner.router.shards.values().map(|shard| (shard.id, &*shard.measures))
    }

    /// How long the disk of the write-ahead log has taken.
    #[must_use]
    pub fn wal_times(&self) -> &WalTimes {
        self.inner.wal.times()
    }

    /// How long the state engine has taken.
    #[must_use]
    pub fn state_times(&self) -> &StateTimes {
        self.inner.engine.times()
    }

    /// Room on the node's disk, if that can be told.
    #[must_use]
    pub fn space(&self) -> Option<Space> {
        self.inner.reporter.space()
    }

    /// What this node says of itself.
    #[must_use]
    pub fn report(&self) -> NodeReport {
        self.inner.reporter.report()
    }

    /// The other nodes as this one sees them; takes no time.
    #[must_use]
    pub fn others(&self) -> BTreeMap<NodeId, SeenNode> {
        self.inner.reports.seen(&self.inner.pool, &self.inner.liveness)
    }

    /// What each shard's state on this node hashes to, with the index of the last entry in it.
    /// Equal at equal index on all nodes. Blocks; for tests, as it reads everything.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the disk cannot tell; the node stops.
    pub fn digests(&self) -> Result<Vec<(ShardId, LogIndex, [u8; 32])>, Fault> {
        self.inner.router.shards.values().map(|shard| shard.digest()).collect()
    }

    /// Puts the node `new` in the place of the lost node `old`, in all shards. Safe to ask again.
    ///
    /// # Errors
    ///
    /// The first shard's reason after `deadline`; shards before it are done.
    pub async fn replace_member(
        &self,
        old: NodeId,
        new: NodeId,
        member: Member,
        deadline: Instant,
    ) -> Result<(), ReplaceError> {
        let replacement = Replacement { old: old.0, new: new.0, member };
        for shard in self.inner.router.shards.values() {
            let me = self.inner.identity.node().0;
            members::replace_wherever_led(me, shard, &self.inner.pool, &replacement, deadline)
                .await?;
        }
        Ok(())
    }

    /// Ends when the node has had a local fault. The process must end then.
    pub async fn faulted(&self) -> Fault {
        self.inner.faults.wait().await
    }

    /// Hands over leadership, then stops all shards and closes log and state.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.inner.tasks.lock().abort_all();
        for shard in self.inner.router.shards.values() {
            if let Err(error) = shard.raft.shutdown().await {
                tracing::warn!(shard = %shard.id, %error, "a shard did not end cleanly");
            }
        }
        self.inner.inbound.lock().take();
        let (wal, engine) = (self.inner.wal.clone(), self.inner.engine.clone());
        let close = move || {
            wal.shutdown();
            engine.checkpoint()
        };
        match self.inner.environment.blocking.run(close).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the state was not synced"),
            Err(error) => tracing::warn!(%error, "log and state were not closed"),
        }
    }

    /// Gives each shard that this node leads to the voter that has most of its log.
    async fn hand_over(&self) {
        let me = self.inner.identity.node().0;
        let mut waiting = Vec::new();
        for shard in self.inner.router.shards.values() {
            let metrics = shard.metrics();
            if metrics.current_leader != Some(me) {
                continue;
            }
            let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
            let heir = metrics
                .replication
                .into_iter()
                .flatten()
                .filter(|(node, _)| *node != me && voters.contains(node))
                .max_by_key(|(_, matched)| *matched);
            if let Some((heir, _)) = heir
                && shard.raft.trigger().transfer_leader(heir).await.is_ok()
            {
                waiting.push(shard.leader_other_than(Some(me)));
            }
        }
        let all = futures_util::future::join_all(waiting);
        if tokio::time::timeout(HAND_OVER_TIMEOUT, all).await.is_err() {
            tracing::warn!("some shards had no new leader in time; they will elect one");
        }
    }
}

fn reporter(config: &NodeConfig, router: &Router, measures: Arc<NodeMeasures>) -> Reporter {
    let folder = match config.environment.disks {
        Disks::Folder => Some(config.data_dir.clone()),
        Disks::Simulated(_) => None,
    };
    let clock = config.environment.clock.clone();
    let shards = router.shards.values().cloned().collect();
    Reporter { started: clock.now(), clock, folder, measures, shards }
}

/// Notes for each shard that its leader was heard.
fn contact(router: Arc<Router>) -> impl Fn(u64, &BTreeSet<ShardId>) {
    move |node, leads| {
        for shard in leads.iter().filter_map(|shard| router.shards.get(shard)) {
            if shard.leader() == Some(node) {
                shard.heard();
            }
        }
    }
}

async fn listen(
    config: &NodeConfig,
    disk: &OpenedDisk,
    faults: &FaultSink,
    services: &Arc<Services>,
) -> Result<Inbound, StartError> {
    let failed = |source| StartError::Listen { address: config.peer_listen, source };
    let network = &config.environment.network;
    let listener = network.bind(config.peer_listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Inbound::start(
        listener,
        address,
        Arc::clone(&disk.identity),
        config.me.clone(),
        faults.clone(),
        Arc::clone(services),
    ))
}

async fn start_shards(
    config: &NodeConfig,
    slots: &SlotMap,
    disk: &OpenedDisk,
    pool: &Arc<PeerPool>,
    node_measures: &Arc<NodeMeasures>,
    faults: &FaultSink,
) -> Result<BTreeMap<ShardId, Arc<Shard>>, StartError> {
    let raft_config = Arc::new(raft_config(config)?);
    let mut shards = BTreeMap::new();
    for id in slots.shards() {
        let failed =
            |error: &dyn std::error::Error| StartError::Shard { shard: id, reason: chain(error) };
        let space = disk.engine.shard(id).map_err(|error| failed(&error))?;
        let group = GroupId(id.0.into());
        let recovered = disk.recovery.groups.get(&group);
        let log = LogStore::new(group, disk.wal.clone(), recovered, faults.clone())
            .map_err(|error| failed(&error))?;
        let header = read_header(&space).map_err(|error| failed(&*error))?;
        for (node, member) in header.membership.nodes() {
            pool.learn(*node, member);
        }
        if log.purged().is_some_and(|purged| header.applied < Some(purged)) {
            transfer::restore(pool, &config.environment.blocking, faults, id, &space, log.purged())
                .await
                .map_err(|fault| failed(&fault))?;
        }
        let measures = Arc::new(ShardMeasures::new(Arc::clone(node_measures)));
        let machine = Machine::open(
            disk.engine.clone(),
            space.clone(),
            config.environment.blocking.clone(),
            faults.clone(),
            Arc::clone(&measures),
        )
        .map_err(|error| failed(&error))?;
        let watchers = machine.watchers().clone();
        let network = NetworkFactory { shard: id, pool: Arc::clone(pool) };
        let raft: Raft = openraft::Raft::new(
            config.node.0,
            Arc::clone(&raft_config),
            network,
            log.clone(),
            machine,
        )
        .await
        .map_err(|error| failed(&error))?;
        let batcher = Batcher::start(Proposer {
            shard: id,
            raft: raft.clone(),
            policy: config.policy,
            clock: config.environment.clock.clone(),
            measures: Arc::clone(&measures),
            spans: config.environment.spans.clone(),
            faults: faults.clone(),
        });
        let forwarder = Forwarder::start(id, Arc::clone(pool));
        let shard = Shard {
            id,
            raft,
            batcher,
            forwarder,
            log,
            space,
            clock: config.environment.clock.clone(),
            watchers,
            measures,
            faults: faults.clone(),
            heard: Mutex::default(),
        };
        shards.insert(id, Arc::new(shard));
    }
    Ok(shards)
}

fn raft_config(config: &NodeConfig) -> Result<openraft::Config, StartError> {
    let timing = config.timing;
    openraft::Config {
        cluster_name: config.cluster.clone(),
        // Elections and heartbeats are driven by `elections`; these are the time limits of votes
        // and heartbeats, and the lease in which followers vote for nobody else.
        enable_tick: false,
        heartbeat_interval: timing.election_ms() / 2,
        election_timeout_min: timing.election_ms(),
        election_timeout_max: timing.lease_ms(),
        max_payload_entries: 256,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.log_entries_max),
        // Half is kept for followers that are a little behind.
        max_in_snapshot_log_to_keep: config.log_entries_max / 2,
        replication_lag_threshold: config.log_entries_max * 2,
        purge_batch_size: (config.log_entries_max / 8).clamp(1, 64),
        // Appends must never wait for a place in the queue: they would lose their order.
        api_channel_size: Some(16 * 1024),
        enable_pre_vote: Some(true),
        // The state is not synced at every apply: a leader that restarts must be elected anew
        // before it can tell what was committed.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| StartError::Config(chain(&error)))
}
