//! The rows of the table that take a device, its key store and a server.

use oncekey_api::{
    Base64,
    report::{Reason, Report},
};
use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{
    Failure,
    bundle::{BundleError, IdentityError},
};
use rand_core::Rng as _;

use super::{
    Device, Town,
    attacker::{Handshake, Key, dh, montgomery, public, scalar},
    bundle_of,
    server::{Whom, another_world, fetched},
};
use crate::{
    client::{
        BundleRefused, DeviceBundle, ReceiveError, Received, WhyGone, os_random,
        tests::{
            World,
            crash::{POINTS, files_with},
            first_message,
            trust::{User, fetch, only_question, questions},
        },
    },
    keystore::{Crash, CrashPoint, KeyStore, OneTimePreKeyRecord, SignedPreKeyRecord},
    trust::Change,
};

/// The verdict on the only bundle of a fetch.
async fn verdict(alice: &Device, user: &str) -> DeviceBundle {
    let mut fetched = fetch(alice, user).await.unwrap();
    assert_eq!(fetched.bundles.len(), 1);
    fetched.bundles.remove(0)
}

async fn refusal(alice: &Device, user: &str) -> BundleRefused {
    verdict(alice, user).await.bundle.unwrap_err()
}

#[tokio::test]
async fn a_passive_eavesdropper_sees_no_secret_go_by() {
    let town = Town::new().await;
    let (alice, bob) = (town.device("alice", 1), town.device("bob", 1));
    bob.publish(2).await.unwrap();
    let outgoing = first_message(&alice, "bob").await;
    let mut wire = town.server.wire();
    wire.push(outgoing.message.clone());
    let keys = outgoing.session.keys().unwrap();
    let device = bob.store.device().unwrap();
    let secrets: [(&str, Vec<u8>); 6] = [
        ("root key", keys.root().as_bytes().to_vec()),
        ("chain key", keys.chain().as_bytes().to_vec()),
        ("identity", device.identity().to_seed().unwrap().to_vec()),
        ("signed prekey", spk_secret(&bob, 1).to_vec()),
        ("one-time prekey", opk_secret(&bob, 1).to_vec()),
        ("payload", b"hello".to_vec()),
    ];
    let holds = |needle: &[u8]| {
        let text = serde_json::to_string(&Base64(needle.to_vec())).unwrap();
        let text = text.trim_matches('"').as_bytes();
        let within = |place: &[u8], needle: &[u8]| place.windows(needle.len()).any(|w| w == needle);
        wire.iter().any(|place| within(place, needle) || within(place, text))
    };
    for (name, secret) in &secrets {
        assert!(!holds(secret), "{name} went by");
    }
    assert!(holds(bob.identity().as_bytes()), "the checker sees what went by");
    assert!(matches!(bob.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn a_server_that_swaps_spk_or_opk_is_a_signature_error_at_alice() {
    let town = Town::new().await;
    let (alice, bob) = (town.device("alice", 1), town.device("bob", 1));
    bob.publish(5).await.unwrap();
    let own = bundle_of(&World::new(), "mallory", 1).await;
    let spk = own.signed_prekey.clone();
    town.server
        .lie(Whom::Everyone, fetched(move |reply| reply.bundles[0].signed_prekey = spk.clone()));
    let refused = refusal(&alice, "bob").await;
    assert_eq!(refused, BundleRefused::Invalid(BundleError::SignedPreKeySignature));
    town.server.repent();
    town.server.lie(
        Whom::Everyone,
        fetched(move |reply| reply.bundles[0].one_time_prekey = own.one_time_prekey.clone()),
    );
    let refused = refusal(&alice, "bob").await;
    assert_eq!(refused, BundleRefused::Invalid(BundleError::OneTimePreKeySignature));
    town.server.repent();
    let report = alice.report().await.unwrap().unwrap();
    assert_eq!(report.0.into_iter().collect::<Vec<_>>(), [(Reason::SignatureInvalid, 2)]);
    assert!(verdict(&alice, "bob").await.bundle.is_ok(), "nothing is left of the lie");
}

#[tokio::test]
async fn a_server_that_swaps_ik_and_spk_together_fails_at_the_pin() {
    let (town, elsewhere) = (Town::new().await, World::new());
    let alice = town.device("alice", 1);
    town.device("bob", 1).publish(5).await.unwrap();
    let mallory = elsewhere.device("bob", 1);
    mallory.publish(5).await.unwrap();
    first_message(&alice, "bob").await;
    town.server.lie(Whom::Everyone, another_world("bob", elsewhere.server.clone()));
    let BundleRefused::IdentityChanged(changed) = refusal(&alice, "bob").await else {
        panic!("another refusal");
    };
    assert_eq!(changed.offered, *mallory.identity());
    assert_eq!(only_question(&alice).change, Change::Identity(*changed));
}

#[tokio::test]
async fn a_server_that_swaps_ik_and_spk_together_fails_at_the_signed_device_list() {
    let (town, elsewhere) = (Town::new().await, World::new());
    let alice = town.device("alice", 1);
    User::new(&town.world, "bob").device(1).await;
    // The list is pinned by a fetch; no handshake has pinned the device.
    fetch(&alice, "bob").await.unwrap();
    let forged = bundle_of(&elsewhere, "bob", 1).await;
    town.server.lie(Whom::Everyone, fetched(move |reply| reply.bundles[0] = forged.clone()));
    let refused = refusal(&alice, "bob").await;
    let not_listed = BundleError::Identity(IdentityError::NotListed);
    assert_eq!(refused, BundleRefused::Invalid(not_listed));
    assert_eq!(alice.failures()[&Failure::IdentityChanged], 1);
}

#[tokio::test]
async fn a_server_that_swaps_ik_and_spk_together_before_the_first_use_is_not_noticed() {
    // What Alice cannot know: she has never heard of Bob. Safety numbers show it afterwards; see
    // `two_views_of_a_user_differ_in_the_safety_number_alone`.
    let (town, elsewhere) = (Town::new().await, World::new());
    let alice = town.device("alice", 1);
    town.device("bob", 1).publish(5).await.unwrap();
    let mallory = elsewhere.device("bob", 1);
    mallory.publish(5).await.unwrap();
    town.server.lie(Whom::Everyone, another_world("bob", elsewhere.server.clone()));
    let outgoing = first_message(&alice, "bob").await;
    assert!(matches!(mallory.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
    assert_eq!(questions(&alice), []);
    town.server.repent();
    let refused = refusal(&alice, "bob").await;
    assert!(matches!(refused, BundleRefused::IdentityChanged(_)), "the lie must go on: {refused}");
}

#[tokio::test]
async fn a_server_that_replays_an_old_spk_is_refused_as_soon_as_it_has_expired() {
    let town = Town::new().await;
    let (alice, bob) = (town.device("alice", 1), town.device("bob", 1));
    bob.publish(50).await.unwrap();
    let mut old = None;
    town.server.lie(
        Whom::Everyone,
        fetched(move |reply| {
            let spk = &mut reply.bundles[0].signed_prekey;
            spk.clone_from(old.get_or_insert_with(|| spk.clone()));
        }),
    );
    first_message(&alice, "bob").await;
    town.world.clock.pass_days(7);
    assert!(bob.tend().await.unwrap().unwrap().rotated.is_some());

    // What Alice cannot know: that there is a newer one. Bob opens it for as long as he keeps the
    // old secret, and counts what comes later.
    let replayed = first_message(&alice, "bob").await;
    assert_eq!(replayed.session.signed_prekey, SignedPreKeyId(1));
    assert!(matches!(bob.receive(&replayed.message, b"ad"), Ok(Received::New { .. })));
    town.world.clock.pass_days(30);
    let replayed = first_message(&alice, "bob").await;
    let error = bob.receive(&replayed.message, b"ad").unwrap_err();
    assert!(
        matches!(error, ReceiveError::UnknownSpk { why: WhyGone::Expired { .. }, .. }),
        "{error}"
    );
    assert_eq!(bob.failures()[&Failure::SpkUnknown], 1);

    town.world.clock.pass_days(90 - 37);
    let refused = refusal(&alice, "bob").await;
    assert_eq!(refused.failure(), Failure::SpkExpired, "{refused}");
}

#[tokio::test]
async fn the_same_opk_to_two_alices_gives_two_sks_and_bob_accepts_the_first_and_counts_the_second()
{
    let town = Town::new().await;
    let (alice, carol) = (town.device("alice", 1), town.device("carol", 1));
    let bob = town.device("bob", 1);
    bob.publish(1).await.unwrap();
    town.world.server.reissue();
    let first = first_message(&alice, "bob").await;
    let second = first_message(&carol, "bob").await;
    // Neither Alice nor Carol can know: each sees a key that Bob has signed.
    assert_eq!(first.session.one_time_prekey, second.session.one_time_prekey);
    let root = |session: &crate::Session| *session.keys().unwrap().root().as_bytes();
    assert_ne!(root(&first.session), root(&second.session));

    assert!(matches!(bob.receive(&first.message, b"ad"), Ok(Received::New { .. })));
    let error = bob.receive(&second.message, b"ad").unwrap_err();
    assert!(matches!(error, ReceiveError::OpkAlreadyUsed { .. }), "{error}");
    assert_eq!(bob.failures()[&Failure::OpkReused], 1);
    bob.report().await.unwrap();
    let report = Report([(Reason::OpkReused, 1)].into());
    assert_eq!(town.world.server.reports(), [report], "even the liar is told");
}

/// The secret of a signed prekey that `bob` holds.
fn spk_secret(bob: &Device, id: u32) -> Key {
    match bob.store.signed_prekey(SignedPreKeyId(id)).unwrap() {
        SignedPreKeyRecord::Held(spk) => *spk.pair.to_secret(),
        other => panic!("{other:?}"),
    }
}

/// The secret of a one-time prekey that `bob` holds.
fn opk_secret(bob: &Device, id: u32) -> Key {
    match bob.store.one_time_prekey(OneTimePreKeyId(id)).unwrap() {
        OneTimePreKeyRecord::Held(opk) => *opk.to_secret(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn when_spk_b_leaks_eve_is_any_alice_to_bob_until_its_secret_is_deleted_not_merely_rotated() {
    let town = Town::new().await;
    let (alice, bob) = (town.device("alice", 1), town.device("bob", 1));
    bob.publish(50).await.unwrap();
    bob.receive(&first_message(&alice, "bob").await.message, b"ad").unwrap();
    let leaked = spk_secret(&bob, 1);
    let (ik_a, ik_b) = (*alice.identity().as_bytes(), *bob.identity().as_bytes());
    // Alice's public identity key, an ephemeral key of Eve's, and no secret of Alice's.
    let forge = || {
        let mut ek = [0; 32];
        os_random().fill_bytes(&mut ek);
        let spk_b = public(&leaked);
        let handshake = Handshake {
            from: ("alice", 1),
            to: ("bob", 1),
            ik_a,
            ik_b,
            ek_a: public(&ek),
            spk_b: (1, spk_b),
            opk_b: None,
            app_ad: b"ad",
        };
        let dhs = [dh(&leaked, montgomery(&ik_a)), dh(&ek, montgomery(&ik_b)), dh(&ek, spk_b)];
        handshake.seal(&handshake.keys(&dhs), b"it is me, Alice")
    };
    for rotated in [false, true] {
        match bob.receive(&forge(), b"ad").unwrap() {
            Received::New { payload, session } => {
                assert_eq!(payload.as_bytes(), b"it is me, Alice");
                assert_eq!(session.peer, *alice.address(), "rotated: {rotated}");
            }
            duplicate => panic!("{duplicate:?}"),
        }
        assert_eq!(questions(&bob), [], "Bob cannot know");
        if !rotated {
            bob.rotate().await.unwrap();
        }
    }
    town.world.clock.pass_days(30);
    bob.tend().await.unwrap();
    let error = bob.receive(&forge(), b"ad").unwrap_err();
    assert!(matches!(error, ReceiveError::UnknownSpk { .. }), "{error}");
}

#[tokio::test]
async fn when_alices_device_is_taken_later_no_ek_a_sk_k_init_or_dh_is_in_its_key_store() {
    let town = Town::new().await;
    let folder = tempfile::tempdir().unwrap();
    let alice = town.over_http(town.world.device_in(folder.path(), "alice"));
    let bob = town.device("bob", 1);
    bob.publish(1).await.unwrap();
    let (spk, opk) = (spk_secret(&bob, 1), opk_secret(&bob, 1));
    let identity = bob.store.device().unwrap().identity().to_seed().unwrap();
    let outgoing = first_message(&alice, "bob").await;

    // version, suite, flags ‖ lp("alice") ‖ u32 ‖ lp("bob") ‖ u32 ‖ IK_A ‖ EK_A
    let at = 4 + (2 + 5) + 4 + (2 + 3) + 4 + 32;
    let ek_a: Key = outgoing.message[at..at + 32].try_into().unwrap();
    let (ik_a, ik_b) = (*alice.identity().as_bytes(), *bob.identity().as_bytes());
    let dhs =
        [dh(&spk, montgomery(&ik_a)), dh(&scalar(&identity), ek_a), dh(&spk, ek_a), dh(&opk, ek_a)];
    let handshake = Handshake {
        from: ("alice", 1),
        to: ("bob", 1),
        ik_a,
        ik_b,
        ek_a,
        spk_b: (1, public(&spk)),
        opk_b: Some((1, public(&opk))),
        app_ad: b"ad",
    };
    let keys = handshake.keys(&dhs);
    let store = alice.store.laid_open();
    let holds = |key: &Key| store.iter().any(|place| place.windows(32).any(|w| w == key));
    assert!(holds(&keys.rk) && holds(&keys.ck0), "the checker sees what is there");
    let [dh1, dh2, dh3, dh4] = dhs;
    let gone = [
        ("SK", keys.sk),
        ("K_init", keys.k_init),
        ("DH1", dh1),
        ("DH2", dh2),
        ("DH3", dh3),
        ("DH4", dh4),
    ];
    for (name, key) in gone {
        assert!(!holds(&key), "{name} is in a record");
        assert_eq!(files_with(folder.path(), &key), [""; 0], "{name} is in a file");
    }
    // Nobody knows ek_a; but it would be known by its public key.
    let is_ek_a = |window: &[u8]| public(window.try_into().unwrap()) == ek_a;
    assert!(!store.iter().any(|place| place.windows(32).any(is_ek_a)), "ek_a");
}

#[tokio::test]
async fn a_replay_without_opk_is_delivered_once_through_crashes_and_its_bit_255_variant_refused() {
    for point in POINTS {
        let world = World::new();
        let folder = tempfile::tempdir().unwrap();
        let bob = world.device_in(folder.path(), "bob");
        bob.publish(0).await.unwrap();
        let outgoing = first_message(&world.device("alice", 1), "bob").await;
        assert_eq!(outgoing.session.one_time_prekey, None);
        let ephemeral = 4 + (2 + 5) + 4 + (2 + 3) + 4 + 32;
        let mut variant = outgoing.message.clone();
        variant[ephemeral + 31] ^= 0x80;

        *bob.store.crash_at.lock() = Some((point, Crash::Fail));
        let error = bob.receive(&outgoing.message, b"ad").unwrap_err();
        assert!(matches!(error, ReceiveError::Store(_)), "{point:?}: {error}");
        drop(bob);
        let bob = world.reopen(folder.path());
        assert!(matches!(bob.receive(&variant, b"ad"), Err(ReceiveError::Message(_))));
        let mut delivered = usize::from(point == CrashPoint::Committed);
        for _ in 0..3 {
            let received = bob.receive(&outgoing.message, b"ad").unwrap();
            delivered += usize::from(matches!(received, Received::New { .. }));
            assert!(matches!(bob.receive(&variant, b"ad"), Err(ReceiveError::Message(_))));
        }
        assert_eq!(delivered, 1, "{point:?}");
    }
}
