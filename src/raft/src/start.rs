//! What a node starts, piece by piece.
//!
//! Guarantees: a group whose state the disk lost has fetched it anew before its Raft starts. Leaves
//! out: the order of the pieces, see `node`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use oncekey_storage::wal::GroupId;
use oncekey_types::{ShardId, SlotMap};
use openraft::SnapshotPolicy;
use tokio::sync::watch;

use crate::{
    batcher::{Batcher, Proposer},
    config::NodeConfig,
    disk::OpenedDisk,
    error::{FaultSink, StartError, chain},
    forwarder::Forwarder,
    group::Group,
    liveness::Liveness,
    log_store::LogStore,
    machine::{Machine, Rules, read_header},
    measures::{NodeMeasures, ShardMeasures},
    membership::{self, Membership},
    origins::Origins,
    peer::{Greeter, Inbound, NetworkFactory, PeerPool},
    router::Router,
    service::Services,
    shard::Shard,
    transfer,
    type_config::Raft,
    watchers::Watchers,
};

/// What the groups of a node are made of.
pub(crate) struct Ground<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) disk: &'a OpenedDisk,
    pub(crate) pool: &'a Arc<PeerPool>,
    pub(crate) measures: &'a Arc<NodeMeasures>,
    pub(crate) origins: &'a Arc<Origins>,
    pub(crate) faults: &'a FaultSink,
}

impl Ground<'_> {
    /// Starts the groups of all shards.
    pub(crate) async fn shards(
        &self,
        slots: &SlotMap,
    ) -> Result<BTreeMap<ShardId, Arc<Shard>>, StartError> {
        let raft_config = Arc::new(raft_config(self.config)?);
        let mut shards = BTreeMap::new();
        for id in slots.shards() {
            let watchers = Watchers::default();
            let rules = Rules::Shard(watchers.clone(), Arc::clone(self.origins));
            let group = self.group(id, &raft_config, rules).await?;
            let environment = &self.config.environment;
            let measures = Arc::clone(&group.measures);
            let batcher = Batcher::start(Proposer {
                shard: id,
                raft: group.raft.clone(),
                policy: self.config.policy,
                clock: environment.clock.clone(),
                measures: Arc::clone(&measures),
                spans: environment.spans.clone(),
                faults: self.faults.clone(),
            });
            let forwarder = Forwarder::start(id, Arc::clone(self.pool));
            let (clock, faults) = (environment.clock.clone(), self.faults.clone());
            let shard = Shard { group, batcher, forwarder, clock, watchers, measures, faults };
            shards.insert(id, Arc::new(shard));
        }
        Ok(shards)
    }

    /// Starts the group of the membership.
    pub(crate) async fn membership(
        &self,
        liveness: &Arc<Liveness>,
    ) -> Result<Arc<Membership>, StartError> {
        let raft_config = Arc::new(raft_config(self.config)?);
        let (published, state) = watch::channel(Arc::default());
        let rules = Rules::Membership(published);
        let group = self.group(membership::GROUP, &raft_config, rules).await?;
        let (pool, liveness) = (Arc::clone(self.pool), Arc::clone(liveness));
        Ok(Arc::new(Membership::new(self.config.node.0, group, state, pool, liveness)))
    }

    async fn group(
        &self,
        id: ShardId,
        raft_config: &Arc<openraft::Config>,
        rules: Rules,
    ) -> Result<Arc<Group>, StartError> {
        let Self { config, disk, pool, faults, .. } = *self;
        let failed =
            |error: &dyn std::error::Error| StartError::Shard { shard: id, reason: chain(error) };
        let space = disk.engine.shard(id).map_err(|error| failed(&error))?;
        let number = GroupId(id.0.into());
        let recovered = disk.recovery.groups.get(&number);
        let mut log = LogStore::new(number, disk.wal.clone(), recovered, faults.clone())
            .map_err(|error| failed(&error))?;
        let header = read_header(&space).map_err(|error| failed(&*error))?;
        for (node, member) in header.membership.nodes() {
            pool.learn(*node, member);
        }
        let blocking = &config.environment.blocking;
        if log.purged().is_some_and(|purged| header.applied < Some(purged)) {
            transfer::restore(pool, blocking, faults, id, &space, log.purged())
                .await
                .map_err(|fault| failed(&fault))?;
        }
        let header = read_header(&space).map_err(|error| failed(&*error))?;
        if let Some(applied) = header.applied {
            log.give_way_to(applied).await.map_err(|error| failed(&error))?;
        }
        let blocking = blocking.clone();
        let measures = Arc::new(ShardMeasures::new(Arc::clone(self.measures)));
        let counted = Arc::clone(&measures);
        let machine = Machine::open(space.clone(), blocking, faults.clone(), counted, rules)
            .map_err(|error| failed(&error))?;
        let network = NetworkFactory { shard: id, pool: Arc::clone(pool) };
        let raft: Raft = openraft::Raft::new(
            config.node.0,
            Arc::clone(raft_config),
            network,
            log.clone(),
            machine,
        )
        .await
        .map_err(|error| failed(&error))?;
        // The log may know of members that the state does not yet.
        let known = raft
            .with_raft_state(|state| state.membership_state.effective().membership().clone())
            .await
            .map_err(|error| failed(&error))?;
        for (node, member) in known.nodes() {
            pool.learn_if_unknown(*node, member);
        }
        Ok(Arc::new(Group::new(id, raft, log, space, measures, Arc::clone(pool))))
    }
}

/// Notes for each group that its leader was heard.
pub(crate) fn contact(router: Arc<Router>) -> impl Fn(u64, &BTreeSet<ShardId>) {
    move |node, leads| {
        for id in leads {
            let Some(group) = router.group(*id) else { continue };
            // Whoever holds no replica believes what the nodes say.
            let hosts = router.shards.get(id).is_none_or(|shard| router.hosts(shard));
            if !hosts || group.leader() == Some(node) {
                group.heard();
            }
        }
    }
}

pub(crate) async fn listen(
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
        Greeter::new(
            Arc::clone(&disk.identity),
            (config.me.clone(), config.protocols),
            Arc::clone(&config.environment.guard),
            faults.clone(),
        ),
        Arc::clone(services),
    ))
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
