//! The one transaction, interrupted between any two of its statements.

use std::{path::Path, process::Command};

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::keys::AccountKeyPair;
use zeroize::Zeroizing;

use super::{TestClient, World, first_message, unlock, user_id};
use crate::{
    client::{Client, NewDevice, Outgoing, ReceiveError, Received, os_random},
    keystore::{
        Crash, CrashPoint, KeyStore, OneTimePreKeyRecord, SignedPreKeyRecord, SqliteKeyStore,
    },
};

pub(super) const POINTS: [CrashPoint; 6] = [
    CrashPoint::Begun,
    CrashPoint::Remembered,
    CrashPoint::Erased,
    CrashPoint::Pinned,
    CrashPoint::Stored,
    CrashPoint::Committed,
];

const FOLDER: &str = "ONCEKEY_CRASH_FOLDER";
const POINT: &str = "ONCEKEY_CRASH_POINT";
const MESSAGE_FILE: &str = "message";

/// Bob in a folder, and a message to him with a one-time prekey.
async fn bob_and_message(world: &World, folder: &Path) -> (TestClient, Outgoing) {
    let bob = world.device_in(folder, "bob");
    bob.publish(1).await.unwrap();
    let outgoing = first_message(&world.device("alice", 1), "bob").await;
    assert_eq!(outgoing.session.one_time_prekey, Some(OneTimePreKeyId(1)));
    (bob, outgoing)
}

/// After a crash at `point`: everything if it had committed, else nothing.
fn assert_all_or_nothing(world: &World, folder: &Path, outgoing: &Outgoing, point: CrashPoint) {
    let bob = world.reopen(folder);
    let record = bob.store.one_time_prekey(OneTimePreKeyId(1)).unwrap();
    let session = bob.session(outgoing.session.id).unwrap();
    let pin = bob.store.pinned_identity(&"alice/1".parse_address()).unwrap();
    let done = point == CrashPoint::Committed;
    assert_eq!(session.is_some(), done, "session after {point:?}");
    assert_eq!(pin.is_some(), done, "pin after {point:?}");
    assert_eq!(matches!(record, OneTimePreKeyRecord::Used(_)), done, "{record:?} after {point:?}");
    let received = bob.receive(&outgoing.message, b"ad").unwrap();
    assert_eq!(
        matches!(received, Received::Duplicate { .. }),
        done,
        "{received:?} after {point:?}"
    );
    let again = bob.receive(&outgoing.message, b"ad").unwrap();
    assert!(matches!(again, Received::Duplicate { .. }), "{again:?}");
}

trait ParseAddress {
    fn parse_address(&self) -> oncekey_x3dh::Address;
}

impl ParseAddress for str {
    fn parse_address(&self) -> oncekey_x3dh::Address {
        let (user, device) = self.split_once('/').unwrap();
        oncekey_x3dh::Address::new(&super::user_id(user), device.parse().unwrap())
    }
}

#[tokio::test]
async fn a_statement_that_fails_leaves_all_or_nothing() {
    for point in POINTS {
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let (bob, outgoing) = bob_and_message(&world, folder.path()).await;
        *bob.store.crash_at.lock() = Some((point, Crash::Fail));
        let error = bob.receive(&outgoing.message, b"ad").unwrap_err();
        assert!(matches!(error, ReceiveError::Store(_)), "{error}");
        drop(bob);
        assert_all_or_nothing(&world, folder.path(), &outgoing, point);
    }
}

#[tokio::test]
async fn a_process_that_dies_leaves_all_or_nothing() {
    for point in POINTS {
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let (bob, outgoing) = bob_and_message(&world, folder.path()).await;
        drop(bob);
        std::fs::write(folder.path().join(MESSAGE_FILE), &outgoing.message).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "client::tests::crash::dies_where_it_is_told"])
            .args(["--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(POINT, format!("{point:?}"))
            .output()
            .unwrap();
        assert_eq!(child.status.code(), None, "not killed: {child:?}");
        assert_all_or_nothing(&world, folder.path(), &outgoing, point);
    }
}

