//! The log explains every answer: linearizability, with the log index as the witness.
//!
//! Each answer carries the index of the log entry that it comes from, a repeated fetch the original
//! one. Two things together suffice, and are checked in O(n log n):
//!
//! - **Time.** If a was answered before b was sent, index(a) ≤ index(b) within a shard, and
//!   index(a) < index(b) when b writes.
//! - **Replay.** The operations of each account in the order of their indexes, through a
//!   [correct account](super::model), get the answers that they got.
//!
//! Operations that share an entry are put in an order that explains them, if there is one. The
//! index of a repeated write is that of a later entry, so a write is placed anywhere between what
//! was answered before it was sent and the index it was told.
//!
//! Needs: log indexes in all answers of an account, and an outcome for each of its operations;
//! accounts without are counted as not judged. Leaves out: refusals.

use std::collections::BTreeMap;

use oncekey_types::{LogIndex, RegistrationId, ShardId};

use super::{
    Finding, Invariant,
    evidence::{Evidence, of_fetch, of_write, say_write},
    model::{Account, Action},
};
use crate::history::{
    Fetch, History, Name, Place, Read, Write,
    record::{At, Issue, OperationId},
};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Witness);
    let mut accounts = accounts(evidence.history);
    check_time(&mut accounts, &mut finding);
    let (mut undecided, mut without) = (0_u64, 0_u64);
    for account in accounts.into_values() {
        if account.undecided {
            undecided += 1;
        } else if account.without_index {
            without += 1;
        } else {
            finding.judged += 1;
            if let Err(stuck) = replay(&account) {
                let (what, why) = stuck.describe(evidence);
                finding.violation(
                    stuck.operations(),
                    format!("the log does not explain {what} at index {}: {why}", stuck.index),
                );
            }
        }
    }
    if undecided > 0 {
        let why = format!("{undecided} accounts have operations without an outcome");
        finding.not_judged.push(why);
    }
    if without > 0 {
        finding.not_judged.push(format!("{without} accounts have answers without a log index"));
    }
    finding
}

/// The operations of an account.
#[derive(Default)]
struct Entries<'a> {
    entries: Vec<Entry<'a>>,
    undecided: bool,
    without_index: bool,
}

/// An operation with its place in the log.
#[derive(Clone, Copy)]
struct Entry<'a> {
    index: LogIndex,
    shard: Option<ShardId>,
    /// The highest index that was answered before it was sent.
    floor: Option<LogIndex>,
    invoked: At,
    returned: At,
    what: What<'a>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Fetch(&'a Fetch),
    Write(&'a Write),
    Read(&'a Read),
}

impl<'a> What<'a> {
    fn action(self) -> Action<'a> {
        match self {
            Self::Fetch(fetch) => Action::Fetch {
                devices: fetch.devices.as_deref(),
                answer: fetch.answer().map(|answer| &*answer.says),
            },
            Self::Write(write) => Action::Write {
                device: write.device,
                content: &write.content,
                answer: write.answer().map(|answer| &answer.says),
            },
            Self::Read(read) => Action::Read(read),
        }
    }

    fn operations(self) -> Vec<OperationId> {
        match self {
            Self::Fetch(fetch) => of_fetch(fetch).collect(),
            Self::Write(write) => of_write(write).collect(),
            Self::Read(read) => vec![read.op],
        }
    }

    fn is_read(self) -> bool {
        matches!(self, Self::Read(_))
    }
}

fn accounts(history: &History) -> BTreeMap<Name, Entries<'_>> {
    let mut accounts: BTreeMap<_, Entries<'_>> = BTreeMap::new();
    let mut add = |user, place: Place, invoked, returned, what| {
        let account: &mut Entries<'_> = accounts.entry(user).or_default();
        match place.index {
            None => account.without_index = true,
            Some(index) => {
                let (shard, floor) = (place.shard, None);
                account.entries.push(Entry { index, shard, floor, invoked, returned, what });
            }
        }
    };
    let mut undecided = Vec::new();
    for fetch in &history.fetches {
        match fetch.answer() {
            Some(answer) => {
                let (invoked, returned) = (fetch.invoked(), fetch.returned());
                add(fetch.user, answer.place, invoked, returned, What::Fetch(fetch));
            }
            None if fetch.is_undecided() => undecided.push(fetch.user),
            None => {}
        }
    }
    for write in &history.writes {
        match write.answer() {
            Some(answer) => {
                let (invoked, returned) = (write.invoked(), write.returned());
                add(write.user, answer.place, invoked, returned, What::Write(write));
            }
            None if write.is_undecided() => undecided.push(write.user),
            None => {}
        }
    }
    for read in &history.reads {
        add(read.user, read.place, read.invoked, read.returned, What::Read(read));
    }
    for user in undecided {
        accounts.entry(user).or_default().undecided = true;
    }
    accounts
}

