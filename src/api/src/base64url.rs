//! Bytes in JSON.
//!
//! Guarantees: one text for each byte string: base64url without padding, no stray bits in the last
//! character. Leaves out: lengths.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes that are base64url without padding in JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Base64(pub Vec<u8>);

impl Base64 {
    /// The bytes as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    /// The bytes that `text` stands for.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok().map(Self)
    }

    /// The bytes, when there are exactly `N`.
    #[must_use]
    pub fn to_array<const N: usize>(&self) -> Option<[u8; N]> {
        self.0.as_slice().try_into().ok()
    }
}

impl fmt::Debug for Base64 {
    /// Prints the length only: keys do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> From<[u8; N]> for Base64 {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Base64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64url without padding")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64, E> {
        // The text itself stays out of the message: it may be a key.
        URL_SAFE_NO_PAD
            .decode(text)
            .map(Base64)
            .map_err(|_| E::custom("not base64url without padding"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back_as_they_went(bytes: Vec<u8>) {
            let json = serde_json::to_string(&Base64(bytes.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Base64>(&json).unwrap().0, bytes);
        }
    }

    #[test]
    fn there_is_one_text_for_each_byte_string() {
        assert_eq!(serde_json::from_str::<Base64>("\"-_8\"").unwrap().0, [0xfb, 0xff]);
        for other in ["\"-_8=\"", "\"+/8\"", "\"-_9\"", "\"-_8 \"", "\"-\""] {
            assert!(serde_json::from_str::<Base64>(other).is_err(), "{other} was taken");
        }
    }

    #[test]
    fn debug_output_has_no_bytes() {
        assert_eq!(format!("{:?}", Base64(vec![1, 2, 3])), "Base64(3 bytes)");
    }
}