#[test]
#[ignore = "a process of its own, started by a_process_that_dies_leaves_all_or_nothing"]
fn dies_where_it_is_told() {
    let (Ok(folder), Ok(point)) = (std::env::var(FOLDER), std::env::var(POINT)) else {
        return;
    };
    let point = POINTS.into_iter().find(|p| format!("{p:?}") == point);
    let message = std::fs::read(Path::new(&folder).join(MESSAGE_FILE)).unwrap();
    let bob = World::new().reopen(Path::new(&folder));
    *bob.store.crash_at.lock() = point.map(|point| (point, Crash::Abort));
    let received = bob.receive(&message, b"ad");
    panic!("survived {point:?} with {received:?}");
}

/// Names of the files of `folder` that hold `needle`.
pub(super) fn files_with(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        if bytes.windows(needle.len()).any(|window| window == needle) {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[tokio::test]
async fn an_erased_secret_is_in_no_file_not_even_sealed() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let bob = world.device_in(folder.path(), "bob");
    bob.publish(150).await.unwrap();
    let spk = bob.store.sealed("signed_prekey", 1);
    for id in 1..=3 {
        let outgoing = first_message(&world.device("alice", id), "bob").await;
        let sealed = bob.store.sealed("one_time_prekey", id);
        assert_ne!(files_with(folder.path(), &sealed), [""; 0], "held");
        bob.receive(&outgoing.message, b"ad").unwrap();
        assert_eq!(files_with(folder.path(), &sealed), [""; 0], "erased");
    }
    bob.rotate().await.unwrap();
    world.clock.pass_days(30);
    assert_ne!(files_with(folder.path(), &spk), [""; 0], "retained");
    bob.rotate_if_due().await.unwrap();
    assert_eq!(files_with(folder.path(), &spk), [""; 0], "deleted");
}

#[tokio::test]
async fn what_a_crash_kept_from_being_erased_is_erased_at_the_next_start() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (bob, outgoing) = bob_and_message(&world, folder.path()).await;
    let sealed = bob.store.sealed("one_time_prekey", 1);
    *bob.store.crash_at.lock() = Some((CrashPoint::Committed, Crash::Fail));
    bob.receive(&outgoing.message, b"ad").unwrap_err();
    // Copied, because closing the store would clean up: a process that dies does not.
    let after = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), after.path().join(entry.file_name())).unwrap();
    }
    assert_ne!(files_with(after.path(), &sealed), [""; 0], "the crash came before");
    let bob = world.reopen(after.path());
    assert_eq!(files_with(after.path(), &sealed), [""; 0], "erased");
    let again = bob.receive(&outgoing.message, b"ad").unwrap();
    assert!(matches!(again, Received::Duplicate { .. }), "{again:?}");
}

#[tokio::test]
async fn no_secret_is_in_the_clear_in_any_file() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let account = AccountKeyPair::generate(&mut os_random());
    let seed = account.to_seed();
    let new = NewDevice::new(user_id("alice"), 1).with_account(account);
    let store = SqliteKeyStore::open(folder.path(), &unlock()).unwrap();
    let alice = Client::create(store, world.server.clone(), new).unwrap();
    alice.publish(3).await.unwrap();
    world.device("bob", 1).publish(1).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    let device = alice.store.device().unwrap();
    let SignedPreKeyRecord::Held(spk) = alice.store.signed_prekey(SignedPreKeyId(1)).unwrap()
    else {
        panic!("not held");
    };
    let record = alice.store.one_time_prekey(OneTimePreKeyId(2)).unwrap();
    let OneTimePreKeyRecord::Held(opk) = record else {
        panic!("{record:?}");
    };
    let keys = outgoing.session.keys().unwrap();
    for (name, secret) in [
        ("identity", device.identity().to_seed().unwrap()),
        ("authentication", device.authentication().to_seed()),
        ("account", seed),
        ("signed prekey", spk.pair.to_secret()),
        ("one-time prekey", opk.to_secret()),
        ("root key", Zeroizing::new(*keys.root().as_bytes())),
        ("chain key", Zeroizing::new(*keys.chain().as_bytes())),
    ] {
        assert_eq!(files_with(folder.path(), &*secret), [""; 0], "{name}");
    }
    assert_ne!(files_with(folder.path(), b"bob"), [""; 0], "the checker sees what is there");
    assert_eq!(files_with(folder.path(), b"hello"), [""; 0], "plaintext");
}
