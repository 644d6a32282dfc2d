//! What leaks of private keys cost: all 64 cases, each a test, and what three of them mean.
//!
//! The attacker knows everything that is public and a subset of {ik_a, ek_a, ik_b, spk_b, opk_b}.
//! A DH can be computed by whoever holds either of its private keys, and SK by whoever has every
//! DH.

use std::collections::BTreeSet;

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

/// Each DH that can be computed from what leaked and what is public, DH1 to DH4.
fn dhs(leaked: &Leaked<'_>, all: &Secrets) -> [Option<[u8; 32]>; 4] {
    let either = |a: (Option<&[u8; 32]>, &[u8; 32]), b: (Option<&[u8; 32]>, &[u8; 32])| {
        // A public key is known for each private one.
        a.0.map(|secret| dh(secret, public(b.1))).or(b.0.map(|secret| dh(secret, public(a.1))))
    };
    let ik_a = (leaked.ik_a, &all.ik_a);
    let ek_a = (leaked.ek_a, &all.ek_a);
    let ik_b = (leaked.ik_b, &all.ik_b);
    let spk_b = (leaked.spk_b, &all.spk_b);
    let opk_b = (leaked.opk_b, &all.opk_b);
    [either(ik_a, spk_b), either(ek_a, ik_b), either(ek_a, spk_b), either(ek_a, opk_b)]
}

