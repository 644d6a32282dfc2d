//! Pinned identity keys and device lists.

use oncekey_api::key::DeviceList as WireList;
use oncekey_types::{Epoch, TimestampMs, UserId};
use oncekey_x3dh::{Address, keys::IdentityPublic};
use rusqlite::{OptionalExtension as _, params};

use super::{Db, Step, int, number, trust};
use crate::{
    keystore::{Error, seal::Record},
    machine::PinnedDeviceList,
    trust::{Change, DevicesChanged},
};

pub(super) fn identity(db: Db<'_>, peer: &Address) -> Result<Option<IdentityPublic>, Error> {
    let sealed = db
        .prepare_cached("SELECT sealed FROM identity_pin WHERE user = ?1 AND device = ?2")?
        .query_row(params![peer.user(), peer.device().0], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    let Some(sealed) = sealed else { return Ok(None) };
    let record = Record::PinnedIdentity(peer);
    IdentityPublic::from_tagged_bytes(&db.open(record, &sealed)?)
        .map(Some)
        .map_err(|_| Error::Damaged { record: record.name() })
}

/// Pins `key` when none is pinned. Whether it is the pinned one now.
pub(super) fn pin_identity(
    db: Db<'_>,
    peer: &Address,
    key: &IdentityPublic,
    now: TimestampMs,
) -> Result<bool, Error> {
    match identity(db, peer)? {
        Some(pinned) => Ok(pinned == *key),
        None => {
            put_identity(db, peer, key, now)?;
            Ok(true)
        }
    }
}

pub(super) fn put_identity(
    db: Db<'_>,
    peer: &Address,
    key: &IdentityPublic,
    now: TimestampMs,
) -> Result<(), Error> {
    db.execute(
        "INSERT OR REPLACE INTO identity_pin (user, device, sealed, pinned_ms)
         VALUES (?1, ?2, ?3, ?4)",
        params![
            peer.user(),
            peer.device().0,
            db.seal(Record::PinnedIdentity(peer), &key.to_tagged_bytes())?,
            int(now.0)
        ],
    )?;
    Ok(())
}

pub(super) fn device_list(db: Db<'_>, user: &UserId) -> Result<Option<PinnedDeviceList>, Error> {
    let row = db
        .prepare_cached(
            "SELECT account_sealed, list, signature FROM device_list_pin WHERE user = ?1",
        )?
        .query_row([user.as_str()], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    let Some((account, list, signature)) = row else { return Ok(None) };
    let record = Record::PinnedAccount(user.as_bytes());
    let wire = WireList {
        account_key: db.open(record, &account)?.to_vec().into(),
        list: list.into(),
        signature: signature.into(),
    };
    PinnedDeviceList::from_wire(&wire, user)
        .map(Some)
        .map_err(|_| Error::Damaged { record: record.name() })
}

/// The epoch in which the pinned list of `user` was shown.
pub(super) fn device_list_epoch(db: Db<'_>, user: &UserId) -> Result<Epoch, Error> {
    let epoch = db
        .prepare_cached("SELECT epoch FROM device_list_epoch WHERE user = ?1")?
        .query_row([user.as_str()], |row| row.get(0))
        .optional()?;
    // A list that an older version of the store has pinned.
    epoch.map_or(Ok(Epoch::FIRST), |epoch| number("pinned device list", epoch).map(Epoch))
}

/// Pins `list`, stores `change` and renews the identity keys that it vouches for.
pub(super) fn pin_device_list(
    db: Db<'_>,
    user: &UserId,
    list: &PinnedDeviceList,
    change: Option<&DevicesChanged>,
    epoch: Epoch,
    now: TimestampMs,
) -> Result<Step<()>, Error> {
    put_device_list(db, user, list, epoch)?;
    if let Some(changed) = change {
        trust::notice(db, &Change::Devices(changed.clone()), now)?;
        if changed.trusted {
            trust::renew_identities(db, user, changed.renewed.iter(), now)?;
        }
    }
    Ok(Step::Commit(()))
}

pub(super) fn put_device_list(
    db: Db<'_>,
    user: &UserId,
    list: &PinnedDeviceList,
    epoch: Epoch,
) -> Result<(), Error> {
    let wire = list.to_wire();
    let seq = int(list.seq().0);
    let account = db.seal(Record::PinnedAccount(user.as_bytes()), &wire.account_key.0)?;
    let pinned = db.execute(
        "INSERT INTO device_list_pin (user, seq, account_sealed, list, signature)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (user) DO UPDATE
         SET seq = ?2, account_sealed = ?3, list = ?4, signature = ?5 WHERE seq <= ?2",
        params![user.as_str(), seq, account, wire.list.0, wire.signature.0],
    )?;
    if pinned == 0 {
        return Err(Error::Stale);
    }
    db.execute(
        "INSERT OR REPLACE INTO device_list_epoch (user, epoch) VALUES (?1, ?2)",
        params![user.as_str(), int(epoch.0)],
    )?;
    Ok(())
}
