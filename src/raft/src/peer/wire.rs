//! Frames and messages between nodes.
//!
//! A frame is a 32-bit big-endian length and that many bytes of bincode. The first frame of each
//! side is a [`Hello`] or its [`HelloReply`]; after that the dialling side sends [`Request`]s and
//! the other side answers each with one [`Response`], in any order.
//!
//! Guarantees: frames and messages are bounded by
//! [`FRAME_MAX_BYTES`](oncekey_types::limits::FRAME_MAX_BYTES); two nodes talk in the newest version of
//! the protocol that both speak, and refuse each other with a clear line when there is none.

use std::{collections::BTreeMap, fmt};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use oncekey_store::{
    command::Command,
    outcome::Outcome,
    query::{Answer, Query},
};
use oncekey_types::{TimestampMs, limits};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::codec::LengthDelimitedCodec;

use crate::{
    config::Member,
    formation::Founders,
    identity::{Incarnation, Progress},
    members::{Change, ChangeFailure},
    membership::{self, Verdict},
    reports::NodeReport,
    trace::TraceContext,
    type_config::{TypeConfig, Vote},
};

/// Versions of everything in this file that a node speaks. Stable, never reuse.
///
/// A version that only adds requests at the end of `Request`, or of a part of it, raises `newest` and
/// leaves `oldest`: a node sends the new ones once the membership says that whoever is asked speaks
/// them. What the two ends of a connection say to each other besides goes by the version that they agreed
/// on when they greeted. So nodes of two versions that follow each other work together, and a cluster is
/// upgraded node by node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Protocols {
    /// The newest; first in every greeting, for all time.
    pub newest: u32,
    /// The oldest.
    pub oldest: u32,
}

impl Protocols {
    /// The first version whose greeting says more than one number.
    const FIRST_RANGE: u32 = 3;

    /// The newest version that both speak.
    pub(crate) fn agree(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl Default for Protocols {
    /// What this program speaks.
    fn default() -> Self {
        Self { newest: 5, oldest: 3 }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.newest == self.oldest {
            true => write!(f, "{}", self.newest),
            false => write!(f, "{} to {}", self.oldest, self.newest),
        }
    }
}

/// The versions in a greeting, also when this program cannot read the rest of it.
pub(crate) fn protocols_of(hello: &[u8]) -> Result<Protocols, bincode::error::DecodeError> {
    match bincode::serde::decode_from_slice(hello, LIMITED)? {
        (version, _) if version < Protocols::FIRST_RANGE => {
            Ok(Protocols { newest: version, oldest: version })
        }
        _ => Ok(bincode::serde::decode_from_slice(hello, LIMITED)?.0),
    }
}

/// Decoding never claims more memory than a frame may have.
const LIMITED: Configuration<LittleEndian, Varint, Limit<{ limits::FRAME_MAX_BYTES }>> =
    bincode::config::standard().with_limit::<{ limits::FRAME_MAX_BYTES }>();

/// No node has this id.
pub(crate) const NOBODY: u64 = 0;

/// The first frame of the side that dials.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocols: Protocols,
    pub(crate) cluster: String,
    pub(crate) shards: u16,
    pub(crate) node: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) progress: Progress,
    /// Whom the dialling side believes to have reached; [`NOBODY`] when it only asks whether the two
    /// could form a cluster, and there is to be no trace of that.
    pub(crate) to: Option<u64>,
    /// How the dialling side is reached.
    pub(crate) member: Member,
}

/// The first frame of the side that was dialled.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum HelloReply {
    Welcome {
        protocol: u32,
        node: u64,
        incarnation: Incarnation,
        progress: Progress,
        member: Member,
    },
    /// The two do not belong together, with the reason.
    Refused { reason: String },
    /// The dialling node lost its disk and must not go on under its id.
    OtherIncarnation,
    /// The disk of the dialling node went back in time, and it must not go on under its id.
    WentBack,
    /// The dialling node was removed from the cluster.
    Removed,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    /// Chosen by the side that asks; the answer repeats it.
    pub(crate) id: u64,
    pub(crate) body: T,
}

/// What is said once both sides have greeted each other.
pub(crate) trait Body: Serialize + DeserializeOwned {
    /// The first version in which its frames end with what the sender had written to its log when it
    /// made them, see [`Progress`].
    const FIRST_TELLING: u32;
}

impl Body for Request {
    const FIRST_TELLING: u32 = 5;
}

impl Body for Response {
    const FIRST_TELLING: u32 = 4;
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
    /// Decide on a change of the membership, if the asked node leads it.
    Membership(membership::Command),
    /// Form a new cluster of these nodes, if the asked node is fresh.
    Found(Founders),
}

/// What a node asks another about one shard.
#[derive(Serialize, Deserialize)]
pub(crate) enum ShardRequest {
    /// Something of the shard's Raft group.
    Group(GroupRequest),
    /// Propose as one entry, if the asked node leads the shard.
    Submit {
        commands: Vec<Command>,
        /// Of the requests among them that are traced.
        traces: Vec<TraceContext>,
    },
    /// Read, if the asked node leads the shard.
    Query(Query),
    /// Read what the asked node's own replica holds, whatever its age.
    Peek(Query),
    /// Up to where a read must reflect the log, if the asked node leads the shard.
    ReadIndex,
    /// Read what the asked node's own replica holds, once that is another answer than `known`, or
    /// after a while. Since version 4.
    Await { query: Query, known: Answer },
}

