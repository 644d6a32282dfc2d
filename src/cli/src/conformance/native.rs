//! The native profile, and safety numbers.
//!
//! | op | does |
//! |---|---|
//! | `native` | a whole handshake from its private keys: every value by the name of the formulae |
//! | `open` | Bob opens an initial message |
//! | `safety_number` | the 60 digits that two users compare |

use oncekey_types::{DeviceId, OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{
    Address, AppAd, Expectations, Failure, LocalDevice, Received, SafetyNumber,
    conformance::{Native, TraceError},
    keys::{IdentityKeyPair, KeyError, OneTimePreKeyPair, SignedPreKeyPair},
    message::InitialMessage,
};
use serde::{Deserialize, Serialize};

use super::wire::{Hex, OpError};

/// Bob's private keys.
#[derive(Deserialize)]
struct BobKeys {
    #[serde(rename = "ikB_seed")]
    ik_b_seed: Hex,
    spk_id: u32,
    spk_priv: Hex,
    opk_id: Option<u32>,
    opk_priv: Option<Hex>,
    #[serde(default)]
    app_ad: Hex,
}

impl BobKeys {
    fn identity(&self) -> Result<IdentityKeyPair, OpError> {
        Ok(IdentityKeyPair::from_seed(&self.ik_b_seed.secret()?))
    }

    fn spk(&self) -> Result<SignedPreKeyPair, OpError> {
        Ok(SignedPreKeyPair::from_secret(SignedPreKeyId(self.spk_id), &self.spk_priv.secret()?))
    }

    fn opk(&self) -> Result<Option<OneTimePreKeyPair>, OpError> {
        match (self.opk_id, &self.opk_priv) {
            (None, None) => Ok(None),
            (Some(id), Some(secret)) => {
                Ok(Some(OneTimePreKeyPair::from_secret(OneTimePreKeyId(id), &secret.secret()?)))
            }
            _ => Err(OpError::malformed("opk_id and opk_priv go together")),
        }
    }

    fn app_ad(&self) -> Result<AppAd<'_>, OpError> {
        AppAd::new(&self.app_ad.0).map_err(OpError::malformed)
    }
}

fn address(user: &Hex, device: u32) -> Result<Address, OpError> {
    Address::from_bytes(&user.0, DeviceId(device)).map_err(OpError::malformed)
}

#[derive(Deserialize)]
pub(super) struct NativeRequest {
    #[serde(rename = "userA")]
    user_a: Hex,
    #[serde(rename = "devA")]
    dev_a: u32,
    #[serde(rename = "userB")]
    user_b: Hex,
    #[serde(rename = "devB")]
    dev_b: u32,
    #[serde(rename = "ikA_seed")]
    ik_a_seed: Hex,
    #[serde(rename = "ekA_priv")]
    ek_a_priv: Hex,
    #[serde(flatten)]
    bob: BobKeys,
    payload: Hex,
}

#[derive(Serialize)]
pub(super) struct NativeAnswer {
    ctx: Hex,
    th: Hex,
    sk: Hex,
    k_init: Hex,
    rk: Hex,
    ck0: Hex,
    dedup: Hex,
    ct: Hex,
    #[serde(rename = "IK_A")]
    ik_a: Hex,
    #[serde(rename = "IK_B")]
    ik_b: Hex,
    #[serde(rename = "EK_A")]
    ek_a: Hex,
    #[serde(rename = "SPK_B")]
    spk_b: Hex,
}

