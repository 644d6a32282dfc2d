//! The device, its counters and its writes.

use oncekey_types::{
    DeviceId, Epoch, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId, TimestampMs, UserId,
    limits,
};
use oncekey_x3dh::{
    Address,
    keys::{AccountKeyPair, AuthenticationKeyPair, IdentityKeyPair},
};
use rusqlite::{OptionalExtension as _, params};

use super::{Db, Step, handshake::blob, int, number};
use crate::{
    keystore::{
        DeviceState, Error, PendingWrite, Resync, Settled, Staged, WriteKind, seal::Record,
    },
    machine::Device,
};

const DEVICE: &str = "device";
const PENDING: &str = "pending write";

pub(super) fn create(db: Db<'_>, device: &Device) -> Result<Step<()>, Error> {
    let exists: i64 = db.query_row("SELECT count(*) FROM device", [], |row| row.get(0))?;
    if exists > 0 {
        return Err(Error::DeviceExists);
    }
    let identity = device.identity().to_seed().ok_or(Error::Damaged { record: DEVICE })?;
    let me = device.address();
    let account = match device.account() {
        Some(account) => Some(db.seal(Record::Account(me), &*account.to_seed())?),
        None => None,
    };
    db.execute(
        "INSERT INTO device
             (only, user, device, identity_sealed, authentication_sealed, account_sealed)
         VALUES (1, ?1, ?2, ?3, ?4, ?5)",
        params![
            device.user().as_str(),
            me.device().0,
            db.seal(Record::Identity(me), &*identity)?,
            db.seal(Record::Authentication(me), &*device.authentication().to_seed())?,
            account,
        ],
    )?;
    Ok(Step::Commit(()))
}

pub(super) fn device(db: Db<'_>) -> Result<Device, Error> {
    let mut statement = db.prepare_cached(
        "SELECT user, device, identity_sealed, authentication_sealed, account_sealed FROM device",
    )?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or(Error::NoDevice)?;
    let damaged = || Error::Damaged { record: DEVICE };
    let user = UserId::new(row.get::<_, String>(0)?).map_err(|_| damaged())?;
    let me = Address::new(&user, DeviceId(row.get(1)?));
    let secret =
        |column: usize, record| db.open_array::<32>(record, blob(row, column, record.name())?);
    let account = match row.get_ref(4)?.as_blob_or_null().map_err(|_| damaged())? {
        Some(blob) => {
            Some(AccountKeyPair::from_seed(&*db.open_array::<32>(Record::Account(&me), blob)?))
        }
        None => None,
    };
    Ok(Device::from_keys(
        user,
        me.device(),
        IdentityKeyPair::from_seed(&*secret(2, Record::Identity(&me))?),
        AuthenticationKeyPair::from_seed(&*secret(3, Record::Authentication(&me))?),
        account,
    ))
}

pub(super) fn state(db: Db<'_>) -> Result<DeviceState, Error> {
    // One read transaction, so that both tables are of the same moment.
    let _transaction = db.unchecked_transaction()?;
    counters(db)
}

/// The state, within a transaction of the caller's.
pub(super) fn counters(db: Db<'_>) -> Result<DeviceState, Error> {
    let pending = pending(db)?;
    let (registration, seq, current, highest_spk, highest_opk, epoch) = db
        .query_row(
            "SELECT registration, seq, current_spk, highest_spk, highest_opk, epoch
             FROM device, epoch",
            [],
            |row| {
                Ok((
                    row.get::<_, Option<u32>>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, Option<u32>>(2)?,
                    row.get::<_, u32>(3)?,
                    row.get::<_, u32>(4)?,
                    row.get::<_, i64>(5)?,
                ))
            },
        )
        .optional()?
        .ok_or(Error::NoDevice)?;
    Ok(DeviceState {
        registration: registration.map(RegistrationId),
        epoch: Epoch(number(DEVICE, epoch)?),
        seq: Seq(number(DEVICE, seq)?),
        current: current.map(SignedPreKeyId),
        highest_signed_prekey: SignedPreKeyId(highest_spk),
        highest_one_time_prekey: OneTimePreKeyId(highest_opk),
        pending,
    })
}

