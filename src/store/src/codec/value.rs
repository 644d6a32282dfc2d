//! The values of the state's records. Each kind of record has its own version.
//!
//! Guarantees: at most [`ENTRY_MAX_BYTES`] bytes; a sequence of items can be read one at a time
//! from a known offset. Leaves out: what the values mean.

use oncekey_types::limits::ENTRY_MAX_BYTES;
use serde::{Serialize, de::DeserializeOwned};

use super::{DecodeError, EncodeError, Format};

/// Appends one value.
pub(crate) fn encode(
    version: u8,
    value: &impl Serialize,
    bytes: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    format(version).append(value, bytes)
}

/// One value.
pub(crate) fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    format(version).decode(bytes)
}

/// What the value in `bytes` begins with; the rest is not looked at.
pub(crate) fn decode_first<T: DeserializeOwned>(
    version: u8,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    super::take(format(version).body(bytes)?).map(|(value, _)| value)
}

/// Appends a sequence of items, packed without a count. The first is at offset 1.
pub(crate) fn encode_packed<T: Serialize>(
    version: u8,
    items: &[T],
    bytes: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    bytes.push(version);
    for item in items {
        super::append(item, bytes)?;
    }
    Ok(())
}

/// The item at `offset` of a packed sequence, and the offset behind it. `None` behind the last.
pub(crate) fn decode_packed<T: DeserializeOwned>(
    version: u8,
    bytes: &[u8],
    offset: usize,
) -> Result<Option<(T, usize)>, DecodeError> {
    format(version).body(bytes)?;
    match bytes.get(offset..) {
        None | Some([]) => Ok(None),
        Some(rest) => super::take(rest).map(|(item, used)| Some((item, offset + used))),
    }
}

fn format(version: u8) -> Format {
    Format { version, limit: ENTRY_MAX_BYTES }
}
