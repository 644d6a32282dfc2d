//! An account system in small: makes the tokens that a cluster under test, or tried out, believes.
//!
//! Guarantees: what it makes is what an operator's account system would: a JWT (RFC 7519) signed with
//! Ed25519, whose public key stands in a set of keys (RFC 7517) for the nodes to read. It is written
//! apart from what the nodes verify with.
//!
//! Leaves out: accounts. Whoever has the key may be anyone; it is for tests and trials.

use std::{
    fmt, fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use oncekey_client::http::{TokenError, TokenSource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The issuer that the tokens name.
pub const ISSUER: &str = "oncekey-trial";
/// Whom the tokens are for.
pub const AUDIENCE: &str = "oncekey";
/// The scope of operators.
pub const OPERATOR_SCOPE: &str = "oncekey:operator";
/// The file of the private key, in the folder of an issuer.
pub const KEY_FILE: &str = "issuer.jwk";
/// The file of the public keys, in the folder of an issuer.
pub const KEY_SET_FILE: &str = "jwks.json";

/// How long the tokens of a [`source`](Issuer::source) live.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Makes tokens.
pub struct Issuer {
    key: SigningKey,
    name: String,
}

/// What a token is to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// Who issues it.
    pub issuer: String,
    /// Whom it is for.
    pub audience: String,
    /// The user.
    pub subject: String,
    /// Scopes, apart by spaces; none when empty.
    pub scope: String,
    /// When it is made.
    pub issued: SystemTime,
    /// How long it lives.
    pub lifetime: Duration,
}

/// The private key as a file has it (RFC 8037).
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct PrivateKey {
    kty: String,
    crv: String,
    d: String,
}

impl Claims {
    /// A token for `subject`, for an hour from now, without scopes.
    #[must_use]
    pub fn new(subject: &str) -> Self {
        Self {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            subject: subject.to_owned(),
            scope: String::new(),
            issued: SystemTime::now(),
            lifetime: LIFETIME,
        }
    }
}

impl Issuer {
    /// A new key, kept in `dir` beside the set of keys for nodes.
    ///
    /// # Errors
    ///
    /// When there is a key already, or the folder cannot be written.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).context("no randomness")?;
        let issuer = Self::of(&seed);
        let private = PrivateKey {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            d: URL_SAFE_NO_PAD.encode(*seed),
        };
        let private = Zeroizing::new(serde_json::to_vec(&private)?);
        let path = dir.join(KEY_FILE);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(&private))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let path = dir.join(KEY_SET_FILE);
        fs::write(&path, serde_json::to_vec_pretty(&issuer.key_set())?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(issuer)
    }

    /// The key in the file `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is no such key.
    pub fn open(path: &Path) -> Result<Self> {
        let text = fs::read(path).map(Zeroizing::new);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let what = || format!("{} is no private key of `oncekey token`", path.display());
        let key: PrivateKey = serde_json::from_slice(&text).with_context(what)?;
        ensure!(key.kty == "OKP" && key.crv == "Ed25519", what());
        let seed = URL_SAFE_NO_PAD.decode(&key.d).map(Zeroizing::new).with_context(what)?;
        let seed = <&[u8; 32]>::try_from(seed.as_slice()).with_context(what)?;
        Ok(Self::of(seed))
    }

    /// The issuer of the folder `dir`, which gets one if it has none.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create) and [`open`](Self::open).
    pub fn open_or_create(dir: &Path) -> Result<Self> {
        let path = dir.join(KEY_FILE);
        match path.try_exists() {
            Ok(true) => Self::open(&path),
            Ok(false) => Self::create(dir),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn of(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let hash = Sha256::digest(key.verifying_key().as_bytes());
        Self { name: URL_SAFE_NO_PAD.encode(&hash[..9]), key }
    }

    /// The set of keys that nodes read.
    #[must_use]
    pub fn key_set(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes());
        let key = json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.name, "x": x
        });
        json!({ "keys": [key] })
    }

    /// A token with these claims.
    #[must_use]
    pub fn token(&self, claims: &Claims) -> String {
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
        };
        let mut body = json!({
            "iss": claims.issuer,
            "aud": claims.audience,
            "sub": claims.subject,
            "iat": seconds(claims.issued),
            "exp": seconds(claims.issued + claims.lifetime),
        });
        if !claims.scope.is_empty() {
            body["scope"] = claims.scope.clone().into();
        }
        self.sign(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.name }), &body)
    }

    /// A token with this very header and body, whatever they are.
    #[must_use]
    pub fn sign(&self, header: &Value, body: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(body));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }

    /// A source of tokens for `subject`, for a client.
    pub fn source(self: &Arc<Self>, subject: &str) -> impl TokenSource + use<> {
        let (issuer, subject) = (Arc::clone(self), subject.to_owned());
        move || {
            let token = issuer.token(&Claims::new(&subject));
            async move { token.parse().map(Arc::new) as Result<_, TokenError> }
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_comes_back_from_its_folder_and_nobody_else_reads_its_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let made = Issuer::open_or_create(dir.path()).unwrap();
        let again = Issuer::open_or_create(dir.path()).unwrap();
        let claims = Claims::new("alice");
        assert_eq!(made.token(&claims), again.token(&claims));
        assert!(Issuer::create(dir.path()).is_err(), "a key is not written over");
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let public = fs::read_to_string(dir.path().join(KEY_SET_FILE)).unwrap();
        assert!(!public.contains("\"d\""), "{public}");
    }

    #[test]
    fn a_token_has_three_parts_and_the_claims() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer::create(dir.path()).unwrap();
        let token = issuer.token(&Claims { scope: "a b".into(), ..Claims::new("alice") });
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let body: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        assert_eq!((body["sub"].as_str(), body["scope"].as_str()), (Some("alice"), Some("a b")));
        let lifetime = body["exp"].as_u64().unwrap() - body["iat"].as_u64().unwrap();
        assert_eq!(lifetime, LIFETIME.as_secs());
    }
}
