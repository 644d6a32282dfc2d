mod interrupted;
mod laid_open;
mod lock;
mod migration;

use oncekey_types::Seq;
use oncekey_x3dh::keys::OneTimePreKeyPair;

use super::*;
use crate::{
    keystore::{StoreKey, WriteKind},
    machine::{Lifetimes, Signing},
};

fn rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
    rand_core::UnwrapErr(getrandom::SysRng)
}

fn key() -> Unlock {
    Unlock::Key(StoreKey::from_bytes(&[7; 32]))
}

fn device() -> Device {
    Device::generate(UserId::new("bob").unwrap(), oncekey_types::DeviceId(1), None, &mut rng())
}

fn store() -> (SqliteKeyStore, Device) {
    let (store, device) = (SqliteKeyStore::in_memory().unwrap(), device());
    store.create(&device).unwrap();
    (store, device)
}

fn replenish(store: &SqliteKeyStore, device: &Device, count: usize) -> Staged {
    device.replenish(&store.state().unwrap(), count, &mut rng()).unwrap()
}

#[test]
fn a_device_comes_back_as_it_went() {
    let folder = tempfile::tempdir().unwrap();
    let device = device();
    SqliteKeyStore::open(folder.path(), &key()).unwrap().create(&device).unwrap();
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    let again = store.device().unwrap();
    assert_eq!(again.address(), device.address());
    assert_eq!(again.identity().public(), device.identity().public());
    assert_eq!(again.authentication().public(), device.authentication().public());
    assert!(again.account().is_none());
    assert!(matches!(store.create(&device), Err(Error::DeviceExists)));
}

#[test]
fn an_empty_store_has_no_device() {
    let store = SqliteKeyStore::in_memory().unwrap();
    assert!(matches!(store.device(), Err(Error::NoDevice)));
    assert!(matches!(store.state(), Err(Error::NoDevice)));
}

#[cfg(unix)]
#[test]
fn folder_and_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/b");
    let store = SqliteKeyStore::open(&folder, &key()).unwrap();
    store.create(&device()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert!(files >= 2, "the file and its write-ahead log");
}

#[test]
fn a_store_of_another_version_or_program_is_refused() {
    for (pragma, value) in [("user_version", migrate::VERSION + 1), ("application_id", 7)] {
        let folder = tempfile::tempdir().unwrap();
        SqliteKeyStore::open(folder.path(), &key()).unwrap();
        Connection::open(folder.path().join(FILE_NAME))
            .unwrap()
            .execute_batch(&format!("PRAGMA {pragma} = {value}"))
            .unwrap();
        let error = SqliteKeyStore::open(folder.path(), &key()).unwrap_err();
        assert!(matches!(error, Error::Version { .. }), "{pragma}: {error}");
    }
}

#[test]
fn the_settings_that_durability_rests_on_are_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    let connection = store.connection.lock();
    let pragma = |name: &str| -> String {
        connection
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| format!("{value:?}"))
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
    assert_eq!(pragma("synchronous"), "Integer(2)");
    assert_eq!(pragma("secure_delete"), "Integer(1)");
    assert_eq!(pragma("foreign_keys"), "Integer(1)");
}

#[test]
fn a_write_made_from_an_old_state_is_refused_whole() {
    let (store, device) = store();
    let (first, second) = (replenish(&store, &device, 2), replenish(&store, &device, 3));
    store.stage(&first).unwrap();
    assert!(matches!(store.stage(&second), Err(Error::Stale)));
    let state = store.state().unwrap();
    assert_eq!(state.pending, Some(first.write));
    assert_eq!(state.highest_one_time_prekey, OneTimePreKeyId(2));
}

#[test]
fn nothing_is_staged_while_a_write_is_pending() {
    let (store, device) = store();
    store.stage(&replenish(&store, &device, 2)).unwrap();
    let next = replenish(&store, &device, 2);
    assert!(matches!(store.stage(&next), Err(Error::Stale)));
}

#[test]
fn settling_another_write_changes_nothing() {
    let (store, device) = store();
    let staged = replenish(&store, &device, 2);
    store.stage(&staged).unwrap();
    let other = PendingWrite {
        seq: Seq(9),
        kind: WriteKind::Rotate,
        signed_prekey: Some(SignedPreKeyId(9)),
        body: Vec::new(),
    };
    let before = store.state().unwrap();
    store.settle(&other, &Settled::Accepted, TimestampMs(1)).unwrap();
    assert_eq!(store.state().unwrap(), before);
}

