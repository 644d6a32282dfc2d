//! What holds whatever happens, one function for each. None of them knows the model.

use std::collections::{BTreeMap, BTreeSet};

use oncekey_types::{DeviceId, OneTimePreKeyId, RegistrationId, TimestampMs, UserId};

use crate::{
    command::{Command, Dispense, OneTimePreKey},
    machine::Bounds,
    outcome::{Issue, Outcome},
    query,
    record::{
        Key, Kind, Value,
        account::{Account, AccountKey, DeviceListKey, Enrolled},
        device::DeviceKey,
        meta::{Meta, MetaKey},
        pool::{Cursor, LotKey},
        queue::{QUEUE_LOT_START, QueueKey, QueueLot, QueuedKey},
        retry::Retry,
    },
    state::{MemoryState, StateRead},
};

type Owner = (UserId, DeviceId);

/// What the outcomes told so far.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) uploaded: BTreeMap<Owner, Vec<OneTimePreKey>>,
    pub(super) issued: BTreeMap<Owner, Vec<OneTimePreKey>>,
    registrations: BTreeMap<Owner, RegistrationId>,
    /// Those of the last backup.
    backed_up: BTreeMap<Owner, RegistrationId>,
    /// Keys that went with a registration that was replaced or removed.
    discarded: BTreeMap<Owner, usize>,
    highest: BTreeMap<Owner, OneTimePreKeyId>,
    time: TimestampMs,
}

impl History {
    /// Takes in one command with its outcome.
    pub(super) fn record(&mut self, command: &Command, outcome: &Outcome) {
        match (command, outcome) {
            (Command::Register(command), Outcome::Registered(registered)) => {
                let owner = (command.user.clone(), command.device);
                let number = registered.registration;
                let before = self.registrations.insert(owner.clone(), number);
                if before != Some(number) {
                    assert_eq!(
                        command.follows,
                        before.into(),
                        "{number} follows another than the last"
                    );
                    self.discard(&owner);
                    self.accept(owner, &command.one_time_prekeys);
                }
            }
            (Command::AddOneTimePreKeys(command), Outcome::OneTimePreKeysAdded(_)) => {
                self.accept((command.user.clone(), command.device), &command.one_time_prekeys);
            }
            (Command::RemoveDevice(command), Outcome::DeviceRemoved) => {
                let owner = (command.user.clone(), command.device);
                self.registrations.remove(&owner);
                self.discard(&owner);
            }
            (Command::Dispense(command), Outcome::Dispensed(dispensed)) if !dispensed.repeated => {
                for bundle in &dispensed.bundles {
                    if let Issue::Issued(key) = &bundle.one_time_prekey {
                        self.issue(command, bundle.device, key);
                    }
                }
            }
            _ => {}
        }
    }

    /// A backup is made.
    pub(super) fn back_up(&mut self) {
        self.backed_up = self.registrations.clone();
    }

    /// Every device has lost its pool, and numbers and time start again where the backup has them.
    pub(super) fn restored(&mut self) {
        self.registrations = self.backed_up.clone();
        let owners: Vec<_> = self.uploaded.keys().cloned().collect();
        for owner in owners {
            self.discard(&owner);
        }
        self.highest.clear();
        self.time = TimestampMs(0);
    }

    /// Keys that were accepted; a re-send brings none.
    fn accept(&mut self, owner: Owner, keys: &[OneTimePreKey]) {
        let uploaded = self.uploaded.entry(owner).or_default();
        let new: Vec<_> = keys.iter().filter(|key| !uploaded.contains(key)).cloned().collect();
        uploaded.extend(new);
    }

    fn discard(&mut self, owner: &Owner) {
        let uploaded = self.uploaded.get(owner).map_or(0, Vec::len);
        let issued = self.issued.get(owner).map_or(0, Vec::len);
        self.discarded.insert(owner.clone(), uploaded - issued);
    }

