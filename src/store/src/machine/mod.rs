//! Applying a batch.
//!
//! Guarantees:
//!
//! - **Time.** Log time is the highest time of any batch so far; it never falls.
//! - **One-time prekeys.** The ids of a device only grow, across new registrations and removal too:
//!   the account keeps the highest id that any replaced or removed registration accepted, and a new
//!   registration starts above it. So an issued key cannot come back.
//! - **Dispense.** One command pops one key for each device, oldest first, or refuses and pops
//!   nothing. The answer is kept for retries: (caller, idempotency key) gives the same answer again
//!   until its time is up or [`RETRIES_PER_SHARD_MAX`] later ones have come. Refusals are not kept.
//! - **Limits.** A dispense takes one token from the bucket of the target and one from that of
//!   (target, caller). Without a token the bundles are served and the one-time prekeys withheld,
//!   all of them. A dispense that finds every pool empty takes no token.
//! - **Writes of a device.** `seq` grows within a registration. The same `seq` and digest is a
//!   re-send and gets its first answer; so does a signed prekey that is already in place, and the
//!   key list of the last upload, under any `seq`. An answer to a re-send changes nothing.
//! - **Epochs.** A shard that was filled from a backup is in a higher epoch than the cluster that the
//!   backup is of, and no key comes over from there: neither with the backup, which has none, nor
//!   with a write, which names the epoch that its keys were made for. See `restore`.
//! - **Work.** A command costs work in proportion to its own size, to the pool that it replaces or
//!   removes, and a constant for what has expired.
//! - **Registrations.** One names the registration that it follows, and is refused unless that is
//!   the current one: a late duplicate of an older registration does not replace a newer one. It is
//!   not ordered by `seq`, because a device that lost its state does not know it. After a removal,
//!   a duplicate of a registration that brought one-time prekeys is refused for their ids.
//!
//! Leaves out: signatures; who may do what.

mod check;
mod dispense;
mod limit;
mod list;
mod overlay;
mod pool;
mod queue;
mod register;
mod restore;
mod retry;
mod write;

use oncekey_planted::{self as planted, Bug};
use oncekey_types::{
    DeviceId, LogIndex, TimestampMs, UserId,
    limits::{CALLERS_PER_USER_MAX, DEVICES_PER_USER_MAX, POOL_MAX, RETRIES_PER_SHARD_MAX},
};

use crate::{
    ApplyFault,
    command::{Batch, Command, Policy},
    outcome::{Outcome, PoolState, Refusal},
    record::{
        CorruptRecord, Kind,
        account::{Account, AccountKey},
        corrupt,
        device::{Device, DeviceKey},
        meta::{Meta, MetaKey},
        pool::{Cursor, LOT_KEYS_MAX},
    },
    state::{Changes, ReadFault, StateRead},
};
use overlay::Overlay;

/// What a batch did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// One outcome for each command, in order.
    pub outcomes: Vec<Outcome>,
    /// What the caller commits in one atomic batch, with the applied index.
    pub changes: Changes,
    /// The pools that fetches met, in the order in which they met them. For whoever counts; nothing
    /// of it is kept, and it names nobody.
    pub met: Vec<Met>,
}

/// What a fetch left of a device's keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// One-time prekeys that are left in the pool.
    pub left: u32,
    /// Age of the signed prekey by its device's clock, in seconds.
    pub signed_prekey_age_s: u64,
    /// Whether the signed prekey is past its time.
    pub signed_prekey_expired: bool,
}

/// Applies the entry at `index` to `state`.
///
/// # Errors
///
/// [`ApplyFault`] when this node cannot tell; it must stop. Nothing is to be committed then.
pub fn apply(
    state: &impl StateRead,
    index: LogIndex,
    batch: &Batch,
) -> Result<Applied, ApplyFault> {
    apply_within(state, index, batch, &Bounds::STANDARD)
}

/// The sizes of what a shard holds. Part of the state machine's definition; tests use small ones.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    devices_per_user: u32,
    pool: u32,
    lot_keys: usize,
    retries: u64,
    callers: usize,
}

impl Bounds {
    #[expect(clippy::cast_possible_truncation, reason = "both are below 2^16")]
    const STANDARD: Self = Self {
        devices_per_user: DEVICES_PER_USER_MAX as u32,
        pool: POOL_MAX as u32,
        lot_keys: LOT_KEYS_MAX,
        retries: RETRIES_PER_SHARD_MAX,
        callers: CALLERS_PER_USER_MAX,
    };
}

