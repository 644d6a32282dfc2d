//! Prekeys, accepted handshakes and sessions.

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId, TimestampMs, UnixSeconds};
use oncekey_x3dh::{
    DedupKey, SessionKeys,
    keys::{IdentityPublic, OneTimePreKeyPair, OneTimePreKeyPublic, SignedPreKeyPair},
    responder::Commit,
};
use rusqlite::{OptionalExtension as _, Row, params};
use zeroize::Zeroizing;

use super::{CrashPoint, Db, Step, int, number, pin};
use crate::keystore::{
    Absence, Acceptance, Error, HeldSignedPreKey, OneTimePreKeyRecord, Role, Session, SessionId,
    SignedPreKeyRecord, Started, StartedSession, TakenKeys, address_of, seal::Record,
};

const SPK: &str = "signed prekey";
const OPK: &str = "one-time prekey";
const SESSION: &str = "session";

pub(super) fn signed_prekey(db: Db<'_>, id: SignedPreKeyId) -> Result<SignedPreKeyRecord, Error> {
    let mut statement = db.prepare_cached(
        "SELECT sealed, created_s, expires_s, replaced_ms FROM signed_prekey WHERE id = ?1",
    )?;
    let mut rows = statement.query([id.0])?;
    let Some(row) = rows.next()? else {
        return Ok(SignedPreKeyRecord::Absent(absence(db, "spk", id.0)?));
    };
    let replaced = row.get::<_, Option<i64>>(3)?;
    let replaced = replaced.map(|time| number(SPK, time)).transpose()?.map(TimestampMs);
    let damaged = |_| Error::Damaged { record: SPK };
    let Some(sealed) = row.get_ref(0)?.as_blob_or_null().map_err(damaged)? else {
        let replaced = replaced.ok_or(Error::Damaged { record: SPK })?;
        return Ok(SignedPreKeyRecord::Deleted { replaced });
    };
    let secret = db.open_array::<32>(Record::SignedPreKey(id), sealed)?;
    Ok(SignedPreKeyRecord::Held(HeldSignedPreKey {
        pair: SignedPreKeyPair::from_secret(id, &secret),
        created: UnixSeconds(number(SPK, row.get(1)?)?),
        expires: UnixSeconds(number(SPK, row.get(2)?)?),
        replaced,
    }))
}

pub(super) fn one_time_prekey(
    db: Db<'_>,
    id: OneTimePreKeyId,
) -> Result<OneTimePreKeyRecord, Error> {
    let mut statement =
        db.prepare_cached("SELECT sealed, public FROM one_time_prekey WHERE id = ?1")?;
    let mut rows = statement.query([id.0])?;
    let Some(row) = rows.next()? else {
        return Ok(OneTimePreKeyRecord::Absent(absence(db, "opk", id.0)?));
    };
    let damaged = Error::Damaged { record: OPK };
    match row.get_ref(0)?.as_blob_or_null() {
        Ok(Some(sealed)) => {
            let secret = db.open_array::<32>(Record::OneTimePreKey(id), sealed)?;
            Ok(OneTimePreKeyRecord::Held(OneTimePreKeyPair::from_secret(id, &secret)))
        }
        Ok(None) => OneTimePreKeyPublic::from_bytes(blob(row, 1, OPK)?)
            .map(OneTimePreKeyRecord::Used)
            .map_err(|_| damaged),
        Err(_) => Err(damaged),
    }
}

/// Why there is no row for a prekey of `kind`.
fn absence(db: Db<'_>, kind: &str, id: u32) -> Result<Absence, Error> {
    let (discarded, highest) = db
        .prepare_cached(&format!("SELECT discarded_{kind}, highest_{kind} FROM device"))?
        .query_row([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?)))
        .optional()?
        .ok_or(Error::NoDevice)?;
    Ok(match id {
        _ if id > highest || id == 0 => Absence::NeverMade,
        _ if id <= discarded => Absence::Discarded,
        _ => Absence::Forgotten,
    })
}

