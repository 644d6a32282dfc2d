//! Consensus: one Raft group per shard, on openraft.
