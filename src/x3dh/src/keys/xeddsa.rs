//! XEdDSA: Ed25519 signatures by a key pair that is only a scalar.
//!
//! ```text
//! A = k·B with the sign bit cleared, by −k when needed (Curve25519 form only)
//! r = SHA-512(0xFE ‖ 0xFF × 31 ‖ a ‖ message ‖ Z),  Z = 64 random bytes
//! R = r·B,  s = r + SHA-512(R ‖ A ‖ message)·a,  signature = R ‖ s
//! ```
//!
//! Guarantees: the signature verifies as Ed25519 under A (Signal, "The XEdDSA and VXEdDSA
//! Signature Schemes", section 2.4). Leaves out: VXEdDSA.

use curve25519_dalek::{edwards::EdwardsPoint, scalar::Scalar};
use rand_core::CryptoRng;
use sha2::{Digest, Sha512};
use zeroize::{Zeroize, Zeroizing};

use super::public::{IdentityKind, Signature};

/// The public key of `scalar` in the form `kind`.
pub(super) fn public_key(scalar: &[u8; 32], kind: IdentityKind) -> [u8; 32] {
    let point = EdwardsPoint::mul_base_clamped(*scalar);
    match kind {
        IdentityKind::Ed25519 => point.compress().to_bytes(),
        IdentityKind::Curve25519 => point.to_montgomery().to_bytes(),
    }
}

/// Signs `message` with `scalar`, whose public key has the form `kind`.
pub(super) fn sign<R: CryptoRng + ?Sized>(
    scalar: &[u8; 32],
    kind: IdentityKind,
    message: &[u8],
    rng: &mut R,
) -> Signature {
    let clamped = Zeroizing::new(curve25519_dalek::scalar::clamp_integer(*scalar));
    let mut a = Scalar::from_bytes_mod_order(*clamped);
    let mut public = EdwardsPoint::mul_base(&a);
    let negative = public.compress().to_bytes()[31] & 0x80 != 0;
    if negative && kind == IdentityKind::Curve25519 {
        // A Curve25519 key has no sign; XEdDSA fixes it to zero.
        a = -a;
        public = -public;
    }
    let public = public.compress();

    let mut z = Zeroizing::new([0; 64]);
    rng.fill_bytes(&mut *z);
    let mut prefix = [0xff; 32];
    prefix[0] = 0xfe;
    let mut r = Scalar::from_hash(
        Sha512::new()
            .chain_update(prefix)
            .chain_update(a.as_bytes())
            .chain_update(message)
            .chain_update(z.as_slice()),
    );
    let commitment = EdwardsPoint::mul_base(&r).compress();
    let challenge = Scalar::from_hash(
        Sha512::new()
            .chain_update(commitment.as_bytes())
            .chain_update(public.as_bytes())
            .chain_update(message),
    );
    let s = r + challenge * a;
    a.zeroize();
    r.zeroize();

    let mut signature = [0; 64];
    signature[..32].copy_from_slice(commitment.as_bytes());
    signature[32..].copy_from_slice(s.as_bytes());
    Signature::from_bytes(signature)
}
