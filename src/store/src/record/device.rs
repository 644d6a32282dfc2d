//! A device: who it is, its signed prekey and the writes that a re-send may repeat.
//!
//! Guarantees: everything but the pool, in one record, so that a registration is replaced whole.
//! Leaves out: one-time prekeys; see `pool`.

use oncekey_types::{DeviceId, RegistrationId, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use super::{CorruptRecord, Key, KeyReader, KeyWriter, Kind, Versioned, first_field};
use crate::{
    command::{IdentityKey, KeyBytes, SignedPreKey, WriteTag},
    outcome::{Outcome, PoolState, Registered},
};

pub(crate) struct DeviceKey<'a>(pub(crate) &'a UserId, pub(crate) DeviceId);

/// Value of a device record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Device {
    /// What a dispense reads of the device; first, so that it reads no more.
    pub(crate) bundle: DeviceBundle,
    pub(crate) authentication_key: KeyBytes,
    pub(crate) authentication_signature: KeyBytes,
    /// When the signed prekey was accepted, in log time.
    pub(crate) signed_prekey_accepted: TimestampMs,
    /// Tag of the registration, which a late re-send still has.
    pub(crate) registration_tag: WriteTag,
    /// The pool in the answer to the registration.
    pub(crate) registration_answer: PoolState,
    /// Answer to the write that brought the signed prekey.
    pub(crate) signed_prekey_answer: PoolState,
    /// The last write that brought one-time prekeys.
    pub(crate) upload: Option<Upload>,
    /// Tag of the last write of any kind.
    pub(crate) last_tag: WriteTag,
    /// Answer to it.
    pub(crate) last_outcome: Outcome,
}

/// A bundle without a one-time prekey.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct DeviceBundle {
    pub(crate) registration: RegistrationId,
    pub(crate) identity_key: IdentityKey,
    pub(crate) signed_prekey: SignedPreKey,
}

impl Device {
    /// The answer to the registration.
    pub(crate) fn registered(&self) -> Registered {
        Registered { registration: self.bundle.registration, pool: self.registration_answer }
    }
}

impl DeviceBundle {
    /// That of the device record in `bytes`.
    pub(crate) fn of_device(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        first_field::<Device, Self>(bytes)
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
    const KIND: Kind = Kind::Device;
    const VERSION: u8 = 1;
}

impl Key for DeviceKey<'_> {
    type Value = Device;

    fn write(&self, bytes: &mut KeyWriter<'_>) {
        bytes.name(self.0.as_str());
        bytes.device(self.1);
    }
}

pub(super) fn read_key(key: &mut KeyReader<'_>) -> Option<()> {
    key.user()?;
    key.device().map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        generate,
        record::tests::{assert_round_trip, to_bytes},
    };

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
            let bundle = DeviceBundle {
                registration: registered.registration,
                identity_key: register.identity_key,
                signed_prekey: register.signed_prekey,
            };
            let device = Device {
                bundle: bundle.clone(),
                authentication_key: register.authentication_key,
                authentication_signature: register.authentication_signature,
                signed_prekey_accepted: TimestampMs(accepted),
                registration_tag: register.tag,
                registration_answer: pool,
                signed_prekey_answer: pool,
                upload: upload.map(|digest| Upload { digest, answer: pool }),
                last_tag: register.tag,
                last_outcome: Outcome::Registered(registered),
            };
            assert_round_trip(&DeviceKey(&register.user, register.device), &device);
            prop_assert_eq!(DeviceBundle::of_device(&to_bytes(&device)).unwrap(), bundle);
        }
    }
}
