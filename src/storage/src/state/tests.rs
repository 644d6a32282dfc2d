//! The same suite over every engine.
