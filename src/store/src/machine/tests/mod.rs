//! The state machine against a reference model, and its invariants.
#![expect(clippy::cast_possible_truncation, reason = "test values are small")]

mod invariants;
mod met;
mod model;
mod queues;
mod restore;
mod rules;
mod sequence;
mod sizes;
