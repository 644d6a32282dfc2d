//! The content of a log entry: a [`Batch`], version 1.
//!
//! Guarantees: at most [`BATCH_COMMANDS_MAX`] commands and [`ENTRY_MAX_BYTES`] bytes, in both
//! directions. Leaves out: how commands are gathered into a batch.

use oncekey_types::limits::{BATCH_COMMANDS_MAX, ENTRY_MAX_BYTES};

use super::{DecodeError, EncodeError, Format};
use crate::command::Batch;

const FORMAT: Format = Format { version: 1, limit: ENTRY_MAX_BYTES };

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
/// [`DecodeError`] when `bytes` are not what [`encode`] makes.
pub fn decode(bytes: &[u8]) -> Result<Batch, DecodeError> {
    let batch: Batch = FORMAT.decode(bytes)?;
    let size = batch.commands.len();
    if size > BATCH_COMMANDS_MAX {
        return Err(DecodeError::TooLarge { size, limit: BATCH_COMMANDS_MAX, unit: "commands" });
    }
    Ok(batch)
}