pub(super) fn accepted(db: Db<'_>, dedup: &DedupKey) -> Result<Option<SessionId>, Error> {
    let id = db
        .prepare_cached("SELECT session FROM handshake WHERE dedup = ?1")?
        .query_row([dedup.as_bytes()], |row| row.get::<_, [u8; 32]>(0))
        .optional()?;
    Ok(id.map(SessionId))
}

/// The one transaction that a handshake is accepted by. `pass` is called between its statements.
pub(super) fn accept(
    db: Db<'_>,
    commit: &Commit,
    now: TimestampMs,
    pass: impl Fn(CrashPoint) -> Result<(), Error>,
) -> Result<Step<Acceptance>, Error> {
    // Another task may have been here since the caller looked.
    if let Some(session) = accepted(db, commit.dedup())? {
        return Ok(Step::Abandon(Acceptance::Duplicate(session)));
    }
    let spk = commit.signed_prekey_id();
    if !matches!(signed_prekey(db, spk)?, SignedPreKeyRecord::Held(_)) {
        return Ok(Step::Abandon(Acceptance::SignedPreKeyDeleted));
    }
    pass(CrashPoint::Begun)?;
    let session = SessionId::of(commit.session());
    db.execute(
        "INSERT INTO handshake (dedup, spk, session) VALUES (?1, ?2, ?3)",
        params![commit.dedup().as_bytes(), spk.0, session.0],
    )?;
    pass(CrashPoint::Remembered)?;
    if let Some(opk) = commit.one_time_prekey_id() {
        let erased = db.execute(
            "UPDATE one_time_prekey SET sealed = NULL, used_ms = ?2
             WHERE id = ?1 AND sealed IS NOT NULL",
            params![opk.0, int(now.0)],
        )?;
        if erased == 0 {
            return Ok(Step::Abandon(Acceptance::OneTimePreKeyUsed));
        }
    }
    pass(CrashPoint::Erased)?;
    let (peer, identity) = (commit.sender(), commit.sender_identity());
    if !pin::pin_identity(db, peer, identity, now)? {
        return Ok(Step::Abandon(Acceptance::IdentityChanged));
    }
    pass(CrashPoint::Pinned)?;
    let row = SessionRow {
        role: Role::Responder,
        peer,
        identity,
        spk,
        opk: commit.one_time_prekey_id(),
        keys: commit.session(),
        first_message: None,
    };
    row.insert(db, now)?;
    pass(CrashPoint::Stored)?;
    Ok(Step::Commit(Acceptance::Accepted))
}

pub(super) fn start(
    db: Db<'_>,
    started: &StartedSession<'_>,
    now: TimestampMs,
) -> Result<Step<Started>, Error> {
    let session = started.session;
    let keys = session.keys().map_err(|_| Error::Damaged { record: SESSION })?;
    if !pin::pin_identity(db, &session.peer, &session.peer_identity, now)? {
        return Ok(Step::Abandon(Started::IdentityChanged));
    }
    if let Some(earlier) = started_before(db, session)? {
        return Ok(Step::Abandon(Started::OneTimePreKeyUsed(earlier)));
    }
    let row = SessionRow {
        role: session.role,
        peer: &session.peer,
        identity: &session.peer_identity,
        spk: session.signed_prekey,
        opk: session.one_time_prekey,
        keys,
        first_message: Some(started.message),
    };
    row.insert(db, now)?;
    Ok(Step::Commit(Started::Stored))
}

/// The session that this device has started with the same one-time prekey, if any.
fn started_before(db: Db<'_>, session: &Session) -> Result<Option<SessionId>, Error> {
    let Some(opk) = session.one_time_prekey else { return Ok(None) };
    let id = db
        .prepare_cached(
            "SELECT id FROM session
             WHERE peer_user = ?1 AND peer_device = ?2 AND opk = ?3 AND peer_identity = ?4
                 AND role = ?5",
        )?
        .query_row(
            params![
                session.peer.user(),
                session.peer.device().0,
                opk.0,
                session.peer_identity.to_tagged_bytes(),
                Role::Initiator as u8
            ],
            |row| row.get::<_, [u8; 32]>(0),
        )
        .optional()?;
    Ok(id.map(SessionId))
}

