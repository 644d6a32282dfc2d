//! Whom a device trusts, and what it asks its user.

use oncekey_types::{DeviceId, Seq, TimestampMs};
use oncekey_x3dh::{
    Failure,
    device_list::ListedDevice,
    keys::{AccountKeyPair, IdentityKeyPair},
};

use super::{TestClient, World, first_message, user_id};
use crate::{
    client::{
        BundleRefused, Client, Config, FetchError, FetchOptions, Fetched, ListError, NewDevice,
        NoSafetyNumber, ReceiveError, Received, os_random,
    },
    keystore::{self, KeyStore, SqliteKeyStore},
    machine::{DeviceListRefused, ListChange, PinnedDeviceList},
    transport::Transport,
    trust::{Answer, Change, Contradiction, DevicesChanged, NewDevices, TrustEvent},
};

/// A user with an account key.
pub(super) struct User<'a> {
    world: &'a World,
    name: &'static str,
    seed: zeroize::Zeroizing<[u8; 32]>,
}

impl<'a> User<'a> {
    pub(super) fn new(world: &'a World, name: &'static str) -> Self {
        Self { world, name, seed: AccountKeyPair::generate(&mut os_random()).to_seed() }
    }

    pub(super) fn account(&self) -> AccountKeyPair {
        AccountKeyPair::from_seed(&self.seed)
    }

    /// A registered device that has the account key and is listed.
    pub(super) async fn device(&self, number: u32) -> TestClient {
        let new = NewDevice::new(user_id(self.name), number).with_account(self.account());
        let client =
            Client::create(SqliteKeyStore::in_memory().unwrap(), self.world.server.clone(), new)
                .unwrap()
                .with_config(self.world.config());
        client.publish(5).await.unwrap();
        client
    }
}

pub(super) async fn fetch<T: Transport>(
    client: &Client<T>,
    user: &str,
) -> Result<Fetched, FetchError> {
    client.fetch(&user_id(user), &FetchOptions::default()).await
}

pub(super) fn questions<T: Transport>(client: &Client<T>) -> Vec<TrustEvent> {
    client.open_questions().unwrap()
}

pub(super) fn only_question<T: Transport>(client: &Client<T>) -> TrustEvent {
    let mut questions = questions(client);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    questions.remove(0)
}

pub(super) fn devices_changed(event: &TrustEvent) -> &DevicesChanged {
    match &event.change {
        Change::Devices(changed) => changed,
        other => panic!("{other:?}"),
    }
}

pub(super) fn numbers(listed: &[ListedDevice]) -> Vec<u32> {
    listed.iter().map(|listed| listed.device.0).collect()
}

#[tokio::test]
async fn a_rejected_identity_stays_refused_and_is_not_asked_about_again() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(9).await.unwrap();
    first_message(&alice, "bob").await;
    world.server.forget("bob");
    let eve = world.device("bob", 1);
    eve.publish(9).await.unwrap();
    for _ in 0..2 {
        fetch(&alice, "bob").await.unwrap();
    }
    alice.answer(&only_question(&alice), Answer::Reject).unwrap();
    let fetched = fetch(&alice, "bob").await.unwrap();
    let refused = fetched.bundles[0].bundle.as_ref().unwrap_err();
    assert!(matches!(refused, BundleRefused::IdentityChanged(_)), "{refused}");
    assert_eq!(questions(&alice), []);
    assert_eq!(alice.store.pinned_identity(bob.address()).unwrap(), Some(*bob.identity()));
    // Another key is another question.
    world.server.forget("bob");
    world.device("bob", 1).publish(9).await.unwrap();
    fetch(&alice, "bob").await.unwrap();
    let _ = only_question(&alice);
}

