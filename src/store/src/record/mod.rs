//! The records of a shard.

/// A record in the state that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a {kind} record of the state is corrupt: {reason}")]
pub struct CorruptRecord {
    /// Its kind.
    pub kind: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}
