//! A user as anyone may see it.
//!
//! Guarantees: reading it pops nothing. Leaves out: prekeys; those come in a
//! [`bundle`](crate::bundle).

use oncekey_types::{DeviceId, RegistrationId, Seq, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    Base64,
    key::{DeviceList, IdentityKey},
};

/// Reply to `GET` [`USER`](crate::path::USER).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    /// The user.
    pub user: UserId,
    /// Its devices, in the order of their ids.
    pub devices: Vec<Device>,
    /// Its signed device list, when it has an account key.
    pub device_list: Option<DeviceList>,
    /// Age of the data when no quorum was within reach: the time at which the answering node was
    /// last known to be current; 0 when it has not heard from a leader since it started.
    /// None when the data is current.
    pub as_of: Option<TimestampMs>,
}

/// One device of a [`User`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// The device.
    pub device: DeviceId,
    /// Number of its registration.
    pub registration: RegistrationId,
    /// Its identity key.
    pub identity_key: IdentityKey,
    /// The key that signs its requests.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::PublicKey))]
    pub authentication_key: Base64,
    /// The identity key's signature over the authentication key.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::Signature))]
    pub authentication_signature: Base64,
}

/// `PUT` [`DEVICE_LIST`](crate::path::DEVICE_LIST): the body is the list itself.
pub type PutDeviceList = DeviceList;

/// Reply to [`PutDeviceList`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceListPut {
    /// Position of the list in its chain.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::IdentityKind;

    #[test]
    fn a_user_comes_back_as_it_went() {
        let user = User {
            user: UserId::new("bob").unwrap(),
            devices: vec![Device {
                device: DeviceId(1),
                registration: RegistrationId(7),
                identity_key: IdentityKey { kind: IdentityKind::Ed25519, key: [1; 32].into() },
                authentication_key: [2; 32].into(),
                authentication_signature: [3; 64].into(),
            }],
            device_list: Some(DeviceList {
                account_key: [4; 32].into(),
                list: vec![5; 90].into(),
                signature: [6; 64].into(),
            }),
            as_of: None,
        };
        let json = serde_json::to_string(&user).unwrap();
        assert_eq!(serde_json::from_str::<User>(&json).unwrap(), user);
    }

    #[test]
    fn a_device_list_with_an_unknown_field_is_refused() {
        let json = r#"{"account_key":"","list":"","signature":"","seq":3}"#;
        assert!(serde_json::from_str::<PutDeviceList>(json).is_err());
    }
}
