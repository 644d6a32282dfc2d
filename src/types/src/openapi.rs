//! The schemas of ids, names and times. Leaves out: what an id names.

use alloc::format;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::{
    BackupId, DeviceId, Epoch, LogIndex, NodeId, OneTimePreKeyId, RegistrationId, RequestId, Seq,
    ShardId, SignedPreKeyId, TimestampMs, UnixSeconds, UserId, limits,
};

macro_rules! numbers {
    ($($name:ident($inner:ty) = $doc:literal;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(<$inner>::MIN))
                    .maximum(Some(<$inner>::MAX))
                    .description(Some($doc))
                    .into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

numbers! {
    NodeId(u64) = "A node of the cluster.";
    ShardId(u16) = "A shard.";
    DeviceId(u32) = "A device of a user.";
    RegistrationId(u32) = "Counts the registrations of a user's devices.";
    SignedPreKeyId(u32) = "A signed prekey of a device; grows with every rotation.";
    OneTimePreKeyId(u32) = "A one-time prekey of a device; only ever grows.";
    LogIndex(u64) = "A position in the log of a shard.";
    Epoch(u64) = "The history that the keys of a cluster belong to; higher in a cluster that was restored.";
    Seq(u64) = "Number of a write; grows with every new one.";
    TimestampMs(u64) = "Unix milliseconds.";
    UnixSeconds(u64) = "Unix seconds.";
}

macro_rules! names {
    ($($name:ident, $limit:expr, $pattern:expr, $doc:literal;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .min_length(Some(1))
                    .max_length(Some($limit))
                    .pattern($pattern)
                    .description(Some(format!($doc, $limit)))
                    .into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

names! {
    UserId, limits::USER_ID_MAX_BYTES, None::<&str>, "A user: 1 to {} bytes of UTF-8.";
    RequestId, limits::REQUEST_ID_MAX_BYTES, Some("^[!-~]+$"),
        "The name of a fetch: 1 to {} visible ASCII characters.";
}

impl PartialSchema for BackupId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[0-9a-f]{32}$"))
            .description(Some("The name of a backup: 32 hexadecimal digits."))
            .into()
    }
}

impl ToSchema for BackupId {}
