//! Versions of the file, and the way from an older one to this.
//!
//! Guarantees: one transaction; a store is of the old version or of this one. Of a store of
//! version 1, which kept its secrets in the clear, no secret is left in the file afterwards.
//!
//! Leaves out: the way back, and copies of the old file that are kept elsewhere.

use oncekey_types::{DeviceId, OneTimePreKeyId, SignedPreKeyId, UserId};
use oncekey_x3dh::Address;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{Db, handshake::blob};
use crate::keystore::{
    Error, SessionId, address_of,
    lock::Unlock,
    seal::{Record, Sealer, open_clear},
};

/// The version that this library writes.
pub(super) const VERSION: i64 = 4;
/// "OncK": tells the file apart from other programs' databases. Stable, never reuse.
const APPLICATION_ID: i64 = 0x4f6e_634b;

/// What was done to open a store.
pub(super) struct Prepared {
    pub(super) sealer: Sealer,
    /// Whether the file was of an older version until now.
    pub(super) migrated: bool,
}

/// Creates the schema, or brings it up to date, and unlocks the data key. Without an `unlock` the
/// data key is not stored.
pub(super) fn prepare(
    connection: &mut Connection,
    unlock: Option<&Unlock>,
) -> Result<Prepared, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name: &str| {
        transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let (sealer, migrated) = match (application, version) {
        (APPLICATION_ID, VERSION) => {
            drop(transaction);
            return Ok(Prepared { sealer: stored_sealer(connection, unlock)?, migrated: false });
        }
        (0, 0) => (create(&transaction, unlock)?, false),
        (APPLICATION_ID, 1) => {
            transaction.execute_batch(SET_VERSION_1_ASIDE)?;
            let sealer = create(&transaction, unlock)?;
            seal_version_1(Db { connection: &transaction, sealer: &sealer })?;
            transaction.execute_batch(DROP_VERSION_1)?;
            (sealer, true)
        }
        (APPLICATION_ID, 2) => {
            // Who cannot open a store does not change it either.
            let sealer = stored_sealer(&transaction, unlock)?;
            transaction.execute_batch(SET_VERSION_2_ASIDE)?;
            transaction.execute_batch(SESSION_SCHEMA)?;
            transaction.execute_batch(MOVE_VERSION_2)?;
            transaction.execute_batch(EPOCH_SCHEMA)?;
            (sealer, true)
        }
        (APPLICATION_ID, 3) => {
            let sealer = stored_sealer(&transaction, unlock)?;
            // Version 3 knew no epochs.
            transaction.execute_batch(EPOCH_SCHEMA)?;
            (sealer, true)
        }
        (_, found) => return Err(Error::Version { found, supported: VERSION }),
    };
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
    ))?;
    transaction.commit()?;
    Ok(Prepared { sealer, migrated })
}

/// Makes the tables, and stores the data key when there is something to store it under.
fn create(connection: &Connection, unlock: Option<&Unlock>) -> Result<Sealer, Error> {
    let sealer = Sealer::generate();
    connection.execute_batch(include_str!("schema.sql"))?;
    connection.execute_batch(SESSION_SCHEMA)?;
    connection.execute_batch(EPOCH_SCHEMA)?;
    if let Some(unlock) = unlock {
        let locked = sealer.lock(unlock)?;
        connection.execute("INSERT INTO lock (only, locked) VALUES (1, ?1)", [locked])?;
    }
    Ok(sealer)
}

