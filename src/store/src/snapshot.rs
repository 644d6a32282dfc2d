//! A state, or what a backup keeps of it, as a stream of chunks, version 1.
//!
//! ```text
//! stream  = header, records …, trailer           each a chunk
//! header  = 0x01 ‖ "oncekey snapshot" or "oncekey backup" ‖ u8 version
//! records = 0x02 ‖ (u16 key length ‖ key ‖ u32 value length ‖ value) …
//! trailer = 0x03 ‖ u64 number of records ‖ SHA-256 over all chunks before
//! ```
//!
//! Numbers are big-endian. Guarantees: [`Reader`] accepts what [`Writer`] made and nothing else: no
//! chunk may be lost, doubled, moved or changed; keys grow and are of known kinds; values decode.
//! The retries and the rate limits are records like all others, so they are in the snapshot. A backup
//! leaves out what must not be used in another cluster: one-time prekeys and answers for retries.
//!
//! Leaves out: consistency between records, which the writer's state had; where the chunks are
//! staged until [`Reader::finish`] has said that they are all there.

use std::collections::VecDeque;

use oncekey_planted::{self as planted, Bug};
use oncekey_types::limits::{ENTRY_MAX_BYTES, SNAPSHOT_CHUNK_BYTES};
use sha2::{Digest, Sha256};

use crate::{
    ApplyFault,
    codec::EncodeError,
    record::{CorruptRecord, KEY_SPACE, Kind, kept::KEPT_SPACE},
    state::{ReadFault, Record, StateScan},
};

/// Version of the stream. The records in it have versions of their own.
pub const VERSION: u8 = 1;

/// Longest chunk in bytes: one that is just not full, and one more record with its key.
pub const CHUNK_MAX_BYTES: usize = SNAPSHOT_CHUNK_BYTES + ENTRY_MAX_BYTES + 1024;

/// What a stream carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A whole state.
    Snapshot,
    /// What a backup keeps of it.
    Backup,
}

impl Content {
    fn header(self) -> Vec<u8> {
        let magic: &[u8] = match self {
            Self::Snapshot => b"oncekey snapshot",
            Self::Backup => b"oncekey backup",
        };
        [&[HEADER], magic, &[VERSION]].concat()
    }

    fn space(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Snapshot => KEY_SPACE,
            Self::Backup => KEPT_SPACE,
        }
    }
}

const HEADER: u8 = 0x01;
const RECORDS: u8 = 0x02;
const TRAILER: u8 = 0x03;

/// Records that are read from the state at a time.
const READ_RECORDS: usize = 64;

/// Makes the chunks of a snapshot, one at a time.
#[derive(Debug)]
pub struct Writer {
    content: Content,
    step: WriterStep,
    /// Where to read on: behind the last key.
    from: Vec<u8>,
    pending: VecDeque<Record>,
    records: u64,
    chunks: Sha256,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WriterStep {
    Header,
    Records,
    Trailer,
    End,
}

impl Writer {
    /// One that has not begun.
    #[must_use]
    pub fn of(content: Content) -> Self {
        Self {
            content,
            step: WriterStep::Header,
            from: content.space().0.to_vec(),
            pending: VecDeque::new(),
            records: 0,
            chunks: Sha256::new(),
        }
    }

    /// The next chunk; `None` after the last one.
    ///
    /// `state` must be the same view, which does not change, at every call.
    ///
    /// # Errors
    ///
    /// [`ApplyFault`] when the state cannot be read or has a record that does not belong there.
    pub fn next_chunk(&mut self, state: &impl StateScan) -> Result<Option<Vec<u8>>, ApplyFault> {
        if self.step == WriterStep::Records && !self.fill(state)? {
            self.step = WriterStep::Trailer;
        }
        let chunk = match self.step {
            WriterStep::Header => {
                self.step = WriterStep::Records;
                self.content.header()
            }
            WriterStep::Records => self.records_chunk(state)?,
            WriterStep::Trailer => {
                self.step = WriterStep::End;
                return Ok(Some(trailer(self.records, &self.chunks)));
            }
            WriterStep::End => return Ok(None),
        };
        self.chunks.update(&chunk);
        Ok(Some(chunk))
    }

    fn records_chunk(&mut self, state: &impl StateScan) -> Result<Vec<u8>, ApplyFault> {
        let mut chunk = vec![RECORDS];
        while chunk.len() < SNAPSHOT_CHUNK_BYTES && self.fill(state)? {
            if let Some((key, value)) = self.pending.pop_front() {
                append(&mut chunk, &key, &value)?;
                self.records += 1;
            }
        }
        Ok(chunk)
    }

