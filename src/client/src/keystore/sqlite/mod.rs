//! The key store in one SQLite file.
//!
//! Guarantees: a transaction is on disk when its method returns (write-ahead log, `synchronous =
//! FULL`). Tasks and processes may share a file; they take turns. An erased secret is overwritten
//! in the file and gone from the log (`secure_delete`, then a checkpoint that truncates the log).
//! Secrets and pins are sealed under a random data key, which a passphrase or a key kept elsewhere
//! unlocks (`seal`, `lock`). The folder has mode 0700 and the file 0600. A file of an older version
//! is brought up to date, one of a newer version is refused.
//!
//! Leaves out: who the peers are, how many handshakes there were and when, which the file tells to
//! whoever reads it; copies that a file system or a flash translation layer keeps of blocks that
//! were overwritten, which hold sealed secrets; and a file that is put back as it was some time
//! ago.

mod export;
mod handshake;
mod migrate;
mod pin;
mod trust;
mod write;

use std::{io, path::Path, time::Duration};

use oncekey_types::{Epoch, OneTimePreKeyId, SignedPreKeyId, TimestampMs, UserId};
use oncekey_x3dh::{Address, DedupKey, keys::IdentityPublic, responder::Commit};
use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use zeroize::Zeroizing;

use super::{
    Acceptance, DeviceState, Error, Export, KeyStore, OneTimePreKeyRecord, PendingWrite, Resync,
    Session, SessionId, Settled, SignedPreKeyRecord, Staged, Started, StartedSession, TakenKeys,
    lock::Unlock,
    seal::{Record, Sealer},
};
use crate::{
    machine::{Device, PinnedDeviceList},
    trust::{Answer, Change, DevicesChanged, TrustEvent, TrustEventId},
};

const FILE_NAME: &str = "keystore.sqlite3";
/// How long to wait for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The key store in one SQLite file, or in memory.
///
/// A transaction is on disk when its method returns. Tasks and processes may share a file; they
/// take turns. Secrets are sealed under a passphrase or a key kept elsewhere; an erased one is
/// overwritten in the file and gone from its log. The folder has mode 0700, the files 0600.
pub struct SqliteKeyStore {
    connection: Mutex<Connection>,
    sealer: Sealer,
    #[cfg(test)]
    pub(crate) crash_at: Mutex<Option<(CrashPoint, Crash)>>,
}