    fn issue(&mut self, command: &Dispense, device: DeviceId, key: &OneTimePreKey) {
        let owner = (command.user.clone(), device);
        self.issued.entry(owner).or_default().push(key.clone());
    }
}

/// Checks them all.
pub(super) fn check(history: &mut History, state: &MemoryState, bounds: &Bounds) {
    no_key_is_issued_twice(history);
    keys_are_issued_in_the_order_of_their_ids(history);
    issued_keys_were_uploaded_byte_for_byte(history);
    what_was_uploaded_is_issued_discarded_or_in_the_pool(history, state);
    the_watermark_never_falls(history, state);
    time_never_falls(history, state);
    every_record_belongs_to_another_one(state);
    every_retry_is_in_the_queue_and_the_queue_is_bounded(state, bounds);
    every_caller_of_a_user_has_one_bucket_and_they_are_bounded(state, bounds);
    every_lot_of_the_queue_is_between_its_ends(state);
}

fn no_key_is_issued_twice(history: &History) {
    for (owner, issued) in &history.issued {
        let distinct: BTreeSet<_> = issued.iter().map(|key| &key.key).collect();
        assert_eq!(distinct.len(), issued.len(), "a key of {owner:?} was issued twice");
    }
}

fn keys_are_issued_in_the_order_of_their_ids(history: &History) {
    for (owner, issued) in &history.issued {
        assert!(issued.is_sorted_by(|a, b| a.id < b.id), "out of order: {owner:?} {issued:?}");
    }
}

fn issued_keys_were_uploaded_byte_for_byte(history: &History) {
    for (owner, issued) in &history.issued {
        let uploaded = &history.uploaded[owner];
        assert!(issued.iter().all(|key| uploaded.contains(key)), "{owner:?}: from nowhere");
    }
}

fn what_was_uploaded_is_issued_discarded_or_in_the_pool(history: &History, state: &MemoryState) {
    for (owner, uploaded) in &history.uploaded {
        let pooled = pool(state, owner).map_or(0, |keys| keys.len());
        let issued = history.issued.get(owner).map_or(0, Vec::len);
        let discarded = history.discarded.get(owner).copied().unwrap_or(0);
        assert_eq!(
            uploaded.len(),
            issued + pooled + discarded,
            "{owner:?}: uploaded is not issued {issued}, in the pool {pooled}, discarded {discarded}",
        );
    }
}

fn the_watermark_never_falls(history: &mut History, state: &MemoryState) {
    for owner in history.uploaded.keys() {
        let Some(cursor) = cursor(state, owner) else { continue };
        let before = history.highest.get(owner).copied();
        assert!(cursor.highest_accepted >= before, "{owner:?}: {before:?} fell to {cursor:?}");
        if let Some(highest) = cursor.highest_accepted {
            history.highest.insert(owner.clone(), highest);
        }
    }
}

fn time_never_falls(history: &mut History, state: &MemoryState) {
    let time = meta(state).time;
    assert!(time >= history.time, "log time fell from {} to {time}", history.time);
    history.time = time;
}

fn every_record_belongs_to_another_one(state: &MemoryState) {
    let mut owned: BTreeSet<Vec<u8>> = BTreeSet::new();
    for (user, account) in accounts(state) {
        for &Enrolled { device, cursor } in &account.devices {
            owned.insert(DeviceKey(&user, device).to_bytes());
            for number in cursor.head..cursor.tail {
                owned.insert(LotKey { user: &user, device, number }.to_bytes());
            }
        }
        if account.list.is_some() {
            owned.insert(DeviceListKey(&user).to_bytes());
        }
    }
    let kinds = [Kind::DeviceList, Kind::Device, Kind::Lot];
    let found: BTreeSet<Vec<u8>> =
        kinds.into_iter().flat_map(|kind| of_kind(state, kind)).collect();
    assert_eq!(found, owned, "records without an owner, or an owner without records");
}

