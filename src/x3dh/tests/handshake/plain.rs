//! Vectors of the plain profile, computed by the Python package X3DH (`tests/vectors/plain.py`).

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{
    conformance::FixedRng,
    keys::{IdentityKeyPair, IdentityKind, OneTimePreKeyPair, Signature, SignedPreKeyPair},
    plain::{Bundle, Error, HashFunction, KeyEncoding, Profile},
};
use serde::Deserialize;

use crate::vectors::{Hex, assert_hex, read, vector_tests};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    format: String,
    kind: String,
    hash: String,
    encoding: String,
    info: Hex,
    ad: Hex,
    ik_a: Hex,
    ik_b: Hex,
    spk: Hex,
    ek: Hex,
    opk: Option<Hex>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    ik_a_public: Hex,
    ik_b_public: Hex,
    ek_public: Hex,
    spk_public: Hex,
    opk_public: Option<Hex>,
    signature: Hex,
    sk: Hex,
    ad: Hex,
}

impl Vector {
    fn profile(&self) -> Profile<'_> {
        let hash = match self.hash.as_str() {
            "sha256" => HashFunction::Sha256,
            "sha512" => HashFunction::Sha512,
            other => panic!("hash {other}"),
        };
        let encoding = match self.encoding.as_str() {
            "raw" => KeyEncoding::Raw,
            "djb05" => KeyEncoding::Djb05,
            other => panic!("encoding {other}"),
        };
        Profile { hash, encoding, info: &self.info.0 }
    }

    fn identity(&self, secret: &Hex) -> IdentityKeyPair {
        let kind = match self.format.as_str() {
            "ed25519" => IdentityKind::Ed25519,
            "curve25519" => IdentityKind::Curve25519,
            other => panic!("format {other}"),
        };
        match self.kind.as_str() {
            "seed" => IdentityKeyPair::from_seed_as(kind, &secret.key()),
            "priv" => IdentityKeyPair::from_scalar(kind, &secret.key()),
            other => panic!("kind of secret {other}"),
        }
        .expect("a valid identity")
    }
}

fn load() -> Vec<Vector> {
    read("plain.json")
}

fn check(vector: &Vector) {
    let (profile, expect) = (vector.profile(), &vector.expect);
    let (ik_a, ik_b) = (vector.identity(&vector.ik_a), vector.identity(&vector.ik_b));
    let spk = SignedPreKeyPair::from_secret(SignedPreKeyId(0), &vector.spk.key());
    let opk = vector
        .opk
        .as_ref()
        .map(|opk| OneTimePreKeyPair::from_secret(OneTimePreKeyId(0), &opk.key()));
    let bundle = Bundle {
        identity: *ik_b.public(),
        signed_prekey: *spk.public(),
        signature: Signature::from_bytes(
            expect.signature.0.as_slice().try_into().expect("64 bytes"),
        ),
        one_time_prekey: opk.as_ref().map(|opk| *opk.public()),
    };

    let mut rng = FixedRng::new(vector.ek.key());
    let (alice, header) =
        profile.initiate(&ik_a, &bundle, &vector.ad.0, &mut rng).expect("a good bundle");
    let bob =
        profile.respond(&ik_b, &spk, opk.as_ref(), &header, &vector.ad.0).expect("a good header");

    assert_hex("IK_A", header.identity.as_bytes(), &expect.ik_a_public);
    assert_hex("IK_B", ik_b.public().as_bytes(), &expect.ik_b_public);
    assert_hex("EK_A", header.ephemeral.as_bytes(), &expect.ek_public);
    assert_hex("SPK_B", header.signed_prekey.as_bytes(), &expect.spk_public);
    let opk_b = header.one_time_prekey.map(|opk| Hex(opk.as_bytes().to_vec()));
    assert_eq!(opk_b, expect.opk_public);
    for side in [&alice, &bob] {
        assert_hex("SK", side.sk(), &expect.sk);
        assert_hex("AD", side.ad(), &expect.ad);
    }

    // Our own signature serves as well, and a changed one does not.
    let ours = profile.sign(&ik_b, spk.public(), &mut FixedRng::new([9; 32]));
    let bundle = Bundle { signature: ours, ..bundle };
    assert!(profile.initiate(&ik_a, &bundle, &[], &mut rng).is_ok());
    let mut bytes = *ours.as_bytes();
    bytes[40] ^= 1;
    let bundle = Bundle { signature: Signature::from_bytes(bytes), ..bundle };
    let refused = profile.initiate(&ik_a, &bundle, &[], &mut rng).err();
    assert!(matches!(refused, Some(Error::Signature(_))), "{refused:?}");
}

vector_tests!(
    load,
    check,
    [
        ed25519_seed_sha256_opk_raw,
        ed25519_seed_sha256_opk_djb05,
        ed25519_seed_sha256_no_opk_raw,
        ed25519_seed_sha256_no_opk_djb05,
        ed25519_seed_sha512_opk_raw,
        ed25519_seed_sha512_opk_djb05,
        ed25519_seed_sha512_no_opk_raw,
        ed25519_seed_sha512_no_opk_djb05,
        ed25519_priv_sha256_opk_raw,
        ed25519_priv_sha256_opk_djb05,
        ed25519_priv_sha256_no_opk_raw,
        ed25519_priv_sha256_no_opk_djb05,
        ed25519_priv_sha512_opk_raw,
        ed25519_priv_sha512_opk_djb05,
        ed25519_priv_sha512_no_opk_raw,
        ed25519_priv_sha512_no_opk_djb05,
        curve25519_seed_sha256_opk_raw,
        curve25519_seed_sha256_opk_djb05,
        curve25519_seed_sha256_no_opk_raw,
        curve25519_seed_sha256_no_opk_djb05,
        curve25519_seed_sha512_opk_raw,
        curve25519_seed_sha512_opk_djb05,
        curve25519_seed_sha512_no_opk_raw,
        curve25519_seed_sha512_no_opk_djb05,
        curve25519_priv_sha256_opk_raw,
        curve25519_priv_sha256_opk_djb05,
        curve25519_priv_sha256_no_opk_raw,
        curve25519_priv_sha256_no_opk_djb05,
        curve25519_priv_sha512_opk_raw,
        curve25519_priv_sha512_opk_djb05,
        curve25519_priv_sha512_no_opk_raw,
        curve25519_priv_sha512_no_opk_djb05,
    ]
);