impl SqliteKeyStore {
    /// Opens the store in `folder` with what it was created with, creating both when they are not
    /// there. A passphrase takes a good part of a second.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] with another passphrase or key, [`Error::Version`] or
    /// [`Error::Backend`].
    pub fn open(folder: impl AsRef<Path>, unlock: &Unlock) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let file = folder.join(FILE_NAME);
        create_private(folder, &file).map_err(|error| Error::Backend(error.into()))?;
        Self::with(Connection::open(file)?, Some(unlock))
    }

    /// A store that is gone when it is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub fn in_memory() -> Result<Self, Error> {
        Self::with(Connection::open_in_memory()?, None)
    }

    /// Locks the store under another passphrase or key. The old one still opens copies of the
    /// file that were made before, and they hold the same identity.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub fn change_lock(&self, unlock: &Unlock) -> Result<(), Error> {
        let locked = self.sealer.lock(unlock)?;
        self.write(|db| {
            db.execute("UPDATE lock SET locked = ?1", [locked])?;
            Ok(Step::Commit(()))
        })?;
        self.empty_log()
    }

    fn with(mut connection: Connection, unlock: Option<&Unlock>) -> Result<Self, Error> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Answers with a row ("wal" or, in memory, "memory"), unlike the other settings.
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch(
            "PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA temp_store = MEMORY;
             PRAGMA trusted_schema = OFF;",
        )?;
        connection.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
        let migrate::Prepared { sealer, migrated } = migrate::prepare(&mut connection, unlock)?;
        let store = Self {
            connection: Mutex::new(connection),
            sealer,
            #[cfg(test)]
            crash_at: Mutex::new(None),
        };
        if migrated {
            tracing::info!("a key store of an older version was brought up to date");
        }
        // Of the migration, and of whatever a crash has kept from being emptied.
        store.empty_log()?;
        Ok(store)
    }

    fn read<R>(&self, read: impl FnOnce(Db<'_>) -> Result<R, Error>) -> Result<R, Error> {
        read(Db { connection: &self.connection.lock(), sealer: &self.sealer })
    }

    /// Runs `write` in a transaction that takes the write lock at once, and commits when it says
    /// so.
    fn write<R>(&self, write: impl FnOnce(Db<'_>) -> Result<Step<R>, Error>) -> Result<R, Error> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match write(Db { connection: &transaction, sealer: &self.sealer })? {
            Step::Commit(result) => {
                transaction.commit()?;
                Ok(result)
            }
            Step::Abandon(result) => {
                transaction.rollback()?;
                Ok(result)
            }
        }
    }

    /// Empties the write-ahead log, which may hold older versions of erased secrets.
    fn empty_log(&self) -> Result<(), Error> {
        // The row says whether another process kept the log busy; its next checkpoint will do.
        self.read(|db| Ok(db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?))
    }

    /// Empties the log after a transaction that stands whether or not the log can be emptied now.
    fn empty_log_if_possible(&self) {
        if let Err(error) = self.empty_log() {
            tracing::warn!(%error, "the write-ahead log of the key store was not emptied");
        }
    }

    /// The blob of a secret, as it stands in the file.
    #[cfg(test)]
    pub(crate) fn sealed(&self, table: &str, id: impl rusqlite::ToSql) -> Vec<u8> {
        let sql = format!("SELECT sealed FROM {table} WHERE id = ?1");
        self.connection.lock().query_row(&sql, [id], |row| row.get(0)).unwrap()
    }

    /// Handshakes that are remembered, by signed prekey.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> Vec<(u32, u32)> {
        let connection = self.connection.lock();
        let sql = "SELECT spk, count(*) FROM handshake GROUP BY spk ORDER BY spk";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Where the crash tests stop a transaction.
    #[cfg(test)]
    fn pass(&self, point: CrashPoint) -> Result<(), Error> {
        match *self.crash_at.lock() {
            Some((at, Crash::Fail)) if at == point => {
                Err(Error::Backend(format!("injected at {point:?}").into()))
            }
            Some((at, Crash::Abort)) if at == point => std::process::abort(),
            _ => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as in the tests")]
    fn pass(&self, _: CrashPoint) -> Result<(), Error> {
        Ok(())
    }
}

impl std::fmt::Debug for SqliteKeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteKeyStore").finish_non_exhaustive()
    }
}

/// A connection, in a transaction or not, with what seals its blobs.
#[derive(Clone, Copy)]
struct Db<'a> {
    connection: &'a Connection,
    sealer: &'a Sealer,
}

impl std::ops::Deref for Db<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Db<'_> {
    fn seal(&self, record: Record<'_>, secret: &[u8]) -> Result<Vec<u8>, Error> {
        self.sealer.seal(record, secret)
    }

    fn open(&self, record: Record<'_>, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.sealer.open(record, blob)
    }

    fn open_array<const N: usize>(
        &self,
        record: Record<'_>,
        blob: &[u8],
    ) -> Result<Zeroizing<[u8; N]>, Error> {
        self.sealer.open_array(record, blob)
    }
}

/// How a transaction ends.
enum Step<R> {
    Commit(R),
    Abandon(R),
}

/// Between the statements of [`KeyStore::accept`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CrashPoint {
    Begun,
    Remembered,
    Erased,
    Pinned,
    Stored,
    Committed,
}

#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crash {
    /// The statement after the point fails.
    Fail,
    /// The process dies at the point.
    Abort,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Backend(error.into())
    }
}

impl KeyStore for SqliteKeyStore {
    fn create(&self, device: &Device) -> Result<(), Error> {
        self.write(|db| write::create(db, device))
    }

    fn device(&self) -> Result<Device, Error> {
        self.read(write::device)
    }

    fn state(&self) -> Result<DeviceState, Error> {
        self.read(write::state)
    }

    fn stage(&self, staged: &Staged) -> Result<(), Error> {
        self.write(|db| write::stage(db, staged))
    }

    fn settle(
        &self,
        write: &PendingWrite,
        settled: &Settled,
        now: TimestampMs,
    ) -> Result<(), Error> {
        self.write(|db| write::settle(db, write, settled, now))
    }

    fn purge(&self, replaced_until: TimestampMs) -> Result<(), Error> {
        if self.write(|db| write::purge(db, replaced_until, &write::Room::default()))? {
            self.empty_log()?;
        }
        Ok(())
    }

    fn discard_prekeys(&self) -> Result<(), Error> {
        self.write(write::discard_prekeys)?;
        self.empty_log()
    }

    fn resync(&self, resync: &Resync) -> Result<(), Error> {
        self.write(|db| {
            write::resync(db, resync)?;
            Ok(Step::Commit(()))
        })
    }