/// Both sides of a handshake; an error when they disagree.
pub(super) fn native(request: &NativeRequest) -> Result<NativeAnswer, OpError> {
    let alice = address(&request.user_a, request.dev_a)?;
    let bob = address(&request.user_b, request.dev_b)?;
    let ik_a = IdentityKeyPair::from_seed(&request.ik_a_seed.secret()?);
    let ik_b = request.bob.identity()?;
    let (spk_b, opk_b) = (request.bob.spk()?, request.bob.opk()?);
    let trace = Native {
        alice: &alice,
        bob: &bob,
        ik_a: &ik_a,
        ek_a: request.ek_a_priv.secret()?,
        ik_b: &ik_b,
        spk_b: &spk_b,
        opk_b: opk_b.as_ref(),
        app_ad: request.bob.app_ad()?,
        payload: &request.payload.0,
    }
    .run()
    .map_err(|error| match error {
        TraceError::Refused(failure) => failure.into(),
        TraceError::Disagreement => OpError::new(error, "disagreement"),
        _ => OpError::malformed(error),
    })?;
    Ok(NativeAnswer {
        ctx: Hex(trace.ctx),
        th: Hex::from(&trace.th),
        sk: Hex::from(&trace.sk),
        k_init: Hex::from(&trace.k_init),
        rk: Hex::from(&trace.rk),
        ck0: Hex::from(&trace.ck0),
        dedup: Hex::from(&trace.dedup),
        ct: Hex(trace.ct),
        ik_a: ik_a.public().as_bytes().into(),
        ik_b: ik_b.public().as_bytes().into(),
        ek_a: Hex::from(&trace.ek_a),
        spk_b: spk_b.public().as_bytes().into(),
    })
}

#[derive(Deserialize)]
pub(super) struct OpenRequest {
    message: Hex,
    #[serde(rename = "userB")]
    user_b: Option<Hex>,
    #[serde(rename = "devB")]
    dev_b: Option<u32>,
    #[serde(flatten)]
    bob: BobKeys,
}

#[derive(Serialize)]
pub(super) struct OpenAnswer {
    payload: Hex,
}

/// Bob opens a message. Without `userB` and `devB` he is whomever the message is for.
pub(super) fn open(request: &OpenRequest) -> Result<OpenAnswer, OpError> {
    let message = InitialMessage::from_bytes(&request.message.0).map_err(OpError::malformed)?;
    let me = match (&request.user_b, request.dev_b) {
        (Some(user), Some(device)) => address(user, device)?,
        (None, None) => message.recipient().clone(),
        _ => return Err(OpError::malformed("userB and devB go together")),
    };
    let identity = request.bob.identity()?;
    let (spk, opk) = (request.bob.spk()?, request.bob.opk()?);

    let received = Received::parse(&request.message.0, &me).map_err(Failure::from)?;
    if message.signed_prekey_id() != spk.id() {
        return Err(Failure::SpkUnknown.into());
    }
    let opk = match message.one_time_prekey_id() {
        None => None,
        Some(named) => {
            let held = opk.as_ref().filter(|opk| opk.id() == named);
            Some(held.ok_or(Failure::OpkMissing)?)
        }
    };
    let local = LocalDevice { address: &me, identity: &identity };
    let delivered = received
        .open(local, &spk, opk, request.bob.app_ad()?)
        .map_err(Failure::from)?
        .accept(&Expectations::default())
        .map_err(Failure::from)?
        .commit(|_| Ok::<(), OpError>(()))?;
    Ok(OpenAnswer { payload: delivered.payload.as_bytes().into() })
}

#[derive(Deserialize)]
pub(super) struct SafetyNumberRequest {
    version: u32,
    local_key: Hex,
    local_id: Hex,
    remote_key: Hex,
    remote_id: Hex,
}

#[derive(Serialize)]
pub(super) struct SafetyNumberAnswer {
    number: String,
}

/// The number for two keys, each written with its type byte, or without as an account key.
///
/// The digits are the same in every version of the format; versions differ in the scannable form,
/// which is left out.
pub(super) fn safety_number(request: &SafetyNumberRequest) -> Result<SafetyNumberAnswer, OpError> {
    if request.version > 2 {
        return Err(OpError::malformed("the version is not 0, 1 or 2"));
    }
    let (local, remote) = (typed_key(&request.local_key)?, typed_key(&request.remote_key)?);
    let number =
        SafetyNumber::of_typed_keys((&local, &request.local_id.0), (&remote, &request.remote_id.0));
    Ok(SafetyNumberAnswer { number: number.to_string() })
}

/// The type byte of an Ed25519 account key.
const KEY_TYPE_ED25519: u8 = 0x06;

fn typed_key(key: &Hex) -> Result<Vec<u8>, OpError> {
    match key.0.len() {
        32 => Ok([&[KEY_TYPE_ED25519], key.0.as_slice()].concat()),
        33 => Ok(key.0.clone()),
        bytes => Err(KeyError::Length { bytes }.into()),
    }
}
