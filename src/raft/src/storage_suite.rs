//! openraft's own test suite for storage, over our log and our state machine on real disks.

use std::sync::Arc;

use oncekey_storage::{
    disk::RealDisk,
    state::{EngineKind, EngineOptions, StateEngine},
    wal::{GroupId, Wal, WalOptions},
};
use oncekey_types::ShardId;
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use crate::{
    environment::Blocking,
    error::FaultSink,
    log_store::LogStore,
    machine::{Machine, Rules},
    measures::{NodeMeasures, ShardMeasures},
    type_config::TypeConfig,
    watchers::Watchers,
};

struct Builder {
    engine: EngineKind,
}

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let faults = FaultSink::default();
        let disk = Arc::new(RealDisk::open(dir.path().join("log")).unwrap());
        let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
        let (wal, recovery) = Wal::open(disk, options, |_| {}).unwrap();
        let group = GroupId(0);
        let log = LogStore::new(group, wal, recovery.groups.get(&group), faults.clone()).unwrap();
        let engine =
            StateEngine::open(&dir.path().join("state"), self.engine, &EngineOptions::default())
                .unwrap();
        let measures = Arc::new(ShardMeasures::new(Arc::new(NodeMeasures::new())));
        let rules = Rules::Shard(Watchers::default(), Arc::default());
        let space = engine.shard(ShardId(0)).unwrap();
        let machine = Machine::open(space, Blocking::Threads, faults, measures, rules).unwrap();
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_accepts_the_log_and_the_state_machine_over_fjall() {
    Suite::test_all(Builder { engine: EngineKind::Fjall }).await.unwrap();
}

#[cfg(feature = "sled")]
#[tokio::test(flavor = "multi_thread")]
async fn openraft_accepts_the_log_and_the_state_machine_over_sled() {
    Suite::test_all(Builder { engine: EngineKind::Sled }).await.unwrap();
}
