//! One shard's backup as a stream: each chunk with its length in front.
//!
//! Guarantees: [`Checked`] passes on what [`snapshot::Reader`] accepts and nothing else, frame by
//! frame, and tells at the end what went through. Leaves out: where the bytes come from and go to.

use bytes::{Buf as _, Bytes, BytesMut};
use oncekey_store::{
    Census,
    snapshot::{self, CHUNK_MAX_BYTES, Content, Reader},
};
use sha2::{Digest as _, Sha256};

use crate::manifest::Digest;

/// Length of the length in front of a chunk.
const LENGTH_BYTES: usize = 4;

/// Why a stream is not a shard's backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A frame is longer than any chunk.
    #[error("a frame of {bytes} bytes is over the limit of {CHUNK_MAX_BYTES}")]
    FrameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The stream ends within a frame.
    #[error("the stream ends within a frame")]
    CutOff,
    /// The chunks are not those of a shard's backup.
    #[error(transparent)]
    Content(#[from] snapshot::ReadError),
}

/// Takes bytes as they come and gives whole frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next chunk, when it is whole.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > CHUNK_MAX_BYTES {
            return Err(StreamError::FrameTooLong { bytes: length });
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Says that no bytes follow.
    pub(crate) fn finish(&self) -> Result<(), StreamError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(StreamError::CutOff) }
    }
}

/// Checks the chunks of a shard's backup as they pass.
pub(crate) struct Checked {
    reader: Reader,
    hash: Sha256,
    bytes: u64,
    census: Census,
}

/// What a shard's backup was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    pub(crate) sha256: Digest,
    pub(crate) bytes: u64,
    pub(crate) census: Census,
}

impl Checked {
    pub(crate) fn new() -> Self {
        let reader = Reader::of(Content::Backup);
        Self { reader, hash: Sha256::new(), bytes: 0, census: Census::default() }
    }

    /// The frame of `chunk`, which fits what came before.
    pub(crate) fn pass(&mut self, chunk: &[u8]) -> Result<Bytes, StreamError> {
        for (key, value) in self.reader.push(chunk)? {
            self.census.count(&key, &value);
        }
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let frame = Bytes::from([&length.to_be_bytes()[..], chunk].concat());
        self.hash.update(&frame);
        self.bytes += frame.len() as u64;
        Ok(frame)
    }

    /// Says that no chunk follows.
    pub(crate) fn finish(self) -> Result<Passed, StreamError> {
        self.reader.finish()?;
        let sha256 = Digest(self.hash.finalize().into());
        Ok(Passed { sha256, bytes: self.bytes, census: self.census })
    }
}
