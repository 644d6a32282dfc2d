//! Signed records and device lists, against `tests/vectors/native.py`, and what must not verify.

use oncekey_types::{DeviceId, OneTimePreKeyId, Seq, SignedPreKeyId, UnixSeconds};
use oncekey_x3dh::{
    Address, SafetyNumber,
    conformance::FixedRng,
    device_list::{
        DeviceList, DeviceListError, FIRST_PREV_HASH, ListedDevice, SuccessionError,
        VerifiedDeviceList,
    },
    keys::{
        AccountKeyPair, AccountPublic, AuthenticationKeyPair, AuthenticationPublic,
        IdentityKeyPair, OneTimePreKeyPair, Signature, SignedPreKeyPair,
    },
    prekey::{OneTimePreKey, SignedPreKey},
};
use rand::{SeedableRng, rngs::StdRng};
use serde::Deserialize;

use crate::{
    party::address,
    vectors::{Hex, assert_hex, read},
};

/// One vector; each kind has some of the fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    user: Option<Hex>,
    device: Option<u32>,
    ik_seed: Option<Hex>,
    id: Option<u32>,
    #[serde(rename = "priv")]
    secret: Option<Hex>,
    created: Option<u64>,
    expires: Option<u64>,
    signature: Option<Hex>,
    key: Option<Hex>,
    uk_seed: Option<Hex>,
    bytes: Option<Hex>,
    hash: Option<Hex>,
    keys: Option<[Hex; 2]>,
    users: Option<[Hex; 2]>,
    number: Option<String>,
}

impl Vector {
    fn owner(&self) -> Address {
        let user = self.user.as_ref().expect("a user");
        address(&user.0, self.device.expect("a device"))
    }

    fn identity(&self) -> IdentityKeyPair {
        IdentityKeyPair::from_seed(&self.ik_seed.as_ref().expect("a seed").key())
    }

    fn secret(&self) -> [u8; 32] {
        self.secret.as_ref().expect("a secret").key()
    }

    fn id(&self) -> u32 {
        self.id.expect("an id")
    }

    fn signature(&self) -> &Hex {
        self.signature.as_ref().expect("a signature")
    }
}

fn vector(name: &str) -> Vector {
    let vectors: Vec<Vector> = read("signed.json");
    vectors.into_iter().find(|vector| vector.name == name).expect("a vector of this name")
}

#[test]
fn a_signed_prekey_is_signed_as_elsewhere() {
    let vector = vector("signed_prekey");
    let (owner, identity) = (vector.owner(), vector.identity());
    let created = UnixSeconds(vector.created.expect("a time"));
    let expires = UnixSeconds(vector.expires.expect("a time"));
    let pair = SignedPreKeyPair::from_secret(SignedPreKeyId(vector.id()), &vector.secret());
    let rng = &mut FixedRng::new([0; 32]);
    let spk = pair.sign(&identity, &owner, created, expires, rng);
    assert_hex("signature", spk.signature.as_bytes(), vector.signature());

    let public = identity.public();
    assert!(spk.verify(public, &owner).is_ok());
    let other_key = *SignedPreKeyPair::from_secret(spk.id, &[1; 32]).public();
    let altered = [
        SignedPreKey { id: SignedPreKeyId(spk.id.0 + 1), ..spk.clone() },
        SignedPreKey { created: UnixSeconds(created.0 + 1), ..spk.clone() },
        SignedPreKey { expires: UnixSeconds(expires.0 + 1), ..spk.clone() },
        SignedPreKey { key: other_key, ..spk.clone() },
        SignedPreKey { signature: Signature::from_bytes([0; 64]), ..spk.clone() },
    ];
    for altered in altered {
        assert!(altered.verify(public, &owner).is_err(), "{altered:?}");
    }
    assert!(spk.verify(public, &address(owner.user(), 10)).is_err());
    assert!(spk.verify(public, &address(b"mallory", 9)).is_err());
    assert!(spk.verify(IdentityKeyPair::from_seed(&[1; 32]).public(), &owner).is_err());
}

#[test]
fn a_one_time_prekey_is_signed_as_elsewhere() {
    let vector = vector("one_time_prekey");
    let (owner, identity) = (vector.owner(), vector.identity());
    let pair = OneTimePreKeyPair::from_secret(OneTimePreKeyId(vector.id()), &vector.secret());
    let opk = pair.sign(&identity, &owner, &mut FixedRng::new([0; 32]));
    assert_hex("signature", opk.signature.as_bytes(), vector.signature());

    assert!(opk.verify(identity.public(), &owner).is_ok());
    let renumbered = OneTimePreKey { id: OneTimePreKeyId(1), ..opk.clone() };
    assert!(renumbered.verify(identity.public(), &owner).is_err());
    assert!(opk.verify(identity.public(), &address(owner.user(), 10)).is_err());
}

#[test]
fn an_authentication_key_is_signed_as_elsewhere() {
    let vector = vector("authentication_key");
    let (owner, identity) = (vector.owner(), vector.identity());
    let key = AuthenticationPublic::from_bytes(&vector.key.as_ref().expect("a key").0)
        .expect("a valid key");
    let rng = &mut FixedRng::new([0; 32]);
    let signature = identity.sign_authentication_key(&owner, &key, rng);
    assert_hex("signature", signature.as_bytes(), vector.signature());

    let public = identity.public();
    assert!(public.verify_authentication_key(&owner, &key, &signature).is_ok());
    let other = AuthenticationKeyPair::from_seed(&[1; 32]);
    assert!(public.verify_authentication_key(&owner, other.public(), &signature).is_err());
}

