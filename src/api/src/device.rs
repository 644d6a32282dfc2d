//! What a device writes and reads about itself.
//!
//! Guarantees: every write carries the device's `seq`; the same bytes sent again under the same
//! `seq` are answered as before. Leaves out: removal, whose `seq` is a query parameter
//! ([`path::remove_device`](crate::path::remove_device)) and whose reply has no body.

use oncekey_types::{Epoch, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId};
use serde::{Deserialize, Serialize};

use crate::{
    Base64,
    key::{DeviceList, IdentityKey, OneTimePreKey, SignedPreKey},
};

/// `PUT` [`DEVICE`](crate::path::DEVICE).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Number of this write.
    pub seq: Seq,
    /// The device's current registration, which this one is to replace; absent when the device is
    /// not registered. A registration that follows another than the current one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<RegistrationId>,
    /// The device's identity key.
    pub identity_key: IdentityKey,
    /// The key that will sign the device's requests.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::PublicKey))]
    pub authentication_key: Base64,
    /// The identity key's signature over the authentication key.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::Signature))]
    pub authentication_signature: Base64,
    /// The first signed prekey.
    pub signed_prekey: SignedPreKey,
    /// The first one-time prekeys, ids growing, up to
    /// [`UPLOAD_MAX`](oncekey_types::limits::UPLOAD_MAX).
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 200))]
    pub one_time_prekeys: Vec<OneTimePreKey>,
    /// The next device list, when the user has an account key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_list: Option<DeviceList>,
    /// The cluster's epoch, as the device knows it: another one is a problem, whose answer are new
    /// keys.
    #[serde(default, skip_serializing_if = "Epoch::is_first")]
    pub epoch: Epoch,
}

/// Reply to [`Register`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registered {
    /// Number of this registration; another one means that the device started anew.
    pub registration: RegistrationId,
    /// The pool after the write.
    pub pool: Pool,
}

/// `PUT` [`SIGNED_PREKEY`](crate::path::SIGNED_PREKEY). The reply is a [`Pool`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplaceSignedPreKey {
    /// Number of this write.
    pub seq: Seq,
    /// The new key.
    pub signed_prekey: SignedPreKey,
    /// The cluster's epoch, as the device knows it: another one is a problem, whose answer are new
    /// keys.
    #[serde(default, skip_serializing_if = "Epoch::is_first")]
    pub epoch: Epoch,
}

/// `POST` [`ONE_TIME_PREKEYS`](crate::path::ONE_TIME_PREKEYS). The reply is a [`Pool`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AddOneTimePreKeys {
    /// Number of this write.
    pub seq: Seq,
    /// The keys, ids growing, 1 to [`UPLOAD_MAX`](oncekey_types::limits::UPLOAD_MAX).
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 200))]
    pub one_time_prekeys: Vec<OneTimePreKey>,
    /// The cluster's epoch, as the device knows it: another one is a problem, whose answer are new
    /// keys.
    #[serde(default, skip_serializing_if = "Epoch::is_first")]
    pub epoch: Epoch,
}

/// A device's pool of one-time prekeys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pool {
    /// One-time prekeys that wait to be handed out.
    pub count: u32,
    /// At or below this count the device should upload more.
    pub low_watermark: u32,
    /// The current signed prekey.
    pub signed_prekey: SignedPreKeyId,
    /// Highest one-time prekey id ever accepted; none before the first upload.
    pub highest_accepted: Option<OneTimePreKeyId>,
}

/// Reply to `GET` [`PREKEYS`](crate::path::PREKEYS).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// Number of the current registration.
    pub registration: RegistrationId,
    /// Number of the last write accepted.
    pub seq: Seq,
    /// The cluster's epoch. A higher one than the device knows: the cluster was restored, and has
    /// none of the device's one-time prekeys, and perhaps an older signed prekey.
    #[serde(default)]
    pub epoch: Epoch,
    /// The pool.
    pub pool: Pool,
    /// Time since the current signed prekey was accepted, by the server's clock.
    pub signed_prekey_age_ms: u64,
    /// Ids in the pool as closed ranges, growing.
    pub ids: Vec<(OneTimePreKeyId, OneTimePreKeyId)>,
    /// SHA-256 over the signed prekey and the pool, to compare with the device's own.
    pub digest: Base64,
}

/// Query of `DELETE` [`DEVICE`](crate::path::DEVICE).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    /// Number of this write, when the device itself asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
}

#[cfg(test)]
mod tests {
    use oncekey_types::UnixSeconds;

    use super::*;
    use crate::key::IdentityKind;

    fn register() -> Register {
        Register {
            seq: Seq(1),
            follows: None,
            identity_key: IdentityKey { kind: IdentityKind::Ed25519, key: [1; 32].into() },
            authentication_key: [2; 32].into(),
            authentication_signature: [3; 64].into(),
            signed_prekey: SignedPreKey {
                id: SignedPreKeyId(12),
                key: [4; 32].into(),
                created: UnixSeconds(1_790_000_000),
                expires: UnixSeconds(1_794_000_000),
                signature: [5; 64].into(),
            },
            one_time_prekeys: vec![OneTimePreKey {
                id: OneTimePreKeyId(341),
                key: [6; 32].into(),
                signature: [7; 64].into(),
            }],
            device_list: None,
            epoch: Epoch::FIRST,
        }
    }

    #[test]
    fn a_registration_comes_back_as_it_went() {
        let json = serde_json::to_string(&register()).unwrap();
        assert!(!json.contains("device_list") && !json.contains("epoch"), "{json}");
        assert_eq!(serde_json::from_str::<Register>(&json).unwrap(), register());
    }

    #[test]
    fn a_field_that_is_not_known_is_refused_at_every_level() {
        let json = serde_json::to_value(register()).unwrap();
        for pointer in ["", "/identity_key", "/signed_prekey", "/one_time_prekeys/0"] {
            let mut json = json.clone();
            json.pointer_mut(pointer).unwrap()["extra"] = 1.into();
            assert!(serde_json::from_value::<Register>(json).is_err(), "extra in {pointer:?}");
        }
    }

    #[test]
    fn a_registration_lacks_nothing_but_the_optional() {
        let json = serde_json::to_value(register()).unwrap();
        for (field, optional) in [
            ("seq", false),
            ("identity_key", false),
            ("authentication_key", false),
            ("authentication_signature", false),
            ("signed_prekey", false),
            ("one_time_prekeys", true),
        ] {
            let mut json = json.clone();
            json.as_object_mut().unwrap().remove(field);
            assert_eq!(serde_json::from_value::<Register>(json).is_ok(), optional, "{field}");
        }
    }

    #[test]
    fn ranges_of_ids_are_pairs() {
        let status = Status {
            registration: RegistrationId(7),
            seq: Seq(9),
            epoch: Epoch::FIRST,
            pool: Pool {
                count: 4,
                low_watermark: 20,
                signed_prekey: SignedPreKeyId(12),
                highest_accepted: Some(OneTimePreKeyId(9)),
            },
            signed_prekey_age_ms: 1000,
            ids: vec![
                (OneTimePreKeyId(1), OneTimePreKeyId(3)),
                (OneTimePreKeyId(9), OneTimePreKeyId(9)),
            ],
            digest: [0; 32].into(),
        };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["ids"], serde_json::json!([[1, 3], [9, 9]]));
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }
}