/// Indexes grow with time. Fills in the floors.
fn check_time(accounts: &mut BTreeMap<Name, Entries<'_>>, finding: &mut Finding) {
    // Without a shard, an account is a log of its own.
    let mut logs: BTreeMap<_, Vec<&mut Entry<'_>>> = BTreeMap::new();
    for (user, account) in accounts {
        for entry in &mut account.entries {
            let own = entry.shard.is_none().then_some(*user);
            logs.entry((entry.shard, own)).or_default().push(entry);
        }
    }
    for mut log in logs.into_values() {
        log.sort_by_key(|entry| entry.invoked);
        let mut answered: Vec<_> =
            log.iter().map(|entry| (entry.returned, entry.index, entry.what)).collect();
        answered.sort_by_key(|(returned, ..)| *returned);
        let mut answered = answered.into_iter().peekable();
        let mut highest: Option<(LogIndex, What<'_>)> = None;
        for entry in log {
            while let Some((_, index, what)) =
                answered.next_if(|(returned, ..)| *returned < entry.invoked)
            {
                if highest.is_none_or(|(highest, _)| highest < index) {
                    highest = Some((index, what));
                }
            }
            let Some((floor, before)) = highest else { continue };
            entry.floor = Some(floor);
            let late = floor > entry.index || (floor == entry.index && !entry.what.is_read());
            if late {
                let (operations, earlier) = (entry.what.operations(), before.operations());
                let message = format!(
                    "operation {} was answered from log index {}, and operation {}, answered \
                     before it was sent, from {floor}",
                    name(&operations),
                    entry.index,
                    name(&earlier)
                );
                finding.violation(operations.into_iter().chain(earlier), message);
            }
        }
    }
}

fn name(operations: &[OperationId]) -> String {
    operations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Where a replay ends before its end.
struct Stuck<'a> {
    index: LogIndex,
    what: What<'a>,
    why: String,
}

impl Stuck<'_> {
    fn operations(&self) -> Vec<OperationId> {
        self.what.operations()
    }

    fn describe(&self, evidence: &Evidence<'_>) -> (String, &str) {
        let what = match self.what {
            What::Fetch(fetch) => evidence.say(fetch),
            What::Write(write) => format!("the {}", say_write(write)),
            What::Read(read) => format!("the read {} of device {}", read.op, read.device),
        };
        (what, &self.why)
    }
}

/// Replays the log of an account.
fn replay<'a>(account: &Entries<'a>) -> Result<(), Stuck<'a>> {
    let mut entries: Vec<_> = account.entries.iter().collect();
    entries.sort_by_key(|entry| (entry.index, entry.invoked));
    let mut writes: Vec<_> =
        entries.iter().filter(|entry| matches!(entry.what, What::Write(_))).copied().collect();
    writes.sort_by_key(|entry| (entry.floor, entry.invoked));
    let mut replay = Replay { state: Account::default(), due: Vec::new() };
    let mut writes = writes.into_iter().peekable();
    for group in entries.chunk_by(|a, b| a.index == b.index) {
        let index = group[0].index;
        while let Some(write) = writes.next_if(|write| write.floor < Some(index)) {
            replay.due.push(write);
        }
        replay.entry(index, group)?;
    }
    Ok(())
}

/// A replay on its way.
struct Replay<'a, 'e> {
    state: Account<'a>,
    /// Writes that may be carried out by now and have not been, in the order in which they were
    /// sent.
    due: Vec<&'e Entry<'a>>,
}

