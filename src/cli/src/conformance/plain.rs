//! The plain profile.
//!
//! | op | does |
//! |---|---|
//! | `bundle` | public keys of a party, with the signature on the signed prekey |
//! | `alice` | the initiator: SK, AD and the header |
//! | `bob` | the responder: SK and AD |

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId};
use oncekey_x3dh::{
    Failure,
    conformance::FixedRng,
    keys::{
        EphemeralPublic, IdentityKeyPair, IdentityKind, IdentityPublic, OneTimePreKeyPair,
        OneTimePreKeyPublic, Signature, SignedPreKeyPair, SignedPreKeyPublic,
    },
    plain::{Bundle, Error, HashFunction, Header, KeyEncoding, Profile},
};
use serde::{Deserialize, Serialize};

use super::wire::{Hex, OpError};

#[derive(Clone, Copy, Deserialize, Default)]
enum Format {
    #[default]
    #[serde(rename = "ED_25519")]
    Ed25519,
    #[serde(rename = "CURVE_25519")]
    Curve25519,
}

impl Format {
    fn kind(self) -> IdentityKind {
        match self {
            Self::Ed25519 => IdentityKind::Ed25519,
            Self::Curve25519 => IdentityKind::Curve25519,
        }
    }
}

#[derive(Clone, Copy, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Encode {
    #[default]
    Raw,
    Djb05,
}

