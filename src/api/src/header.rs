//! Names of the headers that mean something here, in lower case as HTTP/2 wants them.

/// Request: names a fetch, so that a retry gets the same answer. Required on every fetch.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Request: who asks, as far as limits and retries are concerned. Read only by a node that is open to
/// all who can reach it; any other takes the caller from the token.
pub const CALLER: &str = "oncekey-caller";
/// Request: the digest of the body that a signature covers (RFC 9530).
pub const CONTENT_DIGEST: &str = "content-digest";
/// Request: what a signature covers (RFC 9421).
pub const SIGNATURE_INPUT: &str = "signature-input";
/// Request: the signature of a device (RFC 9421).
pub const SIGNATURE: &str = "signature";
/// Reply: the signature that a request lacks (RFC 9421).
pub const ACCEPT_SIGNATURE: &str = "accept-signature";
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