fn apply_within(
    state: &impl StateRead,
    index: LogIndex,
    batch: &Batch,
    bounds: &Bounds,
) -> Result<Applied, ApplyFault> {
    let mut records = Overlay::new(state, batch.commands.len() * RECORDS_PER_COMMAND);
    let slot = records.find(&MetaKey)?;
    let stored = records.value(slot)?;
    let before = stored.unwrap_or_default();
    let mut meta = before;
    meta.time = meta.time.max(batch.time);
    if planted::now_and_then(Bug::ReplicasDisagree, 50) {
        meta.time.0 += 1;
    }
    let is_new = stored.is_none();
    let (policy, met) = (batch.policy, Vec::new());
    let mut machine = Machine { records, is_new, before, meta, index, policy, bounds, met };
    let mut outcomes = Vec::with_capacity(batch.commands.len());
    for command in &batch.commands {
        outcomes.push(machine.outcome(command)?);
    }
    machine.forget_due(batch.commands.len())?;
    if stored != Some(machine.meta) {
        machine.records.set(slot, &machine.meta)?;
    }
    let Machine { records, met, .. } = machine;
    Ok(Applied { outcomes, changes: records.into_changes(), met })
}

/// Records that a command meets, as a guess: those of a pop from one device, and of what expires.
const RECORDS_PER_COMMAND: usize = 8;

struct Machine<'a, S> {
    records: Overlay<'a, S>,
    /// Whether no batch was ever applied before this one.
    is_new: bool,
    /// As the batch found it.
    before: Meta,
    meta: Meta,
    index: LogIndex,
    policy: Policy,
    bounds: &'a Bounds,
    met: Vec<Met>,
}

impl<S: StateRead> Machine<'_, S> {
    fn outcome(&mut self, command: &Command) -> Result<Outcome, ApplyFault> {
        let writes = self.records.writes();
        match self.carry_out(command) {
            Ok(outcome) => Ok(outcome),
            Err(Stop::Refused(refusal)) => {
                debug_assert_eq!(writes, self.records.writes(), "a refusal wrote: {refusal}");
                Ok(Outcome::Refused(refusal))
            }
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    fn carry_out(&mut self, command: &Command) -> Result<Outcome, Stop> {
        self.check_epoch(command)?;
        match command {
            Command::Register(command) => self.register(command),
            Command::ReplaceSignedPreKey(command) => self.replace_signed_prekey(command),
            Command::AddOneTimePreKeys(command) => self.add_one_time_prekeys(command),
            Command::RemoveDevice(command) => self.remove_device(command),
            Command::PutDeviceList(command) => self.put_device_list(command),
            Command::Dispense(command) => self.dispense(command),
            Command::Restore(command) => self.restore(command),
        }
    }

    fn now(&self) -> TimestampMs {
        self.meta.time
    }

    /// The account of a user with at least one device.
    fn account(&mut self, user: &UserId) -> Result<Account, Stop> {
        let account = self.records.read(&AccountKey(user))?;
        account.filter(|account| !account.devices.is_empty()).ok_or(Refusal::UnknownUser.into())
    }

    /// A device and its pool.
    fn device(&mut self, user: &UserId, device: DeviceId) -> Result<(Device, Cursor), Stop> {
        if let Some(found) = self.find_device(user, device)? {
            return Ok(found);
        }
        self.account(user)?;
        Err(Refusal::UnknownDevice { device }.into())
    }

    fn find_device(
        &mut self,
        user: &UserId,
        device: DeviceId,
    ) -> Result<Option<(Device, Cursor)>, ApplyFault> {
        let account = self.records.read(&AccountKey(user))?;
        let Some(cursor) = account.and_then(|account| account.cursor(device)) else {
            return Ok(None);
        };
        let found = self.records.read(&DeviceKey(user, device))?;
        Ok(Some((found.ok_or_else(|| missing(Kind::Device))?, cursor)))
    }

    /// Writes the cursor of a device that is registered.
    fn set_cursor(&mut self, user: &UserId, device: DeviceId, cursor: Cursor) -> Result<(), Stop> {
        let mut account = self.account(user)?;
        account.enroll(device, cursor);
        Ok(self.records.write(&AccountKey(user), &account)?)
    }
}

/// Why a command came to no good end.
enum Stop {
    Refused(Refusal),
    Fault(ApplyFault),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ApplyFault> for Stop {
    fn from(fault: ApplyFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<CorruptRecord> for Stop {
    fn from(corrupt: CorruptRecord) -> Self {
        Self::Fault(corrupt.into())
    }
}

impl From<ReadFault> for Stop {
    fn from(fault: ReadFault) -> Self {
        Self::Fault(fault.into())
    }
}

/// A record that another one says is there.
fn missing(kind: Kind) -> CorruptRecord {
    corrupt(kind, "record", "is missing")
}

pub(crate) fn pool_state(device: &Device, cursor: &Cursor) -> PoolState {
    PoolState {
        count: cursor.count + u32::from(planted::is(Bug::CountOffByOne)),
        signed_prekey: device.bundle.signed_prekey.id,
        highest_accepted: cursor.highest_accepted,
    }
}

#[cfg(test)]
mod tests;
