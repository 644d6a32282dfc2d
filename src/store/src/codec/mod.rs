//! The bytes of everything that leaves a process.
//!
//! One module for each format: [`entry`] for the content of log entries, [`message`] for what nodes
//! forward to one another, `value` for the records of the state. The snapshot has its own module,
//! [`snapshot`](crate::snapshot).
//!
//! Guarantees: every encoding is a version byte and then bincode 2 (little endian, variable-length
//! integers). Decoding takes any bytes without panicking, allocates no more than its limit, and
//! refuses an unknown version and trailing bytes. What is decoded is inside the limits of its types.
//!
//! Leaves out: checksums, which the log, the network and the snapshot have; and limits on single
//! fields, which [`apply`](crate::apply()) refuses as malformed.

pub mod entry;
pub mod message;
pub(crate) mod value;

use serde::{Serialize, de::DeserializeOwned};

/// Why a value could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value is over the limit of its format.
    #[error("has {size} {unit}, over the limit of {limit}")]
    TooLarge {
        /// Size of the value.
        size: usize,
        /// Greatest size allowed.
        limit: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// The serializer failed.
    #[error("cannot be encoded")]
    Serialize(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why bytes could not be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There are no bytes.
    #[error("is empty")]
    Empty,
    /// The version is not one this node knows.
    #[error("has format version {found}, this node knows {known}")]
    Version {
        /// The version found.
        found: u8,
        /// The version known.
        known: u8,
    },
    /// The value is over the limit of its format.
    #[error("has {size} {unit}, over the limit of {limit}")]
    TooLarge {
        /// Size of the value.
        size: usize,
        /// Greatest size allowed.
        limit: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// Bytes are left over behind the value.
    #[error("has {count} trailing bytes")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// The bytes are not an encoding.
    #[error("is malformed")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Decoding never claims more memory than this for one value, whatever its lengths say.
const CLAIM_MAX_BYTES: usize = oncekey_types::limits::ENTRY_MAX_BYTES;

/// A format: its version and how long one value may be.
struct Format {
    version: u8,
    limit: usize,
}

impl Format {
    fn encode(&self, value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = vec![self.version];
        append(value, &mut bytes)?;
        if bytes.len() > self.limit {
            return Err(EncodeError::TooLarge {
                size: bytes.len(),
                limit: self.limit,
                unit: "bytes",
            });
        }
        Ok(bytes)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, DecodeError> {
        if bytes.len() > self.limit {
            return Err(DecodeError::TooLarge {
                size: bytes.len(),
                limit: self.limit,
                unit: "bytes",
            });
        }
        let body = self.body(bytes)?;
        let (value, used) = take(body)?;
        match body.len() - used {
            0 => Ok(value),
            count => Err(DecodeError::Trailing { count }),
        }
    }

    /// What is behind the version byte.
    fn body<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        match bytes.split_first() {
            None => Err(DecodeError::Empty),
            Some((&found, body)) if found == self.version => Ok(body),
            Some((&found, _)) => Err(DecodeError::Version { found, known: self.version }),
        }
    }
}

/// Appends `value`, without a version.
fn append(value: &impl Serialize, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())
        .map(|_| ())
        .map_err(|error| EncodeError::Serialize(error.into()))
}

/// The first value of `bytes`, without a version, and its length.
fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    let config = bincode::config::standard().with_limit::<CLAIM_MAX_BYTES>();
    bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| DecodeError::Malformed(error.into()))
}