    /// Whether there is a record to come.
    fn fill(&mut self, state: &impl StateScan) -> Result<bool, ReadFault> {
        if self.pending.is_empty() {
            let end = self.content.space().1;
            self.pending = state.range(&self.from, end, READ_RECORDS)?.into();
            if let Some((last, _)) = self.pending.back() {
                // The smallest key above `last`.
                self.from = [last.as_slice(), &[0]].concat();
            }
            if planted::is(Bug::RetriesNotInSnapshot) {
                self.pending.retain(|(key, _)| Kind::of(key) != Some(Kind::Retry));
            }
        }
        Ok(!self.pending.is_empty())
    }
}

/// Why a stream is not a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A chunk is too long.
    #[error("a chunk of the snapshot has {bytes} bytes, over the limit of {CHUNK_MAX_BYTES}")]
    ChunkTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The first chunk is not the header of a version that this node knows.
    #[error("the snapshot's header is not one of version {VERSION}")]
    Header,
    /// A chunk is cut off, empty, or at the wrong place.
    #[error("a chunk of the snapshot is malformed or out of place")]
    Chunk,
    /// The keys do not grow.
    #[error("the records of the snapshot are out of order")]
    Order,
    /// A record is of no kind that this node knows.
    #[error("the snapshot has a record of an unknown kind")]
    UnknownKind,
    /// A record is malformed.
    #[error("the snapshot has a malformed record")]
    Record(#[from] CorruptRecord),
    /// The trailer does not fit the chunks before it.
    #[error("the snapshot's trailer does not fit its records")]
    Trailer,
    /// The stream ended before the trailer.
    #[error("the snapshot is cut off")]
    CutOff,
}

/// Checks the chunks of a snapshot and gives its records.
#[derive(Debug)]
pub struct Reader {
    content: Content,
    step: ReaderStep,
    last_key: Vec<u8>,
    records: u64,
    chunks: Sha256,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReaderStep {
    Header,
    Records,
    End,
    Failed,
}

impl Reader {
    /// One that expects a stream of `content`.
    #[must_use]
    pub fn of(content: Content) -> Self {
        Self {
            content,
            step: ReaderStep::Header,
            last_key: Vec::new(),
            records: 0,
            chunks: Sha256::new(),
        }
    }

    /// The records of the next chunk, in the order of their keys. They are not to be used before
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the stream is not a snapshot; every later call fails too.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Record>, ReadError> {
        let result = self.read_chunk(chunk);
        if result.is_err() {
            self.step = ReaderStep::Failed;
        }
        result
    }

    /// Says that no chunk follows. Gives the number of records.
    ///
    /// # Errors
    ///
    /// [`ReadError::CutOff`] when the trailer has not come, or a chunk was refused.
    pub fn finish(self) -> Result<u64, ReadError> {
        match self.step {
            ReaderStep::End => Ok(self.records),
            ReaderStep::Header | ReaderStep::Records | ReaderStep::Failed => Err(ReadError::CutOff),
        }
    }

    fn read_chunk(&mut self, chunk: &[u8]) -> Result<Vec<Record>, ReadError> {
        if chunk.len() > CHUNK_MAX_BYTES {
            return Err(ReadError::ChunkTooLong { bytes: chunk.len() });
        }
        let records = match (self.step, chunk.split_first()) {
            (ReaderStep::Header, _) => {
                if chunk != self.content.header() {
                    return Err(ReadError::Header);
                }
                self.step = ReaderStep::Records;
                Vec::new()
            }
            (ReaderStep::Records, Some((&RECORDS, body))) if !body.is_empty() => {
                self.read_records(body)?
            }
            (ReaderStep::Records, Some((&TRAILER, _))) => {
                if chunk != trailer(self.records, &self.chunks) {
                    return Err(ReadError::Trailer);
                }
                self.step = ReaderStep::End;
                Vec::new()
            }
            (ReaderStep::Records | ReaderStep::End | ReaderStep::Failed, _) => {
                return Err(ReadError::Chunk);
            }
        };
        self.chunks.update(chunk);
        Ok(records)
    }

