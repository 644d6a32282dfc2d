//! Frames and messages between nodes.
//!
//! A frame is a 32-bit big-endian length and that many bytes of bincode. The first frame of each
//! side is a [`Hello`] or its [`HelloReply`]; after that the dialling side sends [`Request`]s and
//! the other side answers each with one [`Response`], in any order.
//!
//! Guarantees: frames and messages are bounded by
//! [`FRAME_MAX_BYTES`](oncekey_types::limits::FRAME_MAX_BYTES). Leaves out: compatibility between
//! protocol versions; nodes of different versions refuse each other with a clear line.

use std::collections::BTreeMap;

use bytes::Bytes;
use oncekey_store::{
    command::Command,
    outcome::Outcome,
    query::{Answer, Query},
};
use oncekey_types::limits;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::codec::LengthDelimitedCodec;

use crate::{
    config::Member,
    identity::{Incarnation, Progress},
    members::{ReplaceFailure, Replacement},
    reports::NodeReport,
    trace::TraceContext,
    type_config::{TypeConfig, Vote},
};

/// Version of everything in this file. Stable, never reuse.
pub(crate) const PROTOCOL: u32 = 3;

/// The first frame of the side that dials.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) cluster: String,
    pub(crate) shards: u16,
    pub(crate) node: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) progress: Progress,
    /// Whom the dialling side believes to have reached.
    pub(crate) to: Option<u64>,
    /// How the dialling side is reached.
    pub(crate) member: Member,
}

/// The first frame of the side that was dialled.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum HelloReply {
    Welcome {
        node: u64,
        incarnation: Incarnation,
        progress: Progress,
        member: Member,
    },
    /// The two do not belong together, with the reason.
    Refused {
        reason: String,
    },
    /// The dialling node lost its disk and must not go on under its id.
    OtherIncarnation,
    /// The disk of the dialling node went back in time, and it must not go on under its id.
    WentBack,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    /// Chosen by the side that asks; the answer repeats it.
    pub(crate) id: u64,
    pub(crate) body: T,
}

/// What a node asks another.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    /// Something of one shard's group.
    Shard(u16, ShardRequest),
    /// Open a snapshot of the shard's state for [`Request::PullSnapshot`].
    OpenSnapshot { shard: u16 },
    /// The next chunk of an opened snapshot.
    PullSnapshot { transfer: u64 },
    /// Whether the asked node is alive, and which shards it leads.
    Ping,
    /// Which nodes the asked node has met, and where it believes the members are.
    Acquaintances,
    /// What the asked node has counted.
    Report,
}

/// What a node asks another about one shard.
#[derive(Serialize, Deserialize)]
pub(crate) enum ShardRequest {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// Fetch the snapshot of the shard from the asking node and install it.
    InstallSnapshot {
        vote: Vote,
    },
    /// Propose as one entry, if the asked node leads the shard.
    Submit {
        commands: Vec<Command>,
        /// Of the requests among them that are traced.
        traces: Vec<TraceContext>,
    },
    /// Read, if the asked node leads the shard.
    Query(Query),
    /// Replace a member, if the asked node leads the shard.
    Replace(Replacement),
}

/// What a node answers.
#[derive(Serialize, Deserialize)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    Installed(SnapshotResponse<TypeConfig>),
    SnapshotOpened {
        transfer: u64,
        header: Bytes,
    },
    Snapshot(SnapshotPart),
    Submitted {
        outcomes: Vec<Outcome>,
        index: u64,
    },
    Answered {
        answer: Answer,
        index: u64,
    },
    Pong {
        leads: Vec<u16>,
        progress: Progress,
    },
    Acquaintances {
        met: Vec<u64>,
        members: BTreeMap<u64, Member>,
    },
    Replaced(Result<(), ReplaceFailure>),
    Report(NodeReport),
    /// The asked node does not lead the shard; perhaps it knows who does.
    NotLeader {
        leader: Option<u64>,
    },
    /// Too many commands wait.
    Overloaded,
    /// The asked node cannot answer, with the reason.
    Failed {
        reason: String,
    },
}

/// A piece of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) enum SnapshotPart {
    Chunk(Bytes),
    End,
}

pub(crate) fn frames() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(limits::FRAME_MAX_BYTES).new_codec()
}

pub(crate) fn encode(message: &impl Serialize) -> Result<Bytes, bincode::error::EncodeError> {
    bincode::serde::encode_to_vec(message, bincode::config::standard()).map(Into::into)
}

pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, bincode::error::DecodeError> {
    let config = bincode::config::standard().with_limit::<{ limits::FRAME_MAX_BYTES }>();
    let (message, used) = bincode::serde::decode_from_slice(frame, config)?;
    if used == frame.len() {
        Ok(message)
    } else {
        Err(bincode::error::DecodeError::Other("bytes follow the message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_fills_its_frame() {
        let frame = encode(&Envelope { id: 7, body: Request::Ping }).unwrap();
        let back: Envelope<Request> = decode(&frame).unwrap();
        assert!(matches!(back, Envelope { id: 7, body: Request::Ping }));
        let longer = [&*frame, &[0]].concat();
        assert!(decode::<Envelope<Request>>(&longer).is_err());
        assert!(decode::<Envelope<Request>>(&frame[..frame.len() - 1]).is_err());
    }
}
