//! The persisted forms of the membership: a command in a log entry, and the state as one record.
//!
//! Guarantees: a version byte in front; decoding what encoding wrote gives the same value, and
//! anything else is an error. Leaves out: the log and the engine around them.

use bytes::Bytes;

use super::state::{Command, State};
use crate::codec::{self, CodecError};

/// The key of the one record that holds the state.
pub(crate) const KEY: &[u8] = &[0x01];

pub(crate) fn encode_command(command: &Command) -> Result<Bytes, CodecError> {
    codec::encode(command)
}

pub(crate) fn decode_command(bytes: &[u8]) -> Result<Command, CodecError> {
    codec::decode(bytes)
}

pub(crate) fn encode_state(state: &State) -> Result<Bytes, CodecError> {
    codec::encode(state)
}

pub(crate) fn decode_state(bytes: &[u8]) -> Result<State, CodecError> {
    codec::decode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_from_anywhere_are_refused_or_read_but_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = decode_command(&bytes);
            let _ = decode_state(&bytes);
        }
    }
}