fn every_retry_is_in_the_queue_and_the_queue_is_bounded(state: &MemoryState, bounds: &Bounds) {
    let entries = queued(state);
    assert!(entries.len() as u64 <= bounds.retries, "{} retries", entries.len());
    let of_this_lot = entries.into_iter().filter(|(lot, key)| {
        state.get(key).unwrap().is_some_and(|retry| Retry::lot(&retry).unwrap() == *lot)
    });
    let queued: BTreeSet<_> = of_this_lot.map(|(_, key)| key).collect();
    let found: BTreeSet<_> = of_kind(state, Kind::Retry).into_iter().collect();
    assert_eq!(found, queued, "a retry would never be forgotten");
}

fn every_caller_of_a_user_has_one_bucket_and_they_are_bounded(
    state: &MemoryState,
    bounds: &Bounds,
) {
    for (user, account) in accounts(state) {
        let callers: BTreeSet<_> = account.callers.iter().map(|bucket| bucket.caller.0).collect();
        assert_eq!(
            callers.len(),
            account.callers.iter().count(),
            "{user:?}: {:?}",
            account.callers
        );
        assert!(callers.len() <= bounds.callers, "{user:?}: {} buckets", callers.len());
    }
}

fn every_lot_of_the_queue_is_between_its_ends(state: &MemoryState) {
    let queue = meta(state).retries;
    let lots: Vec<_> = (queue.head..queue.tail).map(|number| QueueKey(number).to_bytes()).collect();
    assert_eq!(of_kind(state, Kind::Queue), lots);
}

/// The keys in the queue, each with the number of its lot. Checks the queue's ends.
fn queued(state: &MemoryState) -> Vec<(u64, Vec<u8>)> {
    let queue = meta(state).retries;
    let mut found = Vec::new();
    for number in queue.head..queue.tail {
        let lot = state.get(&QueueKey(number).to_bytes()).unwrap().expect("no gaps");
        let mut next = Some(QUEUE_LOT_START);
        if number == queue.head {
            assert_eq!(QueueLot::due(&lot).unwrap(), queue.due, "{queue:?}");
            next = Some(queue.offset);
        }
        while let Some(offset) = next {
            let (parts, behind) = QueueLot::entry_at(&lot, offset).expect("a sound lot");
            found.push((number, QueuedKey::new(parts).to_bytes()));
            next = behind;
        }
    }
    assert_eq!(found.len() as u64, queue.len, "{queue:?}");
    found
}

fn pool(state: &MemoryState, owner: &Owner) -> Option<Vec<OneTimePreKey>> {
    let cursor = cursor(state, owner)?;
    Some(query::pool(state, &owner.0, owner.1, &cursor).expect("a sound pool"))
}

fn cursor(state: &MemoryState, owner: &Owner) -> Option<Cursor> {
    read(state, &AccountKey(&owner.0))?.cursor(owner.1)
}

fn meta(state: &MemoryState) -> Meta {
    read(state, &MetaKey).expect("a meta record")
}

fn accounts(state: &MemoryState) -> Vec<(UserId, Account)> {
    let keys = of_kind(state, Kind::Account);
    let users = keys
        .iter()
        .map(|key| UserId::new(String::from_utf8(key[2..].to_vec()).unwrap()).expect("a user"));
    users.map(|user| (user.clone(), read(state, &AccountKey(&user)).unwrap())).collect()
}

fn of_kind(state: &MemoryState, kind: Kind) -> Vec<Vec<u8>> {
    let keys = state.records().filter(|(key, _)| Kind::of(key) == Some(kind));
    keys.map(|(key, _)| key.to_vec()).collect()
}

pub(super) fn read<K: Key>(state: &MemoryState, key: &K) -> Option<K::Value> {
    let value = state.get(&key.to_bytes()).expect("memory does not fail");
    value.map(|value| K::Value::from_bytes(&value).expect("a sound record"))
}
