//! A node: all shards, and what they share.
//!
//! Guarantees: [`Node::start`] returns when every shard can answer from its own state; a shard
//! whose state the disk lost has by then fetched it anew. Leaves out: waiting for leaders, see
//! [`ShardStatus::is_ready`](crate::ShardStatus::is_ready).

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use oncekey_storage::{
    disk::Space,
    state::{StateEngine, StateTimes},
    wal::{Wal, WalTimes},
};
use oncekey_store::{
    command::{Command, Restore},
    outcome::Outcome,
    query::{Answer, Query},
};
use oncekey_types::{LogIndex, NodeId, ShardId, SlotMap, UserId};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    backup::{self, BackupError, ShardBackup},
    config::{Member, NodeConfig},
    disk::OpenedDisk,
    elections::Elections,
    elsewhere::{self, Held},
    environment::{Disks, Environment},
    error::{Fault, FaultSink, StartError, SubmitError, chain},
    formation::{self, Foundation, Founders},
    identity::Identity,
    introduction,
    liveness::{self, Liveness},
    measures::{NodeMeasures, ShardMeasures},
    members,
    membership::{
        self, Told,
        steward::{Founding, Steward},
    },
    origins::{EpochStatus, Origins},
    peer::{Inbound, PeerPool},
    reports::{self, NodeReport, Reporter, Reports, SeenNode},
    router::{Committed, LocalRead, Read, Router},
    service::Services,
    start::{self, Ground},
    status::{self, NodeStatus},
    transfer::OpenTransfers,
    upkeep,
    watchers::Watch,
};

/// Time in which the shards that a stopping node leads should find new leaders.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);

