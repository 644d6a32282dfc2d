//! Changes of trust as they are stored.
//!
//! Guarantees: what comes out went in; keys are checked again. Leaves out: sealing.

use oncekey_api::{Base64, key::DeviceList as WireList};
use oncekey_types::{DeviceId, Seq, UnixSeconds, UserId};
use oncekey_x3dh::{
    device_list::ListedDevice,
    keys::{AccountPublic, AuthenticationPublic, IdentityPublic},
};
use serde::{Deserialize, Serialize};

use super::{Error, address_of};
use crate::{
    machine::PinnedDeviceList,
    trust::{
        AccountChanged, Change, Contradiction, DevicesChanged, IdentityChanged, ListContradiction,
    },
};

const EVENT: &str = "trust event";

/// A change as it is stored. Names are stable, never reuse.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Identity {
        user: Base64,
        device: u32,
        pinned: Base64,
        offered: Base64,
    },
    Devices {
        user: UserId,
        seq: Seq,
        added: Vec<StoredDevice>,
        renewed: Vec<StoredDevice>,
        removed: Vec<DeviceId>,
        trusted: bool,
    },
    Account {
        user: UserId,
        pinned: Base64,
        offered: WireList,
    },
    RolledBack {
        user: UserId,
        pinned: Seq,
        offered: Seq,
    },
    Forked {
        user: UserId,
        offered: Seq,
    },
    Disappeared {
        user: UserId,
        pinned: Seq,
    },
}

#[derive(Serialize, Deserialize)]
struct StoredDevice {
    device: DeviceId,
    identity: Base64,
    authentication: Base64,
    added_at: UnixSeconds,
}

pub(super) fn encode(change: &Change) -> Result<Vec<u8>, Error> {
    let stored = match change.clone() {
        Change::Identity(IdentityChanged { peer, pinned, offered }) => Stored::Identity {
            user: peer.user().to_vec().into(),
            device: peer.device().0,
            pinned: pinned.to_tagged_bytes().to_vec().into(),
            offered: offered.to_tagged_bytes().to_vec().into(),
        },
        Change::Devices(DevicesChanged { user, seq, added, renewed, removed, trusted }) => {
            let devices = |listed: Vec<ListedDevice>| listed.iter().map(stored_device).collect();
            Stored::Devices {
                user,
                seq,
                added: devices(added),
                renewed: devices(renewed),
                removed,
                trusted,
            }
        }
        Change::Account(AccountChanged { user, pinned, offered }) => Stored::Account {
            user,
            pinned: (*pinned.as_bytes()).into(),
            offered: offered.to_wire(),
        },
        Change::Contradiction(ListContradiction { user, kind }) => match kind {
            Contradiction::RolledBack { pinned, offered } => {
                Stored::RolledBack { user, pinned, offered }
            }
            Contradiction::Forked { offered } => Stored::Forked { user, offered },
            Contradiction::Disappeared { pinned } => Stored::Disappeared { user, pinned },
        },
    };
    serde_json::to_vec(&stored).map_err(|_| Error::Damaged { record: EVENT })
}

