//! A store of version 1, with something in each table.

use oncekey_types::{DeviceId, Epoch, SignedPreKeyId, UnixSeconds};
use oncekey_x3dh::keys::{AccountKeyPair, SignedPreKeyPair};
use rusqlite::params;

use super::*;
use crate::machine::ListChange;

/// As version 1 kept a secret.
fn clear(secret: &[u8]) -> Vec<u8> {
    [&[0], secret].concat()
}

struct Old {
    device: Device,
    spk: SignedPreKeyPair,
    opk: OneTimePreKeyPair,
    peer: Address,
    list: PinnedDeviceList,
}

const SESSION: [u8; 32] = [3; 32];
const KEYS: [u8; 64] = [4; 64];
const DEDUP: [u8; 32] = [5; 32];

/// Fills a file as version 1 left it.
fn version_1(folder: &Path) -> Old {
    let rng = &mut rng();
    let bob = UserId::new("bob").unwrap();
    let account = AccountKeyPair::generate(rng);
    let device = Device::generate(bob, DeviceId(1), Some(account), rng);
    let add = ListChange::Add(Box::new(device.listed(TimestampMs(1))));
    let old = Old {
        spk: SignedPreKeyPair::generate(SignedPreKeyId(7), rng),
        opk: OneTimePreKeyPair::generate(OneTimePreKeyId(9), rng),
        peer: Address::new(&UserId::new("alice").unwrap(), DeviceId(2)),
        list: device.next_device_list(None, &add).unwrap().unwrap(),
        device,
    };
    let connection = Connection::open(folder.join(FILE_NAME)).unwrap();
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    connection.execute_batch(include_str!("schema_v1.sql")).unwrap();
    connection
        .execute_batch("PRAGMA application_id = 1332634443; PRAGMA user_version = 1;")
        .unwrap();
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
        assert_eq!(connection.execute(sql, params).unwrap(), 1, "{sql}");
    };
    let of = &old.device;
    run(
        "INSERT INTO device VALUES (1, 'bob', 1, ?1, ?2, ?3, 11, 12, 7, 8, 10)",
        params![
            clear(&*of.identity().to_seed().unwrap()),
            clear(&*of.authentication().to_seed()),
            clear(&*of.account().unwrap().to_seed())
        ],
    );
    run("INSERT INTO pending_write VALUES (1, 12, 3, NULL, ?1)", params![b"body"]);
    run(
        "INSERT INTO signed_prekey VALUES (7, ?1, 100, 200, NULL)",
        params![clear(&*old.spk.to_secret())],
    );
    run(
        "INSERT INTO one_time_prekey VALUES (9, ?1, ?2, NULL)",
        params![clear(&*old.opk.to_secret()), old.opk.public().as_bytes()],
    );
    run(
        "INSERT INTO one_time_prekey VALUES (8, NULL, ?1, 300)",
        params![old.opk.public().as_bytes()],
    );
    run("INSERT INTO handshake VALUES (?1, 7, ?2)", params![DEDUP, SESSION]);
    let identity = of.identity().public().to_tagged_bytes();
    run(
        "INSERT INTO session VALUES (?1, 2, ?2, 2, ?3, 7, 8, ?4, NULL, 300)",
        params![SESSION, old.peer.user(), identity, clear(&KEYS)],
    );
    run("INSERT INTO identity_pin VALUES (?1, 2, ?2, 300)", params![old.peer.user(), identity]);
    let wire = old.list.to_wire();
    run(
        "INSERT INTO device_list_pin VALUES ('bob', 1, ?1, ?2, ?3)",
        params![wire.account_key.0, wire.list.0, wire.signature.0],
    );
    old
}

