//! What opens a store, and what of it cannot be exchanged.

use oncekey_types::DeviceId;

use super::*;

fn passphrase(text: &str) -> Unlock {
    Unlock::passphrase(text).unwrap()
}

#[test]
fn a_store_opens_with_its_own_passphrase_or_key_and_with_no_other() {
    for (own, other) in [
        (passphrase("correct horse"), passphrase("battery staple")),
        (passphrase("correct horse"), key()),
        (key(), Unlock::Key(StoreKey::generate())),
        (key(), passphrase("correct horse")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        SqliteKeyStore::open(folder.path(), &own).unwrap().create(&device()).unwrap();
        let error = SqliteKeyStore::open(folder.path(), &other).unwrap_err();
        assert!(matches!(error, Error::Locked), "{other:?}: {error}");
        SqliteKeyStore::open(folder.path(), &own).unwrap().device().unwrap();
    }
}

#[test]
fn after_a_change_of_the_lock_the_old_one_no_longer_opens() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    let device = device();
    store.create(&device).unwrap();
    store.change_lock(&passphrase("correct horse")).unwrap();
    assert!(matches!(SqliteKeyStore::open(folder.path(), &key()), Err(Error::Locked)));
    let again = SqliteKeyStore::open(folder.path(), &passphrase("correct horse")).unwrap();
    assert_eq!(again.device().unwrap().identity().public(), device.identity().public());
    assert_eq!(store.device().unwrap().identity().public(), device.identity().public());
}

#[test]
fn secrets_that_are_exchanged_in_the_file_are_damage() {
    let (store, device) = store();
    store.stage(&replenish(&store, &device, 2)).unwrap();
    let peer = |number| Address::new(device.user(), DeviceId(number));
    for number in [1, 2] {
        let identity = super::device();
        store
            .write(|db| {
                pin::put_identity(db, &peer(number), identity.identity().public(), TimestampMs(1))?;
                Ok(Step::Commit(()))
            })
            .unwrap();
    }
    let swap = |table: &str, column: &str, key: &str| {
        let swap = format!(
            "UPDATE {table} SET {column} = (
                 SELECT other.{column} FROM {table} AS other
                 WHERE other.{key} = 3 - {table}.{key})"
        );
        assert_eq!(store.connection.lock().execute(&swap, []).unwrap(), 2, "{table}");
    };
    swap("one_time_prekey", "sealed", "id");
    assert!(matches!(store.one_time_prekey(OneTimePreKeyId(1)), Err(Error::Damaged { .. })));
    swap("identity_pin", "sealed", "device");
    assert!(matches!(store.pinned_identity(&peer(1)), Err(Error::Damaged { .. })));
    store
        .connection
        .lock()
        .execute("UPDATE device SET identity_sealed = authentication_sealed", [])
        .unwrap();
    assert!(matches!(store.device(), Err(Error::Damaged { .. })));
}

#[test]
fn a_new_store_that_many_open_at_once_has_one_data_key() {
    let folder = tempfile::tempdir().unwrap();
    let stores: Vec<_> = std::thread::scope(|scope| {
        let open = || SqliteKeyStore::open(folder.path(), &key()).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let device = device();
    stores[0].create(&device).unwrap();
    for store in &stores {
        assert_eq!(store.device().unwrap().identity().public(), device.identity().public());
    }
}

#[test]
fn writes_of_many_at_once_leave_one_pending_write() {
    let folder = tempfile::tempdir().unwrap();
    let device = device();
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    store.create(&device).unwrap();
    let accepted = std::thread::scope(|scope| {
        let write = || {
            let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
            let staged = replenish(&store, &device, 3);
            store.stage(&staged).map(|()| staged.write)
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.filter_map(Result::ok).collect::<Vec<_>>()
    });
    assert_eq!(accepted.len(), 1);
    assert_eq!(store.state().unwrap().pending.as_ref(), accepted.first());
}
