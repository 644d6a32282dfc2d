//! Names of the headers that mean something here, in lower case as HTTP/2 wants them.

/// Request: names a fetch, so that a retry gets the same answer. Required on every fetch.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Request: who asks, as far as limits and retries are concerned. Not authenticated: a node that
/// reads it trusts whoever can reach it.
pub const CALLER: &str = "oncekey-caller";
/// Reply: the shard that answered.
pub const SHARD: &str = "oncekey-shard";
/// Reply: public address of the node that leads the shard; ask it first next time.
pub const LEADER: &str = "oncekey-leader";
/// Reply: log index of the commit; a repeated answer carries the original one.
pub const INDEX: &str = "oncekey-index";
/// Reply: the cluster's epoch. A lower one than before is of a cluster whose place another has
/// taken.
pub const EPOCH: &str = "oncekey-epoch";

/// Media type of a [`Problem`](crate::Problem).
pub const PROBLEM_JSON: &str = "application/problem+json";
