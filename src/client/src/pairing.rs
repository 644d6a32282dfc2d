//! Adding a device to a user's signed list, from one screen to another camera.
//!
//! ```text
//! new device                                  device with the account key
//! pairing_code() ── QR code, or text ──────▶  add_paired(&code)
//! publish()                                      signs and puts the next list
//! ```
//!
//! The text of a code is `oncekey-device:` and the bytes of an [`Introduction`] in base64url
//! without padding; its QR code holds the same text.
//!
//! Guarantees: a code that parses was made by the device that it names, for this user; see
//! [`Introduction`]. Leaves out: that the code seen is the code shown. Do not send it through the
//! server: whoever exchanges it adds a device of its own.

use std::{fmt, str::FromStr};

use oncekey_api::Base64;
use oncekey_x3dh::introduction::{Introduction, IntroductionError};

/// What the text of every code begins with.
const PREFIX: &str = "oncekey-device:";

/// What a new device shows to one that has the account key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairingCode(Introduction);

/// Why a text is not a pairing code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairingCodeError {
    /// It does not begin with `oncekey-device:`.
    #[error("the text is not a pairing code")]
    Prefix,
    /// What follows is not base64url without padding.
    #[error("the pairing code is not base64url")]
    Base64,
    /// What was encoded.
    #[error(transparent)]
    Introduction(#[from] IntroductionError),
}

impl PairingCode {
    /// Shows `introduction`.
    #[must_use]
    pub fn new(introduction: Introduction) -> Self {
        Self(introduction)
    }

    /// The device that the code introduces.
    #[must_use]
    pub fn introduction(&self) -> &Introduction {
        &self.0
    }
}

impl fmt::Display for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", Base64(self.0.to_bytes()).to_text())
    }
}

impl FromStr for PairingCode {
    type Err = PairingCodeError;

    fn from_str(text: &str) -> Result<Self, PairingCodeError> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(PairingCodeError::Prefix)?;
        let bytes = Base64::from_text(text).ok_or(PairingCodeError::Base64)?;
        Ok(Self(Introduction::from_bytes(&bytes.0)?))
    }
}

#[cfg(test)]
mod tests {
    use oncekey_types::{DeviceId, UserId};
    use oncekey_x3dh::{
        Address,
        keys::{AuthenticationKeyPair, IdentityKeyPair},
    };

    use super::*;

    fn code() -> PairingCode {
        let rng = &mut rand_core::UnwrapErr(getrandom::SysRng);
        let identity = IdentityKeyPair::generate(rng);
        let authentication = AuthenticationKeyPair::generate(rng);
        let owner = Address::new(&UserId::new("bob").unwrap(), DeviceId(2));
        PairingCode(Introduction::new(owner, &identity, *authentication.public(), rng))
    }

    #[test]
    fn a_code_comes_back_as_it_went() {
        let code = code();
        assert_eq!(code.to_string().parse(), Ok(code.clone()));
        assert_eq!(format!(" {code}\n").parse(), Ok(code.clone()), "as it is pasted");
        assert!(code.to_string().starts_with("oncekey-device:AQAD"), "{code}");
    }

    #[test]
    fn any_other_text_is_refused_and_says_why() {
        let good = code().to_string();
        let cut = good[..PREFIX.len() + 180].to_owned();
        for (text, error) in [
            (String::new(), PairingCodeError::Prefix),
            (good.replace("oncekey-", ""), PairingCodeError::Prefix),
            (format!("{good}="), PairingCodeError::Base64),
            (good.replace("AQAD", "A AD"), PairingCodeError::Base64),
            (cut, PairingCodeError::Introduction(IntroductionError::Truncated)),
        ] {
            assert_eq!(text.parse::<PairingCode>(), Err(error), "{text}");
        }
    }
}