#[test]
fn counters_never_fall() {
    let (store, _) = store();
    let used = |n: u32| Resync {
        epoch: Some(Epoch(n.into())),
        seq: Some(Seq(n.into())),
        signed_prekey: Some(SignedPreKeyId(n)),
        one_time_prekey: Some(OneTimePreKeyId(n)),
    };
    store.resync(&used(7)).unwrap();
    store.resync(&used(3)).unwrap();
    store.resync(&Resync::default()).unwrap();
    let state = store.state().unwrap();
    assert_eq!((state.epoch, state.seq), (Epoch(7), Seq(7)));
    assert_eq!(state.highest_signed_prekey, SignedPreKeyId(7));
    assert_eq!(state.highest_one_time_prekey, OneTimePreKeyId(7));
}

#[test]
fn a_replaced_signed_prekey_is_deleted_when_its_time_is_over_and_not_before() {
    let (store, device) = store();
    for now in [TimestampMs(1_000), TimestampMs(5_000)] {
        let at = Signing { now, lifetimes: &Lifetimes::default(), rng: &mut rng() };
        let staged = device.rotate(&store.state().unwrap(), at).unwrap();
        store.stage(&staged).unwrap();
        store.settle(&staged.write, &Settled::Accepted, now).unwrap();
    }
    let spk = |id| store.signed_prekey(SignedPreKeyId(id)).unwrap();
    let replaced = TimestampMs(5_000);
    for _ in 0..2 {
        let SignedPreKeyRecord::Held(first) = spk(1) else { panic!("{:?}", spk(1)) };
        assert_eq!(first.replaced, Some(replaced));
        store.purge(TimestampMs(4_999)).unwrap();
    }
    store.purge(replaced).unwrap();
    let first = spk(1);
    assert!(
        matches!(first, SignedPreKeyRecord::Deleted { replaced: r } if r == replaced),
        "{first:?}"
    );
    store.purge(TimestampMs(u64::MAX)).unwrap();
    let current = spk(2);
    assert!(matches!(current, SignedPreKeyRecord::Held(_)), "has no end: {current:?}");
}

#[test]
fn over_the_limits_the_oldest_go_first() {
    let (store, device) = store();
    store.stage(&replenish(&store, &device, 20)).unwrap();
    store
        .connection
        .lock()
        .execute("UPDATE one_time_prekey SET sealed = NULL WHERE id <= 10", [])
        .unwrap();
    let room = write::Room { held: 4, tombstones: 3, spk_tombstones: 9 };
    store.write(|db| write::purge(db, TimestampMs(0), &room)).unwrap();
    let kept: Vec<_> = (1..=20)
        .map(OneTimePreKeyId)
        .filter(|id| !matches!(store.one_time_prekey(*id).unwrap(), OneTimePreKeyRecord::Absent(_)))
        .map(|id| id.0)
        .collect();
    assert_eq!(kept, [8, 9, 10, 17, 18, 19, 20]);
}

#[test]
fn missing_secrets_are_counted_over_ranges() {
    let (store, device) = store();
    store.stage(&replenish(&store, &device, 5)).unwrap();
    let range = |first, last| (OneTimePreKeyId(first), OneTimePreKeyId(last));
    let missing = |ranges: &[_]| store.missing_secrets(ranges).unwrap();
    assert_eq!(missing(&[]), 0);
    assert_eq!(missing(&[range(1, 5)]), 0);
    assert_eq!(missing(&[range(2, 3), range(5, 8)]), 3);
    assert_eq!(missing(&[range(0, u32::MAX)]), (1 << 32) - 5);
    assert_eq!(missing(&[range(9, 2)]), 0, "not a range");
}

#[test]
fn a_one_time_prekey_comes_back_as_it_went() {
    let (store, device) = store();
    let staged = replenish(&store, &device, 1);
    store.stage(&staged).unwrap();
    let OneTimePreKeyRecord::Held(pair) = store.one_time_prekey(OneTimePreKeyId(1)).unwrap() else {
        panic!("not held");
    };
    let made: &OneTimePreKeyPair = &staged.one_time_prekeys[0];
    assert_eq!(*pair.to_secret(), *made.to_secret());
    assert_eq!(pair.public(), made.public());
}
