//! The lines of a history file.
//!
//! Guarantees: one record is one line of JSON, `{"kind": {…}}`, and what is written is read back
//! the same. Keys appear by [`Digest`] only. The format is described in `docs/history.md`; a field
//! that is not known is refused, so a line is never half understood.
//!
//! Leaves out: what the records mean together; see [`History`](super::History).

use std::fmt;

use oncekey_api::key::{OneTimePreKey, SignedPreKey};
use oncekey_types::{
    DeviceId, LogIndex, NodeId, OneTimePreKeyId, RegistrationId, RequestId, Seq, ShardId,
    SignedPreKeyId, UserId,
};
use serde::{Deserialize, Serialize};

pub use super::digest::{Digest, NotADigest};

/// What the first line says the file is.
pub const FORMAT: &str = "oncekey-history";
/// Version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The first line, and no other.
    Begin(Begin),
    /// A call is about to be sent.
    Invoke(Invoke),
    /// A call has ended for its client.
    Return(Return),
    /// Something was done to a node, the network or a disk.
    Event(Event),
    /// A replica's state at an applied index.
    Replica(Replica),
    /// The run has come to a part of its own.
    Mark(Mark),
}

/// What the file is and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// What recorded it, for people.
    pub source: String,
    /// What repeats the run, when something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Time since the history began, by one clock, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct At(pub u64);

impl At {
    /// Later than everything.
    pub const NEVER: Self = Self(u64::MAX);
    /// When the history began.
    pub const START: Self = Self(0);
}

/// Number of an operation, unique in its history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub u64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A call is about to be sent. Written before the first byte leaves, so that a crash of the
/// harness loses no operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoke {
    /// The operation.
    pub op: OperationId,
    /// When, before it is sent.
    pub at_ns: At,
    /// Who asks. A fetch is known to the servers by (client, request).
    pub client: String,
    /// The node asked first, when the client knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What is asked.
    pub call: Call,
}

/// What is asked of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// Bundles of a user.
    Fetch {
        /// Whose.
        user: UserId,
        /// The idempotency key.
        request: RequestId,
        /// Only these devices; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        devices: Option<Vec<DeviceId>>,
        /// Whether a bundle without a one-time prekey is to be refused.
        #[serde(default, skip_serializing_if = "is_false")]
        require_opk: bool,
    },
    /// A registration, with the first keys.
    Register {
        /// The owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// Number of the write.
        seq: Seq,
        /// The identity key.
        identity: Digest,
        /// The signed prekey.
        spk: Spk,
        /// The one-time prekeys, ids growing.
        opks: Vec<Opk>,
    },
    /// More one-time prekeys.
    Upload {
        /// The owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// Number of the write.
        seq: Seq,
        /// The one-time prekeys, ids growing.
        opks: Vec<Opk>,
    },
    /// Another signed prekey.
    Rotate {
        /// The owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// Number of the write.
        seq: Seq,
        /// The signed prekey.
        spk: Spk,
    },
    /// The device and its keys are to go.
    Remove {
        /// The owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// Number of the write, when the device itself asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<Seq>,
    },
    /// A linearizable read of a device's pool.
    Status {
        /// The owner.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
}

/// A call has ended for its client. An operation without this line has no known outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Return {
    /// The operation.
    pub op: OperationId,
    /// When, after the reply was read.
    pub at_ns: At,
    /// The node asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How often it was sent.
    pub attempts: u32,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call, as far as its client knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// A fetch was committed.
    Fetched {
        /// Where; of the first commit when the answer is repeated.
        at: Place,
        /// Whether the servers said that they gave this answer before.
        #[serde(default, skip_serializing_if = "is_false")]
        repeated: bool,
        /// One for each device, ids growing.
        bundles: Vec<Bundle>,
    },
    /// A fetch was answered without a quorum: nothing is known of its commit.
    Unavailable {
        /// What one replica held.
        bundles: Vec<Bundle>,
    },
    /// A registration, upload or rotation was committed.
    Written {
        /// Where; of a later entry when the answer is repeated.
        at: Place,
        /// The registration, in answer to one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        registration: Option<RegistrationId>,
        /// The pool right after the write.
        pool: Pool,
    },
    /// The device is gone.
    Removed {
        /// Where.
        at: Place,
    },
    /// The pool was read.
    Status {
        /// Where: every entry up to this one is in, no later one.
        at: Place,
        /// The registration.
        registration: RegistrationId,
        /// The pool.
        pool: Pool,
        /// Ids in the pool as closed ranges, growing.
        ids: Vec<(OneTimePreKeyId, OneTimePreKeyId)>,
    },
    /// It was refused and changed nothing.
    Refused {
        /// Why.
        code: String,
        /// The device that is to blame.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<DeviceId>,
        /// Whether its empty pool was the reason.
        #[serde(default, skip_serializing_if = "is_false")]
        exhausted: bool,
    },
    /// No node took it; it changed nothing.
    NotDone {
        /// What was seen last.
        why: String,
    },
    /// It may have been carried out and may not.
    Unknown {
        /// What was seen last.
        why: String,
    },
}