    fn missing_secrets(&self, ranges: &[(OneTimePreKeyId, OneTimePreKeyId)]) -> Result<u64, Error> {
        self.read(|db| write::missing_secrets(db, ranges))
    }

    fn signed_prekey(&self, id: SignedPreKeyId) -> Result<SignedPreKeyRecord, Error> {
        self.read(|db| handshake::signed_prekey(db, id))
    }

    fn one_time_prekey(&self, id: OneTimePreKeyId) -> Result<OneTimePreKeyRecord, Error> {
        self.read(|db| handshake::one_time_prekey(db, id))
    }

    fn accepted(&self, dedup: &DedupKey) -> Result<Option<Session>, Error> {
        self.read(|db| match handshake::accepted(db, dedup)? {
            Some(id) => match handshake::session(db, id)? {
                Some(session) => Ok(Some(session)),
                None => Err(Error::Damaged { record: "session" }),
            },
            None => Ok(None),
        })
    }

    fn accept(&self, commit: &Commit, now: TimestampMs) -> Result<Acceptance, Error> {
        let acceptance =
            self.write(|db| handshake::accept(db, commit, now, |point| self.pass(point)))?;
        self.pass(CrashPoint::Committed)?;
        if matches!(acceptance, Acceptance::Accepted) && commit.one_time_prekey_id().is_some() {
            self.empty_log_if_possible();
        }
        Ok(acceptance)
    }

    fn start(&self, started: &StartedSession<'_>, now: TimestampMs) -> Result<Started, Error> {
        self.write(|db| handshake::start(db, started, now))
    }

    fn session(&self, id: SessionId) -> Result<Option<Session>, Error> {
        self.read(|db| handshake::session(db, id))
    }

    fn take_keys(&self, id: SessionId) -> Result<TakenKeys, Error> {
        let taken = self.write(|db| handshake::take_keys(db, id))?;
        if matches!(taken, TakenKeys::Now(_)) {
            self.empty_log_if_possible();
        }
        Ok(taken)
    }

    fn first_message(&self, id: SessionId) -> Result<Option<Vec<u8>>, Error> {
        self.read(|db| handshake::first_message(db, id))
    }

    fn pinned_identity(&self, peer: &Address) -> Result<Option<IdentityPublic>, Error> {
        self.read(|db| pin::identity(db, peer))
    }

    fn pinned_device_list(&self, user: &UserId) -> Result<Option<PinnedDeviceList>, Error> {
        self.read(|db| pin::device_list(db, user))
    }

    fn pin_device_list(
        &self,
        user: &UserId,
        list: &PinnedDeviceList,
        change: Option<&DevicesChanged>,
        epoch: Epoch,
        now: TimestampMs,
    ) -> Result<(), Error> {
        self.write(|db| pin::pin_device_list(db, user, list, change, epoch, now))
    }

    fn device_list_epoch(&self, user: &UserId) -> Result<Epoch, Error> {
        self.read(|db| pin::device_list_epoch(db, user))
    }

    fn notice(&self, change: &Change, now: TimestampMs) -> Result<TrustEventId, Error> {
        self.write(|db| Ok(Step::Commit(trust::notice(db, change, now)?)))
    }

    fn trust_events(
        &self,
        user: Option<&[u8]>,
    ) -> Result<Vec<(TrustEvent, Option<Answer>)>, Error> {
        self.read(|db| trust::events(db, user))
    }

    fn answer(&self, event: &TrustEvent, answer: Answer, now: TimestampMs) -> Result<(), Error> {
        self.write(|db| trust::answer(db, event, answer, now))
    }

    fn export(&self) -> Result<Export, Error> {
        self.read(export::read)
    }

    fn import(&self, export: &Export, now: TimestampMs) -> Result<(), Error> {
        self.write(|db| export::write(db, export, now))
    }
}

/// Creates folder and file for their owner only. SQLite gives its other files the file's mode.
fn create_private(folder: &Path, file: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        options.mode(0o600);
        builder.mode(0o700);
    }
    builder.create(folder)?;
    options.open(file)?;
    // A file whose name is lost with the power holds nothing.
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// A number as SQLite keeps it; every limit is far below its 63 bits.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that was stored by [`int`] or as an id.
fn number<T: TryFrom<i64>>(record: &'static str, stored: i64) -> Result<T, Error> {
    T::try_from(stored).map_err(|_| Error::Damaged { record })
}

#[cfg(test)]
mod tests;
