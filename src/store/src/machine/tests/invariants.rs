//! What holds whatever happens, one function for each. None of them knows the model.

use std::collections::{BTreeMap, BTreeSet};

use oncekey_types::{DeviceId, OneTimePreKeyId, RegistrationId, TimestampMs, UserId};

use crate::{
    command::{Command, Dispense, OneTimePreKey},
    machine::Bounds,
    outcome::{Issue, Outcome},
    query,
    record::{
        Key, Kind,
        account::{Account, AccountKey},
        bucket::{BucketKey, BucketQueueKey},
        meta::{Meta, MetaKey},
        pool::{Cursor, CursorKey, LotKey},
        retry::{RetryKey, RetryQueueKey},
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
                    self.discard(&owner);
                    self.accept(owner, &command.one_time_prekeys);
                }
            }
            (Command::AddOneTimePreKeys(command), Outcome::OneTimePreKeysAdded(_)) => {
                self.accept((command.user.clone(), command.device), &command.one_time_prekeys);
            }
            (Command::RemoveDevice(command), Outcome::DeviceRemoved) => {
                self.discard(&(command.user.clone(), command.device));
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
    every_bucket_is_in_the_queue_once_and_the_queue_is_bounded(state, bounds);
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
        for &device in &account.devices {
            let cursor = cursor(state, &(user.clone(), device)).expect("a cursor");
            owned.insert(crate::record::device::DeviceKey(user.clone(), device).to_bytes());
            owned.insert(CursorKey(user.clone(), device).to_bytes());
            for number in cursor.head..cursor.tail {
                owned.insert(LotKey { user: user.clone(), device, number }.to_bytes());
            }
        }
        if account.list.is_some() {
            owned.insert(crate::record::account::DeviceListKey(user).to_bytes());
        }
    }
    let kinds = [Kind::DeviceList, Kind::Device, Kind::Cursor, Kind::Lot];
    let found: BTreeSet<Vec<u8>> =
        kinds.into_iter().flat_map(|kind| of_kind(state, kind)).collect();
    assert_eq!(found, owned, "records without an owner, or an owner without records");
}

fn every_retry_is_in_the_queue_and_the_queue_is_bounded(state: &MemoryState, bounds: &Bounds) {
    let queue = meta(state).retries;
    assert!(queue.len() <= bounds.retries, "{queue:?}");
    let mut queued = BTreeSet::new();
    for number in queue.head..queue.tail {
        let entry = read(state, &RetryQueueKey(number)).expect("no gaps in the queue");
        let key = RetryKey(entry.caller, entry.request);
        if read(state, &key).is_some_and(|retry| retry.number == number) {
            queued.insert(key.to_bytes());
        }
    }
    let found: BTreeSet<_> = of_kind(state, Kind::Retry).into_iter().collect();
    assert_eq!(found, queued, "a retry would never be forgotten");
    assert_eq!(of_kind(state, Kind::RetryQueue).len() as u64, queue.len());
}

fn every_bucket_is_in_the_queue_once_and_the_queue_is_bounded(
    state: &MemoryState,
    bounds: &Bounds,
) {
    let queue = meta(state).buckets;
    assert!(queue.len() <= bounds.buckets, "{queue:?}");
    let entries = (queue.head..queue.tail).map(|number| read(state, &BucketQueueKey(number)));
    let queued: Vec<BucketKey> = entries.map(|entry| entry.expect("no gaps").bucket).collect();
    let mut queued: Vec<Vec<u8>> = queued.iter().map(Key::to_bytes).collect();
    queued.sort();
    assert_eq!(of_kind(state, Kind::Bucket), queued, "buckets and their queue differ");
    assert_eq!(of_kind(state, Kind::BucketQueue).len() as u64, queue.len());
}

fn pool(state: &MemoryState, owner: &Owner) -> Option<Vec<OneTimePreKey>> {
    let cursor = cursor(state, owner)?;
    Some(query::pool(state, &owner.0, owner.1, &cursor).expect("a sound pool"))
}

fn cursor(state: &MemoryState, owner: &Owner) -> Option<Cursor> {
    read(state, &CursorKey(owner.0.clone(), owner.1))
}

fn meta(state: &MemoryState) -> Meta {
    read(state, &MetaKey).expect("a meta record")
}

fn accounts(state: &MemoryState) -> Vec<(UserId, Account)> {
    let keys = of_kind(state, Kind::Account);
    let users = keys
        .iter()
        .map(|key| UserId::new(String::from_utf8(key[2..].to_vec()).unwrap()).expect("a user"));
    users.map(|user| (user.clone(), read(state, &AccountKey(user)).unwrap())).collect()
}

fn of_kind(state: &MemoryState, kind: Kind) -> Vec<Vec<u8>> {
    let keys = state.records().filter(|(key, _)| Kind::of(key) == Some(kind));
    keys.map(|(key, _)| key.to_vec()).collect()
}

pub(super) fn read<K: Key>(state: &MemoryState, key: &K) -> Option<K::Value> {
    let value = state.get(&key.to_bytes()).expect("memory does not fail");
    value.map(|value| K::decode(&value).expect("a sound record"))
}
