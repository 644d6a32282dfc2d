//! Lies that no row of the table has: what the client notices, and what it cannot.

use oncekey_api::bundle::{Fetched, FetchedMany, OneTimePreKeyStatus};
use oncekey_types::{DeviceId, RequestId, Seq, UserId};
use oncekey_x3dh::{
    Failure,
    bundle::{BundleError, IdentityError},
};

use super::{
    Device, Town, bundle_of,
    server::{Lie, Whom, another_world, cut, fetched, shown, status},
};
use crate::{
    client::{
        BundleRefused, FetchError, FetchOptions, InitiateError, NotSent, Received, WriteError,
        tests::{
            World, first_message,
            trust::{User, contradiction, fetch, list_refusal, questions},
            user_id,
        },
    },
    machine::DeviceListRefused,
    trust::Contradiction,
};

/// Bob's device 1, with keys, and Alice, who asks the liar.
async fn alice_and_bob(town: &Town) -> (Device, Device) {
    let (alice, bob) = (town.device("alice", 1), town.device("bob", 1));
    bob.publish(5).await.unwrap();
    (alice, bob)
}

#[tokio::test]
async fn a_truncated_reply_is_no_reply_and_a_retry_gets_the_same_keys() {
    let town = Town::new().await;
    let (alice, _bob) = alice_and_bob(&town).await;
    for (fetches, part) in [(1, 0), (2, 1), (3, 3)] {
        town.server.lie(Whom::Everyone, cut(move |length| length * part / 4));
        let error = fetch(&alice, "bob").await.unwrap_err();
        let FetchError::Call { request, error } = error else { panic!("{error}") };
        assert!(error.is_outcome_unknown(), "{error}");
        town.server.repent();
        let options = FetchOptions { request: Some(request), ..FetchOptions::default() };
        let fetched = alice.fetch(&user_id("bob"), &options).await.unwrap();
        assert!(fetched.repeated && fetched.bundles[0].bundle.is_ok());
        assert_eq!(town.world.server.pool("bob", 1).len(), 5 - fetches, "one key for each fetch");
    }
}

#[tokio::test]
async fn a_bundle_left_out_is_told_when_the_list_is_signed_and_not_noticed_when_it_is_not() {
    for signed in [true, false] {
        let town = Town::new().await;
        let alice = town.device("alice", 1);
        let bob = User::new(&town.world, "bob");
        for number in [1, 2] {
            if signed {
                bob.device(number).await;
            } else {
                town.device("bob", number).publish(5).await.unwrap();
            }
        }
        town.server.lie(Whom::Everyone, fetched(|reply| reply.bundles.truncate(1)));
        let fetched = fetch(&alice, "bob").await.unwrap();
        // Without a list nothing says that there is a second device.
        let expected = if signed { vec![DeviceId(2)] } else { Vec::new() };
        assert_eq!(fetched.hidden, expected);
        let options = FetchOptions::default();
        let sent = alice.send_to_all(&user_id("bob"), b"hello", b"", &options).await.unwrap();
        let left_out = sent.devices.iter().filter(|device| {
            matches!((device.device, &device.outcome), (DeviceId(2), Err(NotSent::NoBundle)))
        });
        assert_eq!(left_out.count(), usize::from(signed));
        assert_eq!(sent.is_complete(), !signed);
    }
}

