//! Segment files: their names, their headers and the checkpoint in them.
//!
//! A segment is a file `<id>.log` (16 hexadecimal digits); ids are consecutive. Its header holds a
//! checkpoint: the small state of every group when the segment was begun. So a segment can be
//! given up as soon as all entries in it have been purged; votes and purge markers in it live on
//! in the header of the next. A file `spare-<n>` is a segment given up, or one not finished yet.
//!
//! | header | bytes |
//! |---|---|
//! | magic `OKEYWAL` and a zero | 8 |
//! | format version | 4 |
//! | checksum of all that follows | 4 |
//! | segment | 8 |
//! | sequence number of its first batch | 8 |
//! | capacity of the segment | 8 |
//! | length of the checkpoint | 4 |
//! | number of groups | 4 |
//! | checkpoint | |
//!
//! Leaves out: batches, see [`record`](super::record).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::GroupId;
use super::group::GroupState;
use super::record::{aligned, u32_at, u64_at};

/// Version of the format of segments, batches and records.
pub(super) const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"OKEYWAL\0";
const FIXED_BYTES: usize = 48;
/// Length that stands for "none".
const NONE: u32 = u32::MAX;

/// The small state of all groups at one moment.
pub(super) type Checkpoint = BTreeMap<GroupId, GroupState>;

/// What a file name of the log's directory means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FileName {
    Segment(u64),
    Spare(u64),
}

impl FileName {
    /// `None` for a file that is not the log's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if let Some(number) = name.strip_prefix("spare-") {
            return number.parse().ok().map(Self::Spare);
        }
        let id = name.strip_suffix(".log").filter(|id| id.len() == 16)?;
        u64::from_str_radix(id, 16).ok().map(Self::Segment)
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segment(id) => write!(f, "{id:016x}.log"),
            Self::Spare(number) => write!(f, "spare-{number}"),
        }
    }
}

/// The header of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) segment: u64,
    pub(super) first_sequence: u64,
    pub(super) capacity: u64,
    pub(super) checkpoint: Checkpoint,
}

/// Why a header cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderError {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    /// The header as bytes, padded so that a batch can follow.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        for (group, state) in &self.checkpoint {
            encode_group(*group, state, &mut bytes);
        }
        let checkpoint_bytes = u32::try_from(bytes.len() - FIXED_BYTES).unwrap_or(NONE);
        let groups = u32::try_from(self.checkpoint.len()).unwrap_or(NONE);
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.capacity.to_le_bytes());
        bytes[40..44].copy_from_slice(&checkpoint_bytes.to_le_bytes());
        bytes[44..48].copy_from_slice(&groups.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    /// The header at the start of `bytes` and its length with padding.
    pub(super) fn decode(bytes: &[u8], segment: u64) -> Result<(Self, usize), HeaderError> {
        let fixed = bytes.get(..FIXED_BYTES).ok_or(HeaderError::Damaged)?;
        let version = u32_at(fixed, 8).ok_or(HeaderError::Damaged)?;
        if fixed[..8] != MAGIC {
            return Err(HeaderError::Damaged);
        }
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        Self::decode_fields(bytes, segment).ok_or(HeaderError::Damaged)
    }

    fn decode_fields(bytes: &[u8], segment: u64) -> Option<(Self, usize)> {
        let checkpoint_bytes = usize::try_from(u32_at(bytes, 40)?).ok()?;
        let end = FIXED_BYTES.checked_add(checkpoint_bytes)?;
        let covered = bytes.get(16..end)?;
        if u32_at(bytes, 12)? != crc32fast::hash(covered) || u64_at(bytes, 16)? != segment {
            return None;
        }
        let mut reader = Reader { bytes: &bytes[FIXED_BYTES..end] };
        let mut checkpoint = Checkpoint::new();
        for _ in 0..u32_at(bytes, 44)? {
            let (group, state) = reader.group()?;
            checkpoint.insert(group, state);
        }
        let header = Self {
            segment,
            first_sequence: u64_at(bytes, 24)?,
            capacity: u64_at(bytes, 32)?,
            checkpoint,
        };
        reader.bytes.is_empty().then_some((header, aligned(end)))
    }
}

