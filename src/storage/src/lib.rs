//! The write-ahead log and the state engines of a node.
