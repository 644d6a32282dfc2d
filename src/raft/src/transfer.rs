//! A shard's state on its way from one node to another.
//!
//! The node that needs the state pulls it, chunk by chunk, from a view that the other node holds
//! open. Pulling bounds the memory of both sides, whatever the size of the state.
//!
//! Guarantees: what arrives is one consistent state with its own header, checked by the snapshot
//! codec to be whole; it is staged beside the current state and becomes current in one step.
//!
//! Leaves out: choosing whom to ask while Raft runs; the leader says so.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use oncekey_storage::state::{Record, ShardSpace, ShardView, Staging};
use oncekey_store::snapshot::{Content, Reader, Writer};
use oncekey_types::ShardId;
use parking_lot::Mutex;

use crate::{
    codec::{StateHeader, decode_header, encode_header},
    environment::Blocking,
    error::{Fault, FaultSink, chain},
    machine::Records,
    membership,
    peer::{PeerPool, Request, Response, SnapshotPart},
    type_config::LogId,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Snapshots that a node holds open for others; beyond, it refuses.
const OPEN_MAX: usize = 64;
/// Idle time after which an open snapshot is dropped.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Time to wait for one chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(20);
/// Records copied at a time within a node.
const COPY_RECORDS: usize = 1024;
/// Pause before a node without state asks the next one.
const RESTORE_PAUSE: Duration = Duration::from_millis(200);

/// The data of a snapshot, as openraft carries it around.
pub(crate) enum ShardSnapshot {
    /// The state as it is in this space when it is read.
    Current(ShardSpace),
    /// A state that has arrived from another node.
    Fetched(Fetched),
}

/// A state that has arrived and is staged beside the current one.
pub(crate) struct Fetched {
    staging: Staging,
    header: StateHeader,
}

impl Fetched {
    pub(crate) fn header(&self) -> &StateHeader {
        &self.header
    }
}

impl From<Fetched> for ShardSnapshot {
    fn from(fetched: Fetched) -> Self {
        Self::Fetched(fetched)
    }
}

/// Makes `snapshot` the state of `space`, durably, and returns its header. Blocks.
pub(crate) fn install(
    space: &ShardSpace,
    snapshot: ShardSnapshot,
) -> Result<StateHeader, BoxError> {
    let Fetched { staging, header } = match snapshot {
        ShardSnapshot::Fetched(fetched) => fetched,
        ShardSnapshot::Current(source) => {
            let view = source.view()?;
            let header = decode_header(&view.header()?.ok_or("the shard has no state yet")?)?;
            let mut staging = space.stage();
            let mut from = Vec::new();
            loop {
                let records = view.range(&from, None, COPY_RECORDS)?;
                let Some((last, _)) = records.last() else { break };
                // The smallest key above `last`.
                from = [last.as_slice(), &[0]].concat();
                staging.put(records)?;
            }
            Fetched { staging, header }
        }
    };
    staging.install(&encode_header(&header)?)?;
    Ok(header)
}

/// Why a state did not arrive. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot could not be fetched: {reason}")]
pub(crate) struct FetchError {
    reason: String,
}

/// Fetches the state of `shard` from `node` into a staging area of `space`.
pub(crate) async fn fetch(
    pool: &PeerPool,
    blocking: &Blocking,
    node: u64,
    shard: ShardId,
    space: &ShardSpace,
) -> Result<Fetched, FetchError> {
    let failed = |reason: String| FetchError { reason };
    let ask = async |request| match pool.call(node, request, CHUNK_TIMEOUT).await {
        Ok(Response::Failed { reason }) => Err(failed(format!("node {node} says: {reason}"))),
        Ok(response) => Ok(response),
        Err(error) => Err(failed(format!("node {node}: {error}"))),
    };
    let unexpected = || failed(format!("node {node} answered another question"));
    let Response::SnapshotOpened { transfer, header } =
        ask(Request::OpenSnapshot { shard: shard.0 }).await?
    else {
        return Err(unexpected());
    };
    let header = decode_header(&header).map_err(|error| failed(error.to_string()))?;
    let mut staging = space.stage();
    let mut reader = Unpacker::of(shard);
    let (mut chunks, mut bytes) = (0u64, 0u64);
    loop {
        let Response::Snapshot(part) = ask(Request::PullSnapshot { transfer }).await? else {
            return Err(unexpected());
        };
        match part {
            SnapshotPart::Chunk(chunk) => {
                (chunks, bytes) = (chunks + 1, bytes + chunk.len() as u64);
                let records = reader.push(&chunk).map_err(|error| failed(chain(&*error)))?;
                staging = put(blocking, staging, records)
                    .await
                    .map_err(|error| failed(chain(&*error)))?;
            }
            SnapshotPart::End => break,
        }
    }
    reader.finish().map_err(|error| failed(chain(&*error)))?;
    let index = header.applied_index();
    tracing::info!(%shard, from = node, index, chunks, bytes, "snapshot fetched");
    Ok(Fetched { staging, header })
}

async fn put(
    blocking: &Blocking,
    mut staging: Staging,
    records: Vec<Record>,
) -> Result<Staging, BoxError> {
    let put = move || {
        staging.put(records)?;
        Ok(staging)
    };
    blocking.run(put).await?
}

/// Fetches the state of a shard whose own is older than its purged log, before Raft starts. The
/// log and the votes are whole, so the node keeps its word; only the state must come from others.
/// Asks every known node in turn until one has it.
pub(crate) async fn restore(
    pool: &Arc<PeerPool>,
    blocking: &Blocking,
    faults: &FaultSink,
    shard: ShardId,
    space: &ShardSpace,
    purged: Option<LogId>,
) -> Result<(), Fault> {
    let fault = |error: &dyn std::error::Error| {
        let fault = Fault::new(format!("shard {shard}: {}", chain(error)));
        faults.raise(&fault);
        fault
    };
    tracing::warn!(
        %shard,
        purged = purged.map(|purged| purged.index),
        "the state on disk is older than the log, which has been purged since: throwing it away \
         and fetching a snapshot from another node"
    );
    space.reset().map_err(|error| fault(&error))?;
    loop {
        for node in pool.others().into_keys() {
            match fetch(pool, blocking, node, shard, space).await {
                Ok(fetched) if fetched.header.applied >= purged => {
                    let space = space.clone();
                    let installed = blocking.run(move || install(&space, fetched.into())).await;
                    let installed = installed.map_err(|error| fault(&error))?;
                    return installed.map(drop).map_err(|error| fault(&*error));
                }
                Ok(_) => tracing::debug!(%shard, node, "the node's state is too old"),
                Err(error) => tracing::debug!(%shard, node, %error, "no snapshot from this node"),
            }
        }
        if let Some(fault) = faults.current() {
            return Err(fault);
        }
        tokio::time::sleep(RESTORE_PAUSE).await;
    }
}

/// Makes the chunks of a state: those of a shard, or the one record of the membership.
enum Packer {
    Shard(Writer),
    Membership { is_done: bool },
}

impl Packer {
    fn of(group: ShardId) -> Self {
        match group {
            membership::GROUP => Self::Membership { is_done: false },
            _ => Self::Shard(Writer::of(Content::Snapshot)),
        }
    }

    fn next_chunk(&mut self, view: &ShardView) -> Result<Option<Vec<u8>>, BoxError> {
        match self {
            Self::Shard(writer) => Ok(writer.next_chunk(&Records(view))?),
            Self::Membership { is_done } if *is_done => Ok(None),
            Self::Membership { is_done } => {
                *is_done = true;
                Ok(view.get(membership::KEY)?)
            }
        }
    }
}

/// Checks the chunks of a state and gives its records.
enum Unpacker {
    Shard(Reader),
    Membership,
}

impl Unpacker {
    fn of(group: ShardId) -> Self {
        match group {
            membership::GROUP => Self::Membership,
            _ => Self::Shard(Reader::of(Content::Snapshot)),
        }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<Vec<Record>, BoxError> {
        match self {
            Self::Shard(reader) => Ok(reader.push(chunk)?),
            Self::Membership => {
                membership::decode_state(chunk)?;
                Ok(vec![(membership::KEY.to_vec(), chunk.to_vec())])
            }
        }
    }

    fn finish(self) -> Result<(), BoxError> {
        match self {
            Self::Shard(reader) => Ok(reader.finish().map(drop)?),
            Self::Membership => Ok(()),
        }
    }
}

/// Snapshots that other nodes are pulling. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct OpenTransfers {
    open: Arc<Mutex<BTreeMap<u64, Arc<Mutex<Transfer>>>>>,
}

struct Transfer {
    view: ShardView,
    writer: Packer,
    used: Instant,
}

impl OpenTransfers {
    /// Opens a view of `space`, that of `shard`, and returns its number and header. Blocks.
    pub(crate) fn open(
        &self,
        shard: ShardId,
        space: &ShardSpace,
    ) -> Result<(u64, Bytes), BoxError> {
        let view = space.view()?;
        let header = view.header()?.ok_or("the shard has no state yet")?;
        let transfer = Transfer { view, writer: Packer::of(shard), used: Instant::now() };
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX {
            return Err("too many snapshots are open".into());
        }
        let number = rand::random();
        open.insert(number, Arc::new(Mutex::new(transfer)));
        Ok((number, header.into()))
    }

    /// The next part of a snapshot; closes it at the end. Blocks.
    pub(crate) fn pull(&self, number: u64) -> Result<SnapshotPart, BoxError> {
        let transfer =
            self.open.lock().get(&number).cloned().ok_or("the snapshot is not open any more")?;
        let mut transfer = transfer.lock();
        let Transfer { view, writer, used } = &mut *transfer;
        *used = Instant::now();
        match writer.next_chunk(view)? {
            Some(chunk) => Ok(SnapshotPart::Chunk(chunk.into())),
            None => {
                self.open.lock().remove(&number);
                Ok(SnapshotPart::End)
            }
        }
    }

    /// Drops snapshots whose pullers are gone.
    pub(crate) fn sweep(&self) {
        self.open.lock().retain(|_, transfer| {
            transfer.try_lock().is_none_or(|transfer| transfer.used.elapsed() < IDLE_MAX)
        });
    }
}
