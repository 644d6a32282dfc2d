//! Vectors of the native profile, computed by `tests/vectors/native.py`.

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{
    AppAd,
    conformance::Native,
    keys::{IdentityKeyPair, OneTimePreKeyPair, SignedPreKeyPair},
};
use serde::Deserialize;

use crate::{
    party::address,
    vectors::{Hex, assert_hex, read, vector_tests},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(non_snake_case, reason = "the names of the formulae")]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) userA: Hex,
    pub(crate) devA: u32,
    pub(crate) userB: Hex,
    pub(crate) devB: u32,
    pub(crate) ikA_seed: Hex,
    pub(crate) ekA_priv: Hex,
    pub(crate) ikB_seed: Hex,
    pub(crate) spk_id: u32,
    pub(crate) spk_priv: Hex,
    pub(crate) opk_id: Option<u32>,
    pub(crate) opk_priv: Option<Hex>,
    pub(crate) app_ad: Hex,
    pub(crate) payload: Hex,
    pub(crate) expect: Option<Expect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(non_snake_case, reason = "the names of the formulae")]
pub(crate) struct Expect {
    IK_A: Hex,
    IK_B: Hex,
    EK_A: Hex,
    SPK_B: Hex,
    ctx: Hex,
    th: Hex,
    sk: Hex,
    k_init: Hex,
    rk: Hex,
    ck0: Hex,
    dedup: Hex,
    ct: Hex,
    message: Hex,
}

impl Vector {
    pub(crate) fn spk(&self) -> SignedPreKeyPair {
        SignedPreKeyPair::from_secret(SignedPreKeyId(self.spk_id), &self.spk_priv.key())
    }

    pub(crate) fn opk(&self) -> Option<OneTimePreKeyPair> {
        let secret = self.opk_priv.as_ref()?.key();
        Some(OneTimePreKeyPair::from_secret(OneTimePreKeyId(self.opk_id?), &secret))
    }
}

fn load() -> Vec<Vector> {
    read("native.json")
}

fn check(vector: &Vector) {
    let (alice, bob) =
        (address(&vector.userA.0, vector.devA), address(&vector.userB.0, vector.devB));
    let ik_a = IdentityKeyPair::from_seed(&vector.ikA_seed.key());
    let ik_b = IdentityKeyPair::from_seed(&vector.ikB_seed.key());
    let (spk_b, opk_b) = (vector.spk(), vector.opk());
    let trace = Native {
        alice: &alice,
        bob: &bob,
        ik_a: &ik_a,
        ek_a: vector.ekA_priv.key(),
        ik_b: &ik_b,
        spk_b: &spk_b,
        opk_b: opk_b.as_ref(),
        app_ad: AppAd::new(&vector.app_ad.0).expect("short data"),
        payload: &vector.payload.0,
    }
    .run()
    .expect("both sides agree");

    let expect = vector.expect.as_ref().expect("expected values");
    assert_hex("IK_A", ik_a.public().as_bytes(), &expect.IK_A);
    assert_hex("IK_B", ik_b.public().as_bytes(), &expect.IK_B);
    assert_hex("EK_A", &trace.ek_a, &expect.EK_A);
    assert_hex("SPK_B", spk_b.public().as_bytes(), &expect.SPK_B);
    assert_hex("CTX", &trace.ctx, &expect.ctx);
    assert_hex("th", &trace.th, &expect.th);
    assert_hex("SK", &trace.sk, &expect.sk);
    assert_hex("K_init", &trace.k_init, &expect.k_init);
    assert_hex("RK", &trace.rk, &expect.rk);
    assert_hex("CK0", &trace.ck0, &expect.ck0);
    assert_hex("dedup", &trace.dedup, &expect.dedup);
    assert_hex("ct", &trace.ct, &expect.ct);
    assert_hex("message", &trace.message, &expect.message);
}

vector_tests!(
    load,
    check,
    [
        with_opk,
        without_opk,
        with_app_ad,
        without_opk_with_app_ad,
        app_ad_over_255_bytes,
        empty_payload,
        payload_over_255_bytes,
        longest_user_ids,
        user_ids_that_are_not_utf8,
        two_devices_of_one_user,
        lowest_numbers,
        highest_numbers,
        non_ascii_user_ids,
    ]
);
