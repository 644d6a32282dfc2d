//! The persisted formats of this crate: log records and the header of a shard's state.
//!
//! Guarantees: every format starts with a version byte; decoding what encoding wrote gives the
//! same value, and anything else is an error. openraft's own types are never persisted as they
//! serialize themselves, so that an upgrade of openraft does not change the disk. Leaves out: the
//! batch inside a log entry, which `oncekey-store` encodes.

use std::collections::{BTreeMap, BTreeSet};

use bincode::config::{Configuration, LittleEndian, Varint};
use bytes::{BufMut, Bytes, BytesMut};
use oncekey_types::limits::WAL_RECORD_MAX_BYTES;
use openraft::{EntryPayload, Membership};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::Member,
    type_config::{Entry, LogId, Proposal, StoredMembership, Vote},
};

type Limited =
    Configuration<LittleEndian, Varint, bincode::config::Limit<{ WAL_RECORD_MAX_BYTES }>>;

/// Decoding never claims more memory than a record may have, whatever its lengths say: the header
/// of a snapshot comes from another node.
const CONFIG: Limited = bincode::config::standard().with_limit::<{ WAL_RECORD_MAX_BYTES }>();

/// Version of every record below. Stable, never reuse.
const VERSION: u8 = 1;

/// Why bytes could not be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CodecError {
    #[error("the record is empty")]
    Empty,
    #[error("the record has version {found}, this program reads version {VERSION}")]
    Version { found: u8 },
    #[error("the record has {count} bytes too many")]
    Trailing { count: usize },
    #[error("the record cannot be decoded")]
    Decode(#[from] bincode::error::DecodeError),
    #[error("the record cannot be encoded")]
    Encode(#[from] bincode::error::EncodeError),
    #[error("the record has a membership that openraft refuses: {reason}")]
    Membership { reason: String },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct LogIdRecord {
    term: u64,
    node: u64,
    index: u64,
}

#[derive(Serialize, Deserialize)]
struct VoteRecord {
    term: u64,
    node: u64,
    committed: bool,
}

#[derive(Serialize, Deserialize)]
struct MembershipRecord {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Member>,
}

/// The head of a log entry; a batch follows it as it is. Ordinals are stable, never reuse.
#[derive(Serialize, Deserialize)]
enum EntryHead {
    Blank(LogIdRecord),
    Batch(LogIdRecord),
    Membership(LogIdRecord, MembershipRecord),
}

#[derive(Serialize, Deserialize)]
struct HeaderRecord {
    applied: Option<LogIdRecord>,
    membership_log_id: Option<LogIdRecord>,
    membership: MembershipRecord,
}

/// What a shard's state knows of the log: committed in one batch with the changes it stands for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct StateHeader {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

impl StateHeader {
    /// Index of the last entry applied; zero when there is none.
    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.map_or(0, |log_id| log_id.index)
    }
}

pub(crate) fn encode_entry(entry: &Entry) -> Result<Bytes, CodecError> {
    let log_id = entry.log_id.into();
    let (head, batch) = match &entry.payload {
        EntryPayload::Blank => (EntryHead::Blank(log_id), None),
        EntryPayload::Normal(proposal) => (EntryHead::Batch(log_id), Some(&proposal.0)),
        EntryPayload::Membership(membership) => {
            (EntryHead::Membership(log_id, membership.into()), None)
        }
    };
    let mut bytes = BytesMut::with_capacity(32 + batch.map_or(0, Bytes::len));
    bytes.put_u8(VERSION);
    bytes.put_slice(&bincode::serde::encode_to_vec(head, CONFIG)?);
    if let Some(batch) = batch {
        bytes.put_slice(batch);
    }
    Ok(bytes.freeze())
}

pub(crate) fn decode_entry(bytes: &Bytes) -> Result<Entry, CodecError> {
    let (head, used): (EntryHead, usize) =
        bincode::serde::decode_from_slice(check_version(bytes)?, CONFIG)?;
    let rest = bytes.slice(1 + used..);
    let (log_id, payload) = match head {
        EntryHead::Batch(log_id) => {
            return Ok(Entry {
                log_id: log_id.into(),
                payload: EntryPayload::Normal(Proposal(rest)),
            });
        }
        EntryHead::Blank(log_id) => (log_id, EntryPayload::Blank),
        EntryHead::Membership(log_id, membership) => {
            (log_id, EntryPayload::Membership(membership.try_into()?))
        }
    };
    if rest.is_empty() {
        Ok(Entry { log_id: log_id.into(), payload })
    } else {
        Err(CodecError::Trailing { count: rest.len() })
    }
}

pub(crate) fn encode_vote(vote: &Vote) -> Result<Bytes, CodecError> {
    encode(&VoteRecord {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    })
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    let record: VoteRecord = decode(bytes)?;
    Ok(if record.committed {
        Vote::new_committed(record.term, record.node)
    } else {
        Vote::new(record.term, record.node)
    })
}

pub(crate) fn encode_log_id(log_id: &LogId) -> Result<Bytes, CodecError> {
    encode(&LogIdRecord::from(*log_id))
}

pub(crate) fn decode_log_id(bytes: &[u8]) -> Result<LogId, CodecError> {
    Ok(decode::<LogIdRecord>(bytes)?.into())
}

pub(crate) fn encode_header(header: &StateHeader) -> Result<Bytes, CodecError> {
    encode(&HeaderRecord {
        applied: header.applied.map(Into::into),
        membership_log_id: header.membership.log_id().map(Into::into),
        membership: header.membership.membership().into(),
    })
}

pub(crate) fn decode_header(bytes: &[u8]) -> Result<StateHeader, CodecError> {
    let record: HeaderRecord = decode(bytes)?;
    Ok(StateHeader {
        applied: record.applied.map(Into::into),
        membership: StoredMembership::new(
            record.membership_log_id.map(Into::into),
            record.membership.try_into()?,
        ),
    })
}

pub(crate) fn encode(record: &impl Serialize) -> Result<Bytes, CodecError> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(record, &mut bytes, CONFIG)?;
    Ok(bytes.into())
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let body = check_version(bytes)?;
    let (record, used) = bincode::serde::decode_from_slice(body, CONFIG)?;
    match body.len() - used {
        0 => Ok(record),
        count => Err(CodecError::Trailing { count }),
    }
}

