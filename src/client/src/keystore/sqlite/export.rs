//! What goes into a backup, and comes back from one.

use oncekey_types::{Epoch, TimestampMs, UserId};
use rusqlite::params;

use super::{Db, Step, handshake::blob, int, pin, trust, write};
use crate::keystore::{Error, Export, address_of};

pub(super) fn read(db: Db<'_>) -> Result<Export, Error> {
    // One read transaction, so that all tables are of the same moment.
    let transaction = db.unchecked_transaction()?;
    let state = write::counters(db)?;
    let mut identities = Vec::new();
    let mut statement = transaction.prepare("SELECT user, device FROM identity_pin")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let peer = address_of(blob(row, 0, "address")?, row.get(1)?)?;
        if let Some(identity) = pin::identity(db, &peer)? {
            identities.push((peer, identity));
        }
    }
    let mut device_lists = Vec::new();
    let mut statement = transaction.prepare("SELECT user FROM device_list_pin")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let user = UserId::new(row.get::<_, String>(0)?);
        let user = user.map_err(|_| Error::Damaged { record: "pinned device list" })?;
        if let Some(list) = pin::device_list(db, &user)? {
            device_lists.push((user, list));
        }
    }
    Ok(Export {
        device: write::device(db)?,
        seq: state.seq,
        highest_signed_prekey: state.highest_signed_prekey,
        highest_one_time_prekey: state.highest_one_time_prekey,
        identities,
        device_lists,
        trust_events: trust::events(db, None)?,
    })
}

pub(super) fn write(db: Db<'_>, export: &Export, now: TimestampMs) -> Result<Step<()>, Error> {
    write::create(db, &export.device)?;
    db.execute(
        "UPDATE device SET seq = ?1, highest_spk = ?2, highest_opk = ?3",
        params![
            int(export.seq.0),
            export.highest_signed_prekey.0,
            export.highest_one_time_prekey.0
        ],
    )?;
    for (peer, identity) in &export.identities {
        pin::put_identity(db, peer, identity, now)?;
    }
    for (user, list) in &export.device_lists {
        pin::put_device_list(db, user, list, Epoch::FIRST)?;
    }
    for (event, answer) in &export.trust_events {
        trust::insert(db, event, *answer)?;
    }
    write::discard_prekeys(db)
}