    fn read_records(&mut self, mut body: &[u8]) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        while !body.is_empty() {
            let (key, value) = split_record(&mut body).ok_or(ReadError::Chunk)?;
            if key <= self.last_key.as_slice() {
                return Err(ReadError::Order);
            }
            let kind = Kind::of(key).filter(|_| key < self.content.space().1);
            let kind = kind.ok_or(ReadError::UnknownKind)?;
            kind.check(key, value)?;
            self.last_key = key.to_vec();
            self.records += 1;
            records.push((key.to_vec(), value.to_vec()));
        }
        Ok(records)
    }
}

/// The records of one chunk, apart from the stream that it is of. None in a header and a trailer.
///
/// # Errors
///
/// [`ReadError`] when it is no chunk of a stream.
pub fn records_of(chunk: &[u8]) -> Result<Vec<Record>, ReadError> {
    match chunk.split_first() {
        Some((&RECORDS, mut body)) => {
            let mut records = Vec::new();
            while !body.is_empty() {
                let (key, value) = split_record(&mut body).ok_or(ReadError::Chunk)?;
                records.push((key.to_vec(), value.to_vec()));
            }
            Ok(records)
        }
        Some((&(HEADER | TRAILER), _)) => Ok(Vec::new()),
        Some(_) | None => Err(ReadError::Chunk),
    }
}

/// SHA-256 over all records, to compare replicas at the same log index.
///
/// `SHA-256((u16 key length ‖ key ‖ u32 value length ‖ value) …)`, in the order of the keys.
///
/// # Errors
///
/// [`ApplyFault`] when this node cannot tell.
pub fn state_digest(state: &impl StateScan) -> Result<[u8; 32], ApplyFault> {
    let mut hash = Sha256::new();
    let mut records = Writer::of(Content::Snapshot);
    while records.fill(state)? {
        let mut bytes = Vec::new();
        for (key, value) in records.pending.drain(..) {
            append(&mut bytes, &key, &value)?;
        }
        hash.update(&bytes);
    }
    Ok(hash.finalize().into())
}

fn append(chunk: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Result<(), EncodeError> {
    let too_large = |size, limit| EncodeError::TooLarge { size, limit, unit: "bytes" };
    let key_len =
        u16::try_from(key.len()).map_err(|_| too_large(key.len(), usize::from(u16::MAX)))?;
    let value_len = u32::try_from(value.len())
        .ok()
        .filter(|_| value.len() <= ENTRY_MAX_BYTES)
        .ok_or_else(|| too_large(value.len(), ENTRY_MAX_BYTES))?;
    chunk.extend_from_slice(&key_len.to_be_bytes());
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(&value_len.to_be_bytes());
    chunk.extend_from_slice(value);
    Ok(())
}

fn split_record<'a>(body: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (len, rest) = body.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let (len, rest) = rest.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (value, rest) = rest.split_at_checked(len)?;
    *body = rest;
    Some((key, value))
}

fn trailer(records: u64, chunks: &Sha256) -> Vec<u8> {
    let digest = chunks.clone().finalize();
    [&[TRAILER][..], &records.to_be_bytes(), &digest].concat()
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::{
        generate,
        record::{
            Key,
            account::{Account, AccountKey},
            pool::{Lot, LotKey},
            tests::to_bytes,
        },
        state::MemoryState,
    };

    /// A state of lots, each of about 3 KB.
    fn lots(count: u64) -> MemoryState {
        let user = oncekey_types::UserId::new("bob").unwrap();
        let ids: Vec<u32> = (1..=8).collect();
        let lot = to_bytes(&Lot(generate::keys(&ids)));
        let keys = (0..count).map(|number| {
            LotKey { user: &user, device: oncekey_types::DeviceId(1), number }.to_bytes()
        });
        keys.map(|key| (key, lot.clone())).collect()
    }

    fn chunks(state: &MemoryState) -> Vec<Vec<u8>> {
        let mut writer = Writer::of(Content::Snapshot);
        let mut chunks = Vec::new();
        while let Some(chunk) = writer.next_chunk(state).unwrap() {
            assert!(chunk.len() <= CHUNK_MAX_BYTES);
            chunks.push(chunk);
        }
        chunks
    }

    fn read(chunks: &[Vec<u8>]) -> Result<MemoryState, ReadError> {
        let mut reader = Reader::of(Content::Snapshot);
        let mut records = Vec::new();
        for chunk in chunks {
            records.extend(reader.push(chunk)?);
        }
        let count = reader.finish()?;
        assert_eq!(count, records.len() as u64);
        Ok(records.into_iter().collect())
    }

    #[test]
    fn a_state_of_many_chunks_and_an_empty_one_come_back_whole() {
        for (records, fewest_chunks) in [(0, 2), (1, 3), (256, 3), (257, 3), (1200, 6)] {
            let state = lots(records);
            let chunks = chunks(&state);
            assert!(chunks.len() >= fewest_chunks, "{records}: {} chunks", chunks.len());
            let back = read(&chunks).unwrap();
            assert_eq!(back, state);
            assert_eq!(state_digest(&back).unwrap(), state_digest(&state).unwrap());
        }
    }

    #[test]
    fn a_lost_doubled_or_moved_chunk_is_found() {
        let whole = chunks(&lots(300));
        for place in 0..whole.len() {
            let mut lost = whole.clone();
            lost.remove(place);
            assert!(read(&lost).is_err(), "without chunk {place}");
            let mut doubled = whole.clone();
            doubled.insert(place, whole[place].clone());
            assert!(read(&doubled).is_err(), "chunk {place} twice");
            assert!(read(&whole[..place]).is_err(), "cut off before chunk {place}");
            if place > 0 {
                let mut moved = whole.clone();
                moved.swap(place - 1, place);
                assert!(read(&moved).is_err(), "chunk {place} moved");
            }
        }
    }

    #[test]
    fn a_record_of_an_unknown_kind_or_with_a_broken_value_is_refused() {
        let key = AccountKey(&oncekey_types::UserId::new("bob").unwrap()).to_bytes();
        let refused = |key: &[u8], value: &[u8]| {
            let mut reader = Reader::of(Content::Snapshot);
            reader.push(&Content::Snapshot.header()).unwrap();
            let mut chunk = vec![RECORDS];
            append(&mut chunk, key, value).unwrap();
            let error = reader.push(&chunk).unwrap_err();
            assert!(reader.finish().is_err());
            error
        };
        assert!(matches!(refused(&[0x7f], &[]), ReadError::UnknownKind));
        assert!(matches!(refused(&key, &[1, 2, 3]), ReadError::Record(_)));
        assert!(matches!(refused(&key[..3], &[]), ReadError::Record(_)));
    }

    #[test]
    fn records_that_do_not_grow_are_refused_within_a_chunk_and_across_chunks() {
        let records: Vec<Record> = lots(2).records().map(|(k, v)| (k.into(), v.into())).collect();
        let chunk = |places: &[usize]| {
            let mut chunk = vec![RECORDS];
            for &place in places {
                append(&mut chunk, &records[place].0, &records[place].1).unwrap();
            }
            chunk
        };
        let header = Content::Snapshot.header();
        for chunks in [vec![chunk(&[1, 0])], vec![chunk(&[0, 0])], vec![chunk(&[1]), chunk(&[0])]] {
            let mut reader = Reader::of(Content::Snapshot);
            reader.push(&header).unwrap();
            let results: Vec<_> = chunks.iter().map(|chunk| reader.push(chunk)).collect();
            assert!(matches!(results.last(), Some(Err(ReadError::Order))), "{results:?}");
        }
    }

    #[test]
    fn a_backup_has_no_one_time_prekeys_and_is_not_taken_for_a_snapshot() {
        let bob = oncekey_types::UserId::new("bob").unwrap();
        let account = (AccountKey(&bob).to_bytes(), to_bytes(&Account::default()));
        let lots = lots(3);
        let all = lots.records().map(|(key, value)| (key.to_vec(), value.to_vec()));
        let state: MemoryState = all.chain([account.clone()]).collect();
        let mut writer = Writer::of(Content::Backup);
        let mut backup = Vec::new();
        while let Some(chunk) = writer.next_chunk(&state).unwrap() {
            backup.push(chunk);
        }
        let mut reader = Reader::of(Content::Backup);
        let records: Vec<_> = backup.iter().flat_map(|chunk| reader.push(chunk).unwrap()).collect();
        assert_eq!(reader.finish().unwrap(), 1);
        assert_eq!(records, [account]);
        assert!(matches!(read(&backup), Err(ReadError::Header)));

        let mut reader = Reader::of(Content::Backup);
        reader.push(&Content::Backup.header()).unwrap();
        let refused = reader.push(&chunks(&lots)[1]);
        assert!(matches!(refused, Err(ReadError::UnknownKind)), "{refused:?}");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_anywhere_is_found(chunk: Index, byte: Index, bit in 0..8) {
            let mut chunks = chunks(&lots(3));
            let chunk = chunk.get_mut(&mut chunks);
            *byte.get_mut(chunk) ^= 1u8 << bit;
            prop_assert!(read(&chunks).is_err());
        }

        #[test]
        fn hostile_chunks_never_make_the_reader_panic(
            chunks in proptest::collection::vec(
                (1u8..4, proptest::collection::vec(any::<u8>(), 0..60)), 0..4,
            ),
        ) {
            let mut reader = Reader::of(Content::Snapshot);
            reader.push(&Content::Snapshot.header()).unwrap();
            for (tag, body) in chunks {
                let _ = reader.push(&[&[tag], body.as_slice()].concat());
            }
        }

        #[test]
        fn two_states_that_differ_have_two_digests(n in 1u64..20) {
            prop_assert_ne!(
                state_digest(&lots(n)).unwrap(),
                state_digest(&lots(n - 1)).unwrap()
            );
        }
    }
}
