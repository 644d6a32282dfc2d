//! What a node has on disk: its identity, the log and the state.
//!
//! Guarantees: while a node has its disk open, no other process can. Leaves out: what the shards
//! make of it.

use std::{path::Path, sync::Arc, time::Duration};

use oncekey_storage::{
    disk::{Disk, LockError, RealDisk},
    state::{EngineOptions, StateEngine},
    wal::{Recovery, Wal, WalFault, WalOptions},
};
use tokio::{sync::Notify, time::timeout};

use crate::{
    config::NodeConfig,
    environment::{Blocking, Disks},
    error::{Fault, FaultSink, StartError, chain},
    identity::Identity,
};

/// Time after which a log without a thread of its own is asked to note that it is idle.
const IDLE_AFTER: Duration = Duration::from_millis(50);

/// What a node has on disk.
pub(crate) struct OpenedDisk {
    pub(crate) identity: Arc<Identity>,
    pub(crate) wal: Wal,
    pub(crate) recovery: Recovery,
    pub(crate) engine: StateEngine,
}

impl OpenedDisk {
    pub(crate) async fn open(config: &NodeConfig, faults: &FaultSink) -> Result<Self, StartError> {
        let blocking = &config.environment.blocking;
        let wake = match blocking {
            Blocking::Threads => None,
            Blocking::Inline(_) => Some(Arc::new(Notify::new())),
        };
        let opened = {
            let (config, faults, wake) = (config.clone(), faults.clone(), wake.clone());
            blocking.run(move || open(&config, &faults, wake)).await
        };
        let opened = opened.map_err(|error| StartError::State(error.to_string()))??;
        if let (Blocking::Inline(takes), Some(wake)) = (blocking, wake) {
            tokio::spawn(write_log(opened.wal.clone(), wake, Arc::clone(takes)));
        }
        Ok(opened)
    }
}

fn open(
    config: &NodeConfig,
    faults: &FaultSink,
    wake: Option<Arc<Notify>>,
) -> Result<OpenedDisk, StartError> {
    let dir = &config.data_dir;
    let Folders { own, log } = Folders::open(dir, &config.environment.disks)
        .map_err(|error| StartError::Identity(chain(&error)))?;
    let identity = Identity::open(dir, own, &config.cluster, config.node, config.shards)?;
    let options = WalOptions { segment_bytes: config.wal_segment_bytes, ..WalOptions::default() };
    let sink = faults.clone();
    let on_fault = move |fault: &WalFault| sink.raise(&Fault::new(chain(fault)));
    let (wal, recovery) = match wake {
        None => Wal::open(log, options, on_fault),
        Some(wake) => Wal::open_without_thread(log, options, on_fault, move || wake.notify_one()),
    }
    .map_err(|error| StartError::Log(chain(&error)))?;
    identity.follow(wal.clone(), recovery.progress);
    let options = EngineOptions { cache_bytes: config.state_cache_bytes };
    let engine = match &config.environment.disks {
        Disks::Folder => StateEngine::open(&dir.join("state"), config.engine, &options),
        Disks::Simulated(machine) => StateEngine::in_memory(&machine.state, &options),
    }
    .map_err(|error| StartError::State(chain(&error)))?;
    Ok(OpenedDisk { identity: Arc::new(identity), wal, recovery, engine })
}

/// The folders that are written to file by file.
struct Folders {
    own: Arc<dyn Disk>,
    log: Arc<dyn Disk>,
}

impl Folders {
    fn open(dir: &Path, disks: &Disks) -> Result<Self, LockError> {
        Ok(match disks {
            Disks::Folder => Self {
                own: Arc::new(RealDisk::open(dir)?),
                log: Arc::new(RealDisk::open(dir.join("log"))?),
            },
            Disks::Simulated(machine) => {
                Self { own: Arc::new(machine.folder.mount()), log: Arc::new(machine.log.mount()) }
            }
        })
    }
}

/// Writes a log that has no thread of its own. Ends with the log.
async fn write_log(wal: Wal, wake: Arc<Notify>, takes: Arc<dyn Fn() -> Duration + Send + Sync>) {
    loop {
        // Told of work or not: an idle log has something to note.
        let _ = timeout(IDLE_AFTER, wake.notified()).await;
        tokio::time::sleep(takes()).await;
        if !wal.work() {
            return;
        }
    }
}
