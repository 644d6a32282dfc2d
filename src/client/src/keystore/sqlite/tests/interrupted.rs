//! Every transaction, interrupted inside any of its statements.
//!
//! SQLite asks a handler before every few of its own instructions whether to go on; saying no
//! fails the statement that is running. So each transaction is stopped once at each of some hundred
//! places, and afterwards every row of every table must be what it was.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use oncekey_types::DeviceId;
use oncekey_x3dh::{
    AppAd, Bundle, Expectations, Received,
    keys::{AccountKeyPair, SignedPreKeyPair},
};
use rusqlite::types::Value;

use super::*;
use crate::{
    keystore::Settled,
    machine::ListChange,
    trust::{Change, IdentityChanged, NewDevices},
};

const NOW: TimestampMs = TimestampMs(1_790_000_000_000);
/// Instructions between two places; odd, so that loops are left at different ones.
const STRIDE: i32 = 7;

/// Every row of every table.
pub(super) fn rows(store: &SqliteKeyStore) -> Vec<Vec<Value>> {
    let connection = store.connection.lock();
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .unwrap();
    let tables: Vec<String> =
        tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut rows = Vec::new();
    for table in tables {
        let mut all = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let columns = all.column_count();
        let found = all.query_map([], |row| (0..columns).map(|n| row.get(n)).collect()).unwrap();
        rows.push(vec![Value::Text(table)]);
        rows.extend(found.map(Result::unwrap));
    }
    rows
}

/// Makes SQLite stop after `places` more places, or never.
fn stop_after(store: &SqliteKeyStore, places: Option<usize>) {
    let handler = places.map(|places| {
        let left = Arc::new(AtomicUsize::new(places));
        move || {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
        }
    });
    store.connection.lock().progress_handler(STRIDE, handler).unwrap();
}

/// Runs `write` until it succeeds, stopping it one place later each time.
fn interrupt(name: &str, store: &SqliteKeyStore, write: impl Fn() -> Result<(), Error>) {
    let before = rows(store);
    let mut stopped = 0;
    loop {
        stop_after(store, Some(stopped));
        let result = write();
        stop_after(store, None);
        if result.is_ok() {
            break;
        }
        assert_eq!(rows(store), before, "{name}, stopped at place {stopped}");
        stopped += 1;
    }
    assert!(stopped > 2, "{name} was stopped {stopped} times only");
    assert_ne!(rows(store), before, "{name} does something");
}

fn bob(rng: &mut (impl rand_core::CryptoRng + ?Sized)) -> Device {
    let account = AccountKeyPair::generate(rng);
    Device::generate(UserId::new("bob").unwrap(), DeviceId(1), Some(account), rng)
}

#[test]
fn a_write_is_staged_settled_and_purged_whole_or_not_at_all() {
    let rng = &mut rng();
    let store = SqliteKeyStore::in_memory().unwrap();
    let device = bob(rng);
    interrupt("create", &store, || store.create(&device));
    for now in [NOW, TimestampMs(NOW.0 + 1)] {
        let lifetimes = &Lifetimes::default();
        let at = Signing { now, lifetimes, rng: &mut *rng };
        let staged = device.register(&store.state().unwrap(), None, 5, None, at).unwrap();
        interrupt("stage", &store, || store.stage(&staged));
        let registered = Settled::Registered(oncekey_types::RegistrationId(1));
        interrupt("settle", &store, || store.settle(&staged.write, &registered, now));
    }
    interrupt("purge", &store, || store.purge(TimestampMs(NOW.0 + 1)));
    interrupt("discard", &store, || store.discard_prekeys());
}

