//! The log against power cuts, damage and faults.
