//! What clients saw of a run, and what was done to the cluster meanwhile.
//!
//! [`Recorder`] writes it to a file as it happens, [`History`] reads it back, and
//! [`check`](crate::check) judges it. The file is described in `docs/history.md`.
//!
//! Guarantees: a history says what its clients know and no more: a call without an answer is
//! undecided, never failed. Calls that the servers take for one request are one logical operation
//! here: fetches of one client under one idempotency key, and writes of a device with the same
//! content. A file that is cut off in the middle of its last line is read up to there, and says so.
//!
//! Leaves out: what it means.

mod assembly;
mod digest;
mod names;
pub mod record;
mod recorder;
mod summary;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use oncekey_types::{DeviceId, LogIndex, OneTimePreKeyId, RegistrationId, ShardId, SignedPreKeyId};

use self::{
    assembly::Assembly,
    record::{At, Begin, Bundle, Digest, Event, Mark, OperationId, Opk, Phase, Pool, Record},
};
pub use names::{Name, Names};
pub use record::Replica;
pub use recorder::Recorder;
pub use summary::Summary;

/// One line of a history in bytes; an upload of the greatest size is well below it.
const LINE_MAX_BYTES: u64 = 1024 * 1024;

/// A history in memory.
#[derive(Debug)]
pub struct History {
    /// Where it comes from.
    pub begin: Begin,
    /// The fetches, each with all its tries, in the order in which they were first invoked.
    pub fetches: Vec<Fetch>,
    /// Registrations, uploads, rotations and removals, likewise.
    pub writes: Vec<Write>,
    /// Reads of pools that were answered.
    pub reads: Vec<Read>,
    /// What was done to the cluster.
    pub events: Vec<Event>,
    /// States of replicas.
    pub replicas: Vec<Replica>,
    /// Where the parts of the run begin.
    pub marks: Vec<Mark>,
    /// Operations recorded, of every kind.
    pub operations: u64,
    /// The last line, when it is torn.
    pub torn: Option<Torn>,
    /// The texts behind the [`Name`]s.
    pub names: Names,
}

/// A last line that breaks off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Torn {
    /// Its number, from 1.
    pub line: u64,
    /// How much of it there is, in bytes.
    pub bytes: usize,
}

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// A line that is not the last is no record, or contradicts the ones before.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// There is no record at all.
    #[error("the history is empty")]
    Empty,
}

/// One call of a logical operation.
#[derive(Clone, Debug)]
pub struct Try<T> {
    /// Its number.
    pub op: OperationId,
    /// Who asked.
    pub client: Name,
    /// When it was sent.
    pub invoked: At,
    /// When it ended for its client.
    pub returned: At,
    /// How often it was sent.
    pub attempts: u32,
    /// What came of it.
    pub outcome: Outcome<T>,
}

/// What came of a [`Try`].
#[derive(Clone, Debug)]
pub enum Outcome<T> {
    /// It was carried out.
    Done(Answer<T>),
    /// It changed nothing.
    Refused(Refused),
    /// It may have been carried out and may not.
    Unknown {
        /// What a replica without a quorum said to a fetch.
        alone: Box<[Bundle]>,
    },
}

/// Why a call changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refused {
    /// The device whose pool was empty, when that was why.
    pub exhausted: Option<DeviceId>,
}

/// The answer to a call that was carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer<T> {
    /// Where in the log.
    pub place: Place,
    /// What it says.
    pub says: T,
}

/// Where in the log an answer comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The shard, when it is known.
    pub shard: Option<ShardId>,
    /// The position, when it is known.
    pub index: Option<LogIndex>,
    /// Who led the shard, when it is known.
    pub leader: Option<Name>,
}

/// Every call of one client under one idempotency key.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Whose bundles.
    pub user: Name,
    /// Who asked.
    pub client: Name,
    /// The idempotency key.
    pub request: Name,
    /// Only these devices; all when none.
    pub devices: Option<Box<[DeviceId]>>,
    /// Whether a bundle without a one-time prekey was to be refused.
    pub require_opk: bool,
    /// The calls, in the order in which they were invoked.
    pub tries: Vec<Try<Box<[Bundle]>>>,
}

