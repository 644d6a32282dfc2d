//! Simulated weeks: two senders, two receiving devices, a network that delays, duplicates,
//! reorders, loses and garbles, a server that loses requests and replies, and devices that crash
//! and start again between any two steps.
//!
//! The model knows the rules alone: a message has the keys it has, a signed prekey is retained for
//! 30 days after its device learned that it was replaced, a one-time prekey until its one message
//! is opened. After every step it says what must come of a message: opened at most once, opened
//! whenever its keys should still exist, never with other keys than the sender's, and if not, for
//! which reason.

use std::collections::BTreeMap;

use oncekey_types::{SignedPreKeyId, TimestampMs};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{Clock as _, DAY_S, FetchOptions, TestClient, World, user_id};
use crate::{
    client::{Client, Config, NewDevice, Outgoing, ReceiveError, Received, WhyGone},
    fake::Fault,
    keystore::{
        Crash, CrashPoint, KeyStore, OneTimePreKeyRecord, SignedPreKeyRecord, SqliteKeyStore,
    },
    machine::PoolPlan,
};

const DEVICES: u32 = 2;
const SENDERS: u32 = 2;
const RETAINED_MS: u64 = 30 * DAY_S * 1000;

#[derive(Clone, Debug)]
enum Step {
    /// A sender writes to both devices.
    Write(u32),
    /// One of all messages ever written arrives: late, early, or again.
    Deliver(prop::sample::Index),
    /// One of them never arrives from now on.
    Lose(prop::sample::Index),
    /// The same, while the device dies at a point of the transaction.
    DeliverAndCrash(prop::sample::Index, CrashPoint),
    /// The same, with a byte changed.
    Garble(prop::sample::Index, prop::sample::Index),
    /// A device comes online and does what is due.
    Tend(usize),
    /// The same, while the server loses a request or a reply.
    TendInBadWeather(usize, bool),
    Hours(u64),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let message = any::<prop::sample::Index>;
    let device = || 0..DEVICES as usize;
    let point = prop::sample::select(super::crash::POINTS.to_vec());
    prop_oneof![
        6 => (0..SENDERS).prop_map(Step::Write),
        10 => message().prop_map(Step::Deliver),
        1 => message().prop_map(Step::Lose),
        2 => (message(), point).prop_map(|(message, at)| Step::DeliverAndCrash(message, at)),
        2 => (message(), message()).prop_map(|(message, byte)| Step::Garble(message, byte)),
        4 => device().prop_map(Step::Tend),
        2 => (device(), any::<bool>()).prop_map(|(device, reply)| {
            Step::TendInBadWeather(device, reply)
        }),
        4 => (1u64..24 * 12).prop_map(Step::Hours),
        // Around the end of a secret's life.
        2 => (24 * 29u64..=24 * 30).prop_map(Step::Hours),
        2 => device().prop_map(Step::Restart),
    ]
}

/// A message on its way, with what the sender knows of it.
struct Sent {
    to: usize,
    outgoing: Outgoing,
    opened: bool,
    lost: bool,
}

/// A receiving device, with what should be true of its signed prekeys.
struct Receiver {
    folder: TempDir,
    client: TestClient,
    /// When each was replaced, as the device learned it.
    replaced: BTreeMap<u32, TimestampMs>,
    current: u32,
}

struct Weeks {
    world: World,
    senders: Vec<TestClient>,
    receivers: Vec<Receiver>,
    sent: Vec<Sent>,
    log: Vec<String>,
}

/// A small pool, so that it runs dry now and then.
const PLAN: PoolPlan = PoolPlan { watermark: 2, batch: 3, target: 5, covers_s: 0 };

impl Weeks {
    async fn new() -> Self {
        let world = World::new();
        let senders =
            (1..=SENDERS).map(|number| world.device(&format!("alice-{number}"), 1)).collect();
        let mut receivers = Vec::new();
        for device in 1..=DEVICES {
            let folder = tempfile::tempdir().unwrap();
            let store = SqliteKeyStore::open(folder.path(), &super::unlock()).unwrap();
            let new = NewDevice::new(user_id("bob"), device);
            Client::create(store, world.server.clone(), new).unwrap();
            let client = open(&world, &folder);
            client.publish(4).await.unwrap();
            let replaced = BTreeMap::new();
            receivers.push(Receiver { folder, client, replaced, current: 1 });
        }
        Self { world, senders, receivers, sent: Vec::new(), log: Vec::new() }
    }