impl<'a> Replay<'a, '_> {
    /// Carries out all that was answered from the entry at `index`.
    fn entry(&mut self, index: LogIndex, group: &[&Entry<'a>]) -> Result<(), Stuck<'a>> {
        let stuck = |what, why| Stuck { index, what, why };
        let mut fetches: Vec<_> =
            group.iter().filter(|entry| matches!(entry.what, What::Fetch(_))).collect();
        // Those that pop nothing change nothing and come as early as they can, the others by key.
        fetches.sort_by_key(|entry| first_key(entry.what));
        while let Some(first) = fetches.first() {
            let fits = |entry: &&Entry<'a>| self.state.fits(&entry.what.action()).is_ok();
            if let Some(place) = fetches.iter().position(|entry| fits(entry)) {
                let action = fetches.remove(place).what.action();
                self.write_before(&action);
                self.state.apply(&action);
            } else if !self
                .write_for(&fetches.iter().map(|it| it.what.action()).collect::<Vec<_>>())
            {
                let why = self.state.fits(&first.what.action()).err().unwrap_or_default();
                return Err(stuck(first.what, why));
            }
        }
        while let Some(place) = self.due.iter().position(|write| write.index <= index) {
            let place = self.turn_of(place);
            let what = self.due[place].what;
            if let Err(why) = self.state.fits(&what.action()) {
                if !self.write_for(&[what.action()]) {
                    return Err(stuck(what, why));
                }
            } else {
                self.state.apply(&what.action());
                self.due.remove(place);
            }
        }
        for read in group.iter().filter(|entry| entry.what.is_read()) {
            while let Err(why) = self.state.fits(&read.what.action()) {
                if !self.write_for(&[read.what.action()]) {
                    return Err(stuck(read.what, why));
                }
            }
        }
        Ok(())
    }

    /// Carries out the writes that get their answer before `fetch` and, since it takes a key, will
    /// not get it afterwards.
    fn write_before(&mut self, fetch: &Action<'a>) {
        let mut place = 0;
        while let Some(write) = self.due.get(place) {
            let action = write.what.action();
            place += 1;
            if self.turn_of(place - 1) != place - 1 || self.state.fits(&action).is_err() {
                continue;
            }
            let mut after = self.state.clone();
            after.apply(fetch);
            if after.fits(&action).is_ok() {
                continue;
            }
            let mut before = self.state.clone();
            before.apply(&action);
            if before.fits(fetch).is_ok() {
                self.state = before;
                self.due.remove(place - 1);
                // Another one may fit now.
                place = 0;
            }
        }
    }

    /// Carries out a write that gets its answer now: one after which an operation of `stuck` gets
    /// its own, otherwise the one with the lowest index. Says whether there was one.
    fn write_for(&mut self, stuck: &[Action<'a>]) -> bool {
        let mut best: Option<(bool, LogIndex, usize)> = None;
        for (place, write) in self.due.iter().enumerate() {
            let action = write.what.action();
            if self.turn_of(place) != place || self.state.fits(&action).is_err() {
                continue;
            }
            let mut after = self.state.clone();
            after.apply(&action);
            let helps = stuck.iter().any(|action| after.fits(action).is_ok());
            let found = (!helps, write.index, place);
            best = Some(best.map_or(found, |best| best.min(found)));
        }
        let Some((_, _, place)) = best else { return false };
        let action = self.due.remove(place).what.action();
        self.state.apply(&action);
        true
    }

    /// Which write comes first in the place of the one at `place`: among registrations the one
    /// with the lowest number, as their numbers grow.
    fn turn_of(&self, place: usize) -> usize {
        let number = |place: &usize| registration(self.due[*place].what);
        if number(&place).is_none() {
            return place;
        }
        let registrations = (0..self.due.len()).filter(|place| number(place).is_some());
        registrations.min_by_key(number).unwrap_or(place)
    }
}

/// The number of a registration that was answered.
fn registration(what: What<'_>) -> Option<RegistrationId> {
    match what {
        What::Write(write) => write.answer()?.says.registration,
        What::Fetch(_) | What::Read(_) => None,
    }
}

/// The lowest key that a fetch was handed; none when it was handed none.
fn first_key(what: What<'_>) -> Option<u32> {
    let What::Fetch(fetch) = what else { return None };
    let keys = fetch.bundles().iter().filter_map(|bundle| match bundle.opk {
        Issue::Issued(key) => Some(key.0.0),
        Issue::Exhausted | Issue::Withheld | Issue::Unavailable => None,
    });
    keys.min()
}

#[cfg(test)]
mod tests;
