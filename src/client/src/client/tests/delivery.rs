//! Messages that come late, twice, garbled and out of order, over weeks.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{TestClient, World, first_message};
use crate::client::{Outgoing, ReceiveError, Received};

#[derive(Clone, Debug)]
enum Step {
    /// Alice writes.
    Write,
    /// One of all messages ever written arrives, perhaps not for the first time.
    Deliver(prop::sample::Index),
    /// The same, with a byte changed.
    Garble(prop::sample::Index, prop::sample::Index),
    Rotate,
    Days(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Write),
        8 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        2 => any::<(prop::sample::Index, prop::sample::Index)>()
            .prop_map(|(message, byte)| Step::Garble(message, byte)),
        2 => Just(Step::Rotate),
        2 => (1u64..25).prop_map(Step::Days),
        1 => Just(Step::Restart),
    ]
}

/// What Bob should do, by the rules alone.
#[derive(Default)]
struct Model {
    day: u64,
    /// Day on which a signed prekey was replaced.
    replaced: BTreeMap<u32, u64>,
    opened: Vec<bool>,
}

impl Model {
    fn is_retained(&self, spk: u32) -> bool {
        let replaced = self.replaced.get(&spk);
        replaced.is_none_or(|replaced| replaced + 30 > self.day)
    }

    fn check(
        &mut self,
        message: usize,
        outgoing: &Outgoing,
        received: &Result<Received, ReceiveError>,
    ) -> Result<(), TestCaseError> {
        let spk = outgoing.session.signed_prekey.0;
        let (retained, opened) = (self.is_retained(spk), self.opened[message]);
        match received {
            Ok(Received::New { payload, session }) => {
                prop_assert!(retained && !opened, "message {} opened", message);
                prop_assert_eq!(payload.as_bytes(), b"hello");
                prop_assert_eq!(session.id, outgoing.session.id);
                self.opened[message] = true;
            }
            Ok(Received::Duplicate { session }) => {
                prop_assert!(retained && opened, "message {} called a duplicate", message);
                prop_assert_eq!(session.id, outgoing.session.id);
            }
            Err(ReceiveError::UnknownSpk { id, .. }) => {
                prop_assert!(!retained, "message {} lost its key", message);
                prop_assert_eq!(id.0, spk);
            }
            Err(error) => prop_assert!(false, "message {}: {}", message, error),
        }
        Ok(())
    }
}

async fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let alice: TestClient = world.device("alice", 1);
    let mut bob = world.device_in(folder.path(), "bob");
    // Fewer keys than messages: some handshakes go without.
    bob.publish(4).await.unwrap();
    let mut model = Model::default();
    let mut messages: Vec<Outgoing> = Vec::new();
    for step in steps {
        match step {
            Step::Write => {
                messages.push(first_message(&alice, "bob").await);
                model.opened.push(false);
            }
            Step::Deliver(_) | Step::Garble(..) if messages.is_empty() => {}
            Step::Deliver(index) => {
                let message = index.index(messages.len());
                let received = bob.receive(&messages[message].message, b"ad");
                model.check(message, &messages[message], &received)?;
            }
            Step::Garble(index, byte) => {
                let mut garbled = messages[index.index(messages.len())].message.clone();
                let byte = byte.index(garbled.len());
                garbled[byte] ^= 0x40;
                let opened = matches!(bob.receive(&garbled, b"ad"), Ok(Received::New { .. }));
                prop_assert!(!opened, "byte {} garbled", byte);
            }
            Step::Rotate => {
                let current = bob.rotate().await.unwrap().pool.signed_prekey.0;
                model.replaced.insert(current - 1, model.day);
            }
            Step::Days(days) => {
                // Stays within the time for which the current signed prekey is valid.
                world.clock.pass_days(*days);
                model.day += days;
                if let Some(written) = bob.rotate_if_due().await.unwrap() {
                    let current = written.pool.signed_prekey.0;
                    model.replaced.insert(current - 1, model.day);
                }
            }
            Step::Restart => bob = world.reopen(folder.path()),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_message_opens_once_and_for_as_long_as_its_keys_should_exist(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&steps))?;
    }
}
