//! Strategies for property tests.

use core::ops::RangeInclusive;

use oncekey_types::{
    BackupId, CallerId, DeviceId, Epoch, LogIndex, OneTimePreKeyId, RegistrationId, RequestId, Seq,
    SignedPreKeyId, TimestampMs, UnixSeconds, UserId,
};
use proptest::{collection::vec, option, prelude::*};

use crate::{
    command::{
        AddOneTimePreKeys, Batch, BucketPolicy, Command, DeviceList, Dispense, Follows,
        IdentityKey, KeyBytes, OneTimePreKey, Policy, PutDeviceList, Register, RemoveDevice,
        ReplaceSignedPreKey, Restore, RestoreStep, RestoredRecord, SignedPreKey, WriteTag,
    },
    outcome::{Bundle, Dispensed, Issue, PoolState},
};

/// Keys with these ids. The same id always has the same key.
pub(crate) fn keys(ids: &[u32]) -> Vec<OneTimePreKey> {
    ids.iter()
        .map(|&id| OneTimePreKey {
            id: OneTimePreKeyId(id),
            key: KeyBytes([[0xAA; 28].as_slice(), &id.to_be_bytes()].concat()),
            signature: KeyBytes(vec![0xBB; 64]),
        })
        .collect()
}

/// A signed prekey with this id. The same id always has the same key.
pub(crate) fn signed_prekey(id: u32) -> SignedPreKey {
    SignedPreKey {
        id: SignedPreKeyId(id),
        key: KeyBytes([[0xCC; 28].as_slice(), &id.to_be_bytes()].concat()),
        created: UnixSeconds(1),
        expires: UnixSeconds(2),
        signature: KeyBytes(vec![0xDD; 64]),
    }
}

pub(crate) fn user() -> impl Strategy<Value = UserId> {
    prop_oneof!["[a-zé]{1,12}", "a{255}"].prop_map(|text| UserId::new(text).unwrap())
}

pub(crate) fn caller() -> impl Strategy<Value = CallerId> {
    prop_oneof!["[a-zé]{1,12}", "a{255}"].prop_map(|text| CallerId::new(text).unwrap())
}

pub(crate) fn key_bytes() -> impl Strategy<Value = KeyBytes> {
    vec(any::<u8>(), 1..70).prop_map(KeyBytes)
}

pub(crate) fn one_time_prekeys(
    count: RangeInclusive<usize>,
) -> impl Strategy<Value = Vec<OneTimePreKey>> {
    vec((1u32..1000, key_bytes(), key_bytes()), count).prop_map(|keys| {
        let mut last = 0;
        keys.into_iter()
            .map(|(step, key, signature)| {
                last += step;
                OneTimePreKey { id: OneTimePreKeyId(last), key, signature }
            })
            .collect()
    })
}

pub(crate) fn any_signed_prekey() -> impl Strategy<Value = SignedPreKey> {
    (any::<u32>(), key_bytes(), any::<[u64; 2]>(), key_bytes()).prop_map(
        |(id, key, [created, expires], signature)| SignedPreKey {
            id: SignedPreKeyId(id),
            key,
            created: UnixSeconds(created),
            expires: UnixSeconds(expires),
            signature,
        },
    )
}

fn tag() -> impl Strategy<Value = WriteTag> {
    (any::<u64>(), any::<[u8; 32]>()).prop_map(|(seq, digest)| WriteTag { seq: Seq(seq), digest })
}

fn identity_key() -> impl Strategy<Value = IdentityKey> {
    (any::<u8>(), key_bytes()).prop_map(|(kind, key)| IdentityKey { kind, key })
}

pub(crate) fn device_list() -> impl Strategy<Value = DeviceList> {
    (key_bytes(), any::<u64>(), any::<[[u8; 32]; 2]>(), vec(any::<u8>(), 1..200), key_bytes())
        .prop_map(|(account_key, seq, [prev_hash, hash], bytes, signature)| DeviceList {
            account_key,
            seq: Seq(seq),
            prev_hash,
            hash,
            bytes,
            signature,
        })
}

pub(crate) fn register() -> impl Strategy<Value = Register> {
    (
        user(),
        any::<u32>(),
        tag(),
        identity_key(),
        (key_bytes(), key_bytes()),
        any_signed_prekey(),
        one_time_prekeys(0..=5),
        (option::of(device_list()), epoch(), any::<u32>()),
    )
        .prop_map(|(user, device, tag, identity_key, (ak, ak_signature), spk, keys, last)| {
            let (device_list, epoch, follows_number) = last;
            Register {
                user,
                device: DeviceId(device),
                tag,
                follows: follows(follows_number),
                identity_key,
                authentication_key: ak,
                authentication_signature: ak_signature,
                signed_prekey: spk,
                one_time_prekeys: keys,
                device_list,
                epoch,
            }
        })
}

