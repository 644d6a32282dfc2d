//! Who this node is, and whom it has met.
//!
//! Guarantees: a data folder belongs to one node of one cluster for its life. When the folder is
//! made it draws an incarnation, a random number; every other node keeps the incarnation of each
//! node it meets on disk before it exchanges anything else with it, and refuses another one under
//! the same id. So a node that lost its disk, and with it its votes and its log, cannot take part
//! under its old id.
//!
//! A disk can also go back in time, when it is restored from a copy; the incarnation is the same
//! then. Nodes tell each other how much they have written to their logs, and refuse one that has
//! written less than it told before. A node that was refused for that notes it on its own disk, and
//! does not start again: as it goes on writing it would come to look like what it was.
//!
//! Leaves out: secrets; an incarnation is no credential.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, OnceLock},
};

use oncekey_planted::{self as planted, Bug};
use oncekey_storage::{disk::Disk, wal::Wal};
use oncekey_types::NodeId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{error::StartError, formation::Founders};

const FILE: &str = "identity.json";

/// Version of the file, and so of the whole folder: an older program that finds a newer one does not
/// start, before it meets what it cannot read. Stable, never reuse.
///
/// | version | since then |
/// |---|---|
/// | 1 | |
/// | 2 | log entries of version 2, which name epochs; the origin of a shard in its meta record |
const VERSION: u32 = 2;
/// The oldest version that this program brings up to date. It reads whatever such a folder has.
const OLDEST: u32 = 1;

/// Drawn once for each data folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Incarnation(pub(crate) u64);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    cluster: String,
    node: u64,
    shards: u16,
    incarnation: Incarnation,
    met: BTreeMap<u64, Incarnation>,
    /// How much the others had written when that was noted last.
    #[serde(default)]
    progress: BTreeMap<u64, Progress>,
    /// Others know that this disk was further.
    #[serde(default)]
    went_back: bool,
    /// The nodes of which the cluster is formed, when an operator named them.
    #[serde(default)]
    founders: Option<Founders>,
}

/// How much a node has durably written to its log, in batches, which only grows.
///
/// What a node tells can be overtaken on the way by what it tells later. So only what it had before
/// it opened the log is held against what it told, and only by a later life of its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Drawn at each start of the process.
    pub(crate) life: u64,
    /// Before the log was opened in this life, which writes to it.
    pub(crate) opened: u64,
    /// Now.
    pub(crate) written: u64,
}

/// The identity of this node; written through to disk.
pub(crate) struct Identity {
    disk: Arc<dyn Disk>,
    record: Mutex<Record>,
    /// How much the others have written, as they told.
    heard: Mutex<BTreeMap<u64, Progress>>,
    /// Nodes that were removed from the cluster.
    removed: Mutex<BTreeSet<u64>>,
    life: u64,
    /// Tells how much this node has written, with what it had before it was opened.
    log: OnceLock<(Wal, u64)>,
}

/// A node came with another incarnation than it had when it was met.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("node {node} has another disk than when it was met first")]
pub(crate) struct OtherIncarnation {
    pub(crate) node: NodeId,
}

/// A node came with less in its log than it told before.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("node {node} came with {now} batches in its log and had told of {before}")]
pub(crate) struct WentBack {
    pub(crate) node: NodeId,
    pub(crate) now: u64,
    pub(crate) before: u64,
}

/// A node came that was removed from the cluster.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("node {node} was removed from the cluster")]
pub(crate) struct Removed {
    pub(crate) node: NodeId,
}

