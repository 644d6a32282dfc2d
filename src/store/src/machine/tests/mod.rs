//! The state machine against a reference model, and its invariants.

mod invariants;
mod model;
mod rules;
mod sequence;
mod sizes;
