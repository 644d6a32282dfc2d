//! Names given from outside: users, callers and idempotency keys.
//!
//! Guarantees: never empty, never longer than the limit, checked once when parsed. Leaves out:
//! normalisation; two users whose names differ in one byte are two users.

use alloc::string::String;
use core::{borrow::Borrow, fmt, str::FromStr};

use crate::limits;

/// Why a name was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The text has no bytes.
    #[error("is empty")]
    Empty,
    /// The text is over its limit.
    #[error("has {bytes} bytes, over the limit of {limit}")]
    TooLong {
        /// Length of the text in bytes.
        bytes: usize,
        /// Greatest length allowed, in bytes.
        limit: usize,
    },
    /// The text has a character outside its alphabet.
    #[error("has a character that is not visible ASCII")]
    NotVisibleAscii,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $limit:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Deserialize),
            serde(try_from = "String")
        )]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and wraps it.
            ///
            /// # Errors
            ///
            /// A [`TextError`] that says which limit the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
                let text = text.into();
                if text.is_empty() {
                    return Err(TextError::Empty);
                }
                if text.len() > $limit {
                    return Err(TextError::TooLong { bytes: text.len(), limit: $limit });
                }
                let check: fn(&str) -> Result<(), TextError> = $check;
                check(&text)?;
                Ok(Self(text))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The UTF-8 bytes of the text.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        /// Written without the copy that `serde(into)` makes.
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

fn anything(_: &str) -> Result<(), TextError> {
    Ok(())
}

fn visible_ascii(text: &str) -> Result<(), TextError> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(TextError::NotVisibleAscii)
    }
}

text_id! {
    /// The owner of devices: an opaque UTF-8 string of 1 to
    /// [`USER_ID_MAX_BYTES`](limits::USER_ID_MAX_BYTES) bytes.
    UserId, limits::USER_ID_MAX_BYTES, anything
}
text_id! {
    /// Who asks for a bundle, as far as limits and retries are concerned: an opaque UTF-8 string
    /// of 1 to [`CALLER_ID_MAX_BYTES`](limits::CALLER_ID_MAX_BYTES) bytes.
    CallerId, limits::CALLER_ID_MAX_BYTES, anything
}
text_id! {
    /// An idempotency key: 1 to [`REQUEST_ID_MAX_BYTES`](limits::REQUEST_ID_MAX_BYTES) visible
    /// ASCII characters, unique within its caller.
    RequestId, limits::REQUEST_ID_MAX_BYTES, visible_ascii
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn an_empty_name_is_refused() {
        assert_eq!(UserId::new(""), Err(TextError::Empty));
    }

    #[test]
    fn the_limit_counts_bytes_and_not_characters() {
        assert!(UserId::new("é".repeat(127)).is_ok());
        assert_eq!(
            UserId::new("é".repeat(128)),
            Err(TextError::TooLong { bytes: 256, limit: 255 })
        );
    }

    #[test]
    fn a_request_id_is_visible_ascii() {
        assert!(RequestId::new("0f8fad5b-d9cb-469f-a165-70867728950e").is_ok());
        assert_eq!(RequestId::new("a b"), Err(TextError::NotVisibleAscii));
        assert_eq!(RequestId::new("ü".to_string()), Err(TextError::NotVisibleAscii));
    }
}