#[test]
fn the_device_lists_are_written_hashed_and_signed_as_elsewhere() {
    let lists = ["first_device_list", "second_device_list"].map(|name| {
        let vector = vector(name);
        let bytes = vector.bytes.as_ref().expect("bytes");
        let list = DeviceList::from_bytes(&bytes.0).expect("a canonical list");
        assert_hex("bytes", &list.to_bytes(), bytes);
        assert_hex("hash", &list.hash().0, vector.hash.as_ref().expect("a hash"));
        let account = AccountKeyPair::from_seed(&vector.uk_seed.as_ref().expect("a seed").key());
        let signature = list.sign(&account);
        assert_hex("signature", signature.as_bytes(), vector.signature());
        list.verify(account.public(), &signature).expect("a good signature")
    });
    let [first, second] = &lists;
    assert_eq!(second.check_successor_of(first), Ok(()));
    assert_eq!(second.list().devices().len(), 2);
    assert!(matches!(first.check_successor_of(second), Err(SuccessionError::Rollback { .. })));
}

#[test]
fn a_safety_number_is_computed_as_elsewhere() {
    let vector = vector("safety_number");
    let keys = vector.keys.expect("keys");
    let [alice, bob] = keys.map(|key| AccountPublic::from_bytes(&key.0).expect("a valid key"));
    let [alice_name, bob_name] = vector.users.expect("users");
    let number = SafetyNumber::new((&alice, &alice_name.0), (&bob, &bob_name.0));
    assert_eq!(Some(number.to_string()), vector.number);
}

fn listed(device: u32, seed: u64) -> ListedDevice {
    let rng = &mut StdRng::seed_from_u64(seed);
    ListedDevice {
        device: DeviceId(device),
        identity: *IdentityKeyPair::generate(rng).public(),
        authentication: *AuthenticationKeyPair::generate(rng).public(),
        added_at: UnixSeconds(seed),
    }
}

fn signed(list: DeviceList, account: &AccountKeyPair) -> VerifiedDeviceList {
    let signature = list.sign(account);
    list.verify(account.public(), &signature).expect("a good signature")
}

#[test]
fn a_device_list_has_exactly_one_encoding() {
    let bob = address(b"bob", 0);
    let devices = vec![listed(2, 2), listed(1, 1)];
    let list = DeviceList::new(&bob, Seq(1), FIRST_PREV_HASH, devices).expect("a good list");
    let bytes = list.to_bytes();
    assert_eq!(DeviceList::from_bytes(&bytes), Ok(list));

    let trailing = [bytes.as_slice(), &[0]].concat();
    assert_eq!(DeviceList::from_bytes(&trailing), Err(DeviceListError::Trailing { bytes: 1 }));
    for len in 0..bytes.len() {
        assert!(DeviceList::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
    // Two entries of equal length, swapped.
    let head = 2 + 3 + 8 + 32 + 2;
    let entry = (bytes.len() - head) / 2;
    let (front, back) = bytes[head..].split_at(entry);
    let swapped = [&bytes[..head], back, front].concat();
    assert_eq!(DeviceList::from_bytes(&swapped), Err(DeviceListError::Order));
    let doubled = [&bytes[..head], front, front].concat();
    assert_eq!(DeviceList::from_bytes(&doubled), Err(DeviceListError::Order));
}

#[test]
fn a_device_list_cannot_be_rolled_back_forked_or_skipped() {
    let (bob, account) = (address(b"bob", 0), AccountKeyPair::from_seed(&[5; 32]));
    let list = |seq, prev, devices: &[ListedDevice]| {
        let list = DeviceList::new(&bob, Seq(seq), prev, devices.to_vec());
        signed(list.expect("a good list"), &account)
    };
    let first = list(1, FIRST_PREV_HASH, &[listed(1, 1)]);
    let second = list(2, first.list().hash(), &[listed(1, 1), listed(2, 2)]);
    let third = list(3, second.list().hash(), &[listed(2, 2)]);
    let other = list(1, FIRST_PREV_HASH, &[listed(1, 9)]);
    let forked = list(2, other.list().hash(), &[listed(1, 1)]);

    assert_eq!(second.check_successor_of(&first), Ok(()));
    assert_eq!(first.check_successor_of(&first), Ok(()));
    let cases = [
        (first.check_successor_of(&second), "rolled back"),
        (other.check_successor_of(&first), "forks"),
        (forked.check_successor_of(&first), "forks"),
        (third.check_successor_of(&first), "skips"),
    ];
    for (verdict, word) in cases {
        let message = verdict.expect_err(word).to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_device_list_of_another_account_does_not_verify() {
    let list = DeviceList::new(&address(b"bob", 0), Seq(1), FIRST_PREV_HASH, vec![]);
    let list = list.expect("a good list");
    let signature = list.sign(&AccountKeyPair::from_seed(&[5; 32]));
    let other = AccountKeyPair::from_seed(&[6; 32]);
    assert!(list.verify(other.public(), &signature).is_err());
}

#[test]
fn only_the_first_device_list_names_no_predecessor() {
    let bob = address(b"bob", 0);
    for (seq, prev) in [
        (0, FIRST_PREV_HASH),
        (2, FIRST_PREV_HASH),
        (1, oncekey_x3dh::device_list::DeviceListHash([1; 32])),
    ] {
        let refused = DeviceList::new(&bob, Seq(seq), prev, vec![]);
        assert_eq!(refused, Err(DeviceListError::Start), "list {seq}");
    }
}