fn pending(db: Db<'_>) -> Result<Option<PendingWrite>, Error> {
    let row = db
        .query_row("SELECT seq, kind, spk, body FROM pending_write", [], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, u8>(1)?,
                row.get::<_, Option<u32>>(2)?,
                row.get::<_, Vec<u8>>(3)?,
            ))
        })
        .optional()?;
    let Some((seq, kind, spk, body)) = row else {
        return Ok(None);
    };
    Ok(Some(PendingWrite {
        seq: Seq(number(PENDING, seq)?),
        kind: WriteKind::from_number(kind).ok_or(Error::Damaged { record: PENDING })?,
        signed_prekey: spk.map(SignedPreKeyId),
        body,
    }))
}

pub(super) fn stage(db: Db<'_>, staged: &Staged) -> Result<Step<()>, Error> {
    let write = &staged.write;
    let highest_opk = staged.one_time_prekeys.last().map_or(0, |pair| pair.id().0);
    let updated = db.execute(
        "UPDATE device
         SET seq = ?2, highest_spk = max(highest_spk, ?3), highest_opk = max(highest_opk, ?4)
         WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM pending_write)",
        params![
            int(staged.after.0),
            int(write.seq.0),
            write.signed_prekey.map_or(0, |id| id.0),
            highest_opk
        ],
    )?;
    if updated == 0 {
        return Err(Error::Stale);
    }
    db.execute(
        "INSERT INTO pending_write (only, seq, kind, spk, body) VALUES (1, ?1, ?2, ?3, ?4)",
        params![int(write.seq.0), write.kind as u8, write.signed_prekey.map(|id| id.0), write.body],
    )?;
    if let Some(spk) = &staged.signed_prekey {
        db.execute(
            "INSERT INTO signed_prekey (id, sealed, created_s, expires_s) VALUES (?1, ?2, ?3, ?4)",
            params![
                spk.pair.id().0,
                db.seal(Record::SignedPreKey(spk.pair.id()), &*spk.pair.to_secret())?,
                int(spk.created.0),
                int(spk.expires.0)
            ],
        )?;
    }
    let mut insert =
        db.prepare_cached("INSERT INTO one_time_prekey (id, sealed, public) VALUES (?1, ?2, ?3)")?;
    for pair in &staged.one_time_prekeys {
        insert.execute(params![
            pair.id().0,
            db.seal(Record::OneTimePreKey(pair.id()), &*pair.to_secret())?,
            pair.public().as_bytes()
        ])?;
    }
    Ok(Step::Commit(()))
}

pub(super) fn settle(
    db: Db<'_>,
    write: &PendingWrite,
    settled: &Settled,
    now: TimestampMs,
) -> Result<Step<()>, Error> {
    let deleted = db.execute("DELETE FROM pending_write WHERE seq = ?1", [int(write.seq.0)])?;
    if deleted == 0 {
        return Ok(Step::Abandon(()));
    }
    match settled {
        Settled::Registered(registration) => {
            db.execute("UPDATE device SET registration = ?1", [registration.0])?;
            publish_signed_prekey(db, write, now)?;
        }
        Settled::Accepted => publish_signed_prekey(db, write, now)?,
        Settled::Unregistered => {
            db.execute("UPDATE device SET registration = NULL", [])?;
        }
        Settled::Refused(used) => resync(db, used)?,
    }
    Ok(Step::Commit(()))
}

/// The write's signed prekey is current now, those before it are replaced.
fn publish_signed_prekey(db: Db<'_>, write: &PendingWrite, now: TimestampMs) -> Result<(), Error> {
    if let Some(id) = write.signed_prekey {
        db.execute("UPDATE device SET current_spk = ?1", [id.0])?;
        db.execute(
            "UPDATE signed_prekey SET replaced_ms = ?2 WHERE id < ?1 AND replaced_ms IS NULL",
            params![id.0, int(now.0)],
        )?;
    }
    Ok(())
}

