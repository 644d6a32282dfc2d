use oncekey_api::{
    Code, Problem,
    bundle::{Bundle as WireBundle, OneTimePreKeyStatus},
    problem::Members,
};
use oncekey_types::Epoch;
use oncekey_x3dh::{
    Expectations,
    keys::{AuthenticationPublic, IdentityPublic},
};
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::keystore::{Resync, Settled};

fn state() -> DeviceState {
    DeviceState {
        epoch: Epoch::FIRST,
        registration: None,
        seq: Seq(0),
        current: None,
        highest_signed_prekey: SignedPreKeyId(0),
        highest_one_time_prekey: OneTimePreKeyId(0),
        pending: None,
    }
}

fn device(rng: &mut StdRng) -> Device {
    let bob = UserId::new("bob").unwrap();
    Device::generate(bob, DeviceId(1), None, rng)
}

const NOW: TimestampMs = TimestampMs(1_790_000_000_999);

fn at<'a>(rng: &'a mut StdRng, lifetimes: &'a Lifetimes) -> Signing<'a, StdRng> {
    Signing { now: NOW, lifetimes, rng }
}

proptest! {
    #[test]
    fn what_is_registered_verifies_as_a_bundle_of_the_device(seed: u64, opks in 0usize..4) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let device = device(rng);
        let lifetimes = Lifetimes::default();
        let staged = device.register(&state(), None, opks, None, at(rng, &lifetimes)).unwrap();
        let body: Register = serde_json::from_slice(&staged.write.body).unwrap();
        prop_assert_eq!(body.one_time_prekeys.len(), opks);
        prop_assert_eq!(body.signed_prekey.created, UnixSeconds(1_790_000_000));
        prop_assert_eq!(
            body.signed_prekey.expires,
            UnixSeconds(1_790_000_000 + lifetimes.valid_for_s)
        );

        let identity = IdentityPublic::from_ed25519(&body.identity_key.key.0).unwrap();
        let authentication = AuthenticationPublic::from_bytes(&body.authentication_key.0).unwrap();
        let signature = wire::signature(&body.authentication_signature).unwrap();
        identity
            .verify_authentication_key(device.address(), &authentication, &signature)
            .unwrap();
        let wire = WireBundle {
            device: DeviceId(1),
            registration: oncekey_types::RegistrationId(1),
            identity_key: body.identity_key,
            signed_prekey: body.signed_prekey,
            one_time_prekey: body.one_time_prekeys.first().cloned(),
            one_time_prekey_status: match opks {
                0 => OneTimePreKeyStatus::Exhausted,
                _ => OneTimePreKeyStatus::Issued,
            },
        };
        wire::bundle(device.user(), &wire)
            .unwrap()
            .verify(NOW.to_seconds(), &Expectations::default())
            .unwrap();
    }

    #[test]
    fn new_ids_are_above_all_ids_ever_heard_of(
        seed: u64, seq in 0u64..1 << 40, spk in 0u32..1 << 30, opk in 0u32..1 << 30,
    ) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let device = device(rng);
        let state = DeviceState {
            seq: Seq(seq),
            highest_signed_prekey: SignedPreKeyId(spk),
            highest_one_time_prekey: OneTimePreKeyId(opk),
            ..state()
        };
        let lifetimes = Lifetimes::default();
        let staged = device.register(&state, None, 3, None, at(rng, &lifetimes)).unwrap();
        prop_assert_eq!(staged.after, Seq(seq));
        prop_assert_eq!(staged.write.seq, Seq(seq + 1));
        prop_assert_eq!(staged.write.signed_prekey, Some(SignedPreKeyId(spk + 1)));
        let ids: Vec<_> = staged.one_time_prekeys.iter().map(|pair| pair.id().0).collect();
        prop_assert_eq!(ids, [opk + 1, opk + 2, opk + 3]);
    }

    #[test]
    fn a_resync_skips_no_more_than_the_limit_and_takes_true_values_as_they_are(
        own: u32, said: u64, said_spk: u32, said_opk: u32,
    ) {
        let state = DeviceState {
            seq: Seq(own.into()),
            highest_signed_prekey: SignedPreKeyId(own),
            highest_one_time_prekey: OneTimePreKeyId(own),
            ..state()
        };
        let resync = Resync {
            epoch: Some(Epoch(said)),
            seq: Some(Seq(said)),
            signed_prekey: Some(SignedPreKeyId(said_spk)),
            one_time_prekey: Some(OneTimePreKeyId(said_opk)),
        };
        let bounded = resync.bounded(&state);
        let most = u64::from(own) + limits::RESYNC_JUMP_MAX;
        prop_assert_eq!(bounded.seq.unwrap().0, said.min(most));
        prop_assert_eq!(
            u64::from(bounded.signed_prekey.unwrap().0), u64::from(said_spk).min(most));
        prop_assert_eq!(
            u64::from(bounded.one_time_prekey.unwrap().0), u64::from(said_opk).min(most));
    }
}