fn follows(number: u32) -> Follows {
    match number % 3 {
        0 => Follows::Nothing,
        1 => Follows::Unsaid,
        _ => Follows::Registration(RegistrationId(number)),
    }
}

fn epoch() -> impl Strategy<Value = Epoch> {
    prop_oneof![Just(Epoch::FIRST), any::<u64>().prop_map(Epoch)]
}

fn restore() -> impl Strategy<Value = Restore> {
    let record = (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20))
        .prop_map(|(key, value)| RestoredRecord { key, value });
    let step = prop_oneof![
        Just(RestoreStep::Begin),
        vec(record, 0..4).prop_map(RestoreStep::Put),
        Just(RestoreStep::End),
    ];
    (any::<[u8; 16]>(), epoch(), step).prop_map(|(backup, epoch, step)| Restore {
        backup: BackupId(backup),
        epoch,
        step,
    })
}

pub(crate) fn dispense() -> impl Strategy<Value = Dispense> {
    (user(), option::of(vec(any::<u32>(), 0..4)), caller(), "[!-~]{1,64}", any::<bool>()).prop_map(
        |(user, devices, caller, request, require_one_time_prekey)| Dispense {
            user,
            devices: devices.map(|devices| devices.into_iter().map(DeviceId).collect()),
            caller,
            request: RequestId::new(request).unwrap(),
            require_one_time_prekey,
        },
    )
}

pub(crate) fn pool_state() -> impl Strategy<Value = PoolState> {
    (any::<u32>(), any::<u32>(), any::<Option<u32>>()).prop_map(|(count, spk, highest)| PoolState {
        count,
        signed_prekey: SignedPreKeyId(spk),
        highest_accepted: highest.map(OneTimePreKeyId),
    })
}

pub(crate) fn dispensed() -> impl Strategy<Value = Dispensed> {
    let issue = prop_oneof![
        one_time_prekeys(1..=1).prop_map(|mut keys| Issue::Issued(keys.remove(0))),
        Just(Issue::Exhausted),
        Just(Issue::Withheld),
    ];
    let bundle = (any::<[u32; 2]>(), identity_key(), any_signed_prekey(), issue).prop_map(
        |([device, registration], identity_key, signed_prekey, one_time_prekey)| Bundle {
            device: DeviceId(device),
            registration: RegistrationId(registration),
            identity_key,
            signed_prekey,
            one_time_prekey,
        },
    );
    (any::<u64>(), any::<bool>(), any::<Option<u64>>(), vec(bundle, 0..4)).prop_map(
        |(index, repeated, seq, bundles)| Dispensed {
            index: LogIndex(index),
            repeated,
            device_list_seq: seq.map(Seq),
            bundles,
        },
    )
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let write = || (user(), any::<u32>(), any::<u32>().prop_map(RegistrationId), tag());
    prop_oneof![
        register().prop_map(Command::Register),
        dispense().prop_map(Command::Dispense),
        restore().prop_map(Command::Restore),
        (write(), any_signed_prekey(), epoch()).prop_map(
            |((user, device, registration, tag), signed_prekey, epoch)| {
                let device = DeviceId(device);
                Command::ReplaceSignedPreKey(ReplaceSignedPreKey {
                    user,
                    device,
                    tag,
                    registration,
                    signed_prekey,
                    epoch,
                })
            }
        ),
        (write(), one_time_prekeys(0..=5), epoch()).prop_map(
            |((user, device, registration, tag), one_time_prekeys, epoch)| {
                let device = DeviceId(device);
                Command::AddOneTimePreKeys(AddOneTimePreKeys {
                    user,
                    device,
                    tag,
                    registration,
                    one_time_prekeys,
                    epoch,
                })
            }
        ),
        (user(), any::<u32>(), any::<Option<u64>>(), any::<Option<u32>>()).prop_map(
            |(user, device, seq, registration)| {
                Command::RemoveDevice(RemoveDevice {
                    user,
                    device: DeviceId(device),
                    seq: seq.map(Seq),
                    registration: registration.map(RegistrationId),
                })
            }
        ),
        (user(), device_list())
            .prop_map(|(user, list)| Command::PutDeviceList(PutDeviceList { user, list })),
    ]
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let bucket = |(capacity, refill_ms)| BucketPolicy { capacity, refill_ms };
    any::<(u64, (u32, u64), (u32, u64))>().prop_map(move |(window, caller, target)| Policy {
        retry_window_ms: window,
        per_caller: bucket(caller),
        per_target: bucket(target),
    })
}

pub(crate) fn batch() -> impl Strategy<Value = Batch> {
    (any::<u64>(), policy(), vec(command(), 0..6)).prop_map(|(time, policy, commands)| Batch {
        time: TimestampMs(time),
        policy,
        commands,
    })
}
