//! The device, its counters and its writes.

use oncekey_types::{
    DeviceId, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId, TimestampMs, UserId, limits,
};
use oncekey_x3dh::keys::{AccountKeyPair, AuthenticationKeyPair, IdentityKeyPair};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{Step, int, number};
use crate::{
    keystore::{
        DeviceState, Error, PendingWrite, Resync, Settled, Staged, WriteKind,
        seal::{open, seal},
    },
    machine::Device,
};

const DEVICE: &str = "device";
const PENDING: &str = "pending write";

pub(super) fn create(transaction: &Transaction<'_>, device: &Device) -> Result<Step<()>, Error> {
    let exists: i64 = transaction.query_row("SELECT count(*) FROM device", [], |row| row.get(0))?;
    if exists > 0 {
        return Err(Error::DeviceExists);
    }
    let identity = device.identity().to_seed().ok_or(Error::Damaged { record: DEVICE })?;
    let account = device.account().map(|account| seal(&*account.to_seed()));
    transaction.execute(
        "INSERT INTO device
             (only, user, device, identity_secret, authentication_secret, account_secret)
         VALUES (1, ?1, ?2, ?3, ?4, ?5)",
        params![
            device.user().as_str(),
            device.address().device().0,
            seal(&*identity).as_slice(),
            seal(&*device.authentication().to_seed()).as_slice(),
            account.as_ref().map(|blob| blob.as_slice()),
        ],
    )?;
    Ok(Step::Commit(()))
}

pub(super) fn device(connection: &Connection) -> Result<Device, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT user, device, identity_secret, authentication_secret, account_secret FROM device",
    )?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or(Error::NoDevice)?;
    let damaged = |_| Error::Damaged { record: DEVICE };
    let secret = |column: usize| {
        let blob = row.get_ref(column)?.as_blob().map_err(|_| Error::Damaged { record: DEVICE })?;
        open::<32>(DEVICE, blob)
    };
    let user = UserId::new(row.get::<_, String>(0)?).map_err(damaged)?;
    let account = match row.get_ref(4)?.as_blob_or_null() {
        Ok(Some(blob)) => Some(AccountKeyPair::from_seed(&*open::<32>(DEVICE, blob)?)),
        Ok(None) => None,
        Err(_) => return Err(Error::Damaged { record: DEVICE }),
    };
    Ok(Device::from_keys(
        user,
        DeviceId(row.get(1)?),
        IdentityKeyPair::from_seed(&*secret(2)?),
        AuthenticationKeyPair::from_seed(&*secret(3)?),
        account,
    ))
}

pub(super) fn state(connection: &Connection) -> Result<DeviceState, Error> {
    // One read transaction, so that both tables are of the same moment.
    let transaction = connection.unchecked_transaction()?;
    let pending = pending(&transaction)?;
    let (registration, seq, current, highest_spk, highest_opk) = transaction
        .query_row(
            "SELECT registration, seq, current_spk, highest_spk, highest_opk FROM device",
            [],
            |row| {
                Ok((
                    row.get::<_, Option<u32>>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, Option<u32>>(2)?,
                    row.get::<_, u32>(3)?,
                    row.get::<_, u32>(4)?,
                ))
            },
        )
        .optional()?
        .ok_or(Error::NoDevice)?;
    Ok(DeviceState {
        registration: registration.map(RegistrationId),
        seq: Seq(number(DEVICE, seq)?),
        current: current.map(SignedPreKeyId),
        highest_signed_prekey: SignedPreKeyId(highest_spk),
        highest_one_time_prekey: OneTimePreKeyId(highest_opk),
        pending,
    })
}

