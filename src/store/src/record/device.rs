//! A device: who it is, its signed prekey and the writes that a re-send may repeat.
//!
//! Guarantees: everything but the pool, in one record, so that a registration is replaced whole.
//! Leaves out: one-time prekeys; see `pool`.

use oncekey_types::{DeviceId, RegistrationId, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use super::{Key, KeyReader, KeyWriter, Kind, Versioned};
use crate::{
    command::{IdentityKey, KeyBytes, SignedPreKey, WriteTag},
    outcome::{Outcome, PoolState, Registered},
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeviceKey(pub(crate) UserId, pub(crate) DeviceId);

/// Value of a device record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) identity_key: IdentityKey,
    pub(crate) authentication_key: KeyBytes,
    pub(crate) authentication_signature: KeyBytes,
    pub(crate) signed_prekey: SignedPreKey,
    /// When the signed prekey was accepted, in log time.
    pub(crate) signed_prekey_accepted: TimestampMs,
    /// Tag of the registration, which a late re-send still has.
    pub(crate) registration_tag: WriteTag,
    /// Answer to the registration.
    pub(crate) registered: Registered,
    /// Answer to the write that brought the signed prekey.
    pub(crate) signed_prekey_answer: PoolState,
    /// The last write that brought one-time prekeys.
    pub(crate) upload: Option<Upload>,
    /// Tag of the last write of any kind.
    pub(crate) last_tag: WriteTag,
    /// Answer to it.
    pub(crate) last_outcome: Outcome,
}

impl Device {
    pub(crate) fn registration(&self) -> RegistrationId {
        self.registered.registration
    }
}

/// An upload of one-time prekeys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Upload {
    /// Digest of the keys.
    #[serde(with = "crate::octets")]
    pub(crate) digest: [u8; 32],
    pub(crate) answer: PoolState,
}

impl Versioned for Device {
    const VERSION: u8 = 1;
}

impl Key for DeviceKey {
    const KIND: Kind = Kind::Device;
    type Value = Device;

    fn write(&self, bytes: &mut KeyWriter) {
        bytes.name(self.0.as_str());
        bytes.device(self.1);
    }

    fn read(bytes: &mut KeyReader<'_>) -> Option<Self> {
        Some(Self(UserId::new(bytes.name()?).ok()?, bytes.device()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{generate, record::tests::assert_round_trip};

    proptest! {
        #[test]
        fn a_device_record_round_trips(
            register in generate::register(),
            registration: u32,
            accepted: u64,
            pool in generate::pool_state(),
            upload: Option<[u8; 32]>,
        ) {
            let registered = Registered { registration: RegistrationId(registration), pool };
            let device = Device {
                identity_key: register.identity_key,
                authentication_key: register.authentication_key,
                authentication_signature: register.authentication_signature,
                signed_prekey: register.signed_prekey,
                signed_prekey_accepted: TimestampMs(accepted),
                registration_tag: register.tag,
                registered: registered.clone(),
                signed_prekey_answer: pool,
                upload: upload.map(|digest| Upload { digest, answer: pool }),
                last_tag: register.tag,
                last_outcome: Outcome::Registered(registered),
            };
            assert_round_trip(&DeviceKey(register.user, register.device), &device);
        }
    }
}
