//! What nodes forward to one another: commands and their outcomes, queries and their answers,
//! version 2.
//!
//! Guarantees: at most [`MESSAGE_MAX_BYTES`] bytes, in both directions, which holds every command
//! that is not malformed and every outcome and answer. Leaves out: who sent it.

use oncekey_types::limits::MESSAGE_MAX_BYTES;

use super::{DecodeError, EncodeError, Format};
use crate::{
    command::Command,
    outcome::Outcome,
    query::{Answer, Query},
};

const FORMAT: Format = Format { version: 2, limit: MESSAGE_MAX_BYTES };

macro_rules! message {
    ($(#[$what:meta])* $type:ty, $encode:ident, $decode:ident) => {
        $(#[$what])*
        /// as bytes.
        ///
        /// # Errors
        ///
        /// [`EncodeError::TooLarge`] when it has too many bytes.
        pub fn $encode(value: &$type) -> Result<Vec<u8>, EncodeError> {
            FORMAT.encode(value)
        }

        $(#[$what])*
        /// from bytes.
        ///
        /// # Errors
        ///
        /// [`DecodeError`] when `bytes` are not such an encoding.
        pub fn $decode(bytes: &[u8]) -> Result<$type, DecodeError> {
            FORMAT.decode(bytes)
        }
    };
}

message! {
    /// A [`Command`]
    Command, encode_command, decode_command
}
message! {
    /// An [`Outcome`]
    Outcome, encode_outcome, decode_outcome
}
message! {
    /// A [`Query`]
    Query, encode_query, decode_query
}
message! {
    /// An [`Answer`]
    Answer, encode_answer, decode_answer
}
