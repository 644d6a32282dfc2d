//! Keys as they are published and fetched.
//!
//! Guarantees: the same form in requests and in replies. Leaves out: every check of length, point
//! and signature.

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::Base64;

/// Form of an identity key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum IdentityKind {
    /// Ed25519, converted to X25519 for Diffie-Hellman.
    Ed25519,
    /// Curve25519, signing with XEdDSA.
    Curve25519,
}

/// An identity key (IK).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct IdentityKey {
    /// Its form.
    pub kind: IdentityKind,
    /// The public key.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::PublicKey))]
    pub key: Base64,
}

/// A signed prekey (SPK).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignedPreKey {
    /// Its id; grows with every rotation.
    pub id: SignedPreKeyId,
    /// The public key.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::PublicKey))]
    pub key: Base64,
    /// When the device made it, in seconds, as signed.
    pub created: UnixSeconds,
    /// When it stops being valid, in seconds, as signed.
    pub expires: UnixSeconds,
    /// The identity key's signature.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::Signature))]
    pub signature: Base64,
}

/// A one-time prekey (OPK).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OneTimePreKey {
    /// Its id; an id once accepted is never accepted again.
    pub id: OneTimePreKeyId,
    /// The public key.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::PublicKey))]
    pub key: Base64,
    /// The identity key's signature.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::Signature))]
    pub signature: Base64,
}

/// A device list, signed by the account key (UK).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceList {
    /// The account key.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::PublicKey))]
    pub account_key: Base64,
    /// The canonical bytes of the list: user, position in the chain, hash of the list before,
    /// devices.
    pub list: Base64,
    /// The account key's signature over the canonical bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::Signature))]
    pub signature: Base64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_key_names_its_kind() {
        let json = r#"{"kind":"ed25519","key":"AQID"}"#;
        let key: IdentityKey = serde_json::from_str(json).unwrap();
        assert_eq!(key, IdentityKey { kind: IdentityKind::Ed25519, key: vec![1, 2, 3].into() });
        assert_eq!(serde_json::to_string(&key).unwrap(), json);
        assert!(serde_json::from_str::<IdentityKey>(r#"{"kind":"rsa","key":"AQID"}"#).is_err());
    }

    #[test]
    fn a_field_that_is_not_known_is_refused() {
        let json = r#"{"id":1,"key":"AQID","signature":"AQID","kem":"AQID"}"#;
        let error = serde_json::from_str::<OneTimePreKey>(json).unwrap_err();
        assert!(error.to_string().contains("unknown field `kem`"), "{error}");
    }

    #[test]
    fn an_id_is_a_number_in_its_range() {
        for id in ["4294967296", "-1", "1.0", "\"1\"", "null"] {
            let json = format!(r#"{{"id":{id},"key":"","signature":""}}"#);
            assert!(serde_json::from_str::<OneTimePreKey>(&json).is_err(), "{json} was taken");
        }
    }
}
