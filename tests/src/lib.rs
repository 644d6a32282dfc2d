//! End-to-end, recovery and chaos tests.
