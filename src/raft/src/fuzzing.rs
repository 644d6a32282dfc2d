//! The decoders of what comes from other nodes and from the disk, opened to the fuzz targets.
//!
//! Guarantees: every [`Format`] that this crate reads is here, with real encodings to begin with.
//! Leaves out: what the decoded values lead to.

use std::collections::BTreeMap;

use bytes::Bytes;
use oncekey_store::{
    command::{Command, Dispense},
    outcome::{Outcome, Refusal},
    query::{Answer, Query},
};
use oncekey_types::{CallerId, RequestId, UserId};
use openraft::{
    EntryPayload, Membership, raft::AppendEntriesRequest, vote::leader_id_adv::LeaderId,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec::{self, StateHeader},
    config::Member,
    formation::Founders,
    identity::{self, Incarnation, Progress},
    members::Change,
    membership,
    peer::{
        GroupRequest, Protocols, Request, Response, ShardRequest, SnapshotPart,
        wire::{self, Body, Envelope, Hello, HelloReply},
    },
    type_config::{Entry, LogId, Proposal, StoredMembership, Vote},
};

/// A format of bytes that this crate reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The first frame of the node that dials.
    Hello,
    /// The first frame of the node that was dialled.
    HelloReply,
    /// A question to another node.
    Request,
    /// An answer to another node.
    Response,
    /// An entry in the write-ahead log.
    Entry,
    /// A vote in the write-ahead log.
    Vote,
    /// A position in the write-ahead log.
    LogId,
    /// What a shard's state knows of the log; also comes with a snapshot.
    Header,
    /// The identity file.
    Identity,
}

impl Format {
    /// What nodes say to each other.
    pub const PEERS: &[Self] = &[Self::Hello, Self::HelloReply, Self::Request, Self::Response];
    /// What stands on the disk.
    pub const DISK: &[Self] = &[Self::Entry, Self::Vote, Self::LogId, Self::Header, Self::Identity];

    /// What `bytes` decode to, encoded again; none when they are refused.
    #[must_use]
    pub fn again(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Hello => message::<Hello>(bytes),
            Self::HelloReply => message::<HelloReply>(bytes),
            Self::Request => message::<(Envelope<Request>, u64)>(bytes),
            Self::Response => message::<(Envelope<Response>, u64)>(bytes),
            Self::Entry => {
                let entry = codec::decode_entry(&Bytes::copy_from_slice(bytes)).ok()?;
                codec::encode_entry(&entry).ok().map(Into::into)
            }
            Self::Vote => codec::encode_vote(&codec::decode_vote(bytes).ok()?).ok().map(Into::into),
            Self::LogId => {
                codec::encode_log_id(&codec::decode_log_id(bytes).ok()?).ok().map(Into::into)
            }
            Self::Header => {
                codec::encode_header(&codec::decode_header(bytes).ok()?).ok().map(Into::into)
            }
            Self::Identity => identity::written_anew(bytes),
        }
    }

    /// Real encodings.
    #[must_use]
    pub fn examples(self) -> Vec<Vec<u8>> {
        match self {
            Self::Hello => vec![encoded(&hello())],
            Self::HelloReply => hello_replies().iter().map(encoded).collect(),
            Self::Request => requests().into_iter().map(telling).collect(),
            Self::Response => responses().into_iter().map(telling).collect(),
            Self::Entry => entries()
                .iter()
                .filter_map(|e| codec::encode_entry(e).ok())
                .map(Into::into)
                .collect(),
            Self::Vote => codec::encode_vote(&vote()).ok().map(Into::into).into_iter().collect(),
            Self::LogId => {
                codec::encode_log_id(&log_id()).ok().map(Into::into).into_iter().collect()
            }
            Self::Header => {
                let membership = StoredMembership::new(Some(log_id()), group_members());
                let header = StateHeader { applied: Some(log_id()), membership };
                codec::encode_header(&header).ok().map(Into::into).into_iter().collect()
            }
            Self::Identity => vec![IDENTITY.to_vec()],
        }
    }
}

const IDENTITY: &[u8] = br#"{
  "version": 1,
  "cluster": "oncekey",
  "node": 1,
  "shards": 4,
  "incarnation": 11400714819323198485,
  "met": { "2": 7, "3": 9 },
  "progress": { "2": { "life": 5, "opened": 3, "written": 12 } },
  "went_back": false
}"#;

fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Vec<u8>> {
    wire::encode(&wire::decode::<T>(bytes).ok()?).ok().map(Into::into)
}

fn encoded(message: &impl Serialize) -> Vec<u8> {
    wire::encode(message).map(Into::into).unwrap_or_default()
}