/// What a node asks another about one Raft group.
#[derive(Serialize, Deserialize)]
pub(crate) enum GroupRequest {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// Fetch the snapshot of the group from the asking node and install it.
    InstallSnapshot {
        vote: Vote,
    },
    /// Change the members or the leader, if the asked node leads the group.
    Change(Change),
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
    Peeked {
        answer: Answer,
        index: u64,
        as_of: Option<TimestampMs>,
    },
    Pong {
        leads: Vec<u16>,
        progress: Progress,
    },
    Acquaintances {
        met: Vec<u64>,
        members: BTreeMap<u64, Member>,
    },
    /// The verdict on a change of the membership.
    Decided(Verdict),
    /// The asked node forms the cluster; it has met these.
    Founding {
        met: Vec<u64>,
    },
    /// Whether the members or the leader of a group were changed as asked.
    Changed(Result<(), ChangeFailure>),
    Report(NodeReport),
    ReadIndex {
        index: u64,
    },
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

/// A message as `protocol` has it, with what its sender has `written` where the version tells that.
pub(crate) fn encode_telling<T: Body>(
    protocol: u32,
    message: &Envelope<T>,
    written: u64,
) -> Result<Bytes, bincode::error::EncodeError> {
    if protocol < T::FIRST_TELLING { encode(message) } else { encode(&(message, written)) }
}

/// A message as `protocol` has it, and what it says was written.
pub(crate) fn decode_telling<T: Body>(
    protocol: u32,
    frame: &[u8],
) -> Result<(Envelope<T>, Option<u64>), bincode::error::DecodeError> {
    if protocol < T::FIRST_TELLING {
        return Ok((decode(frame)?, None));
    }
    decode(frame).map(|(message, written)| (message, Some(written)))
}

pub(crate) fn frames() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(limits::FRAME_MAX_BYTES).new_codec()
}

pub(crate) fn encode(message: &impl Serialize) -> Result<Bytes, bincode::error::EncodeError> {
    bincode::serde::encode_to_vec(message, bincode::config::standard()).map(Into::into)
}

pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, bincode::error::DecodeError> {
    let (message, used) = bincode::serde::decode_from_slice(frame, LIMITED)?;
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

    /// What comes back of `body` in each version, with what its frame says was written.
    fn told<T: Body>(body: impl Fn() -> T) -> Vec<(T, u32, Option<u64>)> {
        let mut told = Vec::new();
        for protocol in 3..=6 {
            let frame = encode_telling(protocol, &Envelope { id: 7, body: body() }, 9).unwrap();
            let (Envelope { id, body }, written) = decode_telling(protocol, &frame).unwrap();
            assert_eq!(id, 7);
            let longer = [&*frame, &[0]].concat();
            assert!(decode_telling::<T>(protocol, &longer).is_err(), "version {protocol}");
            let shorter = &frame[..frame.len() - 1];
            assert!(decode_telling::<T>(protocol, shorter).is_err(), "version {protocol}");
            told.push((body, protocol, written));
        }
        told
    }

    #[test]
    fn an_answer_says_how_much_was_written_in_versions_that_know_of_it() {
        for (answer, protocol, written) in told(|| Response::Overloaded) {
            assert!(matches!(answer, Response::Overloaded));
            assert_eq!(written, (protocol >= 4).then_some(9), "version {protocol}");
        }
    }

    #[test]
    fn a_request_says_how_much_was_written_in_versions_that_know_of_it() {
        for (request, protocol, written) in told(|| Request::Ping) {
            assert!(matches!(request, Request::Ping));
            assert_eq!(written, (protocol >= 5).then_some(9), "version {protocol}");
        }
    }

    #[test]
    fn two_nodes_talk_in_the_newest_version_that_both_speak() {
        let versions = |oldest, newest| Protocols { newest, oldest };
        for (mine, theirs, agreed) in [
            (versions(3, 4), versions(3, 3), Some(3)),
            (versions(3, 4), versions(4, 5), Some(4)),
            (versions(3, 3), versions(4, 5), None),
            (versions(4, 5), versions(2, 2), None),
        ] {
            assert_eq!(mine.agree(theirs), agreed, "{mine} and {theirs}");
            assert_eq!(theirs.agree(mine), agreed, "{theirs} and {mine}");
        }
    }

    #[test]
    fn the_versions_of_a_greeting_that_cannot_be_read_are_known() {
        // Version 2 began with one number, and a name of any length came next.
        let old = encode(&(2u32, "oncekey")).unwrap();
        assert_eq!(protocols_of(&old).unwrap(), Protocols { newest: 2, oldest: 2 });
        let coming = encode(&(9u32, 8u32, "whatever follows")).unwrap();
        assert_eq!(protocols_of(&coming).unwrap(), Protocols { newest: 9, oldest: 8 });
    }
}