struct SessionRow<'a> {
    role: Role,
    peer: &'a oncekey_x3dh::Address,
    identity: &'a IdentityPublic,
    spk: SignedPreKeyId,
    opk: Option<OneTimePreKeyId>,
    keys: &'a SessionKeys,
    first_message: Option<&'a [u8]>,
}

impl SessionRow<'_> {
    fn insert(&self, db: Db<'_>, now: TimestampMs) -> Result<(), Error> {
        let id = SessionId::of(self.keys);
        let mut keys = Zeroizing::new([0; 64]);
        keys[..32].copy_from_slice(self.keys.root().as_bytes());
        keys[32..].copy_from_slice(self.keys.chain().as_bytes());
        db.execute(
            "INSERT INTO session (id, role, peer_user, peer_device, peer_identity, spk, opk, sealed,
                 first_message, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                id.0,
                self.role as u8,
                self.peer.user(),
                self.peer.device().0,
                self.identity.to_tagged_bytes(),
                self.spk.0,
                self.opk.map(|id| id.0),
                db.seal(Record::Session(id), &*keys)?,
                self.first_message,
                int(now.0)
            ],
        )?;
        Ok(())
    }
}

pub(super) fn session(db: Db<'_>, id: SessionId) -> Result<Option<Session>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT role, peer_user, peer_device, peer_identity, spk, opk, sealed
         FROM session WHERE id = ?1",
    )?;
    let mut rows = statement.query([id.0])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let damaged = Error::Damaged { record: SESSION };
    let role = match row.get::<_, u8>(0)? {
        1 => Role::Initiator,
        2 => Role::Responder,
        _ => return Err(damaged),
    };
    let keys = match row.get_ref(6)?.as_blob_or_null() {
        Ok(Some(sealed)) => Some(open_keys(db, id, sealed)?),
        Ok(None) => None,
        Err(_) => return Err(damaged),
    };
    Ok(Some(Session {
        id,
        role,
        peer: address_of(blob(row, 1, SESSION)?, row.get(2)?)?,
        peer_identity: IdentityPublic::from_tagged_bytes(blob(row, 3, SESSION)?)
            .map_err(|_| damaged)?,
        signed_prekey: SignedPreKeyId(row.get(4)?),
        one_time_prekey: row.get::<_, Option<u32>>(5)?.map(OneTimePreKeyId),
        keys,
    }))
}

fn open_keys(db: Db<'_>, id: SessionId, sealed: &[u8]) -> Result<SessionKeys, Error> {
    let keys = db.open_array::<64>(Record::Session(id), sealed)?;
    let half = |from: usize| {
        let mut half = Zeroizing::new([0; 32]);
        half.copy_from_slice(&keys[from..from + 32]);
        half
    };
    Ok(SessionKeys::from_parts(half(0), half(32), id.0))
}

/// The row stays, for replays and for the peer's one-time prekey that it names.
pub(super) fn take_keys(db: Db<'_>, id: SessionId) -> Result<Step<TakenKeys>, Error> {
    let keys = match session(db, id)? {
        None => return Ok(Step::Abandon(TakenKeys::NoSession)),
        Some(Session { keys: None, .. }) => return Ok(Step::Abandon(TakenKeys::Before)),
        Some(Session { keys: Some(keys), .. }) => keys,
    };
    db.execute("UPDATE session SET sealed = NULL WHERE id = ?1", [id.0])?;
    Ok(Step::Commit(TakenKeys::Now(keys)))
}

pub(super) fn first_message(db: Db<'_>, id: SessionId) -> Result<Option<Vec<u8>>, Error> {
    let message = db
        .query_row("SELECT first_message FROM session WHERE id = ?1", [id.0], |row| {
            row.get::<_, Option<Vec<u8>>>(0)
        })
        .optional()?;
    Ok(message.flatten())
}

/// A blob of a row, borrowed so that no copy of a secret is left behind.
pub(super) fn blob<'a>(
    row: &'a Row<'_>,
    column: usize,
    record: &'static str,
) -> Result<&'a [u8], Error> {
    row.get_ref(column)?.as_blob().map_err(|_| Error::Damaged { record })
}