fn stored_sealer(connection: &Connection, unlock: Option<&Unlock>) -> Result<Sealer, Error> {
    let locked = connection
        .query_row("SELECT locked FROM lock", [], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    match (unlock, locked) {
        (Some(unlock), Some(locked)) => Sealer::unlock(unlock, &locked),
        _ => Err(Error::Locked),
    }
}

const SESSION_SCHEMA: &str = include_str!("session.sql");
const EPOCH_SCHEMA: &str = include_str!("epoch.sql");

/// Sessions of version 2 had keys for ever.
const SET_VERSION_2_ASIDE: &str = "
    DROP INDEX IF EXISTS session_opk;
    ALTER TABLE session RENAME TO session_v2;
";
const MOVE_VERSION_2: &str = "
    INSERT INTO session (id, role, peer_user, peer_device, peer_identity, spk, opk, sealed,
        first_message, created_ms)
    SELECT id, role, peer_user, peer_device, peer_identity, spk, opk, sealed, first_message,
        created_ms
    FROM session_v2;
    DROP TABLE session_v2;
";

/// The order of the statements matters: a table is dropped before what it refers to.
const SET_VERSION_1_ASIDE: &str = "
    DROP INDEX handshake_spk;
    ALTER TABLE device RENAME TO device_v1;
    ALTER TABLE pending_write RENAME TO pending_write_v1;
    ALTER TABLE signed_prekey RENAME TO signed_prekey_v1;
    ALTER TABLE one_time_prekey RENAME TO one_time_prekey_v1;
    ALTER TABLE handshake RENAME TO handshake_v1;
    ALTER TABLE session RENAME TO session_v1;
    ALTER TABLE identity_pin RENAME TO identity_pin_v1;
    ALTER TABLE device_list_pin RENAME TO device_list_pin_v1;
";
const DROP_VERSION_1: &str = "
    DROP TABLE handshake_v1;
    DROP TABLE device_v1;
    DROP TABLE pending_write_v1;
    DROP TABLE signed_prekey_v1;
    DROP TABLE one_time_prekey_v1;
    DROP TABLE session_v1;
    DROP TABLE identity_pin_v1;
    DROP TABLE device_list_pin_v1;
";

/// Copies the tables of version 1, sealing what they kept in the clear.
fn seal_version_1(db: Db<'_>) -> Result<(), Error> {
    seal_device(db)?;
    db.execute("INSERT INTO pending_write SELECT * FROM pending_write_v1", [])?;
    seal_prekeys(db)?;
    db.execute("INSERT INTO handshake SELECT * FROM handshake_v1", [])?;
    seal_sessions(db)?;
    seal_pins(db)
}

fn seal_device(db: Db<'_>) -> Result<(), Error> {
    let mut statement = db.prepare(
        "SELECT user, device, identity_secret, authentication_secret, account_secret
         FROM device_v1",
    )?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let damaged = || Error::Damaged { record: "device" };
    let user = UserId::new(row.get::<_, String>(0)?).map_err(|_| damaged())?;
    let me = Address::new(&user, DeviceId(row.get(1)?));
    let seal = |record, blob| db.seal(record, &open_clear(record, blob)?);
    let account = match row.get_ref(4)?.as_blob_or_null().map_err(|_| damaged())? {
        Some(blob) => Some(seal(Record::Account(&me), blob)?),
        None => None,
    };
    db.execute(
        "INSERT INTO device (only, user, device, identity_sealed, authentication_sealed,
             account_sealed, registration, seq, current_spk, highest_spk, highest_opk)
         SELECT only, user, device, ?1, ?2, ?3, registration, seq, current_spk, highest_spk,
             highest_opk
         FROM device_v1",
        params![
            seal(Record::Identity(&me), blob(row, 2, "device")?)?,
            seal(Record::Authentication(&me), blob(row, 3, "device")?)?,
            account
        ],
    )?;
    Ok(())
}

fn seal_prekeys(db: Db<'_>) -> Result<(), Error> {
    let mut statement = db.prepare("SELECT id, secret FROM signed_prekey_v1")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: u32 = row.get(0)?;
        let record = Record::SignedPreKey(SignedPreKeyId(id));
        let secret = open_clear(record, blob(row, 1, record.name())?)?;
        db.execute(
            "INSERT INTO signed_prekey (id, sealed, created_s, expires_s, replaced_ms)
             SELECT id, ?2, created_s, expires_s, replaced_ms FROM signed_prekey_v1 WHERE id = ?1",
            params![id, db.seal(record, &secret)?],
        )?;
    }
    let mut statement =
        db.prepare("SELECT id, secret FROM one_time_prekey_v1 WHERE secret IS NOT NULL")?;
    let mut rows = statement.query([])?;
    db.execute(
        "INSERT INTO one_time_prekey (id, sealed, public, used_ms)
         SELECT id, NULL, public, used_ms FROM one_time_prekey_v1",
        [],
    )?;
    while let Some(row) = rows.next()? {
        let id: u32 = row.get(0)?;
        let record = Record::OneTimePreKey(OneTimePreKeyId(id));
        let secret = open_clear(record, blob(row, 1, record.name())?)?;
        db.execute(
            "UPDATE one_time_prekey SET sealed = ?2 WHERE id = ?1",
            params![id, db.seal(record, &secret)?],
        )?;
    }
    Ok(())
}

fn seal_sessions(db: Db<'_>) -> Result<(), Error> {
    let mut statement = db.prepare("SELECT id, keys FROM session_v1")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = SessionId(row.get(0)?);
        let record = Record::Session(id);
        let keys = open_clear(record, blob(row, 1, record.name())?)?;
        db.execute(
            "INSERT INTO session (id, role, peer_user, peer_device, peer_identity, spk, opk,
                 sealed, first_message, created_ms)
             SELECT id, role, peer_user, peer_device, peer_identity, spk, opk, ?2, first_message,
                 created_ms
             FROM session_v1 WHERE id = ?1",
            params![id.0, db.seal(record, &keys)?],
        )?;
    }
    Ok(())
}

fn seal_pins(db: Db<'_>) -> Result<(), Error> {
    let mut statement = db.prepare("SELECT user, device, identity FROM identity_pin_v1")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let peer = address_of(blob(row, 0, "address")?, row.get(1)?)?;
        let identity = blob(row, 2, "pinned identity")?;
        db.execute(
            "INSERT INTO identity_pin (user, device, sealed, pinned_ms)
             SELECT user, device, ?3, pinned_ms FROM identity_pin_v1
             WHERE user = ?1 AND device = ?2",
            params![
                peer.user(),
                peer.device().0,
                db.seal(Record::PinnedIdentity(&peer), identity)?
            ],
        )?;
    }
    let mut statement = db.prepare("SELECT user, account_key FROM device_list_pin_v1")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let user: String = row.get(0)?;
        let account = blob(row, 1, "pinned device list")?;
        db.execute(
            "INSERT INTO device_list_pin (user, seq, account_sealed, list, signature)
             SELECT user, seq, ?2, list, signature FROM device_list_pin_v1 WHERE user = ?1",
            params![user, db.seal(Record::PinnedAccount(user.as_bytes()), account)?],
        )?;
    }
    Ok(())
}
