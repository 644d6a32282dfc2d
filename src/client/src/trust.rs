//! Changes of trust, as the application is to ask its user about them.
//!
//! Guarantees: a change is stored when it is noticed, in the transaction that it belongs to, and
//! stays [open](crate::Client::open_questions) until it is [answered](crate::Client::answer). What
//! contradicts a pin takes no effect before the answer; see [`Change`] for each. The same change
//! is one event, however often it is noticed, and a rejected one is not asked about again.
//!
//! Leaves out: how to ask. Compare [safety numbers](crate::Client::safety_number) where it matters.

use oncekey_types::{DeviceId, Seq, TimestampMs, UserId};
use oncekey_x3dh::{
    Address,
    device_list::{ListedDevice, SuccessionError},
    keys::{AccountPublic, IdentityPublic},
};

use crate::machine::{DeviceListRefused, PinnedDeviceList};

/// Names an event within its key store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TrustEventId(pub u64);

/// Something that the application must ask its user about, or at least show.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a change of trust waits for an answer"]
pub struct TrustEvent {
    /// Its name.
    pub id: TrustEventId,
    /// When it was noticed, or noticed last with other keys.
    pub noticed: TimestampMs,
    /// What changed.
    pub change: Change,
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// A device shows another identity key than the pinned one, and no signed list vouches for
    /// it. Until it is accepted, nothing is sent to the device or taken from it.
    Identity(IdentityChanged),
    /// The account key has signed another list of devices.
    Devices(DevicesChanged),
    /// The user shows a list that another account key signed. Until it is accepted, the pinned
    /// list stays and no bundle of the user is taken.
    Account(AccountChanged),
    /// A server shows a list that contradicts the pinned one. No answer makes it true: accepting
    /// and rejecting both mean that the user has seen it.
    Contradiction(ListContradiction),
}

/// The identity key that a peer shows is not the one pinned.
///
/// The peer has a new device or has reinstalled, or someone is in between.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the identity key of a device has changed")]
pub struct IdentityChanged {
    /// The device.
    pub peer: Address,
    /// The key pinned.
    pub pinned: IdentityPublic,
    /// The key shown.
    pub offered: IdentityPublic,
}

/// A user's account key has signed another list of devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicesChanged {
    /// The user; this device's own, perhaps.
    pub user: UserId,
    /// Position of the new list.
    pub seq: Seq,
    /// Devices that were not listed before.
    pub added: Vec<ListedDevice>,
    /// Devices that are listed with other keys than before: reinstalled.
    pub renewed: Vec<ListedDevice>,
    /// Devices that are no longer listed. Nothing is sent to them or taken from them any more.
    pub removed: Vec<DeviceId>,
    /// Whether added and renewed devices are trusted unless the answer is no
    /// ([`NewDevices::Trusted`]), or not before the answer is yes ([`NewDevices::Questioned`]).
    pub trusted: bool,
}

/// A user shows a list that another account key signed than the pinned one.
///
/// The user has lost every device that had the account key, or someone is in between.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountChanged {
    /// The user.
    pub user: UserId,
    /// The account key pinned; for the own user, the one that this device has.
    pub pinned: AccountPublic,
    /// The list shown, with its account key.
    pub offered: PinnedDeviceList,
}

/// A server shows a list that contradicts the pinned one: proof that it lies, or that a device
/// with the account key was restored from an old copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListContradiction {
    /// The user.
    pub user: UserId,
    /// In what way.
    pub kind: Contradiction,
}

/// In what way a list contradicts the pinned one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contradiction {
    /// It is older.
    RolledBack {
        /// Position of the pinned list.
        pinned: Seq,
        /// Position of the list shown.
        offered: Seq,
    },
    /// It does not continue the pinned one.
    Forked {
        /// Position of the list shown.
        offered: Seq,
    },
    /// There is none any more.
    Disappeared {
        /// Position of the pinned list.
        pinned: Seq,
    },
}

/// The user's answer. The numbers are stable, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Answer {
    /// The change is right: what is offered takes the place of what was pinned.
    Accept = 1,
    /// It is not: what was pinned stays, and what is offered stays refused.
    Reject = 2,
}

impl Answer {
    /// The answer that `number` stands for.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Accept),
            2 => Some(Self::Reject),
            _ => None,
        }
    }
}

/// What to do with devices that a pinned account key adds to its list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NewDevices {
    /// Trust them, and show the change: the account key vouches.
    #[default]
    Trusted,
    /// Trust them when the user has said so: whoever has stolen an account key gains nothing
    /// silently. People who read on a new device wait for their peers.
    Questioned,
}

