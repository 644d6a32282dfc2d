//! Tokens and signatures, good ones and all others, made from the standards and not from the crates
//! under test.

use std::path::PathBuf;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use oncekey_server::config::auth::{Algorithm, Auth, KeySource, Tokens};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{Device, Request, device::now};

/// An account system.
pub(crate) struct Issuer {
    key: Ed25519KeyPair,
    name: &'static str,
    folder: TempDir,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self::with(9, "one")
    }

    /// With another key, of this name.
    pub(crate) fn with(seed: u8, name: &'static str) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let issuer = Self { key, name, folder: tempfile::tempdir().unwrap() };
        let set = json!({"keys": [issuer.public()]});
        std::fs::write(issuer.key_set(), set.to_string()).unwrap();
        issuer
    }

    /// The public key, as a set of keys has it.
    pub(crate) fn public(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.name, "x": x})
    }

    fn key_set(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    /// What a node that believes this issuer is configured with.
    pub(crate) fn auth(&self) -> Auth {
        Auth::Tokens(Box::new(Tokens {
            issuer: "https://accounts.example".into(),
            audience: "oncekey".into(),
            algorithm: Algorithm::EdDsa,
            keys: KeySource::File(self.key_set()),
            refresh: std::time::Duration::from_secs(600),
            skew: std::time::Duration::from_secs(30),
            operator_scope: "oncekey:operator".into(),
            authorities: vec!["test".into()],
        }))
    }

    pub(crate) fn token(&self, user: &str) -> String {
        self.token_with(user, |_, _| {})
    }

    pub(crate) fn operator(&self) -> String {
        self.token_with("root", |_, claims| claims["scope"] = "oncekey:operator".into())
    }

    pub(crate) fn token_with(
        &self,
        user: &str,
        edit: impl FnOnce(&mut Value, &mut Value),
    ) -> String {
        let mut header = json!({"alg": "EdDSA", "typ": "JWT", "kid": self.name});
        let mut claims = json!({
            "iss": "https://accounts.example",
            "aud": "oncekey",
            "sub": user,
            "exp": now().0 + 600,
        });
        edit(&mut header, &mut claims);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

impl Request {
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// The request, signed by `device`.
    pub(crate) fn signed(self, device: &Device) -> Self {
        self.signed_with(device, |_| {})
    }

    /// The same; what is signed was changed by `edit`, what is sent was not.
    pub(crate) fn signed_with(self, device: &Device, edit: impl FnOnce(&mut Signing)) -> Self {
        let mut signing = Signing::of(&self, device);
        edit(&mut signing);
        let Signing { digest, params, label, .. } = &signing;
        let signature = match &signing.signature {
            Some(bytes) => bytes.clone(),
            None => device.authentication.sign(signing.base().as_bytes()).as_bytes().to_vec(),
        };
        let input = format!("{label}={}{params}", signing.list());
        let signature = format!("{label}=:{}:", STANDARD.encode(signature));
        self.header("Content-Digest", digest)
            .header("Signature-Input", &input)
            .header("Signature", &signature)
    }
}

/// What is about to be signed.
pub(crate) struct Signing {
    pub(crate) components: Vec<(&'static str, String)>,
    pub(crate) digest: String,
    pub(crate) params: String,
    pub(crate) label: String,
    /// In place of one by the device's authentication key.
    pub(crate) signature: Option<Vec<u8>>,
}

impl Signing {
    fn of(request: &Request, device: &Device) -> Self {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(&request.body)));
        let components = vec![
            ("@method", request.method.to_owned()),
            ("@authority", "test".to_owned()),
            ("@path", path.to_owned()),
            ("@query", format!("?{query}")),
            ("content-digest", digest.clone()),
        ];
        let key_id = format!("{}/{}", device.user, device.device);
        let params = params(&key_id, now().0, 60);
        Self { components, digest, params, label: "sig1".to_owned(), signature: None }
    }

    /// Signs another value of a component than the one sent.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let (_, known) = self.components.iter_mut().find(|(known, _)| *known == name).unwrap();
        *known = value.to_owned();
    }

    fn list(&self) -> String {
        let names: Vec<_> = self.components.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        format!("({})", names.join(" "))
    }

    pub(crate) fn base(&self) -> String {
        let mut base = String::new();
        for (name, value) in &self.components {
            base.push_str(&format!("\"{name}\": {value}\n"));
        }
        base + &format!("\"@signature-params\": {}{}", self.list(), self.params)
    }
}

/// The parameters of a signature by `key_id` at `created`, valid for so many seconds.
pub(crate) fn params(key_id: &str, created: u64, valid_s: u64) -> String {
    let expires = created + valid_s;
    format!(
        ";created={created};expires={expires};keyid=\"{key_id}\";alg=\"ed25519\";tag=\"oncekey\""
    )
}