fn check_version(bytes: &[u8]) -> Result<&[u8], CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&VERSION, body)) => Ok(body),
        Some((&found, _)) => Err(CodecError::Version { found }),
    }
}

impl From<LogId> for LogIdRecord {
    fn from(log_id: LogId) -> Self {
        Self { term: log_id.leader_id.term, node: log_id.leader_id.node_id, index: log_id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(record: LogIdRecord) -> Self {
        let leader =
            openraft::vote::leader_id_adv::LeaderId { term: record.term, node_id: record.node };
        Self::new(leader, record.index)
    }
}

impl From<&Membership<u64, Member>> for MembershipRecord {
    fn from(membership: &Membership<u64, Member>) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership<u64, Member> {
    type Error = CodecError;

    fn try_from(record: MembershipRecord) -> Result<Self, CodecError> {
        Self::new(record.configs, record.nodes)
            .map_err(|error| CodecError::Membership { reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::leader_id_adv::LeaderId;
    use proptest::prelude::*;

    use super::*;

    fn log_id() -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(term, node_id, index)| LogId::new(LeaderId { term, node_id }, index))
    }

    fn membership() -> impl Strategy<Value = Membership<u64, Member>> {
        prop::collection::btree_map(
            any::<u64>(),
            ("[a-z]{0,8}:[0-9]{1,5}", "[a-z]{0,8}")
                .prop_map(|(peer, public)| Member { peer, public }),
            1..5,
        )
        .prop_map(|nodes| Membership::new(vec![nodes.keys().copied().collect()], nodes).unwrap())
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            prop::collection::vec(any::<u8>(), 0..300)
                .prop_map(|batch| EntryPayload::Normal(Proposal(batch.into()))),
            membership().prop_map(EntryPayload::Membership),
        ];
        (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(entry in entry()) {
            let decoded = decode_entry(&encode_entry(&entry).unwrap()).unwrap();
            prop_assert_eq!(decoded.log_id, entry.log_id);
            prop_assert_eq!(decoded.payload, entry.payload);
        }

        #[test]
        fn a_vote_comes_back_as_it_was(term: u64, node: u64, committed: bool) {
            let mut vote = Vote::new(term, node);
            vote.committed = committed;
            prop_assert_eq!(decode_vote(&encode_vote(&vote).unwrap()).unwrap(), vote);
        }

        #[test]
        fn a_header_comes_back_as_it_was(
            applied in prop::option::of(log_id()),
            at in prop::option::of(log_id()),
            membership in membership(),
        ) {
            let header =
                StateHeader { applied, membership: StoredMembership::new(at, membership) };
            prop_assert_eq!(decode_header(&encode_header(&header).unwrap()).unwrap(), header);
        }

        #[test]
        fn bytes_from_anywhere_are_refused_or_read_but_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = Bytes::from(bytes);
            let _ = decode_entry(&bytes);
            let _ = decode_vote(&bytes);
            let _ = decode_log_id(&bytes);
            let _ = decode_header(&bytes);
        }
    }

    #[test]
    fn a_length_that_promises_exabytes_is_refused_without_them() {
        // Found while its fuzz target was written. Version, nothing applied, no membership log id, no configs, one node,
        // number 1, whose address has 2^60 bytes.
        let header = [1, 0, 0, 0, 1, 1, 253, 0, 0, 0, 0, 0, 0, 0, 16, 0];
        assert!(matches!(decode_header(&header), Err(CodecError::Decode(_))));
        // The same as a log entry: a membership at (0, 0, 0).
        let entry = [1, 2, 0, 0, 0, 0, 1, 1, 253, 0, 0, 0, 0, 0, 0, 0, 16, 0];
        assert!(matches!(
            decode_entry(&Bytes::copy_from_slice(&entry)),
            Err(CodecError::Decode(_))
        ));
    }

    #[test]
    fn another_version_is_refused() {
        let mut bytes = encode_vote(&Vote::new(1, 2)).unwrap().to_vec();
        bytes[0] = 2;
        assert!(matches!(decode_vote(&bytes), Err(CodecError::Version { found: 2 })));
    }
}