#[tokio::test]
async fn an_answer_is_to_what_was_shown() {
    let world = World::new();
    let (alice, bob) = (world.device("alice", 1), world.device("bob", 1));
    bob.publish(9).await.unwrap();
    first_message(&alice, "bob").await;
    let mut shown = Vec::new();
    for _ in 0..2 {
        world.server.forget("bob");
        world.device("bob", 1).publish(9).await.unwrap();
        fetch(&alice, "bob").await.unwrap();
        shown.push(only_question(&alice));
    }
    // The keys were exchanged while the user looked at the first question.
    assert_eq!(shown[0].id, shown[1].id);
    let error = alice.answer(&shown[0], Answer::Accept).unwrap_err();
    assert!(matches!(error, keystore::Error::Stale), "{error}");
    alice.answer(&shown[1], Answer::Accept).unwrap();
    let error = alice.answer(&shown[1], Answer::Reject).unwrap_err();
    assert!(matches!(error, keystore::Error::Stale), "answered: {error}");
    assert!(fetch(&alice, "bob").await.unwrap().bundles[0].bundle.is_ok());
}

#[tokio::test]
async fn a_question_outlives_a_restart() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let alice = world.device_in(folder.path(), "alice");
    world.device("bob", 1).publish(9).await.unwrap();
    first_message(&alice, "bob").await;
    world.server.forget("bob");
    world.device("bob", 1).publish(9).await.unwrap();
    fetch(&alice, "bob").await.unwrap();
    let asked = only_question(&alice);
    drop(alice);
    assert_eq!(only_question(&world.reopen(folder.path())), asked);
}

#[tokio::test]
async fn a_device_that_the_account_key_adds_is_trusted_and_announced() {
    let world = World::new();
    let alice = world.device("alice", 1);
    alice.publish(5).await.unwrap();
    let bob = User::new(&world, "bob");
    bob.device(1).await;
    fetch(&alice, "bob").await.unwrap();
    assert_eq!(questions(&alice), [], "the first use asks nothing");
    let second = bob.device(2).await;
    let fetched = fetch(&alice, "bob").await.unwrap();
    assert!(fetched.bundles.iter().all(|bundle| bundle.bundle.is_ok()));
    let event = only_question(&alice);
    let changed = devices_changed(&event);
    assert_eq!((changed.seq, numbers(&changed.added)), (Seq(2), vec![2]));
    assert_eq!((numbers(&changed.renewed), &changed.removed), (vec![], &vec![]));
    let outgoing = first_message(&second, "alice").await;
    assert!(matches!(alice.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));

    alice.answer(&event, Answer::Reject).unwrap();
    let fetched = fetch(&alice, "bob").await.unwrap();
    let verdicts: Vec<_> = fetched.bundles.iter().map(|bundle| bundle.bundle.is_ok()).collect();
    assert_eq!(verdicts, [true, false], "the user has said no");
}

