//! The key store in one SQLite file.
//!
//! Guarantees: a transaction is on disk when its method returns (write-ahead log, `synchronous =
//! FULL`). Tasks and processes may share a file; they take turns. An erased secret is overwritten
//! in the file and gone from the log (`secure_delete`, then a checkpoint that truncates the log).
//! The folder has mode 0700 and the file 0600. A file of another version is refused.
//!
//! Leaves out: copies that a file system or a flash translation layer keeps of blocks that were
//! overwritten. Sealing the secrets (`seal`) under a key kept elsewhere is the answer to
//! that.

mod handshake;
mod pin;
mod write;

use std::{io, path::Path, time::Duration};

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId, TimestampMs, UserId};
use oncekey_x3dh::{Address, DedupKey, keys::IdentityPublic, responder::Commit};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    Acceptance, DeviceState, Error, HeldSignedPreKey, KeyStore, OneTimePreKeyRecord, PendingWrite,
    Resync, Session, SessionId, Settled, Staged, StartedSession,
};
use crate::machine::{Device, PinnedDeviceList};

const VERSION: i64 = 1;
/// "OncK": tells the file apart from other programs' databases. Stable, never reuse.
const APPLICATION_ID: i64 = 0x4f6e_634b;
const FILE_NAME: &str = "keystore.sqlite3";
/// How long to wait for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The key store in one SQLite file, or in memory.
///
/// A transaction is on disk when its method returns. Tasks and processes may share a file; they
/// take turns. An erased secret is overwritten in the file and gone from its log. The folder has
/// mode 0700, the files 0600; nothing in them is encrypted.
pub struct SqliteKeyStore {
    connection: Mutex<Connection>,
    #[cfg(test)]
    pub(crate) crash_at: Mutex<Option<(CrashPoint, Crash)>>,
}

impl SqliteKeyStore {
    /// Opens the store in `folder`, creating both when they are not there.
    ///
    /// # Errors
    ///
    /// [`Error::Version`] or [`Error::Backend`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let file = folder.join(FILE_NAME);
        create_private(folder, &file).map_err(|error| Error::Backend(error.into()))?;
        Self::with(Connection::open(file)?)
    }

    /// A store that is gone when it is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    pub fn in_memory() -> Result<Self, Error> {
        Self::with(Connection::open_in_memory()?)
    }

    fn with(mut connection: Connection) -> Result<Self, Error> {
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
        prepare_schema(&mut connection)?;
        Ok(Self {
            connection: Mutex::new(connection),
            #[cfg(test)]
            crash_at: Mutex::new(None),
        })
    }

    fn read<R>(&self, read: impl FnOnce(&Connection) -> Result<R, Error>) -> Result<R, Error> {
        read(&self.connection.lock())
    }

    /// Runs `write` in a transaction that takes the write lock at once, and commits when it says
    /// so.
    fn write<R>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> Result<Step<R>, Error>,
    ) -> Result<R, Error> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match write(&transaction)? {
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
        self.read(|connection| {
            Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
        })
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
        self.write(|transaction| write::create(transaction, device))
    }

    fn device(&self) -> Result<Device, Error> {
        self.read(write::device)
    }

    fn state(&self) -> Result<DeviceState, Error> {
        self.read(write::state)
    }

    fn stage(&self, staged: &Staged) -> Result<(), Error> {
        self.write(|transaction| write::stage(transaction, staged))
    }

    fn settle(
        &self,
        write: &PendingWrite,
        settled: &Settled,
        now: TimestampMs,
    ) -> Result<(), Error> {
        self.write(|transaction| write::settle(transaction, write, settled, now))
    }

    fn purge(&self, replaced_until: TimestampMs) -> Result<(), Error> {
        if self.write(|transaction| {
            write::purge(transaction, replaced_until, &write::Room::default())
        })? {
            self.empty_log()?;
        }
        Ok(())
    }

    fn resync(&self, resync: &Resync) -> Result<(), Error> {
        self.write(|transaction| {
            write::resync(transaction, resync)?;
            Ok(Step::Commit(()))
        })
    }

    fn missing_secrets(&self, ranges: &[(OneTimePreKeyId, OneTimePreKeyId)]) -> Result<u64, Error> {
        self.read(|connection| write::missing_secrets(connection, ranges))
    }

    fn signed_prekey(&self, id: SignedPreKeyId) -> Result<Option<HeldSignedPreKey>, Error> {
        self.read(|connection| handshake::signed_prekey(connection, id))
    }

    fn one_time_prekey(&self, id: OneTimePreKeyId) -> Result<OneTimePreKeyRecord, Error> {
        self.read(|connection| handshake::one_time_prekey(connection, id))
    }

    fn accepted(&self, dedup: &DedupKey) -> Result<Option<Session>, Error> {
        self.read(|connection| match handshake::accepted(connection, dedup)? {
            Some(id) => match handshake::session(connection, id)? {
                Some(session) => Ok(Some(session)),
                None => Err(Error::Damaged { record: "session" }),
            },
            None => Ok(None),
        })
    }

    fn accept(&self, commit: &Commit, now: TimestampMs) -> Result<Acceptance, Error> {
        let acceptance = self.write(|transaction| {
            handshake::accept(transaction, commit, now, |point| self.pass(point))
        })?;
        self.pass(CrashPoint::Committed)?;
        if matches!(acceptance, Acceptance::Accepted) && commit.one_time_prekey_id().is_some() {
            // The handshake is accepted whether or not the log can be emptied now.
            if let Err(error) = self.empty_log() {
                tracing::warn!(%error, "the write-ahead log of the key store was not emptied");
            }
        }
        Ok(acceptance)
    }

    fn start(&self, started: &StartedSession<'_>, now: TimestampMs) -> Result<bool, Error> {
        self.write(|transaction| handshake::start(transaction, started, now))
    }

    fn session(&self, id: SessionId) -> Result<Option<Session>, Error> {
        self.read(|connection| handshake::session(connection, id))
    }

    fn first_message(&self, id: SessionId) -> Result<Option<Vec<u8>>, Error> {
        self.read(|connection| handshake::first_message(connection, id))
    }

    fn pinned_identity(&self, peer: &Address) -> Result<Option<IdentityPublic>, Error> {
        self.read(|connection| pin::identity(connection, peer))
    }

    fn replace_identity(
        &self,
        peer: &Address,
        identity: &IdentityPublic,
        now: TimestampMs,
    ) -> Result<(), Error> {
        self.write(|transaction| pin::replace_identity(transaction, peer, identity, now))
    }

    fn pinned_device_list(&self, user: &UserId) -> Result<Option<PinnedDeviceList>, Error> {
        self.read(|connection| pin::device_list(connection, user))
    }

    fn pin_device_list(&self, user: &UserId, list: &PinnedDeviceList) -> Result<(), Error> {
        self.write(|transaction| pin::pin_device_list(transaction, user, list))
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

fn prepare_schema(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name: &str| {
        transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
    };
    match (pragma("application_id")?, pragma("user_version")?) {
        (0, 0) => {
            transaction.execute_batch(include_str!("schema.sql"))?;
            transaction.execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            ))?;
            transaction.commit()?;
            Ok(())
        }
        (APPLICATION_ID, VERSION) => Ok(()),
        (_, found) => Err(Error::Version { found, supported: VERSION }),
    }
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
