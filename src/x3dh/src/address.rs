//! Who takes part in a handshake.
//!
//! Guarantees: a user's name fits its length prefix, so an address has one encoding. Leaves out:
//! what a name may contain; here it is bytes, the server is stricter.

use alloc::{boxed::Box, string::String};
use core::fmt;

use oncekey_types::{DeviceId, UserId, limits};

/// A device of a user, as signatures and handshakes name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    user: Box<[u8]>,
    device: DeviceId,
}

/// The user's name is over [`USER_ID_MAX_BYTES`](limits::USER_ID_MAX_BYTES).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the user has {bytes} bytes, over the limit of {limit}", limit = limits::USER_ID_MAX_BYTES)]
pub struct UserTooLong {
    /// Length of the name in bytes.
    pub bytes: usize,
}

impl Address {
    /// The address of `device` of `user`.
    #[must_use]
    pub fn new(user: &UserId, device: DeviceId) -> Self {
        Self { user: user.as_bytes().into(), device }
    }

    /// The same for a user whose name is any bytes, as the handshake allows.
    ///
    /// # Errors
    ///
    /// [`UserTooLong`].
    pub fn from_bytes(user: &[u8], device: DeviceId) -> Result<Self, UserTooLong> {
        if user.len() > limits::USER_ID_MAX_BYTES {
            return Err(UserTooLong { bytes: user.len() });
        }
        Ok(Self { user: user.into(), device })
    }

    /// The user's name.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// The user, when its name is one that a server accepts.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        let name = String::from_utf8(self.user.to_vec()).ok()?;
        UserId::new(name).ok()
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }
}

/// Shows the device only: user names stay out of logs.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("device", &self.device).finish_non_exhaustive()
    }
}
