//! Changes of trust, and the answers to them.

use oncekey_types::{TimestampMs, UserId, limits};
use oncekey_x3dh::{Address, device_list::ListedDevice};
use rusqlite::{OptionalExtension as _, params};

use super::{Db, Step, int, number, pin, write};
use crate::{
    keystore::{
        Error,
        change::{decode, encode},
        seal::Record,
    },
    trust::{Answer, Change, TrustEvent, TrustEventId},
};

const EVENT: &str = "trust event";

/// The events about a user, or about all, in the order in which they were noticed.
pub(super) fn events(
    db: Db<'_>,
    user: Option<&[u8]>,
) -> Result<Vec<(TrustEvent, Option<Answer>)>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id, sealed, noticed_ms, answer FROM trust_event
         WHERE ?1 IS NULL OR user = ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([user])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let id = number(EVENT, row.get(0)?)?;
        let change = db.open(Record::TrustEvent(id), &row.get::<_, Vec<u8>>(1)?)?;
        let answer = match row.get::<_, Option<u8>>(3)? {
            Some(number) => {
                Some(Answer::from_number(number).ok_or(Error::Damaged { record: EVENT })?)
            }
            None => None,
        };
        let event = TrustEvent {
            id: TrustEventId(id),
            noticed: TimestampMs(number(EVENT, row.get(2)?)?),
            change: decode(&change)?,
        };
        events.push((event, answer));
    }
    Ok(events)
}

/// Stores a change, unless it is stored already; one that asks the same takes the place of it.
pub(super) fn notice(db: Db<'_>, change: &Change, now: TimestampMs) -> Result<TrustEventId, Error> {
    for (event, answer) in events(db, Some(change.user()))? {
        // What was accepted is pinned since; it is news when it comes up again.
        if event.change == *change && answer != Some(Answer::Accept) {
            return Ok(event.id);
        }
        if answer.is_none() && event.change.is_replaced_by(change) {
            db.execute(
                "UPDATE trust_event SET sealed = ?2, noticed_ms = ?3 WHERE id = ?1",
                params![
                    int(event.id.0),
                    db.seal(Record::TrustEvent(event.id.0), &encode(change)?)?,
                    int(now.0)
                ],
            )?;
            return Ok(event.id);
        }
    }
    let id: i64 =
        db.query_row("SELECT coalesce(max(id), 0) + 1 FROM trust_event", [], |row| row.get(0))?;
    let id = number(EVENT, id)?;
    let event = TrustEvent { id: TrustEventId(id), noticed: now, change: change.clone() };
    insert(db, &event, None)?;
    // Neither what is open nor what was rejected is ever forgotten.
    db.execute(
        "DELETE FROM trust_event WHERE answer = ?1 AND id <= ?2",
        params![Answer::Accept as u8, int(id.saturating_sub(limits::TRUST_EVENTS_KEPT))],
    )?;
    Ok(TrustEventId(id))
}

pub(super) fn insert(db: Db<'_>, event: &TrustEvent, answer: Option<Answer>) -> Result<(), Error> {
    db.execute(
        "INSERT INTO trust_event (id, user, sealed, noticed_ms, answer) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            int(event.id.0),
            event.change.user(),
            db.seal(Record::TrustEvent(event.id.0), &encode(&event.change)?)?,
            int(event.noticed.0),
            answer.map(|answer| answer as u8)
        ],
    )?;
    Ok(())
}

/// Stores the answer to an event and does what follows from it. [`Error::Stale`] when the event
/// is not the one that the user was shown.
pub(super) fn answer(
    db: Db<'_>,
    shown: &TrustEvent,
    answer: Answer,
    now: TimestampMs,
) -> Result<Step<()>, Error> {
    let stored = db
        .query_row(
            "SELECT sealed FROM trust_event WHERE id = ?1 AND answer IS NULL",
            [int(shown.id.0)],
            |row| row.get::<_, Vec<u8>>(0),
        )
        .optional()?
        .ok_or(Error::Stale)?;
    let stored = decode(&db.open(Record::TrustEvent(shown.id.0), &stored)?)?;
    if stored != shown.change {
        return Err(Error::Stale);
    }
    db.execute(
        "UPDATE trust_event SET answer = ?2 WHERE id = ?1",
        params![int(shown.id.0), answer as u8],
    )?;
    match answer {
        Answer::Accept => accept(db, &stored, now)?,
        Answer::Reject => {}
    }
    Ok(Step::Commit(()))
}

fn accept(db: Db<'_>, change: &Change, now: TimestampMs) -> Result<(), Error> {
    match change {
        Change::Identity(changed) => pin::put_identity(db, &changed.peer, &changed.offered, now),
        Change::Devices(changed) => {
            let listed = changed.added.iter().chain(&changed.renewed);
            renew_identities(db, &changed.user, listed, now)
        }
        Change::Account(changed) => {
            db.execute("DELETE FROM device_list_pin WHERE user = ?1", [changed.user.as_str()])?;
            let epoch = write::counters(db)?.epoch;
            pin::put_device_list(db, &changed.user, &changed.offered, epoch)?;
            let listed = changed.offered.list().list().devices();
            renew_identities(db, &changed.user, listed.iter(), now)
        }
        Change::Contradiction(_) => Ok(()),
    }
}

/// Pins the listed identity keys where others are pinned. A device that was never met is pinned
/// when it is.
pub(super) fn renew_identities<'a>(
    db: Db<'_>,
    user: &UserId,
    listed: impl Iterator<Item = &'a ListedDevice>,
    now: TimestampMs,
) -> Result<(), Error> {
    for listed in listed {
        let peer = Address::new(user, listed.device);
        if pin::identity(db, &peer)?.is_some_and(|pinned| pinned != listed.identity) {
            pin::put_identity(db, &peer, &listed.identity, now)?;
        }
    }
    Ok(())
}
