//! Prekeys, accepted handshakes and sessions.

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId, TimestampMs, UnixSeconds};
use oncekey_x3dh::{
    DedupKey, SessionKeys,
    keys::{IdentityPublic, OneTimePreKeyPair, OneTimePreKeyPublic, SignedPreKeyPair},
    responder::Commit,
};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use zeroize::Zeroizing;

use super::{CrashPoint, Step, int, number, pin};
use crate::keystore::{
    Acceptance, Error, HeldSignedPreKey, OneTimePreKeyRecord, Role, Session, SessionId,
    StartedSession, address_of,
    seal::{open, seal},
};

const SPK: &str = "signed prekey";
const OPK: &str = "one-time prekey";
const SESSION: &str = "session";

pub(super) fn signed_prekey(
    connection: &Connection,
    id: SignedPreKeyId,
) -> Result<Option<HeldSignedPreKey>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT secret, created_s, expires_s, replaced_ms FROM signed_prekey WHERE id = ?1",
    )?;
    let mut rows = statement.query([id.0])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let secret = open::<32>(SPK, blob(row, 0, SPK)?)?;
    let replaced = match row.get::<_, Option<i64>>(3)? {
        Some(replaced) => Some(TimestampMs(number(SPK, replaced)?)),
        None => None,
    };
    Ok(Some(HeldSignedPreKey {
        pair: SignedPreKeyPair::from_secret(id, &secret),
        created: UnixSeconds(number(SPK, row.get(1)?)?),
        expires: UnixSeconds(number(SPK, row.get(2)?)?),
        replaced,
    }))
}

pub(super) fn one_time_prekey(
    connection: &Connection,
    id: OneTimePreKeyId,
) -> Result<OneTimePreKeyRecord, Error> {
    let mut statement =
        connection.prepare_cached("SELECT secret, public FROM one_time_prekey WHERE id = ?1")?;
    let mut rows = statement.query([id.0])?;
    let Some(row) = rows.next()? else {
        return Ok(OneTimePreKeyRecord::Unknown);
    };
    let damaged = Error::Damaged { record: OPK };
    match row.get_ref(0)?.as_blob_or_null() {
        Ok(Some(secret)) => {
            let secret = open::<32>(OPK, secret)?;
            Ok(OneTimePreKeyRecord::Held(OneTimePreKeyPair::from_secret(id, &secret)))
        }
        Ok(None) => OneTimePreKeyPublic::from_bytes(blob(row, 1, OPK)?)
            .map(OneTimePreKeyRecord::Used)
            .map_err(|_| damaged),
        Err(_) => Err(damaged),
    }
}

pub(super) fn accepted(
    connection: &Connection,
    dedup: &DedupKey,
) -> Result<Option<SessionId>, Error> {
    let id = connection
        .prepare_cached("SELECT session FROM handshake WHERE dedup = ?1")?
        .query_row([dedup.as_bytes()], |row| row.get::<_, [u8; 32]>(0))
        .optional()?;
    Ok(id.map(SessionId))
}

/// The one transaction that a handshake is accepted by. `pass` is called between its statements.
pub(super) fn accept(
    transaction: &Transaction<'_>,
    commit: &Commit,
    now: TimestampMs,
    pass: impl Fn(CrashPoint) -> Result<(), Error>,
) -> Result<Step<Acceptance>, Error> {
    // Another task may have been here since the caller looked.
    if let Some(session) = accepted(transaction, commit.dedup())? {
        return Ok(Step::Abandon(Acceptance::Duplicate(session)));
    }
    let spk = commit.signed_prekey_id();
    if signed_prekey(transaction, spk)?.is_none() {
        return Ok(Step::Abandon(Acceptance::SignedPreKeyDeleted));
    }
    pass(CrashPoint::Begun)?;
    let session = SessionId::of(commit.session());
    transaction.execute(
        "INSERT INTO handshake (dedup, spk, session) VALUES (?1, ?2, ?3)",
        params![commit.dedup().as_bytes(), spk.0, session.0],
    )?;
    pass(CrashPoint::Remembered)?;
    if let Some(opk) = commit.one_time_prekey_id() {
        let erased = transaction.execute(
            "UPDATE one_time_prekey SET secret = NULL, used_ms = ?2
             WHERE id = ?1 AND secret IS NOT NULL",
            params![opk.0, int(now.0)],
        )?;
        if erased == 0 {
            return Ok(Step::Abandon(Acceptance::OneTimePreKeyUsed));
        }
    }
    pass(CrashPoint::Erased)?;
    let (peer, identity) = (commit.sender(), commit.sender_identity());
    if !pin::pin_identity(transaction, peer, identity, now)? {
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
    row.insert(transaction, now)?;
    pass(CrashPoint::Stored)?;
    Ok(Step::Commit(Acceptance::Accepted))
}

pub(super) fn start(
    transaction: &Transaction<'_>,
    started: &StartedSession<'_>,
    now: TimestampMs,
) -> Result<Step<bool>, Error> {
    let session = started.session;
    if !pin::pin_identity(transaction, &session.peer, &session.peer_identity, now)? {
        return Ok(Step::Abandon(false));
    }
    let row = SessionRow {
        role: session.role,
        peer: &session.peer,
        identity: &session.peer_identity,
        spk: session.signed_prekey,
        opk: session.one_time_prekey,
        keys: &session.keys,
        first_message: Some(started.message),
    };
    row.insert(transaction, now)?;
    Ok(Step::Commit(true))
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
    fn insert(&self, transaction: &Transaction<'_>, now: TimestampMs) -> Result<(), Error> {
        let mut keys = Zeroizing::new([0; 64]);
        keys[..32].copy_from_slice(self.keys.root().as_bytes());
        keys[32..].copy_from_slice(self.keys.chain().as_bytes());
        transaction.execute(
            "INSERT INTO session (id, role, peer_user, peer_device, peer_identity, spk, opk, keys,
                 first_message, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                SessionId::of(self.keys).0,
                self.role as u8,
                self.peer.user(),
                self.peer.device().0,
                self.identity.to_tagged_bytes(),
                self.spk.0,
                self.opk.map(|id| id.0),
                seal(&*keys).as_slice(),
                self.first_message,
                int(now.0)
            ],
        )?;
        Ok(())
    }
}

pub(super) fn session(connection: &Connection, id: SessionId) -> Result<Option<Session>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT role, peer_user, peer_device, peer_identity, spk, opk, keys
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
    let keys = open::<64>(SESSION, blob(row, 6, SESSION)?)?;
    let half = |from: usize| {
        let mut half = Zeroizing::new([0; 32]);
        half.copy_from_slice(&keys[from..from + 32]);
        half
    };
    Ok(Some(Session {
        id,
        role,
        peer: address_of(blob(row, 1, SESSION)?, row.get(2)?)?,
        peer_identity: IdentityPublic::from_tagged_bytes(blob(row, 3, SESSION)?)
            .map_err(|_| damaged)?,
        signed_prekey: SignedPreKeyId(row.get(4)?),
        one_time_prekey: row.get::<_, Option<u32>>(5)?.map(OneTimePreKeyId),
        keys: SessionKeys::from_parts(half(0), half(32), id.0),
    }))
}

pub(super) fn first_message(
    connection: &Connection,
    id: SessionId,
) -> Result<Option<Vec<u8>>, Error> {
    let message = connection
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
