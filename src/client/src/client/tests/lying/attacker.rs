//! What an attacker computes from keys that leaked: the formulae once more, apart from the library.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _,
    aead::{Aead as _, Payload},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};

pub(super) type Key = [u8; 32];

/// The public key of an X25519 secret.
pub(super) fn public(secret: &Key) -> Key {
    PublicKey::from(&StaticSecret::from(*secret)).to_bytes()
}

pub(super) fn dh(secret: &Key, public: Key) -> Key {
    StaticSecret::from(*secret).diffie_hellman(&PublicKey::from(public)).to_bytes()
}

/// An identity key in the form in which it takes part in DHs.
pub(super) fn montgomery(identity: &Key) -> Key {
    VerifyingKey::from_bytes(identity).unwrap().to_montgomery().to_bytes()
}

/// The X25519 secret of an identity seed.
pub(super) fn scalar(seed: &Key) -> Key {
    SigningKey::from_bytes(seed).to_scalar_bytes()
}

/// The public side of a handshake.
#[derive(Clone)]
pub(super) struct Handshake {
    pub(super) from: (&'static str, u32),
    pub(super) to: (&'static str, u32),
    pub(super) ik_a: Key,
    pub(super) ik_b: Key,
    pub(super) ek_a: Key,
    pub(super) spk_b: (u32, Key),
    pub(super) opk_b: Option<(u32, Key)>,
    pub(super) app_ad: &'static [u8],
}

/// The secrets of a handshake.
pub(super) struct Keys {
    pub(super) sk: Key,
    pub(super) k_init: Key,
    pub(super) rk: Key,
    pub(super) ck0: Key,
}

impl Handshake {
    /// The secrets, from DH1 to DH3 or DH4.
    pub(super) fn keys(&self, dhs: &[Key]) -> Keys {
        let th = self.transcript();
        let ikm = [[0xff; 32].as_slice(), &dhs.concat()].concat();
        let mut sk = [0; 32];
        let info = [b"Oncekey v1 SK".as_slice(), &th].concat();
        Hkdf::<Sha256>::new(Some(&[0; 32]), &ikm).expand(&info, &mut sk).unwrap();
        let mut keys = [0; 96];
        let info = [b"Oncekey v1 keys".as_slice(), &th].concat();
        Hkdf::<Sha256>::from_prk(&sk).unwrap().expand(&info, &mut keys).unwrap();
        let part = |n: usize| keys[32 * n..32 * (n + 1)].try_into().unwrap();
        Keys { sk, k_init: part(0), rk: part(1), ck0: part(2) }
    }

    /// The first message.
    pub(super) fn seal(&self, keys: &Keys, payload: &[u8]) -> Vec<u8> {
        let sealed = Payload { msg: payload, aad: &self.transcript() };
        let cipher = ChaCha20Poly1305::new((&keys.k_init).into());
        let ct = cipher.encrypt(&[0; 12].into(), sealed).unwrap();
        let mut message = vec![1, 0, 1, u8::from(self.opk_b.is_some())];
        for (user, device) in [self.from, self.to] {
            lp(&mut message, user.as_bytes());
            message.extend(device.to_be_bytes());
        }
        message.extend(self.ik_a);
        message.extend(self.ek_a);
        message.extend(self.spk_b.0.to_be_bytes());
        message.extend(self.opk_b.iter().flat_map(|(id, _)| id.to_be_bytes()));
        message.extend(u32::try_from(ct.len()).unwrap().to_be_bytes());
        message.extend(ct);
        message
    }

    fn transcript(&self) -> Key {
        let mut ctx = Vec::new();
        lp(&mut ctx, b"Oncekey v1");
        ctx.extend([0, 1]);
        for (user, device) in [self.from, self.to] {
            lp(&mut ctx, user.as_bytes());
            ctx.extend(device.to_be_bytes());
        }
        for key in [&self.ik_a, &self.ik_b, &self.ek_a] {
            lp(&mut ctx, key);
        }
        ctx.extend(self.spk_b.0.to_be_bytes());
        lp(&mut ctx, &self.spk_b.1);
        match &self.opk_b {
            Some((id, key)) => {
                ctx.push(1);
                ctx.extend(id.to_be_bytes());
                lp(&mut ctx, key);
            }
            None => ctx.push(0),
        }
        ctx.push(0);
        lp(&mut ctx, self.app_ad);
        Sha256::digest(ctx).into()
    }
}

fn lp(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}
