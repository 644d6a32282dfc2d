//! Records and batches, as bytes.
//!
//! A batch is what the committer writes and syncs in one go: a header and its records, padded to
//! eight bytes. All integers are little-endian.
//!
//! | batch header | bytes | | record | bytes |
//! |---|---|---|---|---|
//! | magic `OKB1` | 4 | | length of the payload | 4 |
//! | checksum of the rest of the header | 4 | | checksum | 4 |
//! | segment | 8 | | kind | 1 |
//! | sequence number of the batch | 8 | | group | 4 |
//! | length of the records | 4 | | index | 8 |
//! | number of records | 4 | | payload | |
//! | kind | 1 | | | |
//! | zeros | 7 | | | |
//!
//! Guarantees: the checksum (CRC-32) of a record also covers its segment and its place in it, so
//! content that an older segment left in a reused file is never taken for new, nor is a record
//! read from the wrong place.
//!
//! Leaves out: protection against an adversary who writes to the disk. A CRC finds accidents.

use bytes::Bytes;

use super::GroupId;

/// Length of a batch header.
pub(super) const BATCH_HEADER_BYTES: usize = 40;
/// Length of a record without its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 21;
/// Batches begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

const BATCH_MAGIC: [u8; 4] = *b"OKB1";

/// What a batch is for. Persisted ordinals: stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchKind {
    /// Somebody waits for its records.
    Data = 1,
    /// Nobody waits for it; it shows that the batch before it was durable.
    Mark = 2,
    /// The last of its segment; the next segment exists.
    Seal = 3,
}

/// The header of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHeader {
    pub(super) segment: u64,
    pub(super) sequence: u64,
    pub(super) body_bytes: u32,
    pub(super) records: u32,
    pub(super) kind: BatchKind,
}

impl BatchHeader {
    pub(super) fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        bytes[..4].copy_from_slice(&BATCH_MAGIC);
        bytes[8..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.records.to_le_bytes());
        bytes[32] = self.kind as u8;
        let checksum = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if there is an undamaged one of this segment.
    pub(super) fn decode(bytes: &[u8], segment: u64) -> Option<Self> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES)?;
        if bytes[..4] != BATCH_MAGIC || u32_at(bytes, 4)? != crc32fast::hash(&bytes[8..]) {
            return None;
        }
        let header = Self {
            segment: u64_at(bytes, 8)?,
            sequence: u64_at(bytes, 16)?,
            body_bytes: u32_at(bytes, 24)?,
            records: u32_at(bytes, 28)?,
            kind: match bytes[32] {
                1 => BatchKind::Data,
                2 => BatchKind::Mark,
                3 => BatchKind::Seal,
                _ => return None,
            },
        };
        (header.segment == segment).then_some(header)
    }
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// An entry of the group's log.
    Entry { index: u64, payload: Bytes },
    /// The group's vote.
    Vote(Bytes),
    /// The group's committed position.
    Committed(Bytes),
    /// Entries from here on are gone.
    Truncate { from: u64 },
    /// Entries up to here are gone.
    Purge { upto: u64, marker: Bytes },
}

impl Record {
    /// Persisted ordinals: stable, never reuse.
    fn parts(&self) -> (u8, u64, &[u8]) {
        match self {
            Self::Entry { index, payload } => (1, *index, payload),
            Self::Vote(vote) => (2, 0, vote),
            Self::Committed(committed) => (3, 0, committed),
            Self::Truncate { from } => (4, *from, &[]),
            Self::Purge { upto, marker } => (5, *upto, marker),
        }
    }

    fn from_parts(kind: u8, index: u64, payload: Bytes) -> Option<Self> {
        match kind {
            1 => Some(Self::Entry { index, payload }),
            2 => Some(Self::Vote(payload)),
            3 => Some(Self::Committed(payload)),
            4 => Some(Self::Truncate { from: index }),
            5 => Some(Self::Purge { upto: index, marker: payload }),
            _ => None,
        }
    }

