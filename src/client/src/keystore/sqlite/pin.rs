//! Pinned identity keys and device lists.

use oncekey_api::key::DeviceList as WireList;
use oncekey_types::{TimestampMs, UserId};
use oncekey_x3dh::{Address, keys::IdentityPublic};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{Step, int};
use crate::{keystore::Error, machine::PinnedDeviceList};

const IDENTITY: &str = "pinned identity";
const DEVICE_LIST: &str = "pinned device list";

pub(super) fn identity(
    connection: &Connection,
    peer: &Address,
) -> Result<Option<IdentityPublic>, Error> {
    let key = connection
        .prepare_cached("SELECT identity FROM identity_pin WHERE user = ?1 AND device = ?2")?
        .query_row(params![peer.user(), peer.device().0], |row| row.get::<_, [u8; 33]>(0))
        .optional()?;
    key.map(|key| IdentityPublic::from_tagged_bytes(&key))
        .transpose()
        .map_err(|_| Error::Damaged { record: IDENTITY })
}

/// Pins `key` when none is pinned. Whether it is the pinned one now.
pub(super) fn pin_identity(
    transaction: &Transaction<'_>,
    peer: &Address,
    key: &IdentityPublic,
    now: TimestampMs,
) -> Result<bool, Error> {
    match identity(transaction, peer)? {
        Some(pinned) => Ok(pinned == *key),
        None => {
            put_identity(transaction, peer, key, now)?;
            Ok(true)
        }
    }
}

pub(super) fn replace_identity(
    transaction: &Transaction<'_>,
    peer: &Address,
    key: &IdentityPublic,
    now: TimestampMs,
) -> Result<Step<()>, Error> {
    put_identity(transaction, peer, key, now)?;
    Ok(Step::Commit(()))
}

fn put_identity(
    transaction: &Transaction<'_>,
    peer: &Address,
    key: &IdentityPublic,
    now: TimestampMs,
) -> Result<(), Error> {
    transaction.execute(
        "INSERT OR REPLACE INTO identity_pin (user, device, identity, pinned_ms)
         VALUES (?1, ?2, ?3, ?4)",
        params![peer.user(), peer.device().0, key.to_tagged_bytes(), int(now.0)],
    )?;
    Ok(())
}

pub(super) fn device_list(
    connection: &Connection,
    user: &UserId,
) -> Result<Option<PinnedDeviceList>, Error> {
    let row = connection
        .query_row(
            "SELECT account_key, list, signature FROM device_list_pin WHERE user = ?1",
            [user.as_str()],
            |row| {
                Ok(WireList {
                    account_key: row.get::<_, Vec<u8>>(0)?.into(),
                    list: row.get::<_, Vec<u8>>(1)?.into(),
                    signature: row.get::<_, Vec<u8>>(2)?.into(),
                })
            },
        )
        .optional()?;
    row.map(|list| PinnedDeviceList::from_wire(&list, user))
        .transpose()
        .map_err(|_| Error::Damaged { record: DEVICE_LIST })
}

pub(super) fn pin_device_list(
    transaction: &Transaction<'_>,
    user: &UserId,
    list: &PinnedDeviceList,
) -> Result<Step<()>, Error> {
    let wire = list.to_wire();
    let seq = int(list.seq().0);
    let pinned = transaction.execute(
        "INSERT INTO device_list_pin (user, seq, account_key, list, signature)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (user) DO UPDATE
         SET seq = ?2, account_key = ?3, list = ?4, signature = ?5 WHERE seq <= ?2",
        params![user.as_str(), seq, wire.account_key.0, wire.list.0, wire.signature.0],
    )?;
    if pinned == 0 {
        return Err(Error::Stale);
    }
    Ok(Step::Commit(()))
}
