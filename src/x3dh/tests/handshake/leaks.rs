//! What leaks of private keys cost, all 64 cases.
//!
//! The attacker knows everything that is public and a subset of {ik_a, ek_a, ik_b, spk_b, opk_b}.
//! A DH can be computed by whoever holds either of its private keys, and SK by whoever has every
//! DH.

use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{
    AppAd,
    conformance::{Native, Trace},
    keys::{IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::party::address;

/// A private key as X25519 uses it.
fn public(secret: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*secret)).to_bytes()
}

fn dh(secret: &[u8; 32], public: [u8; 32]) -> [u8; 32] {
    StaticSecret::from(*secret).diffie_hellman(&PublicKey::from(public)).to_bytes()
}

/// The private keys of one handshake, or those of them that leaked.
struct Keys<T> {
    ik_a: T,
    ek_a: T,
    ik_b: T,
    spk_b: T,
    opk_b: T,
}

type Secrets = Keys<[u8; 32]>;
type Leaked<'a> = Keys<Option<&'a [u8; 32]>>;

impl Secrets {
    fn leak(&self, subset: u32) -> Leaked<'_> {
        let leaked = |bit: u32, key| (subset & (1 << bit) != 0).then_some(key);
        Keys {
            ik_a: leaked(0, &self.ik_a),
            ek_a: leaked(1, &self.ek_a),
            ik_b: leaked(2, &self.ik_b),
            spk_b: leaked(3, &self.spk_b),
            opk_b: leaked(4, &self.opk_b),
        }
    }
}

/// SK by the formulae, from what leaked and what is public.
fn recover(leaked: &Leaked<'_>, all: &Secrets, with_opk: bool, trace: &Trace) -> Option<[u8; 32]> {
    let either = |a: (Option<&[u8; 32]>, &[u8; 32]), b: (Option<&[u8; 32]>, &[u8; 32])| {
        // A public key is known for each private one.
        a.0.map(|secret| dh(secret, public(b.1))).or(b.0.map(|secret| dh(secret, public(a.1))))
    };
    let ik_a = (leaked.ik_a, &all.ik_a);
    let ek_a = (leaked.ek_a, &all.ek_a);
    let ik_b = (leaked.ik_b, &all.ik_b);
    let spk_b = (leaked.spk_b, &all.spk_b);
    let opk_b = (leaked.opk_b, &all.opk_b);
    let mut ikm = vec![0xff; 32];
    ikm.extend(either(ik_a, spk_b)?);
    ikm.extend(either(ek_a, ik_b)?);
    ikm.extend(either(ek_a, spk_b)?);
    if with_opk {
        ikm.extend(either(ek_a, opk_b)?);
    }
    let info = [b"Oncekey v1 SK".as_slice(), &trace.th].concat();
    let mut sk = [0; 32];
    Hkdf::<Sha256>::new(Some(&[0; 32]), &ikm).expand(&info, &mut sk).expect("32 bytes");
    Some(sk)
}

fn run(ik_seeds: [[u8; 32]; 2], secrets: &Secrets, with_opk: bool) -> Trace {
    let [ik_a, ik_b] = ik_seeds.map(|seed| IdentityKeyPair::from_seed(&seed));
    let (alice, bob) = (address(b"alice", 1), address(b"bob", 2));
    let spk_b = SignedPreKeyPair::from_secret(SignedPreKeyId(1), &secrets.spk_b);
    let opk_b = OneTimePreKeyPair::from_secret(OneTimePreKeyId(1), &secrets.opk_b);
    Native {
        alice: &alice,
        bob: &bob,
        ik_a: &ik_a,
        ek_a: secrets.ek_a,
        ik_b: &ik_b,
        spk_b: &spk_b,
        opk_b: with_opk.then_some(&opk_b),
        app_ad: AppAd::default(),
        payload: b"",
    }
    .run()
    .expect("both sides agree")
}

#[test]
fn sk_is_recoverable_in_exactly_the_cases_of_the_formula() {
    let mut rng = StdRng::seed_from_u64(64);
    let mut draw = || {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        bytes
    };
    let ik_seeds = [draw(), draw()];
    let [ik_a, ik_b] = ik_seeds.map(|seed| SigningKey::from_bytes(&seed).to_scalar_bytes());
    let secrets = Keys { ik_a, ek_a: draw(), ik_b, spk_b: draw(), opk_b: draw() };

    let mut recovered = 0;
    for with_opk in [true, false] {
        let trace = run(ik_seeds, &secrets, with_opk);
        for subset in 0..32 {
            let leaked = secrets.leak(subset);
            let Keys { ik_a, ek_a, ik_b, spk_b, opk_b } =
                [leaked.ik_a, leaked.ek_a, leaked.ik_b, leaked.spk_b, leaked.opk_b]
                    .map(|key| key.is_some())
                    .into();
            let expected = (ik_a || spk_b) && (ek_a || (ik_b && spk_b && (opk_b || !with_opk)));
            let sk = recover(&leaked, &secrets, with_opk, &trace);
            let row = format!(
                "ik_a {ik_a}, ek_a {ek_a}, ik_b {ik_b}, spk_b {spk_b}, opk_b {opk_b}, \
                 OPK used {with_opk}"
            );
            assert_eq!(sk.is_some(), expected, "{row}");
            if let Some(sk) = sk {
                assert_eq!(sk, trace.sk, "{row}");
                recovered += 1;
            }
        }
    }
    assert_eq!(recovered, 30);
}

impl From<[bool; 5]> for Keys<bool> {
    fn from([ik_a, ek_a, ik_b, spk_b, opk_b]: [bool; 5]) -> Self {
        Self { ik_a, ek_a, ik_b, spk_b, opk_b }
    }
}