#[tokio::test]
async fn a_device_that_is_questioned_waits_for_its_answer_both_ways() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let alice = alice.with_config(Config { new_devices: NewDevices::Questioned, ..world.config() });
    alice.publish(5).await.unwrap();
    let bob = User::new(&world, "bob");
    bob.device(1).await;
    fetch(&alice, "bob").await.unwrap();
    let second = bob.device(2).await;
    let fetched = fetch(&alice, "bob").await.unwrap();
    assert!(fetched.bundles[0].bundle.is_ok());
    let event = only_question(&alice);
    let refused = fetched.bundles[1].bundle.as_ref().unwrap_err();
    assert_eq!(*refused, BundleRefused::Questioned { event: event.id });
    let outgoing = first_message(&second, "alice").await;
    let error = alice.receive(&outgoing.message, b"ad").unwrap_err();
    assert!(matches!(error, ReceiveError::Questioned { event: e } if e == event.id), "{error}");
    assert_eq!(error.failure(), Some(Failure::IdentityChanged));

    alice.answer(&event, Answer::Accept).unwrap();
    assert!(fetch(&alice, "bob").await.unwrap().bundles[1].bundle.is_ok());
    assert!(matches!(alice.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
}

#[tokio::test]
async fn a_user_who_lost_every_device_is_trusted_again_when_the_answer_is_yes() {
    let world = World::new();
    let alice = world.device("alice", 1);
    alice.publish(5).await.unwrap();
    let before = User::new(&world, "bob");
    before.device(1).await;
    before.device(2).await;
    first_message(&alice, "bob").await;
    world.server.forget("bob");
    let after = User::new(&world, "bob");
    let new = after.device(1).await;

    let refused = fetch(&alice, "bob").await.unwrap_err();
    assert_eq!(list_refusal(refused), DeviceListRefused::AccountChanged);
    let event = only_question(&alice);
    let Change::Account(changed) = &event.change else { panic!("{event:?}") };
    assert_eq!(changed.pinned, *before.account().public());
    assert_eq!(changed.offered.account(), after.account().public());

    let number = alice.safety_number(&user_id("bob"));
    assert!(matches!(number, Err(NoSafetyNumber::OwnAccount)), "alice has no account key");
    alice.answer(&event, Answer::Accept).unwrap();
    assert!(fetch(&alice, "bob").await.unwrap().bundles[0].bundle.is_ok());
    let outgoing = first_message(&new, "alice").await;
    assert!(matches!(alice.receive(&outgoing.message, b"ad"), Ok(Received::New { .. })));
    assert_eq!(questions(&alice), []);
}

pub(super) fn list_refusal(error: FetchError) -> DeviceListRefused {
    match error {
        FetchError::DeviceList { error: ListError::Refused(refused), .. } => refused,
        other => panic!("{other}"),
    }
}

pub(super) fn contradiction<T: Transport>(client: &Client<T>) -> Contradiction {
    let event = only_question(client);
    let Change::Contradiction(contradiction) = &event.change else { panic!("{event:?}") };
    // No answer makes it true.
    client.answer(&event, Answer::Accept).unwrap();
    contradiction.kind
}

#[tokio::test]
async fn a_list_that_contradicts_the_pinned_one_is_refused_and_told() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let bob = User::new(&world, "bob");
    let one = bob.device(1).await;
    let first = world.server.list("bob");
    bob.device(2).await;
    fetch(&alice, "bob").await.unwrap();
    let pinned = alice.pinned_device_list(&user_id("bob")).unwrap().unwrap();

    world.server.put_list("bob", first.clone());
    assert!(fetch(&alice, "bob").await.is_err());
    let rolled_back = Contradiction::RolledBack { pinned: Seq(2), offered: Seq(1) };
    assert_eq!(contradiction(&alice), rolled_back);

    world.server.put_list("bob", None);
    assert!(fetch(&alice, "bob").await.is_err());
    assert_eq!(contradiction(&alice), Contradiction::Disappeared { pinned: Seq(2) });

    // The same account key signs another second list, and a third that follows it.
    let first = PinnedDeviceList::from_wire(&first.unwrap(), &user_id("bob")).unwrap();
    let fork = one.device.next_device_list(Some(&first), &ListChange::Remove(DeviceId(1)));
    let fork = fork.unwrap().unwrap();
    world.server.put_list("bob", Some(fork.to_wire()));
    alice.refresh_device_list(&user_id("bob")).await.unwrap_err();
    assert_eq!(contradiction(&alice), Contradiction::Forked { offered: Seq(2) });
    let third = one.device.next_device_list(Some(&fork), &ListChange::Add(Box::new(one.listed())));
    world.server.put_list("bob", Some(third.unwrap().unwrap().to_wire()));
    assert!(fetch(&alice, "bob").await.is_err());
    assert_eq!(contradiction(&alice), Contradiction::Forked { offered: Seq(3) });
    assert_eq!(alice.pinned_device_list(&user_id("bob")).unwrap(), Some(pinned));
}

#[tokio::test]
async fn a_node_without_a_quorum_may_be_behind_and_raises_no_alarm() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let bob = User::new(&world, "bob");
    bob.device(1).await;
    let first = world.server.list("bob");
    bob.device(2).await;
    fetch(&alice, "bob").await.unwrap();
    for behind in [first, None] {
        world.server.put_list("bob", behind);
        world.server.cut_off(Some(TimestampMs(1)));
        let fetched = fetch(&alice, "bob").await.unwrap();
        assert!(fetched.bundles.iter().all(|bundle| bundle.bundle.is_ok()), "the pin stands");
        let error = alice.refresh_device_list(&user_id("bob")).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(questions(&alice), []);
        world.server.cut_off(None);
        assert!(fetch(&alice, "bob").await.is_err(), "with a quorum there is no excuse");
        let _ = contradiction(&alice);
    }
}