impl Encode {
    fn encoding(self) -> KeyEncoding {
        match self {
            Self::Raw => KeyEncoding::Raw,
            Self::Djb05 => KeyEncoding::Djb05,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
enum Hash {
    #[serde(rename = "SHA_256")]
    Sha256,
    #[serde(rename = "SHA_512")]
    Sha512,
}

impl Hash {
    fn function(self) -> HashFunction {
        match self {
            Self::Sha256 => HashFunction::Sha256,
            Self::Sha512 => HashFunction::Sha512,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Identity {
    Seed(Hex),
    Priv(Hex),
}

impl Identity {
    fn key_pair(&self, format: Format) -> Result<IdentityKeyPair, OpError> {
        Ok(match self {
            Self::Seed(seed) => IdentityKeyPair::from_seed_as(format.kind(), &seed.secret()?)?,
            Self::Priv(scalar) => IdentityKeyPair::from_scalar(format.kind(), &scalar.secret()?)?,
        })
    }
}

#[derive(Deserialize)]
struct SignedPreKeySecret {
    #[serde(rename = "priv")]
    secret: Hex,
}

impl SignedPreKeySecret {
    fn key_pair(&self) -> Result<SignedPreKeyPair, OpError> {
        // The profile knows no ids.
        Ok(SignedPreKeyPair::from_secret(SignedPreKeyId(0), &self.secret.secret()?))
    }
}

fn one_time_prekeys(secrets: &[Hex]) -> Result<Vec<OneTimePreKeyPair>, OpError> {
    let pair =
        |secret: &Hex| Ok(OneTimePreKeyPair::from_secret(OneTimePreKeyId(0), &secret.secret()?));
    secrets.iter().map(pair).collect()
}

#[derive(Deserialize)]
pub(super) struct BundleRequest {
    #[serde(default)]
    format: Format,
    #[serde(default)]
    encode: Encode,
    identity: Identity,
    signed_pre_key: SignedPreKeySecret,
    #[serde(default)]
    pre_keys: Vec<Hex>,
}

#[derive(Serialize)]
pub(super) struct BundleAnswer {
    bundle: BundleJson,
}

#[derive(Serialize, Deserialize)]
struct BundleJson {
    identity_key: Hex,
    signed_pre_key: Hex,
    signed_pre_key_sig: Hex,
    pre_keys: Vec<Hex>,
}

/// A party's bundle.
pub(super) fn bundle(request: &BundleRequest) -> Result<BundleAnswer, OpError> {
    let identity = request.identity.key_pair(request.format)?;
    let spk = request.signed_pre_key.key_pair()?;
    let profile =
        Profile { hash: HashFunction::Sha256, encoding: request.encode.encoding(), info: b"" };
    let signature = profile.sign(&identity, spk.public(), &mut rand::rng());
    let opks = one_time_prekeys(&request.pre_keys)?;
    Ok(BundleAnswer {
        bundle: BundleJson {
            identity_key: identity.public().as_bytes().into(),
            signed_pre_key: spk.public().as_bytes().into(),
            signed_pre_key_sig: signature.as_bytes().as_slice().into(),
            pre_keys: opks.iter().map(|opk| opk.public().as_bytes().into()).collect(),
        },
    })
}

#[derive(Deserialize)]
pub(super) struct AliceRequest {
    #[serde(default)]
    format: Format,
    #[serde(default)]
    encode: Encode,
    identity: Identity,
    hash: Hash,
    info: Hex,
    #[serde(default)]
    ad: Hex,
    ephemeral_priv: Option<Hex>,
    bundle: BundleJson,
}

#[derive(Serialize)]
pub(super) struct AliceAnswer {
    sk: Hex,
    ad: Hex,
    header: HeaderJson,
}

#[derive(Serialize, Deserialize)]
struct HeaderJson {
    identity_key: Hex,
    ephemeral_key: Hex,
    signed_pre_key: Hex,
    pre_key: Option<Hex>,
}

/// The initiator's side.
pub(super) fn alice(request: &AliceRequest) -> Result<AliceAnswer, OpError> {
    let identity = request.identity.key_pair(request.format)?;
    let theirs = &request.bundle;
    let opk = match theirs.pre_keys.as_slice() {
        [] => None,
        [opk] => Some(OneTimePreKeyPublic::from_bytes(&opk.0)?),
        _ => return Err(OpError::malformed("a bundle has at most one entry in pre_keys")),
    };
    let signature = theirs.signed_pre_key_sig.0.as_slice().try_into();
    let bundle = Bundle {
        identity: IdentityPublic::from_parts(request.format.kind(), &theirs.identity_key.0)?,
        signed_prekey: SignedPreKeyPublic::from_bytes(&theirs.signed_pre_key.0)?,
        signature: Signature::from_bytes(signature.map_err(OpError::malformed)?),
        one_time_prekey: opk,
    };
    let profile = profile(request.hash, request.encode, &request.info);
    let ad = &request.ad.0;
    let started = match &request.ephemeral_priv {
        Some(secret) => {
            profile.initiate(&identity, &bundle, ad, &mut FixedRng::new(secret.secret()?))
        }
        None => profile.initiate(&identity, &bundle, ad, &mut rand::rng()),
    };
    let (agreed, header) = started.map_err(refused)?;
    Ok(AliceAnswer {
        sk: agreed.sk().into(),
        ad: agreed.ad().into(),
        header: HeaderJson {
            identity_key: header.identity.as_bytes().into(),
            ephemeral_key: header.ephemeral.as_bytes().into(),
            signed_pre_key: header.signed_prekey.as_bytes().into(),
            pre_key: header.one_time_prekey.map(|opk| opk.as_bytes().into()),
        },
    })
}

#[derive(Deserialize)]
pub(super) struct BobRequest {
    #[serde(default)]
    format: Format,
    #[serde(default)]
    encode: Encode,
    identity: Identity,
    signed_pre_key: SignedPreKeySecret,
    old_signed_pre_key: Option<SignedPreKeySecret>,
    #[serde(default)]
    pre_keys: Vec<Hex>,
    header: HeaderJson,
    hash: Hash,
    info: Hex,
    #[serde(default)]
    ad: Hex,
}

#[derive(Serialize)]
pub(super) struct BobAnswer {
    sk: Hex,
    ad: Hex,
}

/// The responder's side. Prekeys are found by their public keys.
pub(super) fn bob(request: &BobRequest) -> Result<BobAnswer, OpError> {
    let identity = request.identity.key_pair(request.format)?;
    let header = header(&request.header, request.format)?;
    let mut spk = request.signed_pre_key.key_pair()?;
    if let Some(old) = &request.old_signed_pre_key
        && *spk.public() != header.signed_prekey
    {
        spk = old.key_pair()?;
    }
    if *spk.public() != header.signed_prekey {
        return Err(Failure::SpkUnknown.into());
    }
    let opks = one_time_prekeys(&request.pre_keys)?;
    let opk = match &header.one_time_prekey {
        None => None,
        Some(named) => {
            let held = opks.iter().find(|opk| opk.public() == named);
            Some(held.ok_or(Failure::OpkMissing)?)
        }
    };
    let agreed = profile(request.hash, request.encode, &request.info)
        .respond(&identity, &spk, opk, &header, &request.ad.0)
        .map_err(refused)?;
    Ok(BobAnswer { sk: agreed.sk().into(), ad: agreed.ad().into() })
}

fn header(json: &HeaderJson, format: Format) -> Result<Header, OpError> {
    let opk = json.pre_key.as_ref().map(|opk| OneTimePreKeyPublic::from_bytes(&opk.0));
    Ok(Header {
        identity: IdentityPublic::from_parts(format.kind(), &json.identity_key.0)?,
        ephemeral: EphemeralPublic::from_bytes(&json.ephemeral_key.0)?,
        signed_prekey: SignedPreKeyPublic::from_bytes(&json.signed_pre_key.0)?,
        one_time_prekey: opk.transpose()?,
    })
}

fn profile(hash: Hash, encode: Encode, info: &Hex) -> Profile<'_> {
    Profile { hash: hash.function(), encoding: encode.encoding(), info: &info.0 }
}

fn refused(error: Error) -> OpError {
    let failure = match error {
        Error::Signature(_) => Failure::SignatureInvalid,
        Error::WrongPreKeys => Failure::OpkMissing,
        // Also whatever this interface comes to refuse later.
        _ => Failure::Malformed,
    };
    OpError::new(error, failure.reason())
}
