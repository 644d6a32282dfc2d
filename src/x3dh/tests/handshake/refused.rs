//! Keys and messages that must be refused, made by `tests/vectors/native.py`.

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{
    AppAd, Expectations, Failure, LocalDevice, Received,
    keys::{
        AccountPublic, AuthenticationPublic, EphemeralPublic, IdentityKeyPair, IdentityPublic,
        KeyError, OneTimePreKeyPublic, SignedPreKeyPublic,
    },
};
use serde::Deserialize;

use crate::{
    native,
    party::address,
    vectors::{Hex, read},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    keys: Vec<Key>,
    base: native::Vector,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    form: String,
    key: Hex,
    error: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    name: String,
    message: Hex,
    outcome: String,
}

fn name_of(error: KeyError) -> &'static str {
    match error {
        KeyError::Length { .. } => "length",
        KeyError::NotOnCurve => "not_on_curve",
        KeyError::NotCanonical => "not_canonical",
        KeyError::LowOrder => "low_order",
        KeyError::Torsion => "torsion",
        other => panic!("an error that the vectors do not name: {other}"),
    }
}

/// What every type of key of one form says of the bytes.
fn verdicts(form: &str, key: &[u8]) -> Vec<Result<(), KeyError>> {
    match form {
        "ed25519" => vec![
            IdentityPublic::from_ed25519(key).map(drop),
            AuthenticationPublic::from_bytes(key).map(drop),
            AccountPublic::from_bytes(key).map(drop),
        ],
        "x25519" => vec![
            SignedPreKeyPublic::from_bytes(key).map(drop),
            OneTimePreKeyPublic::from_bytes(key).map(drop),
            EphemeralPublic::from_bytes(key).map(drop),
        ],
        other => panic!("form {other}"),
    }
}

fn check_keys(prefix: &str, expected: usize) {
    let file: File = read("refused.json");
    let keys: Vec<_> = file.keys.iter().filter(|key| key.name.starts_with(prefix)).collect();
    assert_eq!(keys.len(), expected, "vectors whose name starts with {prefix}");
    for key in keys {
        for verdict in verdicts(&key.form, &key.key.0) {
            let error = verdict.err().map(name_of);
            assert_eq!(error, Some(key.error.as_str()), "{}: {:?}", key.name, key.key);
        }
    }
}

#[test]
fn ed25519_keys_of_low_order_are_refused() {
    check_keys("ed25519_low_order_", 8);
}

#[test]
fn ed25519_torsion_siblings_are_refused() {
    check_keys("ed25519_torsion_sibling_", 7);
}

#[test]
fn ed25519_keys_at_or_above_p_are_refused() {
    check_keys("ed25519_non_canonical_", 24);
}

#[test]
fn ed25519_keys_with_the_sign_of_a_zero_are_refused() {
    check_keys("ed25519_negative_zero_", 2);
}

#[test]
fn ed25519_keys_off_the_curve_are_refused() {
    check_keys("ed25519_not_on_the_curve", 1);
}

#[test]
fn ed25519_keys_of_a_wrong_length_are_refused() {
    check_keys("ed25519_long", 1);
}

#[test]
fn x25519_keys_with_bit_255_are_refused() {
    check_keys("x25519_bit_255_set", 1);
}

#[test]
fn x25519_keys_at_or_above_p_are_refused() {
    check_keys("x25519_p_plus_", 4);
}

#[test]
fn x25519_keys_of_low_order_are_refused() {
    check_keys("x25519_low_order_", 5);
}

#[test]
fn x25519_keys_of_a_wrong_length_are_refused() {
    check_keys("x25519_short", 1);
}

#[test]
fn every_bad_key_of_the_file_belongs_to_a_test() {
    let file: File = read("refused.json");
    assert_eq!(file.keys.len(), 8 + 7 + 24 + 2 + 1 + 1 + 1 + 4 + 5 + 1);
}

/// Bob's answer to the bytes of a message, with the keys of the file's base handshake.
fn answer(base: &native::Vector, message: &[u8]) -> Result<Vec<u8>, Failure> {
    let me = address(&base.userB.0, base.devB);
    let identity = IdentityKeyPair::from_seed(&base.ikB_seed.key());
    let (spk, opk) = (base.spk(), base.opk());
    let received = Received::parse(message, &me)?;
    if received.message().signed_prekey_id() != SignedPreKeyId(base.spk_id) {
        return Err(Failure::SpkUnknown);
    }
    let opk = match received.message().one_time_prekey_id() {
        None => None,
        Some(id) if Some(id) == base.opk_id.map(OneTimePreKeyId) => opk.as_ref(),
        Some(_) => return Err(Failure::OpkMissing),
    };
    let local = LocalDevice { address: &me, identity: &identity };
    let accepted =
        received.open(local, &spk, opk, AppAd::default())?.accept(&Expectations::default())?;
    let delivered = accepted.commit(|_| Ok::<(), Failure>(()))?;
    Ok(delivered.payload.as_bytes().to_vec())
}

macro_rules! message_tests {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                let file: File = read("refused.json");
                let case = file
                    .messages
                    .iter()
                    .find(|case| case.name == stringify!($name))
                    .expect("the file holds a message of this name");
                let outcome = match answer(&file.base, &case.message.0) {
                    Ok(payload) => {
                        assert_eq!(Hex(payload), file.base.payload);
                        "opens"
                    }
                    Err(failure) => failure.reason(),
                };
                assert_eq!(outcome, case.outcome);
            }
        )+

        #[test]
        fn every_message_of_the_file_has_its_test() {
            let file: File = read("refused.json");
            let names: Vec<_> = file.messages.iter().map(|case| case.name.as_str()).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
        }
    };
}

message_tests!(
    untouched,
    version_2,
    version_0,
    suite_2,
    flag_pq,
    flag_unknown,
    flag_opk_cleared,
    opk_stripped,
    sender_renamed,
    sender_shortened,
    sender_on_another_device,
    recipient_renamed,
    recipient_on_another_device,
    identity_of_another,
    identity_torsion_sibling,
    identity_not_canonical,
    identity_of_low_order,
    ephemeral_of_another,
    ephemeral_bit_255,
    ephemeral_zero,
    signed_prekey_of_another_id,
    one_time_prekey_of_another_id,
    length_too_short,
    length_too_long,
    length_huge,
    ciphertext_flipped,
    tag_flipped,
    ciphertext_of_another_message,
    trailing_byte,
    truncated,
    empty,
);
