//! Harness: real node processes, supervised, watched and judged.