pub(super) fn resync(db: Db<'_>, used: &Resync) -> Result<(), Error> {
    db.execute(
        "UPDATE device
         SET seq = max(seq, ?1), highest_spk = max(highest_spk, ?2),
             highest_opk = max(highest_opk, ?3)",
        params![
            used.seq.map_or(0, |seq| int(seq.0)),
            used.signed_prekey.map_or(0, |id| id.0),
            used.one_time_prekey.map_or(0, |id| id.0)
        ],
    )?;
    let epoch = used.epoch.map_or(0, |epoch| int(epoch.0));
    db.execute("UPDATE epoch SET epoch = max(epoch, ?1)", [epoch])?;
    Ok(())
}

/// How many prekeys, and traces of prekeys, a store keeps.
pub(super) struct Room {
    pub(super) held: u32,
    pub(super) tombstones: u32,
    pub(super) spk_tombstones: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            held: limits::SECRETS_HELD_MAX,
            tombstones: limits::TOMBSTONES_MAX,
            spk_tombstones: limits::SPK_TOMBSTONES_MAX,
        }
    }
}

/// Whether anything was deleted.
pub(super) fn purge(
    db: Db<'_>,
    replaced_until: TimestampMs,
    room: &Room,
) -> Result<Step<bool>, Error> {
    // A handshake is remembered for as long as it could be replayed.
    db.execute(
        "DELETE FROM handshake WHERE spk IN (SELECT id FROM signed_prekey WHERE replaced_ms <= ?1)",
        [int(replaced_until.0)],
    )?;
    let mut deleted = db.execute(
        "UPDATE signed_prekey SET sealed = NULL WHERE replaced_ms <= ?1 AND sealed IS NOT NULL",
        [int(replaced_until.0)],
    )?;
    // The lowest ids were handed out first.
    for (table, kind, limit) in [
        ("one_time_prekey", "sealed IS NOT NULL", room.held),
        ("one_time_prekey", "sealed IS NULL", room.tombstones),
        ("signed_prekey", "sealed IS NULL", room.spk_tombstones),
    ] {
        deleted += db.execute(
            &format!(
                "DELETE FROM {table} WHERE {kind} AND id <= (
                     SELECT id FROM {table} WHERE {kind}
                     ORDER BY id DESC LIMIT 1 OFFSET ?1)"
            ),
            [limit],
        )?;
    }
    Ok(Step::Commit(deleted > 0))
}

/// Throws away every prekey and what was accepted under it, and forgets the registration.
pub(super) fn discard_prekeys(db: Db<'_>) -> Result<Step<()>, Error> {
    db.execute("DELETE FROM handshake", [])?;
    db.execute("DELETE FROM one_time_prekey", [])?;
    db.execute("DELETE FROM signed_prekey", [])?;
    db.execute("DELETE FROM pending_write", [])?;
    let updated = db.execute(
        "UPDATE device
         SET registration = NULL, current_spk = NULL,
             discarded_spk = highest_spk, discarded_opk = highest_opk",
        [],
    )?;
    if updated == 0 {
        return Err(Error::NoDevice);
    }
    Ok(Step::Commit(()))
}

pub(super) fn missing_secrets(
    db: Db<'_>,
    ranges: &[(OneTimePreKeyId, OneTimePreKeyId)],
) -> Result<u64, Error> {
    let mut held = db.prepare_cached(
        "SELECT count(*) FROM one_time_prekey
         WHERE id BETWEEN ?1 AND ?2 AND sealed IS NOT NULL",
    )?;
    let mut missing = 0u64;
    for (first, last) in ranges {
        let held: i64 = held.query_row(params![first.0, last.0], |row| row.get(0))?;
        let ids = (u64::from(last.0) + 1).saturating_sub(u64::from(first.0));
        missing = missing.saturating_add(ids.saturating_sub(number(DEVICE, held)?));
    }
    Ok(missing)
}