/// Why a node was not noted as met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeetError {
    #[error(transparent)]
    OtherIncarnation(#[from] OtherIncarnation),
    #[error(transparent)]
    WentBack(#[from] WentBack),
    #[error(transparent)]
    Removed(#[from] Removed),
    #[error("the identity of the node cannot be written")]
    Write(#[from] io::Error),
}

impl Identity {
    /// Reads the identity of the folder on `disk`, or makes it. `dir` is its name in errors.
    pub(crate) fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        cluster: &str,
        node: NodeId,
        shards: u16,
    ) -> Result<Self, StartError> {
        let path = dir.join(FILE);
        let record = match read(&*disk) {
            Ok(bytes) => {
                let record = parse(&path, &bytes, cluster, node, shards)?;
                if record.version == VERSION { record } else { upgrade(&path, &*disk, record)? }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let record = Record {
                    version: VERSION,
                    cluster: cluster.to_owned(),
                    node: node.0,
                    shards,
                    incarnation: Incarnation(rand::random()),
                    met: BTreeMap::new(),
                    progress: BTreeMap::new(),
                    went_back: false,
                    founders: None,
                };
                write(&*disk, &record).map_err(|error| {
                    StartError::Identity(format!("cannot write {}: {error}", path.display()))
                })?;
                record
            }
            Err(error) => {
                return Err(StartError::Identity(format!(
                    "cannot read {}: {error}",
                    path.display()
                )));
            }
        };
        let heard = Mutex::new(record.progress.clone());
        Ok(Self {
            disk,
            record: Mutex::new(record),
            heard,
            removed: Mutex::default(),
            life: rand::random(),
            log: OnceLock::new(),
        })
    }

    /// Tells others from now on how far `log` is, and how far it was when it was opened.
    pub(crate) fn follow(&self, log: Wal, opened: u64) {
        // A node opens its log once.
        let _ = self.log.set((log, opened));
    }

    /// How much this node has written to its log.
    pub(crate) fn progress(&self) -> Progress {
        let (opened, written) =
            self.log.get().map_or((0, 0), |(log, opened)| (*opened, log.progress()));
        Progress { life: self.life, opened, written }
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId(self.record.lock().node)
    }

    pub(crate) fn cluster(&self) -> String {
        self.record.lock().cluster.clone()
    }

    pub(crate) fn shards(&self) -> u16 {
        self.record.lock().shards
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.record.lock().incarnation
    }

    /// The nodes met so far, without this one.
    pub(crate) fn met(&self) -> Vec<u64> {
        self.record.lock().met.keys().copied().collect()
    }

    /// Notes that `node` was met, on disk before it returns. Blocks for one sync at the first
    /// meeting.
    pub(crate) fn meet(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        progress: Progress,
    ) -> Result<(), MeetError> {
        if self.is_removed(node) {
            return Err(Removed { node }.into());
        }
        let mut record = self.record.lock();
        match record.met.get(&node.0) {
            Some(_) if planted::is(Bug::LostDiskVotes) => Ok(()),
            Some(known) if *known == incarnation => {
                let before = self.heard.lock().get(&node.0).copied();
                if let Some(Progress { life, written: before, .. }) = before
                    && life != progress.life
                    && progress.opened < before
                {
                    return Err(WentBack { node, now: progress.opened, before }.into());
                }
                self.heard(node, progress);
                Ok(())
            }
            Some(_) => Err(OtherIncarnation { node }.into()),
            None => {
                let mut next = record.clone();
                next.met.insert(node.0, incarnation);
                write(&*self.disk, &next)?;
                *record = next;
                Ok(())
            }
        }
    }
}

impl Identity {
    /// Notes in memory how much `node` has written.
    pub(crate) fn heard(&self, node: NodeId, progress: Progress) {
        let mut heard = self.heard.lock();
        let known = heard.entry(node.0).or_insert(progress);
        if progress.written >= known.written {
            *known = progress;
        }
    }

    /// Notes on disk what was heard since the last time. Blocks for a sync if there is anything.
    pub(crate) fn keep_progress(&self) -> io::Result<()> {
        let heard = self.heard.lock().clone();
        let mut record = self.record.lock();
        if record.progress == heard {
            return Ok(());
        }
        let next = Record { progress: heard, ..record.clone() };
        write(&*self.disk, &next)?;
        *record = next;
        Ok(())
    }

    /// Notes that `removed` were removed from the cluster; whether there is a new one among them.
    pub(crate) fn forget(&self, removed: &BTreeSet<u64>) -> bool {
        let mut known = self.removed.lock();
        let is_new = !removed.is_subset(&known);
        removed.clone_into(&mut known);
        is_new
    }

    pub(crate) fn is_removed(&self, node: NodeId) -> bool {
        self.removed.lock().contains(&node.0)
    }

    /// The nodes of which an operator had the cluster formed.
    pub(crate) fn founders(&self) -> Option<Founders> {
        self.record.lock().founders.clone()
    }

    /// Notes on disk of which nodes the cluster is formed. Once for the life of the disk: false when
    /// others were noted before.
    pub(crate) fn found(&self, founders: &Founders) -> io::Result<bool> {
        let mut record = self.record.lock();
        if let Some(known) = &record.founders {
            return Ok(known == founders);
        }
        let next = Record { founders: Some(founders.clone()), ..record.clone() };
        write(&*self.disk, &next)?;
        *record = next;
        Ok(true)
    }

    /// Notes on disk that this disk went back in time, so that the node does not start again.
    pub(crate) fn went_back(&self) -> io::Result<()> {
        let mut record = self.record.lock();
        let next = Record { went_back: true, ..record.clone() };
        write(&*self.disk, &next)?;
        *record = next;
        Ok(())
    }
}

/// What an operator is told of a node that was removed.
pub(crate) fn removed_advice(node: NodeId) -> String {
    format!(
        "node {node} was removed from the cluster: stop it; to join again, its machine needs an \
         empty disk and a new node id"
    )
}

/// What an operator is told of a node whose disk went back in time.
pub(crate) fn went_back_advice(node: NodeId) -> String {
    format!(
        "the disk of node {node} went back in time, as when an old copy of it was restored; such a \
         node must not vote under its old id: give it an empty disk and a new node id and let it \
         replace node {node}"
    )
}

fn parse(
    path: &Path,
    bytes: &[u8],
    cluster: &str,
    node: NodeId,
    shards: u16,
) -> Result<Record, StartError> {
    let refuse = |why: String| StartError::Identity(format!("{}: {why}", path.display()));
    let damaged = |error| refuse(format!("is damaged: {error}"));
    // First the version: a later one may have other members.
    let AnyVersion { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if !(OLDEST..=VERSION).contains(&version) {
        return Err(refuse(format!(
            "the data folder has format {version}, this program reads formats {OLDEST} to \
             {VERSION}: start the version of the program that wrote it; nothing was changed"
        )));
    }
    let record: Record = serde_json::from_slice(bytes).map_err(damaged)?;
    if record.cluster != cluster {
        return Err(refuse(format!(
            "the folder belongs to cluster {:?}, the configuration says {cluster:?}",
            record.cluster
        )));
    }
    if record.node != node.0 {
        return Err(refuse(format!(
            "the folder belongs to node {}, the configuration says {node}",
            record.node
        )));
    }
    if record.shards != shards {
        return Err(refuse(format!(
            "the cluster was made with {} shards, the configuration says {shards}; the number of \
             shards is set when a cluster is created",
            record.shards
        )));
    }
    if record.went_back {
        return Err(refuse(went_back_advice(node)));
    }
    Ok(record)
}

/// The identity file in `bytes`, written anew; none when it is refused.
#[cfg(feature = "fuzzing")]
pub(crate) fn written_anew(bytes: &[u8]) -> Option<Vec<u8>> {
    let stated: Record = serde_json::from_slice(bytes).ok()?;
    let path = Path::new(FILE);
    let record = parse(path, bytes, &stated.cluster, NodeId(stated.node), stated.shards).ok()?;
    serde_json::to_vec_pretty(&record).ok()
}

#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// Marks the folder as one of this version, before anything else is written to it.
fn upgrade(path: &Path, disk: &dyn Disk, record: Record) -> Result<Record, StartError> {
    tracing::info!(from = record.version, to = VERSION, "the data folder is brought up to date");
    let record = Record { version: VERSION, ..record };
    write(disk, &record).map_err(|error| {
        StartError::Identity(format!("cannot write {}: {error}", path.display()))
    })?;
    Ok(record)
}

fn read(disk: &dyn Disk) -> io::Result<Vec<u8>> {
    let file = disk.open(FILE)?;
    let size = usize::try_from(file.size()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces the file in one step: a crash leaves the old one or the new one.
fn write(disk: &dyn Disk, record: &Record) -> io::Result<()> {
    let draft = format!("{FILE}.new");
    match disk.remove(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // What a crash left, or nothing.
        Ok(()) | Err(_) => {}
    }
    let file = disk.create(&draft)?;
    file.write_all_at(&serde_json::to_vec_pretty(record)?, 0)?;
    file.sync_data()?;
    disk.rename(&draft, FILE)?;
    disk.sync_dir()
}

#[cfg(test)]
mod tests {
    use oncekey_storage::disk::{SimDisk, Tear};

    use super::*;

    fn try_open(disk: &SimDisk, cluster: &str, node: u64, shards: u16) -> Option<Identity> {
        let mount = Arc::new(disk.mount());
        Identity::open(Path::new("data"), mount, cluster, NodeId(node), shards).ok()
    }

    fn open(disk: &SimDisk) -> Identity {
        try_open(disk, "test", 1, 4).unwrap()
    }

    #[test]
    fn an_identity_survives_a_restart() {
        let disk = SimDisk::new();
        let first = open(&disk);
        first.meet(NodeId(2), Incarnation(7), first_life(9)).unwrap();
        let second = open(&disk);
        assert_eq!(second.incarnation(), first.incarnation());
        assert_eq!(second.met(), [2]);
    }

    #[test]
    fn a_node_with_another_disk_is_refused_even_after_a_restart() {
        let disk = SimDisk::new();
        open(&disk).meet(NodeId(2), Incarnation(7), first_life(9)).unwrap();
        let identity = open(&disk);
        assert!(identity.meet(NodeId(2), Incarnation(7), first_life(9)).is_ok());
        assert!(matches!(
            identity.meet(NodeId(2), Incarnation(8), first_life(9)),
            Err(MeetError::OtherIncarnation(_))
        ));
    }

    #[test]
    fn a_folder_serves_one_node_of_one_cluster() {
        let disk = SimDisk::new();
        open(&disk);
        assert!(try_open(&disk, "other", 1, 4).is_none());
        assert!(try_open(&disk, "test", 2, 4).is_none());
        assert!(try_open(&disk, "test", 1, 8).is_none());
    }

    #[test]
    fn an_older_folder_is_brought_up_to_date_once_and_a_newer_one_is_refused() {
        let disk = SimDisk::new();
        let first = open(&disk);
        let told = |version: u32| {
            let old = Record { version, ..first.record.lock().clone() };
            write(&disk.mount(), &old).unwrap();
            Identity::open(Path::new("/data"), Arc::new(disk.mount()), "test", NodeId(1), 4)
                .map(|identity| (identity.incarnation(), identity.record.lock().version))
                .map_err(|error| error.to_string())
        };
        assert_eq!(told(OLDEST), Ok((first.incarnation(), VERSION)));
        let kept: Record = serde_json::from_slice(&read(&disk.mount()).unwrap()).unwrap();
        assert_eq!(kept.version, VERSION, "on disk, too");
        for version in [0, VERSION + 1] {
            let line = told(version).unwrap_err();
            assert!(line.contains("the data folder has format") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_node_that_was_met_is_known_after_a_power_cut_at_any_moment() {
        for operation in 0.. {
            let disk = SimDisk::new();
            let identity = open(&disk);
            let incarnation = identity.incarnation();
            disk.crash_at(disk.operations() + operation);
            let met = identity.meet(NodeId(2), Incarnation(7), first_life(9)).is_ok();
            disk.power_cut(Tear::Nothing);
            let again = open(&disk);
            assert_eq!(again.incarnation(), incarnation, "cut at operation {operation}");
            if met {
                assert_eq!(again.met(), [2], "cut at operation {operation}");
                return;
            }
            again.meet(NodeId(2), Incarnation(7), first_life(9)).unwrap();
        }
    }

    fn first_life(written: u64) -> Progress {
        Progress { life: 1, opened: 3, written }
    }

    #[test]
    fn a_node_whose_disk_went_back_is_refused() {
        let disk = SimDisk::new();
        let identity = open(&disk);
        identity.meet(NodeId(2), Incarnation(7), first_life(3)).unwrap();
        identity.heard(NodeId(2), first_life(12));
        let meet = |identity: &Identity, opened| {
            let progress = Progress { life: 2, opened, written: 20 };
            identity.meet(NodeId(2), Incarnation(7), progress)
        };
        assert!(matches!(meet(&identity, 11), Err(MeetError::WentBack(_))));

        identity.keep_progress().unwrap();
        let again = open(&disk);
        assert!(matches!(meet(&again, 11), Err(MeetError::WentBack(_))), "after a restart");
        assert!(meet(&again, 12).is_ok());
    }

    #[test]
    fn a_greeting_that_was_overtaken_is_no_old_disk() {
        let disk = SimDisk::new();
        let identity = open(&disk);
        identity.meet(NodeId(2), Incarnation(7), first_life(3)).unwrap();
        identity.heard(NodeId(2), first_life(12));
        identity.meet(NodeId(2), Incarnation(7), first_life(5)).unwrap();

        // The asked node restarts meanwhile, and knows what it noted.
        identity.keep_progress().unwrap();
        open(&disk).meet(NodeId(2), Incarnation(7), first_life(5)).unwrap();
    }

    #[test]
    fn a_node_that_was_refused_for_its_disk_does_not_start_again() {
        let disk = SimDisk::new();
        open(&disk).went_back().unwrap();
        assert!(try_open(&disk, "test", 1, 4).is_none());
    }
}