fn encode_group(group: GroupId, state: &GroupState, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&group.0.to_le_bytes());
    bytes.extend_from_slice(&state.entries.start.to_le_bytes());
    bytes.extend_from_slice(&state.entries.end.to_le_bytes());
    let (purged, marker) = match &state.purged {
        Some((purged, marker)) => (*purged, Some(marker)),
        None => (0, None),
    };
    bytes.extend_from_slice(&purged.to_le_bytes());
    for blob in [marker, state.vote.as_ref(), state.committed.as_ref()] {
        let length = blob.map_or(NONE, |blob| u32::try_from(blob.len()).unwrap_or(NONE));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(blob.map_or(&[], |blob| blob));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn group(&mut self) -> Option<(GroupId, GroupState)> {
        let group = GroupId(self.u32()?);
        let entries = self.u64()?..self.u64()?;
        let purged = self.u64()?;
        let marker = self.blob()?;
        let vote = self.blob()?;
        let committed = self.blob()?;
        let purged = marker.map(|marker| (purged, marker));
        (entries.start <= entries.end)
            .then_some((group, GroupState { vote, committed, purged, entries }))
    }

    fn blob(&mut self) -> Option<Option<Bytes>> {
        match self.u32()? {
            NONE => Some(None),
            length => {
                let bytes = self.take(usize::try_from(length).ok()?)?;
                Some(Some(Bytes::copy_from_slice(bytes)))
            }
        }
    }

    fn u32(&mut self) -> Option<u32> {
        u32_at(self.take(4)?, 0)
    }

    fn u64(&mut self) -> Option<u64> {
        u64_at(self.take(8)?, 0)
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group_state() -> impl Strategy<Value = GroupState> {
        let blob = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let blob_option = move || prop::option::of(blob());
        (
            blob_option(),
            blob_option(),
            prop::option::of((any::<u64>(), blob())),
            any::<u32>(),
            any::<u32>(),
        )
            .prop_map(|(vote, committed, purged, first, count)| GroupState {
                vote,
                committed,
                purged,
                entries: u64::from(first)..u64::from(first) + u64::from(count),
            })
    }

    proptest! {
        #[test]
        fn a_segment_header_reads_back_as_written(
            groups in prop::collection::btree_map(any::<u32>().prop_map(GroupId), group_state(), 0..5),
            first_sequence: u64,
            capacity: u64,
        ) {
            let header = SegmentHeader { segment: 5, first_sequence, capacity, checkpoint: groups };
            let mut bytes = header.encode();
            let length = bytes.len();
            bytes.extend_from_slice(&[0xff; 9]);
            prop_assert_eq!(SegmentHeader::decode(&bytes, 5), Ok((header, length)));
            prop_assert_eq!(SegmentHeader::decode(&bytes, 6), Err(HeaderError::Damaged));
        }

        #[test]
        fn a_segment_header_with_a_flipped_bit_is_refused(state in group_state(), bit: prop::sample::Index) {
            let checkpoint = Checkpoint::from([(GroupId(1), state)]);
            let header = SegmentHeader { segment: 5, first_sequence: 8, capacity: 4096, checkpoint };
            let mut bytes = header.encode();
            // The padding is not covered.
            let bit = bit.index((bytes.len() - 7) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SegmentHeader::decode(&bytes, 5).is_err());
        }
    }

    #[test]
    fn file_names_read_back_as_written() {
        for name in [FileName::Segment(0x1f), FileName::Spare(12)] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        assert_eq!(FileName::parse("notes.txt"), None);
        assert_eq!(FileName::parse("1f.log"), None);
    }
}
