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
mod entry_v1;
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

/// Room for a command or an outcome, so that the bytes of most are not moved.
const USUAL_BYTES: usize = 512;

/// A format: its version and how long one value may be.
struct Format {
    version: u8,
    limit: usize,
}

impl Format {
    fn encode(&self, value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        self.append(value, &mut bytes)?;
        Ok(bytes)
    }

    fn append(&self, value: &impl Serialize, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        let before = bytes.len();
        bytes.push(self.version);
        append(value, bytes)?;
        let size = bytes.len() - before;
        if size > self.limit {
            return Err(EncodeError::TooLarge { size, limit: self.limit, unit: "bytes" });
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        generate,
        outcome::Outcome,
        query::{Answer, Query},
    };

    proptest! {
        #[test]
        fn a_batch_round_trips_and_no_part_or_extension_of_it_decodes(
            batch in generate::batch(),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = entry::encode(&batch).unwrap();
            prop_assert_eq!(entry::decode(&bytes).unwrap(), batch);
            prop_assert!(entry::decode(&bytes[..cut.index(bytes.len())]).is_err());
            let longer = [bytes.as_slice(), &[0]].concat();
            let refused = entry::decode(&longer);
            prop_assert!(matches!(refused, Err(DecodeError::Trailing { count: 1 })), "{:?}", refused);
        }

        #[test]
        fn a_command_round_trips(command in generate::command()) {
            let bytes = message::encode_command(&command).unwrap();
            prop_assert_eq!(message::decode_command(&bytes).unwrap(), command);
        }

        #[test]
        fn an_outcome_round_trips(dispensed in generate::dispensed()) {
            let outcome = Outcome::Dispensed(dispensed);
            let bytes = message::encode_outcome(&outcome).unwrap();
            prop_assert_eq!(message::decode_outcome(&bytes).unwrap(), outcome);
        }

        #[test]
        fn a_query_round_trips(user in generate::user(), devices: Option<Vec<u32>>) {
            let devices =
                devices.map(|ids| ids.into_iter().map(oncekey_types::DeviceId).collect());
            let query = Query::Peek { user, devices };
            let bytes = message::encode_query(&query).unwrap();
            prop_assert_eq!(message::decode_query(&bytes).unwrap(), query);
        }

        #[test]
        fn hostile_bytes_never_make_decoding_panic(
            bytes in vec(any::<u8>(), 0..300),
            batch in generate::batch(),
            flip in any::<prop::sample::Index>(),
        ) {
            let with_version = [&[1], bytes.as_slice()].concat();
            let with_newer = [&[2], bytes.as_slice()].concat();
            let mut flipped = entry::encode(&batch).unwrap();
            let place = flip.index(flipped.len());
            flipped[place] ^= 0xFF;
            for bytes in [&bytes, &with_version, &with_newer, &flipped] {
                let _ = entry::decode(bytes);
                let _ = message::decode_command(bytes);
                let _ = message::decode_outcome(bytes);
                let _ = message::decode_query(bytes);
                let _ = message::decode_answer(bytes);
            }
        }
    }

    #[test]
    fn a_length_that_promises_gigabytes_is_refused_without_them() {
        // Version, then a command `Register` whose user has 2^63 bytes.
        let bytes = [2, 0, 253, 255, 255, 255, 255, 255, 255, 255, 127];
        assert!(matches!(message::decode_command(&bytes), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn an_unknown_version_and_no_bytes_are_told_apart() {
        assert!(matches!(message::decode_query(&[]), Err(DecodeError::Empty)));
        let version = message::decode_query(&[3, 0]);
        assert!(matches!(version, Err(DecodeError::Version { found: 3, known: 2 })));
    }

    /// Batches of version 1, as a program of that time wrote them: each one command about bob's
    /// device 1.
    const BATCHES_1: [&[u8]; 5] = [
        include_bytes!("batch_v1/register.bin"),
        include_bytes!("batch_v1/rotate.bin"),
        include_bytes!("batch_v1/add.bin"),
        include_bytes!("batch_v1/pop.bin"),
        include_bytes!("batch_v1/remove.bin"),
    ];

    #[test]
    fn batches_of_version_1_are_read_and_are_accepted_in_the_first_epoch() {
        let mut state = crate::state::MemoryState::default();
        for (number, bytes) in (1..).zip(BATCHES_1) {
            let batch = entry::decode(bytes).unwrap();
            assert_eq!(batch.commands.len(), 1);
            assert_eq!(batch.commands[0].user().unwrap().as_str(), "bob");
            let index = oncekey_types::LogIndex(number);
            let applied = crate::apply(&state, index, &batch).unwrap();
            assert!(!matches!(applied.outcomes[..], [Outcome::Refused(_)]), "{applied:?}");
            state.commit(applied.changes);
            for cut in 0..bytes.len() {
                assert!(entry::decode(&bytes[..cut]).is_err(), "{cut} bytes of batch {number}");
            }
        }
    }

    #[test]
    fn an_answer_round_trips() {
        let none =
            [Answer::Status(None), Answer::User(None), Answer::Peek(None), Answer::Summary(None)];
        for answer in none {
            let bytes = message::encode_answer(&answer).unwrap();
            assert_eq!(message::decode_answer(&bytes).unwrap(), answer);
        }
    }

    #[test]
    fn a_key_is_one_run_of_bytes() {
        let key = generate::keys(&[1]).remove(0);
        let mut bytes = Vec::new();
        append(&key, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 1 + (1 + key.key.0.len()) + (1 + key.signature.0.len()));
    }
}