/// A device as its user's list names it, questioned or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Nothing stands against it.
    Good,
    /// This event waits for its answer, or was answered with no.
    Questioned(TrustEventId),
}

impl Change {
    /// Name of the user whom the change is about.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        match self {
            Self::Identity(changed) => changed.peer.user(),
            Self::Devices(changed) => changed.user.as_bytes(),
            Self::Account(changed) => changed.user.as_bytes(),
            Self::Contradiction(contradiction) => contradiction.user.as_bytes(),
        }
    }

    /// What became of the list of `user`, if it is something to ask about: of which the account
    /// key and the position are known, and which was shown.
    pub(crate) fn of_refused_list(
        user: &UserId,
        refused: &DeviceListRefused,
        account: Option<&AccountPublic>,
        position: Option<Seq>,
        shown: Option<&PinnedDeviceList>,
    ) -> Option<Self> {
        let kind = match (refused, position) {
            (DeviceListRefused::AccountChanged, _) => {
                return Some(Self::Account(AccountChanged {
                    user: user.clone(),
                    pinned: *account?,
                    offered: shown?.clone(),
                }));
            }
            (DeviceListRefused::Disappeared, Some(pinned)) => Contradiction::Disappeared { pinned },
            (DeviceListRefused::Succession(SuccessionError::Rollback { pinned, offered }), _) => {
                Contradiction::RolledBack { pinned: *pinned, offered: *offered }
            }
            (DeviceListRefused::Succession(SuccessionError::Fork { offered }), _) => {
                Contradiction::Forked { offered: *offered }
            }
            _ => return None,
        };
        Some(Self::Contradiction(ListContradiction { user: user.clone(), kind }))
    }

    /// Whether `later` is the same question with other keys: asked in its place, not beside it.
    pub(crate) fn is_replaced_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Identity(old), Self::Identity(new)) => old.peer == new.peer,
            (Self::Account(old), Self::Account(new)) => old.user == new.user,
            (Self::Contradiction(old), Self::Contradiction(new)) => old.user == new.user,
            (
                Self::Identity(_) | Self::Devices(_) | Self::Account(_) | Self::Contradiction(_),
                _,
            ) => false,
        }
    }
}

impl DevicesChanged {
    /// What changes for `user` from the list `old` to `new`; none when nothing does.
    pub(crate) fn between(
        user: &UserId,
        old: &PinnedDeviceList,
        new: &PinnedDeviceList,
        policy: NewDevices,
    ) -> Option<Self> {
        let (before, after) = (old.list().list().devices(), new.list().list().devices());
        let was = |device: DeviceId| before.iter().find(|listed| listed.device == device);
        let is = |device: DeviceId| after.iter().any(|listed| listed.device == device);
        let added: Vec<_> = after.iter().filter(|now| was(now.device).is_none()).copied().collect();
        let renewed: Vec<_> = after
            .iter()
            .filter(|now| was(now.device).is_some_and(|then| then.identity != now.identity))
            .copied()
            .collect();
        let removed: Vec<_> =
            before.iter().map(|then| then.device).filter(|device| !is(*device)).collect();
        let trusted = match policy {
            NewDevices::Trusted => true,
            NewDevices::Questioned => false,
        };
        let changed = Self { user: user.clone(), seq: new.seq(), added, renewed, removed, trusted };
        (!changed.is_empty()).then_some(changed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.renewed.is_empty() && self.removed.is_empty()
    }

    fn names(&self, device: DeviceId, identity: &IdentityPublic) -> bool {
        let mut listed = self.added.iter().chain(&self.renewed);
        listed.any(|listed| listed.device == device && listed.identity == *identity)
    }
}

/// How a device stands, after all events of its user in the order in which they were noticed.
pub(crate) fn standing(
    events: &[(TrustEvent, Option<Answer>)],
    device: DeviceId,
    identity: &IdentityPublic,
) -> Standing {
    let mut standing = Standing::Good;
    for (event, answer) in events {
        match &event.change {
            Change::Devices(changed) if changed.names(device, identity) => {
                standing = match answer {
                    Some(Answer::Reject) => Standing::Questioned(event.id),
                    None if !changed.trusted => Standing::Questioned(event.id),
                    Some(Answer::Accept) | None => Standing::Good,
                };
            }
            Change::Devices(_)
            | Change::Identity(_)
            | Change::Account(_)
            | Change::Contradiction(_) => {}
        }
    }
    standing
}
