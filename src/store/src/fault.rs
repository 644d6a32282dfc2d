//! Local faults.
//!
//! Guarantees: a fault never becomes an [`Outcome`](crate::outcome::Outcome), because another
//! replica may not have it; the node that meets one stops. Leaves out: how it stops.

use crate::{codec::EncodeError, record::CorruptRecord, state::ReadFault};

/// Why a batch could not be applied, or a query not be answered, on this node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyFault {
    /// The state engine failed.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// A record in the state is not what was written.
    #[error(transparent)]
    Corrupt(#[from] CorruptRecord),
    /// A record could not be encoded.
    #[error("a record could not be encoded")]
    Encode(#[from] EncodeError),
}