#[test]
fn used_up_ids_are_an_error_and_never_wrap() {
    let rng = &mut StdRng::seed_from_u64(1);
    let device = device(rng);
    let lifetimes = Lifetimes::default();
    let spk = DeviceState { highest_signed_prekey: SignedPreKeyId(u32::MAX), ..state() };
    let opk = DeviceState { highest_one_time_prekey: OneTimePreKeyId(u32::MAX - 1), ..state() };
    let seq = DeviceState { seq: Seq(u64::MAX >> 1), ..state() };
    let rotated = device.rotate(&spk, at(rng, &lifetimes)).unwrap_err();
    assert_eq!(rotated, PlanError::IdsExhausted);
    assert!(device.replenish(&opk, 1, rng).is_ok());
    let replenished = device.replenish(&opk, 2, rng).unwrap_err();
    assert_eq!(replenished, PlanError::IdsExhausted);
    assert_eq!(device.remove(&seq).unwrap_err(), PlanError::IdsExhausted);
}

#[test]
fn each_refusal_has_its_consequence() {
    let members = Members { seq: Some(Seq(9)), ..Members::default() };
    let used = Settled::Refused(Resync { seq: Some(Seq(9)), ..Resync::default() });
    for (code, settled, redo) in [
        (Code::StaleSeq, used, true),
        (Code::RegistrationChanged, used, true),
        (Code::SignedPreKeyIdNotGrowing, used, true),
        (Code::OneTimePreKeyIdsNotGrowing, used, true),
        (Code::DeviceListOutOfOrder, used, true),
        (Code::UnknownDevice, Settled::Unregistered, false),
        (Code::UnknownUser, Settled::Unregistered, false),
        (Code::PoolFull, used, false),
        (Code::InvalidSignature, used, false),
    ] {
        let problem = Problem::with(code, "", members.clone());
        assert_eq!(refused(&state(), &problem), Refusal { settled, redo }, "{code}");
    }
}

#[test]
fn a_signed_prekey_is_due_and_retained_to_the_millisecond() {
    let lifetimes = Lifetimes { rotate_after_s: 10, valid_for_s: 100, retain_for_s: 20 };
    let mut spk = HeldSignedPreKey {
        pair: SignedPreKeyPair::generate(SignedPreKeyId(1), &mut StdRng::seed_from_u64(1)),
        created: UnixSeconds(1000),
        expires: UnixSeconds(1100),
        replaced: None,
    };
    assert!(!lifetimes.is_due(&spk, TimestampMs(1_009_999)));
    assert!(lifetimes.is_due(&spk, TimestampMs(1_010_000)));
    assert!(lifetimes.is_retained(&spk, TimestampMs(u64::MAX)), "current");
    spk.replaced = Some(TimestampMs(1_010_000));
    assert!(lifetimes.is_retained(&spk, TimestampMs(1_029_999)));
    assert!(!lifetimes.is_retained(&spk, TimestampMs(1_030_000)));
}

#[test]
fn the_machine_is_deterministic() {
    let bodies: Vec<_> = (0..2)
        .map(|_| {
            let rng = &mut StdRng::seed_from_u64(7);
            let device = device(rng);
            let lifetimes = Lifetimes::default();
            let staged = device.register(&state(), None, 3, None, at(rng, &lifetimes));
            staged.unwrap().write.body
        })
        .collect();
    assert_eq!(bodies[0], bodies[1]);
}
