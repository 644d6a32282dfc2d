//! What openraft is told about our types.
//!
//! Guarantees: a log entry carries one encoded batch, which is encoded once by its proposer and
//! cloned by counting. Leaves out: the content of a batch.

use std::fmt;

use bytes::Bytes;
use oncekey_store::outcome::Outcome;
use serde::{Deserialize, Serialize};

use crate::{config::Member, membership::Verdict};

/// An encoded [`Batch`](oncekey_store::command::Batch), or a command of the membership.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an entry came to.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The outcomes of a batch, in the order of its commands; none of an entry without one.
    Outcomes(Vec<Outcome>),
    /// The verdict on a change of the membership.
    Decided(Verdict),
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outcomes(outcomes) => write!(f, "{} outcomes", outcomes.len()),
            Self::Decided(Ok(())) => f.write_str("decided"),
            Self::Decided(Err(refusal)) => write!(f, "refused: {refusal}"),
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = Member,
);

pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type SnapshotOf =
    openraft::alias::SnapshotOf<TypeConfig, crate::transfer::ShardSnapshot>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::machine::Machine>;
