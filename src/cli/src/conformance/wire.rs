//! What requests and answers are made of: hex, keys and errors.

use std::fmt;

use oncekey_x3dh::{Failure, keys::KeyError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte string, written as lower-case hex.
#[derive(Default)]
pub(super) struct Hex(pub(super) Vec<u8>);

impl Hex {
    /// The bytes of a secret key.
    pub(super) fn secret(&self) -> Result<[u8; 32], OpError> {
        self.0
            .as_slice()
            .try_into()
            .map_err(|_| OpError::from(KeyError::Length { bytes: self.0.len() }))
    }
}

impl From<&[u8]> for Hex {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&[u8; 32]> for Hex {
    fn from(bytes: &[u8; 32]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Why a line has no answer. The codes are stable.
#[derive(Debug, Serialize)]
pub(super) struct OpError {
    error: String,
    code: &'static str,
}

impl OpError {
    /// The line is not a request.
    pub(super) fn malformed(error: impl fmt::Display) -> Self {
        Self::new(error, Failure::Malformed.reason())
    }

    pub(super) fn new(error: impl fmt::Display, code: &'static str) -> Self {
        Self { error: error.to_string(), code }
    }
}

impl From<KeyError> for OpError {
    fn from(error: KeyError) -> Self {
        Self::new(error, "invalid_key")
    }
}

impl From<Failure> for OpError {
    fn from(failure: Failure) -> Self {
        Self::new(failure, failure.reason())
    }
}