#[test]
fn a_handshake_is_accepted_whole_or_not_at_all() {
    let rng = &mut rng();
    let store = SqliteKeyStore::in_memory().unwrap();
    let (bob, alice) = (bob(rng), device());
    store.create(&bob).unwrap();
    let lifetimes = &Lifetimes::default();
    let at = Signing { now: NOW, lifetimes, rng: &mut *rng };
    let staged = bob.register(&store.state().unwrap(), None, 1, None, at).unwrap();
    store.stage(&staged).unwrap();
    let spk: &SignedPreKeyPair = &staged.signed_prekey.as_ref().unwrap().pair;
    let opk = &staged.one_time_prekeys[0];
    let (created, expires) = (NOW.to_seconds(), TimestampMs(NOW.0 * 2).to_seconds());
    let bundle = Bundle {
        owner: bob.address().clone(),
        identity: *bob.identity().public(),
        signed_prekey: spk.sign(bob.identity(), bob.address(), created, expires, rng),
        one_time_prekey: Some(opk.sign(bob.identity(), bob.address(), rng)),
    };
    let bundle = bundle.verify(created, &Expectations::default()).unwrap();
    let initiated = bundle.initiate(alice.local(), AppAd::default(), rng).unwrap();
    let sealed = initiated.seal(b"hello").unwrap();
    interrupt("accept", &store, || {
        let accepted = Received::parse(&sealed.message, bob.address())
            .unwrap()
            .open(bob.local(), spk, Some(opk), AppAd::default())
            .unwrap()
            .accept(&Expectations::default())
            .unwrap();
        let delivered = accepted.commit(|commit| store.accept(commit, NOW).map(drop));
        delivered.map(drop)
    });
    let used = store.one_time_prekey(opk.id()).unwrap();
    assert!(matches!(used, OneTimePreKeyRecord::Used(_)), "{used:?}");
    assert_eq!(store.remembered(), [(1, 1)]);
    let session = SessionId::of(&sealed.session);
    interrupt("take", &store, || store.take_keys(session).map(drop));
}

#[test]
fn trust_changes_whole_or_not_at_all() {
    let rng = &mut rng();
    let store = SqliteKeyStore::in_memory().unwrap();
    let (bob, again) = (bob(rng), device());
    let user = bob.user();
    let add = |device: &Device| ListChange::Add(Box::new(device.listed(NOW)));
    let first = bob.next_device_list(None, &add(&bob)).unwrap().unwrap();
    let second = bob.next_device_list(Some(&first), &add(&again)).unwrap().unwrap();
    store.pin_device_list(user, &first, None, Epoch::FIRST, NOW).unwrap();
    let pinned = *bob.identity().public();
    store
        .write(|db| {
            pin::put_identity(db, bob.address(), &pinned, NOW)?;
            Ok(Step::Commit(()))
        })
        .unwrap();
    let changed = DevicesChanged::between(user, &first, &second, NewDevices::Trusted).unwrap();
    interrupt("pin", &store, || {
        store.pin_device_list(user, &second, Some(&changed), Epoch::FIRST, NOW)
    });
    let renewed = *again.identity().public();
    assert_eq!(store.pinned_identity(bob.address()).unwrap(), Some(renewed));

    let peer = bob.address().clone();
    let change = Change::Identity(IdentityChanged { peer, pinned: renewed, offered: pinned });
    interrupt("notice", &store, || store.notice(&change, NOW).map(drop));
    let (event, _) = store.trust_events(None).unwrap().pop().unwrap();
    interrupt("answer", &store, || store.answer(&event, Answer::Accept, NOW));
    assert_eq!(store.pinned_identity(bob.address()).unwrap(), Some(pinned));
}

#[test]
fn a_backup_comes_back_whole_or_not_at_all() {
    let rng = &mut rng();
    let (from, to) = (SqliteKeyStore::in_memory().unwrap(), SqliteKeyStore::in_memory().unwrap());
    let bob = bob(rng);
    from.create(&bob).unwrap();
    let add = ListChange::Add(Box::new(bob.listed(NOW)));
    let list = bob.next_device_list(None, &add).unwrap().unwrap();
    from.pin_device_list(bob.user(), &list, None, Epoch::FIRST, NOW).unwrap();
    let export = from.export().unwrap();
    interrupt("import", &to, || to.import(&export, NOW));
    assert_eq!(to.pinned_device_list(bob.user()).unwrap(), Some(list));
}