fn found(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

#[test]
fn a_store_of_version_1_keeps_everything_and_no_secret_stays_in_the_clear() {
    let folder = tempfile::tempdir().unwrap();
    let old = version_1(folder.path());
    let of = &old.device;
    let secrets = [
        of.identity().to_seed().unwrap().to_vec(),
        of.authentication().to_seed().to_vec(),
        of.account().unwrap().to_seed().to_vec(),
        old.spk.to_secret().to_vec(),
        old.opk.to_secret().to_vec(),
        KEYS.to_vec(),
    ];
    for secret in &secrets {
        assert!(found(folder.path(), secret), "the checker sees secrets");
    }
    // Still open: closing would empty the log in any case.
    let migrated = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    for (number, secret) in secrets.iter().enumerate() {
        assert!(!found(folder.path(), secret), "secret {number} is still there");
    }
    drop(migrated);
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();

    let device = store.device().unwrap();
    assert_eq!(device.address(), of.address());
    assert_eq!(device.identity().public(), of.identity().public());
    assert_eq!(device.authentication().public(), of.authentication().public());
    assert_eq!(device.account().unwrap().public(), of.account().unwrap().public());
    let state = store.state().unwrap();
    assert_eq!(
        (state.registration.unwrap().0, state.seq, state.current),
        (11, Seq(12), Some(SignedPreKeyId(7)))
    );
    assert_eq!(state.highest_signed_prekey, SignedPreKeyId(8));
    assert_eq!(state.highest_one_time_prekey, OneTimePreKeyId(10));
    assert_eq!(state.pending.unwrap().body, b"body");

    let spk = store.signed_prekey(SignedPreKeyId(7)).unwrap();
    let SignedPreKeyRecord::Held(spk) = spk else { panic!("{spk:?}") };
    assert_eq!(*spk.pair.to_secret(), *old.spk.to_secret());
    assert_eq!((spk.created, spk.expires), (UnixSeconds(100), UnixSeconds(200)));
    let opk = store.one_time_prekey(OneTimePreKeyId(9)).unwrap();
    let OneTimePreKeyRecord::Held(opk) = opk else { panic!("{opk:?}") };
    assert_eq!(*opk.to_secret(), *old.opk.to_secret());
    let used = store.one_time_prekey(OneTimePreKeyId(8)).unwrap();
    assert!(matches!(used, OneTimePreKeyRecord::Used(_)), "{used:?}");

    let session = store.accepted(&DedupKey::from_bytes(DEDUP)).unwrap().unwrap();
    assert_eq!(session.id, SessionId(SESSION));
    assert_eq!(session.keys().unwrap().root().as_bytes()[..], KEYS[..32]);
    assert_eq!(session.keys().unwrap().chain().as_bytes()[..], KEYS[32..]);
    assert_eq!(store.pinned_identity(&old.peer).unwrap().as_ref(), Some(of.identity().public()));
    assert_eq!(store.pinned_device_list(of.user()).unwrap(), Some(old.list));
}

#[test]
fn a_migration_that_fails_leaves_version_1() {
    let folder = tempfile::tempdir().unwrap();
    version_1(folder.path());
    let connection = Connection::open(folder.path().join(FILE_NAME)).unwrap();
    // Form 9 is no form that a secret had.
    connection.execute("UPDATE session SET keys = x'09'", []).unwrap();
    let error = SqliteKeyStore::open(folder.path(), &key()).unwrap_err();
    assert!(matches!(error, Error::Damaged { record: "session" }), "{error}");
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
    let secrets: i64 = connection
        .query_row("SELECT count(identity_secret) FROM device", [], |row| row.get(0))
        .unwrap();
    assert_eq!(secrets, 1);
}

/// Turns a file of this version into one of version 2.
const BACK_TO_VERSION_2: &str = "
    DROP INDEX session_opk;
    ALTER TABLE session RENAME TO newer;
    CREATE TABLE session (
        id            BLOB    PRIMARY KEY,
        role          INTEGER NOT NULL,
        peer_user     BLOB    NOT NULL,
        peer_device   INTEGER NOT NULL,
        peer_identity BLOB    NOT NULL,
        spk           INTEGER NOT NULL,
        opk           INTEGER,
        sealed        BLOB    NOT NULL,
        first_message BLOB,
        created_ms    INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO session SELECT * FROM newer;
    DROP TABLE newer;
    CREATE INDEX session_opk ON session (peer_user, peer_device, opk);
    DROP TABLE epoch;
    DROP TABLE device_list_epoch;
    PRAGMA user_version = 2;
";

/// Turns a file of this version into one of version 3.
const BACK_TO_VERSION_3: &str = "
    DROP TABLE epoch;
    DROP TABLE device_list_epoch;
    PRAGMA user_version = 3;
";

#[test]
fn a_store_of_version_3_is_of_the_first_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    store.create(&device()).unwrap();
    store.resync(&Resync { epoch: Some(Epoch(7)), ..Resync::default() }).unwrap();
    assert_eq!(store.state().unwrap().epoch, Epoch(7));
    store.connection.lock().execute_batch(BACK_TO_VERSION_3).unwrap();
    drop(store);
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    assert_eq!(store.state().unwrap().epoch, Epoch::FIRST);
}

#[test]
fn a_store_of_version_2_keeps_its_sessions_and_their_keys_can_be_taken() {
    let folder = tempfile::tempdir().unwrap();
    let device = device();
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    store.create(&device).unwrap();
    let half = |from: usize| zeroize::Zeroizing::new(KEYS[from..from + 32].try_into().unwrap());
    let session = Session {
        id: SessionId(SESSION),
        role: crate::keystore::Role::Initiator,
        peer: Address::new(&UserId::new("alice").unwrap(), DeviceId(2)),
        peer_identity: *device.identity().public(),
        signed_prekey: SignedPreKeyId(7),
        one_time_prekey: Some(OneTimePreKeyId(8)),
        keys: Some(oncekey_x3dh::SessionKeys::from_parts(half(0), half(32), SESSION)),
    };
    let started = StartedSession { session: &session, message: b"first" };
    store.start(&started, TimestampMs(1)).unwrap();
    let schema = |store: &SqliteKeyStore| {
        let sql = "SELECT group_concat(sql) FROM (SELECT sql FROM sqlite_schema ORDER BY name)";
        store.connection.lock().query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let new = schema(&store);
    store.connection.lock().execute_batch(BACK_TO_VERSION_2).unwrap();
    let sealed = store.sealed("session", SESSION);
    drop(store);

    let other = Unlock::Key(StoreKey::from_bytes(&[8; 32]));
    let error = SqliteKeyStore::open(folder.path(), &other).unwrap_err();
    assert!(matches!(error, Error::Locked), "{error}");
    let store = SqliteKeyStore::open(folder.path(), &key()).unwrap();
    assert_eq!(schema(&store), new);
    let id = session.id;
    assert_eq!(store.first_message(id).unwrap().unwrap(), b"first");
    let kept = store.session(id).unwrap().unwrap();
    assert_eq!(kept.keys().unwrap().root().as_bytes()[..], KEYS[..32]);
    assert!(found(folder.path(), &sealed), "held");
    let taken = store.take_keys(id).unwrap();
    let TakenKeys::Now(keys) = taken else { panic!("{taken:?}") };
    assert_eq!(keys.chain().as_bytes()[..], KEYS[32..]);
    assert!(!found(folder.path(), &sealed), "taken");
    assert!(matches!(store.take_keys(id), Ok(TakenKeys::Before)));
}
