//! What a handshake costs a device, and what the keys of an upload cost both sides.
//!
//! Measures each step that does curve arithmetic, with and without a one-time prekey and with a
//! payload of one kilobyte: Alice verifies the fetched bundle, agrees on keys and seals; Bob parses,
//! opens and commits. The plain profile beside it carries no payload. A device signs the 100 keys of
//! an upload, and a server verifies them.
//!
//! Leaves out: making key pairs, the transaction that Bob's application runs inside the commit, and
//! the network. Generators are the system's, so no two runs use the same keys.

use std::{error::Error, hint::black_box, io};

use criterion::{BatchSize, Criterion, Throughput};
use oncekey_types::{DeviceId, OneTimePreKeyId, SignedPreKeyId, UnixSeconds, UserId};
use oncekey_x3dh::{
    Address, AppAd, Bundle, Expectations, LocalDevice, Received, VerifiedBundle,
    initiator::Sealed,
    keys::{IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair},
    plain::{self, HashFunction, KeyEncoding, Profile},
    prekey::OneTimePreKey,
    responder::Delivered,
};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const EXPIRES: UnixSeconds = UnixSeconds(NOW.0 + 90 * 24 * 3600);
const UPLOAD_KEYS: u32 = 100;
const PAYLOAD: [u8; 1024] = [7; 1024];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    handshake(&mut criterion)?;
    plain(&mut criterion)?;
    upload(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn handshake(criterion: &mut Criterion) -> Outcome<()> {
    for (name, with_one_time_prekey) in [("handshake", true), ("handshake_without_opk", false)] {
        let alice = Alice::new()?;
        let bob = Bob::new()?;
        let bundle = Bundle {
            one_time_prekey: bob.bundle().one_time_prekey.filter(|_| with_one_time_prekey),
            ..bob.bundle()
        };
        let sealed = alice.initiate(verify(bundle.clone())?)?;
        bob.receive(&sealed.message, with_one_time_prekey)?;

        let mut group = criterion.benchmark_group(name);
        group.bench_function("verify_bundle", |bencher| {
            let bundle = || bundle.clone();
            bencher.iter_batched(bundle, |bundle| verify(black_box(bundle)), BatchSize::SmallInput);
        });
        group.bench_function("initiate_and_seal", |bencher| {
            let verified = || verify(bundle.clone());
            let initiate =
                |verified: Outcome<_>| verified.and_then(|bundle| alice.initiate(bundle));
            bencher.iter_batched(verified, initiate, BatchSize::SmallInput);
        });
        group.bench_function("parse_open_and_commit", |bencher| {
            bencher.iter(|| bob.receive(black_box(&sealed.message), with_one_time_prekey));
        });
        group.finish();
    }
    Ok(())
}

/// Of the plain profile, checking the signature is a part of initiating.
fn plain(criterion: &mut Criterion) -> Outcome<()> {
    let (alice, bob) = (Alice::new()?, Bob::new()?);
    let rng = &mut rand::rng();
    for (name, hash) in [("sha256", HashFunction::Sha256), ("sha512", HashFunction::Sha512)] {
        let profile = Profile { hash, encoding: KeyEncoding::Raw, info: b"bench" };
        let bundle = plain::Bundle {
            identity: *bob.identity.public(),
            signed_prekey: *bob.signed_prekey.public(),
            signature: profile.sign(&bob.identity, bob.signed_prekey.public(), rng),
            one_time_prekey: Some(*bob.one_time_prekey.public()),
        };
        let initiate =
            || profile.initiate(&alice.identity, black_box(&bundle), b"", &mut rand::rng());
        let (_, header) = initiate()?;
        let respond = || {
            let opk = Some(&bob.one_time_prekey);
            profile.respond(&bob.identity, &bob.signed_prekey, opk, black_box(&header), b"")
        };
        respond()?;
        let mut group = criterion.benchmark_group(format!("plain_{name}"));
        group.bench_function("initiate", |bencher| bencher.iter(initiate));
        group.bench_function("respond", |bencher| bencher.iter(respond));
        group.finish();
    }
    Ok(())
}

fn upload(criterion: &mut Criterion) -> Outcome<()> {
    let bob = Bob::new()?;
    let rng = &mut rand::rng();
    let pairs: Vec<_> =
        (1..=UPLOAD_KEYS).map(|id| OneTimePreKeyPair::generate(OneTimePreKeyId(id), rng)).collect();
    let signed = bob.sign(&pairs);
    bob.verify(&signed)?;

    let mut group = criterion.benchmark_group("upload_100_keys");
    group.throughput(Throughput::Elements(u64::from(UPLOAD_KEYS)));
    group.bench_function("sign", |bencher| bencher.iter(|| bob.sign(black_box(&pairs))));
    group.bench_function("verify", |bencher| bencher.iter(|| bob.verify(black_box(&signed))));
    group.finish();
    Ok(())
}

struct Alice {
    address: Address,
    identity: IdentityKeyPair,
}

impl Alice {
    fn new() -> Outcome<Self> {
        let address = Address::new(&UserId::new("alice")?, DeviceId(1));
        Ok(Self { address, identity: IdentityKeyPair::generate(&mut rand::rng()) })
    }

    fn initiate(&self, bundle: VerifiedBundle) -> Outcome<Sealed> {
        let local = LocalDevice { address: &self.address, identity: &self.identity };
        Ok(bundle.initiate(local, AppAd::default(), &mut rand::rng())?.seal(&PAYLOAD)?)
    }
}

struct Bob {
    address: Address,
    identity: IdentityKeyPair,
    signed_prekey: SignedPreKeyPair,
    one_time_prekey: OneTimePreKeyPair,
}

impl Bob {
    fn new() -> Outcome<Self> {
        let rng = &mut rand::rng();
        Ok(Self {
            address: Address::new(&UserId::new("bob")?, DeviceId(1)),
            identity: IdentityKeyPair::generate(rng),
            signed_prekey: SignedPreKeyPair::generate(SignedPreKeyId(1), rng),
            one_time_prekey: OneTimePreKeyPair::generate(OneTimePreKeyId(1), rng),
        })
    }

    fn bundle(&self) -> Bundle {
        let rng = &mut rand::rng();
        let (identity, owner) = (&self.identity, &self.address);
        Bundle {
            owner: owner.clone(),
            identity: *identity.public(),
            signed_prekey: self.signed_prekey.sign(identity, owner, NOW, EXPIRES, rng),
            one_time_prekey: Some(self.one_time_prekey.sign(identity, owner, rng)),
        }
    }

    fn receive(&self, message: &[u8], with_one_time_prekey: bool) -> Outcome<Delivered> {
        let local = LocalDevice { address: &self.address, identity: &self.identity };
        let opk = Some(&self.one_time_prekey).filter(|_| with_one_time_prekey);
        let delivered = Received::parse(message, &self.address)?
            .open(local, &self.signed_prekey, opk, AppAd::default())?
            .accept(&Expectations::default())?
            .commit(|_| Ok::<(), io::Error>(()))?;
        Ok(delivered)
    }

    fn sign(&self, pairs: &[OneTimePreKeyPair]) -> Vec<OneTimePreKey> {
        let rng = &mut rand::rng();
        pairs.iter().map(|pair| pair.sign(&self.identity, &self.address, rng)).collect()
    }

    fn verify(&self, keys: &[OneTimePreKey]) -> Outcome<()> {
        for key in keys {
            key.verify(self.identity.public(), &self.address)?;
        }
        Ok(())
    }
}

fn verify(bundle: Bundle) -> Outcome<VerifiedBundle> {
    Ok(bundle.verify(NOW, &Expectations::default())?)
}