/// SK by the formulae, from what leaked and what is public.
fn recover(leaked: &Leaked<'_>, all: &Secrets, with_opk: bool, trace: &Trace) -> Option<[u8; 32]> {
    let [dh1, dh2, dh3, dh4] = dhs(leaked, all);
    let mut ikm = vec![0xff; 32];
    ikm.extend(dh1?);
    ikm.extend(dh2?);
    ikm.extend(dh3?);
    if with_opk {
        ikm.extend(dh4?);
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

/// The keys of one handshake, the same for every row.
fn keys() -> ([[u8; 32]; 2], Secrets) {
    let mut rng = StdRng::seed_from_u64(64);
    let mut draw = || {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        bytes
    };
    let ik_seeds = [draw(), draw()];
    let [ik_a, ik_b] = ik_seeds.map(|seed| SigningKey::from_bytes(&seed).to_scalar_bytes());
    (ik_seeds, Keys { ik_a, ek_a: draw(), ik_b, spk_b: draw(), opk_b: draw() })
}

/// Whether SK is recoverable when the keys of `subset` leak; checked against the formula, and
/// against SK itself.
fn row(subset: u32, with_opk: bool) -> bool {
    let (ik_seeds, secrets) = keys();
    let trace = run(ik_seeds, &secrets, with_opk);
    let leaked = secrets.leak(subset);
    let Keys { ik_a, ek_a, ik_b, spk_b, opk_b } =
        [leaked.ik_a, leaked.ek_a, leaked.ik_b, leaked.spk_b, leaked.opk_b]
            .map(|key| key.is_some())
            .into();
    let expected = (ik_a || spk_b) && (ek_a || (ik_b && spk_b && (opk_b || !with_opk)));
    let sk = recover(&leaked, &secrets, with_opk, &trace);
    let row = format!(
        "ik_a {ik_a}, ek_a {ek_a}, ik_b {ik_b}, spk_b {spk_b}, opk_b {opk_b}, OPK used {with_opk}"
    );
    assert_eq!(sk.is_some(), expected, "{row}");
    if let Some(sk) = sk {
        assert_eq!(sk, trace.sk, "{row}");
    }
    expected
}

const IK_A: u32 = 1 << 0;
const EK_A: u32 = 1 << 1;
const IK_B: u32 = 1 << 2;
const SPK_B: u32 = 1 << 3;
const OPK_B: u32 = 1 << 4;

/// Two tests for each subset of leaked keys, with and without an OPK, and one that no subset was
/// forgotten.
macro_rules! rows {
    ($($name:ident = $subset:expr;)+) => {
        mod with_an_opk {
            use super::*;
            $(#[test] fn $name() { row($subset, true); })+
        }

        mod without_an_opk {
            use super::*;
            $(#[test] fn $name() { row($subset, false); })+
        }

        #[test]
        fn every_subset_of_leaked_keys_has_its_tests_and_thirty_rows_are_recoverable() {
            let subsets = [$($subset),+];
            assert_eq!(BTreeSet::from(subsets), BTreeSet::from_iter(0..32));
            let rows = subsets.into_iter().flat_map(|subset| [row(subset, true), row(subset, false)]);
            assert_eq!(rows.filter(|recoverable| *recoverable).count(), 30);
        }
    };
}

rows! {
    nothing_leaks = 0;
    ik_a_leaks = IK_A;
    ek_a_leaks = EK_A;
    ik_a_and_ek_a_leak = IK_A | EK_A;
    ik_b_leaks = IK_B;
    ik_a_and_ik_b_leak = IK_A | IK_B;
    ek_a_and_ik_b_leak = EK_A | IK_B;
    ik_a_ek_a_and_ik_b_leak = IK_A | EK_A | IK_B;
    spk_b_leaks = SPK_B;
    ik_a_and_spk_b_leak = IK_A | SPK_B;
    ek_a_and_spk_b_leak = EK_A | SPK_B;
    ik_a_ek_a_and_spk_b_leak = IK_A | EK_A | SPK_B;
    ik_b_and_spk_b_leak = IK_B | SPK_B;
    ik_a_ik_b_and_spk_b_leak = IK_A | IK_B | SPK_B;
    ek_a_ik_b_and_spk_b_leak = EK_A | IK_B | SPK_B;
    ik_a_ek_a_ik_b_and_spk_b_leak = IK_A | EK_A | IK_B | SPK_B;
    opk_b_leaks = OPK_B;
    ik_a_and_opk_b_leak = IK_A | OPK_B;
    ek_a_and_opk_b_leak = EK_A | OPK_B;
    ik_a_ek_a_and_opk_b_leak = IK_A | EK_A | OPK_B;
    ik_b_and_opk_b_leak = IK_B | OPK_B;
    ik_a_ik_b_and_opk_b_leak = IK_A | IK_B | OPK_B;
    ek_a_ik_b_and_opk_b_leak = EK_A | IK_B | OPK_B;
    ik_a_ek_a_ik_b_and_opk_b_leak = IK_A | EK_A | IK_B | OPK_B;
    spk_b_and_opk_b_leak = SPK_B | OPK_B;
    ik_a_spk_b_and_opk_b_leak = IK_A | SPK_B | OPK_B;
    ek_a_spk_b_and_opk_b_leak = EK_A | SPK_B | OPK_B;
    ik_a_ek_a_spk_b_and_opk_b_leak = IK_A | EK_A | SPK_B | OPK_B;
    ik_b_spk_b_and_opk_b_leak = IK_B | SPK_B | OPK_B;
    ik_a_ik_b_spk_b_and_opk_b_leak = IK_A | IK_B | SPK_B | OPK_B;
    ek_a_ik_b_spk_b_and_opk_b_leak = EK_A | IK_B | SPK_B | OPK_B;
    everything_leaks = IK_A | EK_A | IK_B | SPK_B | OPK_B;
}

/// Which of DH1 to DH4 can be computed when the keys of `subset` leak.
fn computable(subset: u32) -> [bool; 4] {
    let (_, secrets) = keys();
    dhs(&secrets.leak(subset), &secrets).map(|dh| dh.is_some())
}

#[test]
fn when_spk_b_leaks_later_dh1_and_dh3_are_computable_and_sk_is_not() {
    assert_eq!(computable(SPK_B), [true, false, true, false]);
    assert!(!row(SPK_B, true));
    assert!(!row(SPK_B, false));
}

#[test]
fn when_spk_b_and_ik_b_leak_later_an_erased_opk_alone_protects_sk() {
    assert!(row(SPK_B | IK_B, false), "without an OPK there is nothing left to find");
    assert!(!row(SPK_B | IK_B, true));
    assert_eq!(computable(SPK_B | IK_B), [true, true, true, false], "only DH4 is missing");
}

#[test]
fn when_ek_a_and_ik_a_or_spk_b_leak_sk_is_recoverable_even_when_opk_b_is_erased() {
    for subset in [EK_A | IK_A, EK_A | SPK_B] {
        assert_eq!(computable(subset), [true; 4]);
        assert!(row(subset, true) && row(subset, false));
    }
}

impl From<[bool; 5]> for Keys<bool> {
    fn from([ik_a, ek_a, ik_b, spk_b, opk_b]: [bool; 5]) -> Self {
        Self { ik_a, ek_a, ik_b, spk_b, opk_b }
    }
}