/// As the newest version has it.
fn telling<T: Body>(body: T) -> Vec<u8> {
    let message = Envelope { id: 300, body };
    wire::encode_telling(Protocols::default().newest, &message, 12)
        .map(Into::into)
        .unwrap_or_default()
}

fn member(number: u64) -> Member {
    Member { peer: format!("10.0.0.{number}:7080"), public: format!("10.0.0.{number}:8080") }
}

fn progress() -> Progress {
    Progress { life: 5, opened: 3, written: 12 }
}

fn incarnation() -> Incarnation {
    Incarnation(7)
}

fn hello() -> Hello {
    Hello {
        protocols: Protocols::default(),
        cluster: "oncekey".to_owned(),
        shards: 4,
        node: 1,
        incarnation: incarnation(),
        progress: progress(),
        to: Some(2),
        member: member(1),
    }
}

fn hello_replies() -> Vec<HelloReply> {
    let welcome = HelloReply::Welcome {
        protocol: Protocols::default().newest,
        node: 2,
        incarnation: incarnation(),
        progress: progress(),
        member: member(2),
    };
    let refused = HelloReply::Refused { reason: "another cluster".to_owned() };
    vec![welcome, refused, HelloReply::OtherIncarnation, HelloReply::WentBack, HelloReply::Removed]
}

fn requests() -> Vec<Request> {
    let append = AppendEntriesRequest {
        vote: vote(),
        prev_log_id: Some(log_id()),
        entries: entries(),
        leader_commit: Some(log_id()),
    };
    let shard = |request| Request::Shard(3, request);
    let group = |request| shard(ShardRequest::Group(request));
    let (Some(command), Ok(user)) = (dispense(), UserId::new("bob")) else { return Vec::new() };
    let query = Query::Peek { user, devices: None };
    vec![
        group(GroupRequest::Append(append)),
        group(GroupRequest::InstallSnapshot { vote: vote() }),
        group(GroupRequest::Change(Change::HandOver { to: 2 })),
        shard(ShardRequest::Submit {
            commands: vec![command.clone(), command],
            traces: Vec::new(),
        }),
        shard(ShardRequest::Query(query.clone())),
        shard(ShardRequest::Await { query, known: Answer::Peek(None) }),
        Request::OpenSnapshot { shard: 3 },
        Request::PullSnapshot { transfer: 1 << 40 },
        Request::Ping,
        Request::Acquaintances,
        Request::Membership(membership::Command::Activate { node: 4 }),
        Request::Found(Founders { members: BTreeMap::from([(1, member(1))]), replicas: Some(3) }),
    ]
}

fn responses() -> Vec<Response> {
    vec![
        Response::SnapshotOpened {
            transfer: 9,
            header: Bytes::from_static(b"\x01\x00\x00\x00\x00"),
        },
        Response::Snapshot(SnapshotPart::Chunk(Bytes::from_static(&[7; 40]))),
        Response::Snapshot(SnapshotPart::End),
        Response::Submitted { outcomes: vec![Outcome::Refused(Refusal::UnknownUser)], index: 77 },
        Response::Answered { answer: Answer::Peek(None), index: 77 },
        Response::Pong { leads: vec![0, 3], progress: progress() },
        Response::Acquaintances {
            met: vec![1, 2],
            members: BTreeMap::from([(1, member(1)), (2, member(2))]),
        },
        Response::Decided(Ok(())),
        Response::Founding { met: vec![2, 3] },
        Response::Changed(Ok(())),
        Response::NotLeader { leader: Some(2) },
        Response::Overloaded,
        Response::Failed { reason: "no".to_owned() },
    ]
}

fn dispense() -> Option<Command> {
    Some(Command::Dispense(Dispense {
        user: UserId::new("bob").ok()?,
        devices: None,
        caller: CallerId::new("alice").ok()?,
        request: RequestId::new("0f8fad5b").ok()?,
        require_one_time_prekey: false,
    }))
}

fn vote() -> Vote {
    Vote::new_committed(3, 2)
}

fn log_id() -> LogId {
    LogId::new(LeaderId { term: 3, node_id: 2 }, 1000)
}

fn group_members() -> Membership<u64, Member> {
    let nodes: BTreeMap<_, _> = [1, 2, 3].map(|number| (number, member(number))).into();
    Membership::new(vec![nodes.keys().copied().collect()], nodes).unwrap_or_default()
}

fn entries() -> Vec<Entry> {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Proposal(Bytes::from_static(b"\x01batch"))),
        EntryPayload::Membership(group_members()),
    ];
    payloads.into_iter().map(|payload| Entry { log_id: log_id(), payload }).collect()
}
