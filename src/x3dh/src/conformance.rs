//! Fixed ephemeral keys and the values between the steps, to hold other implementations against
//! ours.
//!
//! Guarantees: goes through the public interface on both sides and reports what it computed only
//! when both agree. Leaves out: any use in production; nothing else enables this feature.

use alloc::vec::Vec;
use core::convert::Infallible;

use oncekey_types::UnixSeconds;
use rand_core::{TryCryptoRng, TryRng};

use crate::{
    address::Address,
    bundle::{Bundle, Expectations},
    failure::Failure,
    initiator::{self, LocalDevice},
    keys::{EphemeralKey, IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair},
    responder::{self, Received},
    schedule::{AppAd, Context, Ikm, SharedKey},
};

/// A generator that gives the same bytes over and over. The first key it makes is those bytes.
pub struct FixedRng {
    bytes: [u8; 32],
    next: usize,
}

impl FixedRng {
    /// A generator of `bytes`.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { bytes, next: 0 }
    }

    fn byte(&mut self) -> u8 {
        let byte = self.bytes[self.next % self.bytes.len()];
        self.next += 1;
        byte
    }
}

impl TryRng for FixedRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(core::array::from_fn(|_| self.byte())))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(core::array::from_fn(|_| self.byte())))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.fill_with(|| self.byte());
        Ok(())
    }
}

impl TryCryptoRng for FixedRng {}

/// All the private keys of one handshake.
#[derive(Clone, Copy)]
pub struct Native<'a> {
    /// Address of the initiator.
    pub alice: &'a Address,
    /// Address of the responder.
    pub bob: &'a Address,
    /// IK_A.
    pub ik_a: &'a IdentityKeyPair,
    /// Secret of EK_A.
    pub ek_a: [u8; 32],
    /// IK_B.
    pub ik_b: &'a IdentityKeyPair,
    /// SPK_B.
    pub spk_b: &'a SignedPreKeyPair,
    /// OPK_B, if there is one.
    pub opk_b: Option<&'a OneTimePreKeyPair>,
    /// Data of the application.
    pub app_ad: AppAd<'a>,
    /// What Alice sends.
    pub payload: &'a [u8],
}

/// Every value of one handshake, by the names of the formulae.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the formulae")]
pub struct Trace {
    pub ctx: Vec<u8>,
    pub th: [u8; 32],
    pub sk: [u8; 32],
    pub k_init: [u8; 32],
    pub rk: [u8; 32],
    pub ck0: [u8; 32],
    pub dedup: [u8; 32],
    pub ct: Vec<u8>,
    pub ek_a: [u8; 32],
    /// The whole initial message.
    pub message: Vec<u8>,
}

/// Why there is no trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A side refused.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The payload is too long.
    #[error(transparent)]
    Payload(#[from] initiator::PayloadTooLong),
    /// The sides computed different values.
    #[error("the two sides disagree")]
    Disagreement,
}

impl Native<'_> {
    /// Runs both sides.
    ///
    /// # Errors
    ///
    /// A [`TraceError`].
    pub fn run(&self) -> Result<Trace, TraceError> {
        let bundle = self.bundle();
        let alice = LocalDevice { address: self.alice, identity: self.ik_a };
        let bob = LocalDevice { address: self.bob, identity: self.ik_b };
        let sealed = bundle
            .clone()
            .verify(UnixSeconds(0), &Expectations::default())
            .map_err(Failure::from)?
            .initiate(alice, self.app_ad, &mut FixedRng::new(self.ek_a))
            .map_err(Failure::from)?
            .seal(self.payload)?;
        let received = Received::parse(&sealed.message, self.bob).map_err(Failure::from)?;
        let message = received.message().clone();
        let delivered = received
            .open(bob, self.spk_b, self.opk_b, self.app_ad)
            .map_err(Failure::from)?
            .accept(&Expectations::default())
            .map_err(Failure::from)?
            .commit(|_| Ok::<(), TraceError>(()))?;

        let ek_a = EphemeralKey::generate(&mut FixedRng::new(self.ek_a));
        let by_alice = values(
            initiator::context(&alice, &bundle, ek_a.public(), self.app_ad),
            initiator::agree(self.ik_a, &ek_a, &bundle).map_err(|_| Failure::Malformed)?,
        );
        let by_bob = values(
            responder::context(&message, &bob, self.spk_b, self.opk_b, self.app_ad),
            responder::agree(self.ik_b, self.spk_b, self.opk_b, &message)
                .map_err(|_| Failure::Malformed)?,
        );
        let sessions = [&sealed.session, delivered.record.session()];
        let agreed = by_alice == by_bob
            && sessions.iter().all(|session| {
                (session.root().as_bytes(), session.chain().as_bytes(), session.transcript())
                    == (&by_alice.rk, &by_alice.ck0, &by_alice.th)
            })
            && sealed.dedup == *delivered.record.dedup()
            && delivered.payload.as_bytes() == self.payload;
        if !agreed {
            return Err(TraceError::Disagreement);
        }
        let Values { ctx, th, sk, k_init, rk, ck0 } = by_alice;
        Ok(Trace {
            ctx,
            th: *th.as_bytes(),
            sk,
            k_init,
            rk,
            ck0,
            dedup: *sealed.dedup.as_bytes(),
            ct: message.ct,
            ek_a: *ek_a.public().as_bytes(),
            message: sealed.message,
        })
    }

    fn bundle(&self) -> Bundle {
        // Ed25519 signatures take nothing from a generator.
        let rng = &mut FixedRng::new([0; 32]);
        let (created, expires) = (UnixSeconds(0), UnixSeconds(u64::MAX));
        Bundle {
            owner: self.bob.clone(),
            identity: *self.ik_b.public(),
            signed_prekey: self.spk_b.sign(self.ik_b, self.bob, created, expires, rng),
            one_time_prekey: self.opk_b.map(|opk| opk.sign(self.ik_b, self.bob, rng)),
        }
    }
}

#[derive(PartialEq)]
struct Values {
    ctx: Vec<u8>,
    th: crate::schedule::TranscriptHash,
    sk: [u8; 32],
    k_init: [u8; 32],
    rk: [u8; 32],
    ck0: [u8; 32],
}

fn values(context: Context<'_>, ikm: Ikm) -> Values {
    let th = context.transcript();
    let shared = SharedKey::derive(ikm, &th);
    let sk = *shared.as_bytes();
    let (key, session) = shared.expand(th);
    Values {
        ctx: context.to_bytes(),
        th,
        sk,
        k_init: *key.as_bytes(),
        rk: *session.root().as_bytes(),
        ck0: *session.chain().as_bytes(),
    }
}