    async fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.log.push(format!("{:?}: {step:?}", self.world.clock.now()));
        match step {
            Step::Write(sender) => self.write(*sender as usize).await,
            Step::Deliver(_) | Step::Lose(_) | Step::DeliverAndCrash(..) | Step::Garble(..)
                if self.sent.is_empty() =>
            {
                Ok(())
            }
            Step::Deliver(index) => self.deliver(index.index(self.sent.len())),
            Step::Lose(index) => {
                let message = index.index(self.sent.len());
                self.sent[message].lost = true;
                Ok(())
            }
            Step::DeliverAndCrash(index, point) => {
                self.deliver_and_crash(index.index(self.sent.len()), *point)
            }
            Step::Garble(index, byte) => self.garble(index.index(self.sent.len()), byte),
            Step::Tend(device) => {
                self.receivers[*device].client.tend().await.unwrap().unwrap();
                self.learn(*device)
            }
            Step::TendInBadWeather(device, lose_reply) => {
                let fault = if *lose_reply { Fault::LoseReply } else { Fault::LoseRequest };
                // The first call of a device without a pending write is a look; the second writes.
                self.world.server.after(1, fault);
                let _ = self.receivers[*device].client.tend().await;
                self.world.server.clear_up();
                self.learn(*device)
            }
            Step::Hours(hours) => {
                self.world.clock.pass_hours(*hours);
                Ok(())
            }
            Step::Restart(device) => {
                self.restart(*device);
                Ok(())
            }
        }
    }

    fn restart(&mut self, device: usize) {
        let client = open(&self.world, &self.receivers[device].folder);
        self.receivers[device].client = client;
    }

    async fn write(&mut self, sender: usize) -> Result<(), TestCaseError> {
        let payload = format!("from {sender}");
        let (bob, options) = (user_id("bob"), FetchOptions::default());
        let alice = &self.senders[sender];
        let fan_out = alice.send_to_all(&bob, payload.as_bytes(), b"ad", &options).await.unwrap();
        for outcome in fan_out.devices {
            let to = outcome.device.0 as usize - 1;
            match outcome.outcome {
                Ok(outgoing) => self.sent.push(Sent { to, outgoing, opened: false, lost: false }),
                // Away for longer than its signed prekey is valid.
                Err(refused) => prop_assert!(
                    refused.to_string().contains("expired"),
                    "{refused}: {:#?}",
                    self.log
                ),
            }
        }
        Ok(())
    }

    fn deliver(&mut self, message: usize) -> Result<(), TestCaseError> {
        let sent = &self.sent[message];
        if sent.lost {
            return Ok(());
        }
        let received = self.receivers[sent.to].client.receive(&sent.outgoing.message, b"ad");
        self.check(message, received)
    }

    fn deliver_and_crash(&mut self, message: usize, at: CrashPoint) -> Result<(), TestCaseError> {
        let (to, bytes) = (self.sent[message].to, self.sent[message].outgoing.message.clone());
        *self.receivers[to].client.store.crash_at.lock() = Some((at, Crash::Fail));
        let received = self.receivers[to].client.receive(&bytes, b"ad");
        let died = matches!(received, Err(ReceiveError::Store(_)));
        self.restart(to);
        if died {
            prop_assert!(!self.sent[message].opened, "accepted again: {:#?}", self.log);
            // The plaintext was lost with the process; whether it was delivered is on disk.
            let session = self.sent[message].outgoing.session.id;
            let is_stored = self.receivers[to].client.session(session).unwrap().is_some();
            prop_assert_eq!(is_stored, at == CrashPoint::Committed, "{:#?}", self.log);
            self.sent[message].opened = is_stored;
            Ok(())
        } else {
            self.check(message, received)
        }
    }

    fn garble(&mut self, message: usize, byte: &prop::sample::Index) -> Result<(), TestCaseError> {
        let sent = &self.sent[message];
        let mut garbled = sent.outgoing.message.clone();
        let byte = byte.index(garbled.len());
        garbled[byte] ^= 0x80;
        let received = self.receivers[sent.to].client.receive(&garbled, b"ad");
        // Of a handshake that was accepted, any copy is a duplicate, garbled or not.
        let is_new = matches!(received, Ok(Received::New { .. }));
        prop_assert!(!is_new, "byte {} garbled: {:#?}", byte, self.log);
        Ok(())
    }

    /// Whether what came of a message is what the rules say.
    fn check(
        &mut self,
        message: usize,
        received: Result<Received, ReceiveError>,
    ) -> Result<(), TestCaseError> {
        let now = self.world.clock.now();
        let sent = &mut self.sent[message];
        let receiver = &self.receivers[sent.to];
        let ours = &sent.outgoing.session;
        let spk = ours.signed_prekey.0;
        let replaced = receiver.replaced.get(&spk).copied();
        let retained = replaced.is_none_or(|replaced| replaced.0 + RETAINED_MS > now.0);
        let log = &self.log;
        match received {
            Ok(Received::New { payload, session }) => {
                prop_assert!(retained, "opened after its time: {log:#?}");
                prop_assert!(!sent.opened, "opened twice: {log:#?}");
                prop_assert!(payload.as_bytes().starts_with(b"from "), "{log:#?}");
                prop_assert_eq!(session.id, ours.id, "{:#?}", log);
                prop_assert_eq!(
                    session.keys().unwrap().root().as_bytes(),
                    ours.keys().unwrap().root().as_bytes()
                );
                prop_assert_eq!(
                    session.keys().unwrap().chain().as_bytes(),
                    ours.keys().unwrap().chain().as_bytes()
                );
                sent.opened = true;
                if let Some(id) = ours.one_time_prekey {
                    let record = receiver.client.store.one_time_prekey(id).unwrap();
                    let erased = matches!(record, OneTimePreKeyRecord::Used(_));
                    prop_assert!(erased, "{id} is {record:?}: {log:#?}");
                }
            }
            Ok(Received::Duplicate { session }) => {
                prop_assert!(retained && sent.opened, "called a duplicate: {log:#?}");
                prop_assert_eq!(session.id, ours.id, "{:#?}", log);
            }
            Err(ReceiveError::UnknownSpk { id, why: WhyGone::Expired { replaced: said } }) => {
                prop_assert!(!retained, "lost its key: {log:#?}");
                prop_assert_eq!((id.0, Some(said)), (spk, replaced), "{:#?}", log);
            }
            Err(error) => prop_assert!(false, "message {message}: {error}: {log:#?}"),
        }
        Ok(())
    }

    /// Notes which signed prekeys a device has learned to be replaced, and checks that secrets are
    /// deleted in time.
    fn learn(&mut self, device: usize) -> Result<(), TestCaseError> {
        let now = self.world.clock.now();
        let receiver = &mut self.receivers[device];
        let state = receiver.client.store.state().unwrap();
        let current = state.current.unwrap().0;
        for id in receiver.current..current {
            receiver.replaced.insert(id, now);
        }
        receiver.current = current;
        for (id, replaced) in &receiver.replaced {
            let record = receiver.client.store.signed_prekey(SignedPreKeyId(*id)).unwrap();
            let held = matches!(record, SignedPreKeyRecord::Held(_));
            let retained = replaced.0 + RETAINED_MS > now.0;
            prop_assert_eq!(held, retained, "signed prekey {}: {:#?}", id, self.log);
        }
        Ok(())
    }
}

fn open(world: &World, folder: &TempDir) -> TestClient {
    let config = Config { pool: PLAN, ..world.config() };
    world.reopen(folder.path()).with_config(config)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_message_opens_once_and_for_as_long_as_its_keys_should_exist(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut weeks = Weeks::new().await;
            for step in &steps {
                weeks.run(step).await?;
            }
            // Whatever is still on its way arrives, in the order of the oldest last.
            for message in (0..weeks.sent.len()).rev() {
                weeks.deliver(message)?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}