/// Every call of a device that carries one content.
#[derive(Clone, Debug)]
pub struct Write {
    /// The owner.
    pub user: Name,
    /// The device.
    pub device: DeviceId,
    /// What it carries.
    pub content: Content,
    /// The calls, in the order in which they were invoked.
    pub tries: Vec<Try<Written>>,
}

/// What a write carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A device starts anew, with these keys and no others.
    Register {
        /// The identity key.
        identity: Digest,
        /// The signed prekey.
        spk: record::Spk,
        /// The one-time prekeys.
        opks: Box<[Opk]>,
    },
    /// More one-time prekeys.
    Upload {
        /// The keys.
        opks: Box<[Opk]>,
    },
    /// Another signed prekey.
    Rotate {
        /// The key.
        spk: record::Spk,
    },
    /// The device goes, and its keys with it.
    Remove,
}

/// The answer to a [`Write`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The registration, in answer to one.
    pub registration: Option<RegistrationId>,
    /// The pool right after the write; none after a removal.
    pub pool: Option<Pool>,
}

/// A read of a pool that was answered.
#[derive(Clone, Debug)]
pub struct Read {
    /// The owner.
    pub user: Name,
    /// The device.
    pub device: DeviceId,
    /// Its number.
    pub op: OperationId,
    /// When it was sent.
    pub invoked: At,
    /// When the answer was there.
    pub returned: At,
    /// Where in the log.
    pub place: Place,
    /// The registration.
    pub registration: RegistrationId,
    /// The pool.
    pub pool: Pool,
    /// Ids in the pool as closed ranges, growing.
    pub ids: Box<[(OneTimePreKeyId, OneTimePreKeyId)]>,
}

impl History {
    /// Reads the file `path`.
    ///
    /// # Errors
    ///
    /// A [`ReadError`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let io = |error| ReadError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(io)?;
        Self::from_lines(BufReader::with_capacity(1 << 20, file), io)
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    ///
    /// A [`ReadError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        let io = |error| ReadError::Io { path: PathBuf::new(), error };
        Self::from_lines(bytes, io)
    }

    fn from_lines(
        mut lines: impl BufRead,
        io: impl Fn(io::Error) -> ReadError,
    ) -> Result<Self, ReadError> {
        let mut assembly = Assembly::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let mut limited = io::Read::take(&mut lines, LINE_MAX_BYTES + 1);
            if limited.read_until(b'\n', &mut line).map_err(&io)? == 0 {
                break;
            }
            if u64::try_from(line.len()).unwrap_or(u64::MAX) > LINE_MAX_BYTES {
                let why = format!("it is over the limit of {LINE_MAX_BYTES} bytes");
                return Err(ReadError::Line { line: number, why });
            }
            match serde_json::from_slice::<Record>(&line) {
                Ok(record) => {
                    assembly.add(record).map_err(|why| ReadError::Line { line: number, why })?
                }
                // Whoever wrote the line did not come to its end.
                Err(_) if !line.ends_with(b"\n") => {
                    assembly.tear(Torn { line: number, bytes: line.len() });
                }
                Err(error) => {
                    return Err(ReadError::Line { line: number, why: error.to_string() });
                }
            }
        }
        assembly.finish().ok_or(ReadError::Empty)
    }

    /// Puts records together that were not read from a file.
    ///
    /// # Errors
    ///
    /// A [`ReadError`], with the number of the record for a line.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Result<Self, ReadError> {
        let mut assembly = Assembly::default();
        for (record, line) in records.into_iter().zip(1..) {
            assembly.add(record).map_err(|why| ReadError::Line { line, why })?;
        }
        assembly.finish().ok_or(ReadError::Empty)
    }

    /// Whether the run came to `phase`.
    #[must_use]
    pub fn reached(&self, phase: Phase) -> bool {
        self.marks.iter().any(|mark| mark.phase == phase)
    }
}

