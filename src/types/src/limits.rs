//! A limit on everything: every name, batch, queue and pool has its greatest size here.
//!
//! Limits that the state machine enforces are part of its definition: all replicas must agree on
//! them, so raising one is a change of the format and needs an upgrade of all nodes first.

/// Parts that the users are divided into. Never changes.
pub const SLOTS: u16 = 1024;
/// Greatest number of shards of a cluster.
pub const SHARDS_MAX: u16 = 256;
/// Number of shards when the operator does not say.
pub const SHARDS_DEFAULT: u16 = 4;

/// Nodes of a cluster.
pub const NODES_MAX: usize = 64;
/// Nodes that were removed and whose ids are remembered; beyond, the lowest is forgotten.
pub const NODES_REMOVED_MAX: usize = 4096;
/// Replicas of a shard.
pub const REPLICAS_MAX: u16 = 9;
/// Number of replicas when the operator does not say.
pub const REPLICAS_DEFAULT: u16 = 3;
/// Length of the label of a region or a zone in bytes.
pub const LABEL_MAX_BYTES: usize = 64;

/// Length of a user id in bytes.
pub const USER_ID_MAX_BYTES: usize = 255;
/// Length of a caller id in bytes.
pub const CALLER_ID_MAX_BYTES: usize = 255;
/// Length of the name of a cluster in bytes.
pub const CLUSTER_NAME_MAX_BYTES: usize = 64;
/// Length of an idempotency key in bytes.
pub const REQUEST_ID_MAX_BYTES: usize = 64;

/// Devices of one user.
pub const DEVICES_PER_USER_MAX: usize = 32;
/// One-time prekeys in one upload.
pub const UPLOAD_MAX: usize = 200;
/// One-time prekeys of one device that wait to be handed out.
pub const POOL_MAX: usize = 1000;
/// Users in one multi-user fetch.
pub const USERS_PER_FETCH_MAX: usize = 64;
/// Length of any one public key in bytes; leaves room for KEM prekeys.
pub const PUBLIC_KEY_MAX_BYTES: usize = 2048;
/// Length of a signed device list in bytes.
pub const DEVICE_LIST_MAX_BYTES: usize = 8 * 1024;

/// Payload of the first message of a handshake in bytes.
pub const INITIAL_PAYLOAD_MAX_BYTES: usize = 64 * 1024;
/// Data of an application that a handshake is bound to, in bytes.
pub const APP_AD_MAX_BYTES: usize = u16::MAX as usize;

/// Commands in one log entry.
pub const BATCH_COMMANDS_MAX: usize = 512;
/// Length of one encoded log entry in bytes.
pub const ENTRY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// One encoded command, query or their answer, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 1024 * 1024;
/// Length of one entry in the write-ahead log in bytes: an encoded entry and what Raft puts around
/// it.
pub const WAL_RECORD_MAX_BYTES: usize = ENTRY_MAX_BYTES + 64 * 1024;
/// Entries appended to the write-ahead log in one go, in bytes.
pub const WAL_APPEND_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Length of a vote, a committed position or a purge marker in the write-ahead log in bytes.
pub const GROUP_STATE_MAX_BYTES: usize = 4 * 1024;
/// Commands of one shard that wait for their turn on a node; beyond, the node sheds load.
pub const PROPOSAL_QUEUE_MAX: usize = 8 * 1024;
/// Retries that one shard remembers; beyond, the oldest is forgotten early.
pub const RETRIES_PER_SHARD_MAX: u64 = 1 << 20;
/// Callers whose buckets one user keeps; beyond, the one that is full soonest is dropped.
pub const CALLERS_PER_USER_MAX: usize = 64;

/// Registration numbers of an account that a restore leaves out: more than the account can have used
/// up since the backup.
pub const RESTORE_REGISTRATIONS_SKIPPED: u32 = 1 << 16;
/// Records in one command of a restore, in bytes.
pub const RESTORE_PUT_MAX_BYTES: usize = 512 * 1024;

/// Request line and headers of an HTTP request in bytes.
pub const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Body of an HTTP request in bytes.
pub const BODY_MAX_BYTES: usize = 64 * 1024;
/// Length of a token in bytes.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// Tokens that a node remembers to have verified; beyond, some are verified again.
pub const TOKENS_REMEMBERED_MAX: usize = 32 * 1024;
/// Length of the set of keys that tokens are verified with, in bytes.
pub const KEY_SET_MAX_BYTES: usize = 64 * 1024;
/// Keys in that set.
pub const KEY_SET_KEYS_MAX: usize = 64;
/// Handshakes that one report counts for one reason.
pub const REPORT_COUNT_MAX: u32 = 10_000;
/// Devices of which a node remembers that they have reported; beyond, the oldest is forgotten early.
pub const REPORTERS_MAX: usize = 64 * 1024;
/// Length of a file of certificates or keys in bytes.
pub const PEM_MAX_BYTES: usize = 256 * 1024;
/// Client addresses whose requests a node counts; beyond, one that was quiet is forgotten early.
pub const ADDRESSES_MAX: usize = 64 * 1024;
/// One frame between two nodes, in bytes.
pub const FRAME_MAX_BYTES: usize = 16 * 1024 * 1024;
/// One chunk of a snapshot in bytes.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

/// Body of an HTTP reply that a client reads, in bytes.
pub const REPLY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Endpoints of one client.
pub const ENDPOINTS_MAX: usize = 64;
/// Idle connections that a client keeps to one endpoint.
pub const IDLE_CONNECTIONS_MAX: usize = 256;
/// Attempts of one call of a client.
pub const ATTEMPTS_MAX: usize = 64;
/// Attempts of a device to bring a refused write up to date and send it again.
pub const RESYNCS_MAX: usize = 4;
/// Ids or sequence numbers that a device skips at most because a server says they are used.
pub const RESYNC_JUMP_MAX: u64 = 1 << 20;
/// One-time prekeys whose secrets a device holds; beyond, the oldest are deleted.
pub const SECRETS_HELD_MAX: u32 = 16 * 1024;
/// Used one-time prekeys that a device remembers; beyond, the oldest are forgotten.
pub const TOMBSTONES_MAX: u32 = 64 * 1024;
/// Signed prekeys that are gone and that a device remembers, so that it can say why.
pub const SPK_TOMBSTONES_MAX: u32 = 256;
/// Changes of trust that were accepted and that a device remembers.
pub const TRUST_EVENTS_KEPT: u64 = 1024;
/// Length of a passphrase in bytes.
pub const PASSPHRASE_MAX_BYTES: usize = 1024;
/// Memory that a stored key store may make its reader spend on a passphrase, in KiB.
pub const ARGON2_MEMORY_MAX_KIB: u32 = 1024 * 1024;
/// Passes and lanes that a stored key store may make its reader spend on a passphrase.
pub const ARGON2_PASSES_MAX: u32 = 16;
/// Length of the export of an identity in bytes.
pub const EXPORT_MAX_BYTES: usize = 16 * 1024 * 1024;