/// Where in the log an answer comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardId>,
    /// Position in the log of the shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<LogIndex>,
    /// Public address of the shard's leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// What a fetch says about one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The device.
    pub device: DeviceId,
    /// Its registration.
    pub registration: RegistrationId,
    /// Its identity key.
    pub identity: Digest,
    /// Its signed prekey.
    pub spk: Spk,
    /// What became of the one-time prekey.
    pub opk: Issue,
}

/// What became of a one-time prekey.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Issue {
    /// This one was handed out.
    Issued(Opk),
    /// The pool was empty.
    Exhausted,
    /// A limit was reached.
    Withheld,
    /// There was no quorum.
    Unavailable,
}

/// A pool right after a write, or as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// One-time prekeys in it.
    pub count: u32,
    /// The current signed prekey.
    pub spk: SignedPreKeyId,
    /// Highest one-time prekey id ever accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<OneTimePreKeyId>,
}

/// A one-time prekey: `[id, digest]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Opk(pub OneTimePreKeyId, pub Digest);

/// A signed prekey: `[id, digest]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Spk(pub SignedPreKeyId, pub Digest);

/// Something was done to a node, the network or a disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When it was done.
    pub at_ns: At,
    /// What.
    pub kind: EventKind,
    /// To which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Details, for people; the public address in a [`Start`](EventKind::Start).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A node was started.
    Start,
    /// A node was asked to end.
    Stop,
    /// A node ended by itself.
    Exit,
    /// A node was killed with SIGKILL.
    Kill,
    /// A node was paused.
    Pause,
    /// A paused node goes on.
    Resume,
    /// A node lost its disk.
    Wipe,
    /// Power of one node or of all was cut.
    PowerCut,
    /// Links were cut.
    Partition,
    /// Links were made slow or lossy.
    Degrade,
    /// Links are well again.
    Heal,
    /// A disk was filled, slowed or broken.
    Disk,
    /// A disk is well again.
    DiskHeal,
    /// A clock was moved.
    Clock,
    /// The members of the cluster were changed.
    Membership,
    /// Something else, by its name.
    #[serde(untagged)]
    Other(String),
}

/// A replica's state at an applied index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// When it was read.
    pub at_ns: At,
    /// The node.
    pub node: NodeId,
    /// The shard.
    pub shard: ShardId,
    /// The last entry applied.
    pub applied: LogIndex,
    /// Digest of the whole state.
    pub state: String,
}

/// The run has come to a part of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// When.
    pub at_ns: At,
    /// Which part.
    pub phase: Phase,
}

/// Parts of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Faults are over, the cluster heals.
    Heal,
    /// Operations without an outcome are sent again until they have one.
    Settle,
    /// The pools are emptied.
    Drain,
    /// All is over: nothing is left open, and what is in no pool was handed out.
    End,
}

impl From<&SignedPreKey> for Spk {
    /// By key, times and signature.
    fn from(spk: &SignedPreKey) -> Self {
        let times = [spk.created.0.to_be_bytes(), spk.expires.0.to_be_bytes()].concat();
        Self(spk.id, Digest::of(&[&spk.key.0, &times, &spk.signature.0]))
    }
}

impl From<&OneTimePreKey> for Opk {
    /// By key and signature.
    fn from(opk: &OneTimePreKey) -> Self {
        Self(opk.id, Digest::of(&[&opk.key.0, &opk.signature.0]))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !value
}