fn pending(connection: &Connection) -> Result<Option<PendingWrite>, Error> {
    let row = connection
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

pub(super) fn stage(transaction: &Transaction<'_>, staged: &Staged) -> Result<Step<()>, Error> {
    let write = &staged.write;
    let highest_opk = staged.one_time_prekeys.last().map_or(0, |pair| pair.id().0);
    let updated = transaction.execute(
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
    transaction.execute(
        "INSERT INTO pending_write (only, seq, kind, spk, body) VALUES (1, ?1, ?2, ?3, ?4)",
        params![int(write.seq.0), write.kind as u8, write.signed_prekey.map(|id| id.0), write.body],
    )?;
    if let Some(spk) = &staged.signed_prekey {
        transaction.execute(
            "INSERT INTO signed_prekey (id, secret, created_s, expires_s) VALUES (?1, ?2, ?3, ?4)",
            params![
                spk.pair.id().0,
                seal(&*spk.pair.to_secret()).as_slice(),
                int(spk.created.0),
                int(spk.expires.0)
            ],
        )?;
    }
    let mut insert = transaction
        .prepare_cached("INSERT INTO one_time_prekey (id, secret, public) VALUES (?1, ?2, ?3)")?;
    for pair in &staged.one_time_prekeys {
        insert.execute(params![
            pair.id().0,
            seal(&*pair.to_secret()).as_slice(),
            pair.public().as_bytes()
        ])?;
    }
    Ok(Step::Commit(()))
}

pub(super) fn settle(
    transaction: &Transaction<'_>,
    write: &PendingWrite,
    settled: &Settled,
    now: TimestampMs,
) -> Result<Step<()>, Error> {
    let deleted =
        transaction.execute("DELETE FROM pending_write WHERE seq = ?1", [int(write.seq.0)])?;
    if deleted == 0 {
        return Ok(Step::Abandon(()));
    }
    match settled {
        Settled::Registered(registration) => {
            transaction.execute("UPDATE device SET registration = ?1", [registration.0])?;
            publish_signed_prekey(transaction, write, now)?;
        }
        Settled::Accepted => publish_signed_prekey(transaction, write, now)?,
        Settled::Unregistered => {
            transaction.execute("UPDATE device SET registration = NULL", [])?;
        }
        Settled::Refused(used) => resync(transaction, used)?,
    }
    Ok(Step::Commit(()))
}

/// The write's signed prekey is current now, those before it are replaced.
fn publish_signed_prekey(
    transaction: &Transaction<'_>,
    write: &PendingWrite,
    now: TimestampMs,
) -> Result<(), Error> {
    if let Some(id) = write.signed_prekey {
        transaction.execute("UPDATE device SET current_spk = ?1", [id.0])?;
        transaction.execute(
            "UPDATE signed_prekey SET replaced_ms = ?2 WHERE id < ?1 AND replaced_ms IS NULL",
            params![id.0, int(now.0)],
        )?;
    }
    Ok(())
}

pub(super) fn resync(transaction: &Transaction<'_>, used: &Resync) -> Result<(), Error> {
    transaction.execute(
        "UPDATE device
         SET seq = max(seq, ?1), highest_spk = max(highest_spk, ?2),
             highest_opk = max(highest_opk, ?3)",
        params![
            used.seq.map_or(0, |seq| int(seq.0)),
            used.signed_prekey.map_or(0, |id| id.0),
            used.one_time_prekey.map_or(0, |id| id.0)
        ],
    )?;
    Ok(())
}

/// How many one-time prekeys a store keeps.
pub(super) struct Room {
    pub(super) held: u32,
    pub(super) tombstones: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self { held: limits::SECRETS_HELD_MAX, tombstones: limits::TOMBSTONES_MAX }
    }
}

/// Whether anything was deleted.
pub(super) fn purge(
    transaction: &Transaction<'_>,
    replaced_until: TimestampMs,
    room: &Room,
) -> Result<Step<bool>, Error> {
    let mut deleted = transaction
        .execute("DELETE FROM signed_prekey WHERE replaced_ms <= ?1", [int(replaced_until.0)])?;
    // The lowest ids were handed out first.
    for (kind, limit) in [("secret IS NOT NULL", room.held), ("secret IS NULL", room.tombstones)] {
        deleted += transaction.execute(
            &format!(
                "DELETE FROM one_time_prekey WHERE {kind} AND id <= (
                     SELECT id FROM one_time_prekey WHERE {kind}
                     ORDER BY id DESC LIMIT 1 OFFSET ?1)"
            ),
            [limit],
        )?;
    }
    Ok(Step::Commit(deleted > 0))
}

pub(super) fn missing_secrets(
    connection: &Connection,
    ranges: &[(OneTimePreKeyId, OneTimePreKeyId)],
) -> Result<u64, Error> {
    let mut held = connection.prepare_cached(
        "SELECT count(*) FROM one_time_prekey
         WHERE id BETWEEN ?1 AND ?2 AND secret IS NOT NULL",
    )?;
    let mut missing = 0u64;
    for (first, last) in ranges {
        let held: i64 = held.query_row(params![first.0, last.0], |row| row.get(0))?;
        let ids = (u64::from(last.0) + 1).saturating_sub(u64::from(first.0));
        missing = missing.saturating_add(ids.saturating_sub(number(DEVICE, held)?));
    }
    Ok(missing)
}