#[tokio::test]
async fn two_views_of_a_user_differ_in_the_safety_number_alone() {
    let (town, elsewhere) = (Town::new().await, World::new());
    let (names, mut devices) = (["alice", "bob", "carol"], Vec::new());
    for name in names {
        devices.push(town.over_http(User::new(&town.world, name).device(1).await));
    }
    let [alice, bob, carol] = devices.try_into().ok().unwrap();
    let mallory = User::new(&elsewhere, "bob").device(1).await;
    let lie = another_world("bob", elsewhere.server.clone());
    town.server.lie(Whom::Caller("carol/1"), lie);

    // Neither Alice nor Carol can know by themselves: each sees one Bob, and always the same.
    for client in [&alice, &carol] {
        for _ in 0..2 {
            assert!(fetch(client, "bob").await.unwrap().bundles[0].bundle.is_ok());
        }
        assert_eq!(questions(client), []);
    }
    let outgoing = first_message(&carol, "bob").await;
    assert!(matches!(mallory.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
    for (client, same) in [(&alice, true), (&carol, false)] {
        bob.refresh_device_list(client.user()).await.unwrap();
        let (theirs, ours) = (bob.safety_number(client.user()), client.safety_number(bob.user()));
        assert_eq!(ours.unwrap().matches_code(&theirs.unwrap().to_code()), Ok(same));
    }
}

#[tokio::test]
async fn an_old_list_is_a_contradiction_to_who_saw_the_new_one_and_not_noticed_by_others() {
    let town = Town::new().await;
    let (alice, carol) = (town.device("alice", 1), town.device("carol", 1));
    let bob = User::new(&town.world, "bob");
    bob.device(1).await;
    let old = town.world.server.list("bob");
    bob.device(2).await;
    fetch(&alice, "bob").await.unwrap();

    let list = old.clone();
    town.server.lie(Whom::Everyone, shown(move |user| user.device_list = list.clone()));
    let back = |reply: &mut Fetched| {
        reply.device_list_seq = Some(Seq(1));
        reply.bundles.truncate(1);
    };
    town.server.lie(Whom::Everyone, fetched(back));
    let refused = list_refusal(fetch(&alice, "bob").await.unwrap_err());
    assert!(matches!(refused, DeviceListRefused::Succession(_)), "{refused}");
    let rolled_back = Contradiction::RolledBack { pinned: Seq(2), offered: Seq(1) };
    assert_eq!(contradiction(&alice), rolled_back);

    // What Carol cannot know: the account key has signed this list, and nobody told her of another.
    let fetched = fetch(&carol, "bob").await.unwrap();
    assert!(fetched.bundles[0].bundle.is_ok() && fetched.hidden.is_empty());
    assert_eq!(questions(&carol), []);
    town.server.repent();
    // A freeze ends with the lie.
    assert_eq!(fetch(&carol, "bob").await.unwrap().bundles.len(), 2);
}

#[tokio::test]
async fn a_hidden_opk_is_refused_when_one_is_required_and_told_when_none_is() {
    let town = Town::new().await;
    let (alice, bob) = alice_and_bob(&town).await;
    let hide = |reply: &mut Fetched| {
        reply.bundles[0].one_time_prekey = None;
        reply.bundles[0].one_time_prekey_status = OneTimePreKeyStatus::Exhausted;
    };
    town.server.lie(Whom::Everyone, fetched(hide));
    let options = FetchOptions { require_opk: true, ..FetchOptions::default() };
    let strict = alice.fetch(&user_id("bob"), &options).await.unwrap();
    let refused = strict.bundles[0].bundle.as_ref().unwrap_err();
    assert_eq!(*refused, BundleRefused::NoOneTimePreKey);
    assert_eq!(alice.failures()[&Failure::Malformed], 1);

    // What neither can know: whether the pool was empty. The message opens, without the forward
    // secrecy that the one-time prekey would have given.
    let told = fetch(&alice, "bob").await.unwrap();
    assert_eq!(told.bundles[0].one_time_prekey_status, OneTimePreKeyStatus::Exhausted);
    let outgoing = first_message(&alice, "bob").await;
    assert_eq!(outgoing.session.one_time_prekey, None);
    assert!(matches!(bob.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn a_device_added_silently_is_refused_when_the_list_is_signed_and_not_noticed_when_it_is_not()
{
    for signed in [true, false] {
        let (town, elsewhere) = (Town::new().await, World::new());
        let alice = town.device("alice", 1);
        if signed {
            User::new(&town.world, "bob").device(1).await;
        } else {
            town.device("bob", 1).publish(5).await.unwrap();
        }
        let added = bundle_of(&elsewhere, "bob", 2).await;
        town.server.lie(Whom::Everyone, fetched(move |reply| reply.bundles.push(added.clone())));

        let bundles = fetch(&alice, "bob").await.unwrap().bundles;
        assert!(bundles[0].bundle.is_ok());
        match &bundles[1].bundle {
            Err(refused) => {
                let not_listed = BundleError::Identity(IdentityError::NotListed);
                assert_eq!((signed, refused), (true, &BundleRefused::Invalid(not_listed)));
            }
            // Trust on first use is all there is without an account key.
            Ok(_) => assert!(!signed),
        }
    }
}

#[tokio::test]
async fn bundles_of_another_user_are_no_answer_and_no_valid_bundles() {
    let town = Town::new().await;
    let (alice, _bob) = alice_and_bob(&town).await;
    town.device("carol", 1).publish(5).await.unwrap();
    let as_carol = |reply: &mut Fetched| reply.user = user_id("carol");
    town.server.lie(Whom::Everyone, fetched(as_carol));
    let error = fetch(&alice, "bob").await.unwrap_err();
    assert!(matches!(error, FetchError::OtherAnswer), "{error}");

    // Carol's bundle under Bob's name: her signatures name her.
    town.server.repent();
    let world = town.world.server.clone();
    let carols: Lie = Box::new(move |call, reply| {
        let mut call = call.clone();
        call.path = call.path.replace("/bob/", "/carol/");
        call.idempotency_key = Some(RequestId::new("of-the-server").unwrap());
        another_world("carol", world.clone())(&call, reply);
        fetched(|reply| reply.user = user_id("bob"))(&call, reply);
    });
    town.server.lie(Whom::Everyone, carols);
    let bundles = fetch(&alice, "bob").await.unwrap().bundles;
    let refused = bundles[0].bundle.as_ref().unwrap_err();
    assert_eq!(refused.failure(), Failure::SignatureInvalid, "{refused}");

    town.server.repent();
    let users: Vec<UserId> = vec![user_id("bob"), user_id("carol")];
    let swap: Lie = Box::new(|_, reply| {
        reply.change(&mut |reply: &mut FetchedMany| reply.results.swap(0, 1));
    });
    town.server.lie(Whom::Everyone, swap);
    let error = alice.fetch_many(&users, false, None).await.unwrap_err();
    assert!(matches!(error, FetchError::OtherAnswer), "{error}");
}

#[tokio::test]
async fn the_same_opk_to_the_same_alice_twice_starts_one_session_and_names_it() {
    let town = Town::new().await;
    let (alice, bob) = alice_and_bob(&town).await;
    town.world.server.reissue();
    let first = first_message(&alice, "bob").await;
    let bundle = fetch(&alice, "bob").await.unwrap().bundles.remove(0).bundle.unwrap();
    let error = alice.initiate(bundle, b"again", b"ad").unwrap_err();
    let InitiateError::OneTimePreKeyUsed { session } = error else { panic!("{error}") };
    assert_eq!(session, first.session.id);
    let again = alice.first_message(session).unwrap().unwrap();
    assert!(matches!(bob.receive(&again, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn a_server_that_keeps_a_used_key_in_its_pool_is_found_out_before_the_next_upload() {
    let town = Town::new().await;
    let (alice, bob) = alice_and_bob(&town).await;
    town.world.server.reissue();
    bob.receive(&first_message(&alice, "bob").await.message, b"ad").unwrap();
    // An old copy of the key store would look the same to Bob.
    let error = bob.tend().await.unwrap_err();
    assert!(matches!(error, WriteError::StoreIsOld), "{error}");
}

#[tokio::test]
async fn a_server_that_says_an_empty_pool_is_full_is_not_noticed_by_its_device() {
    let town = Town::new().await;
    let (alice, bob) = (town.device("alice", 1), town.device("bob", 1));
    bob.publish(1).await.unwrap();
    first_message(&alice, "bob").await;
    town.server.lie(Whom::Everyone, status(|status| status.pool.count = 1000));
    let tended = bob.tend().await.unwrap().unwrap();
    assert_eq!(tended.added, 0, "Bob cannot know");
    let told = fetch(&alice, "bob").await.unwrap();
    assert_eq!(told.bundles[0].one_time_prekey_status, OneTimePreKeyStatus::Exhausted);
    town.server.repent();
    assert!(bob.tend().await.unwrap().unwrap().added > 0, "a starved pool recovers with the truth");
}