impl Fetch {
    /// The answer, when it was carried out: the first one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer<Box<[Bundle]>>> {
        answer(&self.tries)
    }

    /// The bundles of the answer; none without one.
    #[must_use]
    pub fn bundles(&self) -> &[Bundle] {
        self.answer().map_or(&[], |answer| &answer.says)
    }

    /// When it was first sent.
    #[must_use]
    pub fn invoked(&self) -> At {
        invoked(&self.tries)
    }

    /// When the first answer was there.
    #[must_use]
    pub fn returned(&self) -> At {
        returned(&self.tries)
    }

    /// Whether it may have been carried out and nobody knows.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        is_undecided(&self.tries)
    }

    /// Whether a bundle for `device` is asked for.
    #[must_use]
    pub fn asks_for(&self, device: DeviceId) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.contains(&device))
    }
}

impl Write {
    /// The answer, when it was carried out: the first one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer<Written>> {
        answer(&self.tries)
    }

    /// When it was first sent.
    #[must_use]
    pub fn invoked(&self) -> At {
        invoked(&self.tries)
    }

    /// When the first answer was there.
    #[must_use]
    pub fn returned(&self) -> At {
        returned(&self.tries)
    }

    /// Whether it may have been carried out and nobody knows.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        is_undecided(&self.tries)
    }

    /// The one-time prekeys that it brings.
    #[must_use]
    pub fn opks(&self) -> &[Opk] {
        match &self.content {
            Content::Register { opks, .. } | Content::Upload { opks } => opks,
            Content::Rotate { .. } | Content::Remove => &[],
        }
    }

    /// The signed prekey that it brings.
    #[must_use]
    pub fn spk(&self) -> Option<record::Spk> {
        match &self.content {
            Content::Register { spk, .. } | Content::Rotate { spk } => Some(*spk),
            Content::Upload { .. } | Content::Remove => None,
        }
    }

    /// Whether it takes away the keys that were there.
    #[must_use]
    pub fn withdraws(&self) -> bool {
        matches!(self.content, Content::Register { .. } | Content::Remove)
    }
}

impl Content {
    /// What kind of write it is.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Register { .. } => "registration",
            Self::Upload { .. } => "upload",
            Self::Rotate { .. } => "rotation",
            Self::Remove => "removal",
        }
    }
}

impl<T> Try<T> {
    /// The answer, when it was carried out.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer<T>> {
        match &self.outcome {
            Outcome::Done(answer) => Some(answer),
            Outcome::Refused(_) | Outcome::Unknown { .. } => None,
        }
    }
}

impl Read {
    /// The current signed prekey.
    #[must_use]
    pub fn spk(&self) -> SignedPreKeyId {
        self.pool.spk
    }

    /// Whether `id` is in the pool.
    #[must_use]
    pub fn has(&self, id: OneTimePreKeyId) -> bool {
        let after = self.ids.partition_point(|(first, _)| *first <= id);
        after.checked_sub(1).is_some_and(|place| id <= self.ids[place].1)
    }
}

/// The try whose answer was there first.
fn first_done<T>(tries: &[Try<T>]) -> Option<&Try<T>> {
    tries.iter().filter(|call| call.answer().is_some()).min_by_key(|call| call.returned)
}

fn answer<T>(tries: &[Try<T>]) -> Option<&Answer<T>> {
    first_done(tries).and_then(Try::answer)
}

fn invoked<T>(tries: &[Try<T>]) -> At {
    tries.iter().map(|call| call.invoked).min().unwrap_or(At::NEVER)
}

fn returned<T>(tries: &[Try<T>]) -> At {
    first_done(tries).map_or(At::NEVER, |call| call.returned)
}

fn is_undecided<T>(tries: &[Try<T>]) -> bool {
    answer(tries).is_none()
        && tries.iter().any(|call| matches!(call.outcome, Outcome::Unknown { .. }))
}

#[cfg(test)]
mod tests;
