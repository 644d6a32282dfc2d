//! The content of a log entry: a [`Batch`], version 2. Version 1 is read too.
//!
//! Guarantees: at most [`BATCH_COMMANDS_MAX`] commands and [`ENTRY_MAX_BYTES`] bytes, in both
//! directions. Leaves out: how commands are gathered into a batch.

use oncekey_types::limits::{BATCH_COMMANDS_MAX, ENTRY_MAX_BYTES};

use super::{DecodeError, EncodeError, Format, entry_v1};
use crate::command::Batch;

const FORMAT: Format = Format { version: 2, limit: ENTRY_MAX_BYTES };
const FORMAT_1: Format = Format { version: 1, limit: ENTRY_MAX_BYTES };

/// Room for what a batch has beside its commands, and for a dispense with names of some length.
const FIXED_BYTES: usize = 64;
const USUAL_COMMAND_BYTES: usize = 128;

/// The bytes of `batch`.
///
/// # Errors
///
/// [`EncodeError::TooLarge`] when the batch has too many commands or bytes.
pub fn encode(batch: &Batch) -> Result<Vec<u8>, EncodeError> {
    let size = batch.commands.len();
    if size > BATCH_COMMANDS_MAX {
        return Err(EncodeError::TooLarge { size, limit: BATCH_COMMANDS_MAX, unit: "commands" });
    }
    let mut bytes = Vec::with_capacity(FIXED_BYTES + size * USUAL_COMMAND_BYTES);
    FORMAT.append(batch, &mut bytes)?;
    Ok(bytes)
}

/// The batch in `bytes`.
///
/// # Errors
///
/// [`DecodeError`] when `bytes` are not what [`encode`] makes, or made in version 1.
pub fn decode(bytes: &[u8]) -> Result<Batch, DecodeError> {
    let batch: Batch = if bytes.first() == Some(&FORMAT_1.version) {
        FORMAT_1.decode::<entry_v1::Batch>(bytes)?.into()
    } else {
        FORMAT.decode(bytes)?
    };
    let size = batch.commands.len();
    if size > BATCH_COMMANDS_MAX {
        return Err(DecodeError::TooLarge { size, limit: BATCH_COMMANDS_MAX, unit: "commands" });
    }
    Ok(batch)
}