    /// Length of the record as bytes.
    pub(super) fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.parts().2.len()
    }

    /// Adds the record to `buffer`, which will stand at `base` of `segment`.
    pub(super) fn encode(&self, group: GroupId, segment: u64, base: u64, buffer: &mut Vec<u8>) {
        let (kind, index, payload) = self.parts();
        let start = buffer.len();
        // A payload is far below 4 GiB: the log refuses longer ones when they are submitted.
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&length.to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.push(kind);
        buffer.extend_from_slice(&group.0.to_le_bytes());
        buffer.extend_from_slice(&index.to_le_bytes());
        buffer.extend_from_slice(payload);
        let checksum = checksum(segment, base + start as u64, &buffer[start..]);
        buffer[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The record at the start of `bytes`, which stand at `offset` of `segment`, and its length;
    /// `None` when it is damaged.
    pub(super) fn decode(
        bytes: &[u8],
        segment: u64,
        offset: u64,
    ) -> Option<(GroupId, Self, usize)> {
        let payload_bytes = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let length = RECORD_HEADER_BYTES.checked_add(payload_bytes)?;
        let bytes = bytes.get(..length)?;
        if u32_at(bytes, 4)? != checksum(segment, offset, bytes) {
            return None;
        }
        let group = GroupId(u32_at(bytes, 9)?);
        let payload = Bytes::copy_from_slice(&bytes[RECORD_HEADER_BYTES..]);
        let record = Self::from_parts(bytes[8], u64_at(bytes, 13)?, payload)?;
        Some((group, record, length))
    }
}

/// `length`, rounded up so that a batch can begin there.
pub(super) fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// The checksum of a record: everything in it but the checksum, and where it stands.
fn checksum(segment: u64, offset: u64, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from);
        prop_oneof![
            (any::<u64>(), bytes()).prop_map(|(index, payload)| Record::Entry { index, payload }),
            bytes().prop_map(Record::Vote),
            bytes().prop_map(Record::Committed),
            any::<u64>().prop_map(|from| Record::Truncate { from }),
            (any::<u64>(), bytes()).prop_map(|(upto, marker)| Record::Purge { upto, marker }),
        ]
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_written(record in record(), group: u32, segment: u64, base in 0u64..1 << 40) {
            let mut bytes = vec![0xaa; 3];
            record.encode(GroupId(group), segment, base, &mut bytes);
            prop_assert_eq!(bytes.len(), 3 + record.encoded_bytes());
            let read = Record::decode(&bytes[3..], segment, base + 3);
            prop_assert_eq!(read, Some((GroupId(group), record, bytes.len() - 3)));
        }

        #[test]
        fn a_record_with_a_flipped_bit_is_refused(record in record(), bit: prop::sample::Index) {
            let mut bytes = Vec::new();
            record.encode(GroupId(7), 1, 64, &mut bytes);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::decode(&bytes, 1, 64), None);
        }

        #[test]
        fn a_record_of_another_segment_or_place_is_refused(record in record()) {
            let mut bytes = Vec::new();
            record.encode(GroupId(7), 1, 64, &mut bytes);
            prop_assert_eq!(Record::decode(&bytes, 2, 64), None);
            prop_assert_eq!(Record::decode(&bytes, 1, 72), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes, 1, 0);
            let _ = BatchHeader::decode(&bytes, 1);
        }
    }

    #[test]
    fn a_batch_header_with_a_flipped_bit_is_refused() {
        let header = BatchHeader {
            segment: 3,
            sequence: 9,
            body_bytes: 77,
            records: 2,
            kind: BatchKind::Data,
        };
        let bytes = header.encode();
        assert_eq!(BatchHeader::decode(&bytes, 3), Some(header));
        assert_eq!(BatchHeader::decode(&bytes, 4), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHeader::decode(&bytes, 3), None, "bit {bit}");
        }
    }
}