fn stored_device(listed: &ListedDevice) -> StoredDevice {
    StoredDevice {
        device: listed.device,
        identity: listed.identity.to_tagged_bytes().to_vec().into(),
        authentication: (*listed.authentication.as_bytes()).into(),
        added_at: listed.added_at,
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Change, Error> {
    let damaged = || Error::Damaged { record: EVENT };
    let identity = |key: &Base64| IdentityPublic::from_tagged_bytes(&key.0).map_err(|_| damaged());
    let devices = |stored: Vec<StoredDevice>| -> Result<Vec<_>, Error> {
        let listed = stored.into_iter().map(|stored| {
            Ok(ListedDevice {
                device: stored.device,
                identity: identity(&stored.identity)?,
                authentication: AuthenticationPublic::from_bytes(&stored.authentication.0)
                    .map_err(|_| damaged())?,
                added_at: stored.added_at,
            })
        });
        listed.collect()
    };
    let contradiction = |user, kind| Ok(Change::Contradiction(ListContradiction { user, kind }));
    match serde_json::from_slice(bytes).map_err(|_| damaged())? {
        Stored::Identity { user, device, pinned, offered } => {
            Ok(Change::Identity(IdentityChanged {
                peer: address_of(&user.0, device)?,
                pinned: identity(&pinned)?,
                offered: identity(&offered)?,
            }))
        }
        Stored::Devices { user, seq, added, renewed, removed, trusted } => {
            Ok(Change::Devices(DevicesChanged {
                user,
                seq,
                added: devices(added)?,
                renewed: devices(renewed)?,
                removed,
                trusted,
            }))
        }
        Stored::Account { user, pinned, offered } => Ok(Change::Account(AccountChanged {
            pinned: AccountPublic::from_bytes(&pinned.0).map_err(|_| damaged())?,
            offered: PinnedDeviceList::from_wire(&offered, &user).map_err(|_| damaged())?,
            user,
        })),
        Stored::RolledBack { user, pinned, offered } => {
            contradiction(user, Contradiction::RolledBack { pinned, offered })
        }
        Stored::Forked { user, offered } => contradiction(user, Contradiction::Forked { offered }),
        Stored::Disappeared { user, pinned } => {
            contradiction(user, Contradiction::Disappeared { pinned })
        }
    }
}

#[cfg(test)]
mod tests {
    use oncekey_types::TimestampMs;
    use oncekey_x3dh::{Address, keys::AccountKeyPair};
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::machine::{Device, ListChange};

    fn device(number: u32, rng: &mut StdRng) -> Device {
        let account = AccountKeyPair::generate(rng);
        let user = UserId::new("bob").unwrap();
        Device::generate(user, DeviceId(number), Some(account), rng)
    }

    proptest! {
        #[test]
        fn a_change_comes_back_as_it_went(
            seed: u64, number: u32, seq: u64, user in prop::collection::vec(any::<u8>(), 0..255),
            trusted: bool, at in 0u64..1 << 50,
        ) {
            let rng = &mut StdRng::seed_from_u64(seed);
            let (one, two) = (device(number, rng), device(number ^ 1, rng));
            let (bob, at) = (one.user().clone(), TimestampMs(at));
            let add = ListChange::Add(Box::new(one.listed(at)));
            let kinds = [
                Contradiction::RolledBack { pinned: Seq(seq), offered: Seq(seq / 2) },
                Contradiction::Forked { offered: Seq(seq) },
                Contradiction::Disappeared { pinned: Seq(seq) },
            ];
            let contradictions = kinds.map(|kind| {
                Change::Contradiction(ListContradiction { user: bob.clone(), kind })
            });
            let changes = [
                Change::Identity(IdentityChanged {
                    peer: Address::from_bytes(&user, DeviceId(number)).unwrap(),
                    pinned: *one.identity().public(),
                    offered: *two.identity().public(),
                }),
                Change::Devices(DevicesChanged {
                    user: bob.clone(),
                    seq: Seq(seq),
                    added: vec![one.listed(at)],
                    renewed: vec![two.listed(at), one.listed(at)],
                    removed: vec![DeviceId(number)],
                    trusted,
                }),
                Change::Account(AccountChanged {
                    user: bob.clone(),
                    pinned: *two.account().unwrap().public(),
                    offered: one.next_device_list(None, &add).unwrap().unwrap(),
                }),
            ];
            for change in changes.into_iter().chain(contradictions) {
                let bytes = encode(&change).unwrap();
                prop_assert_eq!(decode(&bytes).unwrap(), change);
                prop_assert!(decode(&bytes[..bytes.len() - 1]).is_err());
            }
        }

        #[test]
        fn whatever_is_not_a_change_is_damage(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
