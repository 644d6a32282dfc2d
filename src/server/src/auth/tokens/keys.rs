//! A set of keys (RFC 7517).
//!
//! Guarantees: each key is of the kind that the algorithm configured takes and has its length; the set
//! is not empty and within its limits, and no two keys have one name. Keys for other algorithms or
//! uses are left out.

use jsonwebtoken::{
    DecodingKey,
    jwk::{
        AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
    },
};
use oncekey_types::limits;

use crate::config::auth::Algorithm;

/// The keys that tokens are verified with.
pub(super) struct KeySet(Vec<(Option<String>, DecodingKey)>);

/// Why a set was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeySetError {
    #[error("it is longer than {limit} bytes", limit = limits::KEY_SET_MAX_BYTES)]
    TooLong,
    #[error("it is not a set of keys (RFC 7517)")]
    Form,
    #[error("it has {count} keys, over the limit of {limit}", limit = limits::KEY_SET_KEYS_MAX)]
    TooMany { count: usize },
    #[error("it has no key for the algorithm {algorithm}")]
    NoKey { algorithm: Algorithm },
    #[error("a key is malformed")]
    Key,
    #[error("two keys have the same kid, or one has none beside others")]
    Names,
}

impl KeySet {
    pub(super) fn parse(bytes: &[u8], algorithm: Algorithm) -> Result<Self, KeySetError> {
        if bytes.len() > limits::KEY_SET_MAX_BYTES {
            return Err(KeySetError::TooLong);
        }
        let set: JwkSet = serde_json::from_slice(bytes).map_err(|_| KeySetError::Form)?;
        let count = set.keys.len();
        if count > limits::KEY_SET_KEYS_MAX {
            return Err(KeySetError::TooMany { count });
        }
        let fitting = set.keys.iter().filter(|key| fits(key, algorithm));
        let keys = fitting.map(|key| parse(key, algorithm)).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(KeySetError::NoKey { algorithm });
        }
        let mut names: Vec<_> = keys.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < keys.len() || (keys.len() > 1 && names.contains(&None)) {
            return Err(KeySetError::Names);
        }
        Ok(Self(keys))
    }

    /// The names of the keys.
    #[cfg(feature = "fuzzing")]
    pub(super) fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().map(|(name, _)| name.as_deref())
    }

    /// The key of this name; without a name, the only key there is.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&DecodingKey> {
        match (name, self.0.as_slice()) {
            (None, [(_, only)]) => Some(only),
            (None, _) => None,
            (Some(name), keys) => {
                keys.iter().find(|(known, _)| known.as_deref() == Some(name)).map(|(_, key)| key)
            }
        }
    }
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let (kind, named) = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDsa) => {
            (key.curve == EllipticCurve::Ed25519, KeyAlgorithm::EdDSA)
        }
        (AlgorithmParameters::EllipticCurve(key), Algorithm::Es256) => {
            (key.curve == EllipticCurve::P256, KeyAlgorithm::ES256)
        }
        _ => return false,
    };
    let common = &key.common;
    kind && common.key_algorithm.as_ref().is_none_or(|given| *given == named)
        && common.public_key_use.as_ref().is_none_or(|given| *given == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|given| given.contains(&KeyOperations::Verify))
}

fn parse(key: &Jwk, algorithm: Algorithm) -> Result<(Option<String>, DecodingKey), KeySetError> {
    let parsed = DecodingKey::from_jwk(key).map_err(|_| KeySetError::Key)?;
    let length = match algorithm {
        Algorithm::EdDsa => 32,
        // A point that is not compressed.
        Algorithm::Es256 => 65,
    };
    match parsed.try_get_as_bytes() {
        Ok(bytes) if bytes.len() == length => Ok((key.common.key_id.clone(), parsed)),
        Ok(_) | Err(_) => Err(KeySetError::Key),
    }
}