#[tokio::test]
async fn a_repeated_answer_from_before_the_list_changed_is_no_contradiction() {
    let world = World::new();
    let alice = world.device("alice", 1);
    let bob = User::new(&world, "bob");
    bob.device(1).await;
    let request = fetch(&alice, "bob").await.unwrap().request;
    bob.device(2).await;
    fetch(&alice, "bob").await.unwrap();
    let again = FetchOptions { request: Some(request), ..FetchOptions::default() };
    let fetched = alice.fetch(&user_id("bob"), &again).await.unwrap();
    assert!(fetched.repeated);
    assert!(fetched.bundles[0].bundle.is_ok());
    assert_eq!(fetched.hidden, [DeviceId(2)], "not registered then");
    assert!(matches!(only_question(&alice).change, Change::Devices(_)));
}

#[tokio::test]
async fn both_users_see_the_same_safety_number_and_no_one_in_between_does() {
    let world = World::new();
    let (alice, bob) = (User::new(&world, "alice"), User::new(&world, "bob"));
    let (a, b) = (alice.device(1).await, bob.device(1).await);
    // A device without the account key takes it from the own list.
    let plain = world.device("bob", 2);
    assert!(matches!(plain.safety_number(&user_id("alice")), Err(NoSafetyNumber::OwnAccount)));
    plain.refresh_device_list(&user_id("bob")).await.unwrap();
    assert!(matches!(plain.safety_number(&user_id("alice")), Err(NoSafetyNumber::OtherAccount)));
    for (client, other) in [(&a, "bob"), (&b, "alice"), (&plain, "alice")] {
        client.refresh_device_list(&user_id(other)).await.unwrap();
    }
    let seen_by_alice = a.safety_number(&user_id("bob")).unwrap();
    let seen_by_bob = plain.safety_number(&user_id("alice")).unwrap();
    assert_eq!(seen_by_alice.to_string().len(), 60);
    assert_eq!(seen_by_alice.to_string(), seen_by_bob.to_string());
    assert_eq!(seen_by_bob, b.safety_number(&user_id("alice")).unwrap());
    assert_eq!(seen_by_alice.matches_code(&seen_by_bob.to_code()), Ok(true));

    // To another Alice, a server shows an account of its own in Bob's place.
    world.server.forget("bob");
    User::new(&world, "bob").device(1).await;
    let deceived = alice.device(2).await;
    deceived.refresh_device_list(&user_id("bob")).await.unwrap();
    let number = deceived.safety_number(&user_id("bob")).unwrap();
    assert_ne!(number.to_string(), seen_by_bob.to_string());
    assert_eq!(number.matches_code(&seen_by_bob.to_code()), Ok(false));
}

#[test]
fn the_last_word_about_a_device_counts() {
    use crate::trust::{Standing, TrustEventId, standing};
    let identity = *IdentityKeyPair::generate(&mut os_random()).public();
    let authentication = oncekey_x3dh::keys::AuthenticationKeyPair::generate(&mut os_random());
    let listed = ListedDevice {
        device: DeviceId(1),
        identity,
        authentication: *authentication.public(),
        added_at: TimestampMs(0).to_seconds(),
    };
    let event = |id: u64, trusted: bool, answer: Option<Answer>| {
        let change = Change::Devices(DevicesChanged {
            user: user_id("bob"),
            seq: Seq(id),
            added: vec![listed],
            renewed: Vec::new(),
            removed: Vec::new(),
            trusted,
        });
        (TrustEvent { id: TrustEventId(id), noticed: TimestampMs(0), change }, answer)
    };
    let (yes, no) = (Some(Answer::Accept), Some(Answer::Reject));
    let questioned = |id| Standing::Questioned(TrustEventId(id));
    for (events, expected) in [
        (vec![], Standing::Good),
        (vec![event(1, true, None)], Standing::Good),
        (vec![event(1, false, None)], questioned(1)),
        (vec![event(1, true, no)], questioned(1)),
        (vec![event(1, false, yes)], Standing::Good),
        (vec![event(1, true, no), event(2, false, yes)], Standing::Good),
        (vec![event(1, false, yes), event(2, false, None)], questioned(2)),
    ] {
        assert_eq!(standing(&events, DeviceId(1), &identity), expected, "{events:?}");
        assert_eq!(standing(&events, DeviceId(2), &identity), Standing::Good, "{events:?}");
    }
}
