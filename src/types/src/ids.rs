//! Numeric ids.
//!
//! Guarantees: one type per kind of id, ordered and printed as its number. Leaves out: where ids
//! come from; the crate that issues an id says how it grows.

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub $inner);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)
            }
        }

        impl core::str::FromStr for $name {
            type Err = core::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

numeric_id! {
    /// A node of the cluster. Chosen by the operator; never reused after its disk is lost.
    NodeId(u64)
}
numeric_id! {
    /// A shard: one Raft group that owns a set of [`Slot`](crate::Slot)s.
    ShardId(u16)
}
numeric_id! {
    /// A device of a user. Chosen by the application, unique within the user.
    DeviceId(u32)
}
numeric_id! {
    /// Counts the registrations of an account's devices; a device that registers anew gets a
    /// higher one. Never falls, never repeats within an account.
    RegistrationId(u32)
}
numeric_id! {
    /// A signed prekey (SPK) of a device. Grows with every rotation.
    SignedPreKeyId(u32)
}
numeric_id! {
    /// A one-time prekey (OPK) of a device. Only ever grows: an id that was accepted once is
    /// never accepted again.
    OneTimePreKeyId(u32)
}
numeric_id! {
    /// Position of an entry in the log of one shard.
    LogIndex(u64)
}
numeric_id! {
    /// The history that a cluster's keys belong to. [`FIRST`](Epoch::FIRST) in a cluster that was
    /// made new; a cluster that is made from a backup gets a higher one than every cluster before.
    Epoch(u64)
}
numeric_id! {
    /// Sequence number of a device's writes; grows with every new write, repeats on a re-send.
    Seq(u64)
}

impl Epoch {
    /// That of a cluster that was never restored.
    pub const FIRST: Self = Self(0);

    /// Whether this is [`FIRST`](Self::FIRST).
    #[must_use]
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::FIRST
    }
}