/// A running node. Clones share it.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    identity: Arc<Identity>,
    pool: Arc<PeerPool>,
    pub(crate) router: Arc<Router>,
    pub(crate) foundation: Arc<Foundation>,
    pub(crate) me: Member,
    origins: Arc<Origins>,
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
            (config.me.clone(), config.protocols),
            environment,
            faults.clone(),
        ));
        let configured = configured(&config);
        let founders = configured.clone().or_else(|| disk.identity.founders());
        for (node, member) in founders.iter().flat_map(|founders| &founders.members) {
            pool.learn(*node, member);
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
        let inbound = start::listen(&config, &disk, &faults, &services).await?;

        let measures = Arc::new(NodeMeasures::new());
        let origins = Arc::new(Origins::default());
        let ground = Ground {
            config: &config,
            disk: &disk,
            pool: &pool,
            measures: &measures,
            origins: &origins,
            faults: &faults,
        };
        let membership = ground.membership(&liveness).await?;
        let router = Arc::new(Router {
            me: config.node.0,
            shards: ground.shards(&slots).await?,
            slots,
            membership: Arc::clone(&membership),
            liveness: Arc::clone(&liveness),
            pool: Arc::clone(&pool),
            blocking: environment.blocking.clone(),
            faults: faults.clone(),
            started: Instant::now(),
            spans: environment.spans.clone(),
            held: Held::default(),
        });
        let reporter = Arc::new(reporter(&config, &router, measures));
        let foundation = Arc::new(Foundation {
            identity: Arc::clone(&disk.identity),
            pool: Arc::clone(&pool),
            shards: router.shards.values().map(|shard| Arc::clone(&shard.group)).collect(),
            membership: Arc::clone(&membership.group),
            is_configured: configured.is_some() || !config.join.is_empty(),
        });
        services.open(Arc::clone(&router), Arc::clone(&foundation), Arc::clone(&reporter));

        let mut tasks = JoinSet::new();
        let reports = Arc::new(Reports::default());
        tasks.spawn(reports::gather(Arc::clone(&pool), Arc::clone(&reports)));
        tasks.spawn(liveness::run(
            Arc::clone(&pool),
            Arc::clone(&liveness),
            config.timing,
            start::contact(Arc::clone(&router)),
        ));
        let groups = || router.groups().cloned();
        tasks.spawn(
            Elections::new(config.node.0, config.timing, Arc::clone(&liveness), groups()).run(),
        );
        tasks.spawn(introduction::introduce(Arc::clone(&pool), config.join.clone()));
        if let Some(founders) = founders {
            tasks.spawn(formation::form(
                Arc::clone(&disk.identity),
                Arc::clone(&pool),
                founders,
                foundation.shards.clone(),
            ));
        }
        tasks.spawn(upkeep::run(
            Arc::clone(&disk.identity),
            disk.wal.clone(),
            groups().map(|group| (group.id, group)).collect(),
            transfers,
            faults.clone(),
        ));
        take_part(&mut tasks, &router, &disk.identity, &config, configured);
        Ok(Self {
            inner: Arc::new(Inner {
                identity: disk.identity,
                pool,
                router,
                foundation,
                origins,
                wal: disk.wal,
                engine: disk.engine,
                me: config.me,
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

    /// Reads from this node's own replica, whatever its age, or when it has none from that of
    /// another node; none when no replica is in reach.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the disk cannot tell; the node stops.
    pub async fn query_nearby(
        &self,
        query: &Query,
        deadline: Instant,
    ) -> Result<Option<LocalRead>, Fault> {
        self.inner.router.query_nearby(query, deadline).await
    }

    /// Reads from this node's own replica, whatever its age; none when it holds none.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the disk cannot tell; the node stops.
    pub fn query_local(&self, query: &Query) -> Result<Option<LocalRead>, Fault> {
        let router = &self.inner.router;
        router.query_replica(router.shard_of(query.user()), query)
    }

    /// Name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.inner.identity.cluster()
    }

    /// The shards of the cluster.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.inner.router.slots.shards()
    }

    /// In which epoch the cluster is, as this node knows it.
    #[must_use]
    pub fn epoch(&self) -> EpochStatus {
        self.inner.origins.status()
    }

    /// Begins a backup of `shard` from this node's replica.
    ///
    /// # Errors
    ///
    /// See [`BackupError`].
    pub async fn backup(
        &self,
        shard: ShardId,
        deadline: Instant,
    ) -> Result<ShardBackup, BackupError> {
        backup::begin(&self.inner.router, shard, deadline).await
    }

    /// Takes a step of a restore in `shard`, wherever its leader is.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    pub async fn restore(
        &self,
        shard: ShardId,
        step: Restore,
        deadline: Instant,
    ) -> Result<Outcome, SubmitError> {
        let router = &self.inner.router;
        let shard = router.shards.get(&shard).ok_or(SubmitError::NoQuorum { shard })?;
        Ok(router.submit_to(shard, Command::Restore(step), deadline).await?.outcome)
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

    /// Waits until a read at the leader gives another answer than `known`, on a node without a replica of
    /// the shard of the query's user. Where there is one, a [`watch`](Self::watch) tells of changes, and
    /// this never ends.
    pub async fn changed_elsewhere(&self, query: &Query, known: &Answer) {
        elsewhere::changed(&self.inner.router, query, known).await;
    }

    /// How to reach `node`, if this node knows it.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.inner.pool.member(node.0)
    }

    /// What this node knows of itself and its cluster.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let identity = &self.inner.identity;
        let (cluster, node) = (identity.cluster(), identity.node());
        status::of(&self.inner.router, cluster, node, self.inner.wal.stats())
    }

    /// What this node has counted for all its shards together.
    #[must_use]
    pub fn measures(&self) -> &NodeMeasures {
        &self.inner.reporter.measures
    }

    /// What this node has counted for each of its shards.
    pub fn shard_measures(&self) -> impl Iterator<Item = (ShardId, &ShardMeasures)> {
        self.inner.router.shards.values().map(|shard| (shard.id(), &*shard.measures))
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
        let router = &self.inner.router;
        router
            .shards
            .values()
            .filter(|shard| router.hosts(shard))
            .map(|shard| shard.digest())
            .collect()
    }

    /// Ends when the node has had a local fault. The process must end then.
    pub async fn faulted(&self) -> Fault {
        self.inner.faults.wait().await
    }

    /// Hands over leadership, then stops all shards and closes log and state.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        tasks.shutdown().await;
        for group in self.inner.router.groups() {
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!(shard = %group.id, %error, "a group did not end cleanly");
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

    /// Gives each group that this node leads to the voter that has most of its log.
    async fn hand_over(&self) {
        let me = self.inner.identity.node().0;
        let mut waiting = Vec::new();
        for group in self.inner.router.groups() {
            if group.leader() != Some(me) {
                continue;
            }
            if let Some(heir) = members::heir(me, group, &members::voters(group))
                && group.raft.trigger().transfer_leader(heir).await.is_ok()
            {
                waiting.push(group.leader_other_than(Some(me)));
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

/// The founders that the configuration names.
fn configured(config: &NodeConfig) -> Option<Founders> {
    let members = config.members.iter().map(|(node, member)| (node.0, member.clone()));
    let members: BTreeMap<u64, Member> = members.collect();
    (!members.is_empty()).then_some(Founders { members, replicas: config.replicas })
}

/// Starts what a node does for the membership.
fn take_part(
    tasks: &mut JoinSet<()>,
    router: &Arc<Router>,
    identity: &Arc<Identity>,
    config: &NodeConfig,
    configured: Option<Founders>,
) {
    let membership = || Arc::clone(&router.membership);
    if let Some(first) = router.shards.values().next() {
        tasks.spawn(membership::form(membership(), Arc::clone(&first.group)));
    }
    let told = Told {
        incarnation: identity.incarnation(),
        location: config.location.clone(),
        protocols: config.protocols,
        program: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let faults = router.faults.clone();
    tasks.spawn(membership::announce(membership(), config.me.clone(), told, faults));
    let pool = Arc::clone(&router.pool);
    tasks.spawn(membership::follow(membership(), pool, Arc::clone(identity)));
    let founding = Founding { configured, identity: Arc::clone(identity) };
    tasks.spawn(Steward::new(Arc::clone(router), founding).run());
}
