//! Applying a batch.

use oncekey_types::LogIndex;

use crate::{
    ApplyFault,
    command::Batch,
    outcome::{Outcome, Refusal},
    state::{Changes, StateRead},
};

/// What a batch did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// One outcome for each command, in order.
    pub outcomes: Vec<Outcome>,
    /// What the caller commits in one atomic batch, with the applied index.
    pub changes: Changes,
}

/// Applies the entry at `index` to `state`.
///
/// # Errors
///
/// [`ApplyFault`] when this node cannot tell; it must stop.
pub fn apply(state: &impl StateRead, index: LogIndex, batch: &Batch) -> Result<Applied, ApplyFault> {
    let _ = (state.get(&[])?, index);
    let outcomes = batch.commands.iter().map(|_| Outcome::Refused(Refusal::UnknownUser)).collect();
    Ok(Applied { outcomes, changes: Changes::default() })
}
