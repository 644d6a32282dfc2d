//! Which tokens are taken, and what an attacker's get.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::http::Uri;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use oncekey_types::TimestampMs;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::{
    keys::{KeySet, KeySetError},
    *,
};
use crate::config::auth::{Algorithm, KeySource};

const NOW_S: u64 = 1_790_000_000;

/// A key of an issuer.
enum Key {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

impl Key {
    fn ed(seed: u8) -> Self {
        Self::Ed(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn ec() -> Self {
        let rng = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let bytes = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, bytes.as_ref(), &rng).unwrap())
    }

    fn public(&self, name: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed(key) => {
                let x = text(key.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": name, "x": x})
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": name, "x": x, "y": y})
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_bytes(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    fn sign_bytes(&self, header: &[u8], claims: &[u8]) -> String {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let text = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            Self::Ed(key) => key.sign(text.as_bytes()).as_ref().to_vec(),
            Self::Ec(key) => {
                key.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec()
            }
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, edit: impl FnOnce(&mut Value, &mut Value)) -> String {
        let alg = match self {
            Self::Ed(_) => "EdDSA",
            Self::Ec(_) => "ES256",
        };
        let mut header = json!({"alg": alg, "typ": "JWT", "kid": "one"});
        let mut claims = json!({
            "iss": "issuer", "aud": ["other", "oncekey"], "sub": "alice", "exp": NOW_S + 100
        });
        edit(&mut header, &mut claims);
        self.sign(&header, &claims)
    }
}

fn settings(path: &Path, algorithm: Algorithm) -> auth::Tokens {
    auth::Tokens {
        issuer: "issuer".into(),
        audience: "oncekey".into(),
        algorithm,
        keys: KeySource::File(path.to_owned()),
        refresh: Duration::from_secs(600),
        skew: Duration::from_secs(30),
        operator_scope: "oncekey:operator".into(),
        authorities: Vec::new(),
    }
}

/// A verifier of the keys in `path`, and its clock.
async fn start(path: &Path, algorithm: Algorithm) -> (Tokens, Arc<AtomicU64>) {
    let now_s = Arc::new(AtomicU64::new(NOW_S));
    let clock = Arc::clone(&now_s);
    let clock = Clock::new(move || TimestampMs(clock.load(Ordering::SeqCst) * 1000));
    (Tokens::start(&settings(path, algorithm), clock).await.unwrap(), now_s)
}

fn write_keys(path: &Path, keys: &[Value]) {
    std::fs::write(path, json!({ "keys": keys }).to_string()).unwrap();
}

struct World {
    tokens: Tokens,
    now_s: Arc<AtomicU64>,
    key: Key,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), Key::ed(1));
        let path = folder.path().join("jwks.json");
        write_keys(&path, &[key.public("one")]);
        let (tokens, now_s) = start(&path, Algorithm::EdDsa).await;
        Self { tokens, now_s, key, folder }
    }

    async fn code(&self, token: &str) -> Option<Code> {
        self.tokens.verify(token).await.err().map(|problem| problem.code)
    }
}

#[tokio::test]
async fn a_good_token_says_who_and_with_the_scope_who_is_an_operator() {
    let world = World::new().await;
    let token = world.key.token(|_, _| {});
    let identity = world.tokens.verify(&token).await.unwrap();
    assert_eq!((identity.user.as_str(), identity.is_operator), ("alice", false));
    let token = world.key.token(|_, claims| claims["scope"] = "read oncekey:operator".into());
    assert!(world.tokens.verify(&token).await.unwrap().is_operator);
    let token = world.key.token(|_, claims| claims["scope"] = "oncekey:operators".into());
    assert!(!world.tokens.verify(&token).await.unwrap().is_operator);
    let token = world.key.token(|header, _| drop(header.as_object_mut().unwrap().remove("kid")));
    assert_eq!(world.code(&token).await, None, "the only key needs no name");
}

#[tokio::test]
async fn a_token_that_is_not_utf_8_throughout_is_refused() {
    let world = World::new().await;
    let claims = |other: &[u8]| {
        let known = br#"{"iss":"issuer","aud":"oncekey","sub":"alice","exp":1790000100,"other":""#;
        [known, other, b"\"}"].concat()
    };
    let header = br#"{"alg":"EdDSA","typ":"JWT","kid":"one"}"#;
    let good = world.key.sign_bytes(header, &claims("ü".as_bytes()));
    assert_eq!(world.code(&good).await, None);
    let bad = world.key.sign_bytes(header, &claims(b"\xd3"));
    assert_eq!(world.code(&bad).await, Some(Code::TokenInvalid));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_it_is_refused() {
    type Edit = fn(&mut Value, &mut Value);
    let world = World::new().await;
    let remove = |value: &mut Value, name: &str| drop(value.as_object_mut().unwrap().remove(name));
    let edits: [(&str, Edit, Code); 16] = [
        ("alg none", |h, _| h["alg"] = "none".into(), Code::TokenInvalid),
        ("alg HS256", |h, _| h["alg"] = "HS256".into(), Code::TokenInvalid),
        ("alg ES256", |h, _| h["alg"] = "ES256".into(), Code::TokenInvalid),
        ("alg unknown", |h, _| h["alg"] = "XX".into(), Code::TokenInvalid),
        ("other type", |h, _| h["typ"] = "dpop+jwt".into(), Code::TokenInvalid),
        ("critical", |h, _| h["crit"] = json!(["b64"]), Code::TokenInvalid),
        ("unknown kid", |h, _| h["kid"] = "two".into(), Code::TokenInvalid),
        ("other issuer", |_, c| c["iss"] = "someone".into(), Code::TokenInvalid),
        ("other audience", |_, c| c["aud"] = "another".into(), Code::TokenInvalid),
        ("audience of the wrong type", |_, c| c["aud"] = 7.into(), Code::TokenInvalid),
        ("empty subject", |_, c| c["sub"] = "".into(), Code::TokenInvalid),
        ("long subject", |_, c| c["sub"] = "x".repeat(256).into(), Code::TokenInvalid),
        ("time as text", |_, c| c["exp"] = "tomorrow".into(), Code::TokenInvalid),
        ("negative time", |_, c| c["exp"] = (-1).into(), Code::TokenInvalid),
        ("expired", |_, c| c["exp"] = (NOW_S - 30).into(), Code::TokenExpired),
        ("not yet", |_, c| c["nbf"] = (NOW_S + 31).into(), Code::TokenExpired),
    ];
    for (what, edit, code) in edits {
        let token = world.key.token(edit);
        assert_eq!(world.code(&token).await, Some(code), "{what}");
    }
    for claim in ["iss", "aud", "sub", "exp"] {
        let token = world.key.token(|_, claims| remove(claims, claim));
        assert_eq!(world.code(&token).await, Some(Code::TokenInvalid), "without {claim}");
    }
    let foreign = Key::ed(2).token(|_, _| {});
    assert_eq!(world.code(&foreign).await, Some(Code::TokenInvalid), "a key of somebody else");
    let own = Key::ed(2);
    let own = own.token(|header, _| header["jwk"] = own.public("one"));
    assert_eq!(world.code(&own).await, Some(Code::TokenInvalid), "a key that it brings itself");
    let good = world.key.token(|_, _| {});
    let mut parts: Vec<_> = good.split('.').collect();
    parts[2] = "";
    let long = "x".repeat(limits::TOKEN_MAX_BYTES + 1);
    for text in ["", "a", "a.b", "a.b.c", "a.b.c.d", &good[1..], &parts.join("."), &long] {
        assert_eq!(world.code(text).await, Some(Code::TokenInvalid), "{text:.40}");
    }
}

#[tokio::test]
async fn a_body_that_was_changed_does_not_pass_with_the_old_signature() {
    let world = World::new().await;
    let (good, other) =
        (world.key.token(|_, _| {}), world.key.token(|_, claims| claims["sub"] = "mallory".into()));
    let mut parts: Vec<_> = good.split('.').collect();
    parts[1] = other.split('.').nth(1).unwrap();
    assert_eq!(world.code(&parts.join(".")).await, Some(Code::TokenInvalid));
}

#[tokio::test]
async fn a_token_that_is_remembered_ends_all_the_same() {
    let world = World::new().await;
    let token = world.key.token(|_, _| {});
    assert_eq!(world.code(&token).await, None);
    world.now_s.store(NOW_S + 129, Ordering::SeqCst);
    assert_eq!(world.code(&token).await, None, "within the skew");
    world.now_s.store(NOW_S + 130, Ordering::SeqCst);
    assert_eq!(world.code(&token).await, Some(Code::TokenExpired));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_taken_out_of_the_file_takes_its_tokens_with_it() {
    let world = World::new().await;
    let old = world.key.token(|_, _| {});
    assert_eq!(world.code(&old).await, None);
    let new = Key::ed(2);
    write_keys(&world.folder.path().join("jwks.json"), &[new.public("two")]);
    let token = new.token(|header, _| header["kid"] = "two".into());
    assert_eq!(world.code(&token).await, Some(Code::TokenInvalid), "read a moment ago");
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(world.code(&token).await, None, "a key that is not known makes the node look");
    assert_eq!(world.code(&old).await, Some(Code::TokenInvalid), "remembered no more");
    std::fs::write(world.folder.path().join("jwks.json"), "nonsense").unwrap();
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(world.code(&old).await, Some(Code::TokenInvalid));
    assert_eq!(world.code(&token).await, None, "keys that cannot be taken leave the old ones");
}

#[tokio::test]
async fn es256_is_taken_where_it_is_configured_and_only_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let (ec, ed) = (Key::ec(), Key::ed(1));
    write_keys(&path, &[ec.public("one"), ed.public("two")]);
    let (tokens, _) = start(&path, Algorithm::Es256).await;
    assert!(tokens.verify(&ec.token(|_, _| {})).await.is_ok());
    for kid in ["one", "two"] {
        let token = ed.token(|header, _| header["kid"] = kid.into());
        let refused = tokens.verify(&token).await.err().map(|problem| problem.code);
        assert_eq!(refused, Some(Code::TokenInvalid), "{kid}");
    }
}

#[tokio::test]
async fn a_server_of_keys_that_is_down_leaves_a_node_that_says_so() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut settings = settings(Path::new(""), Algorithm::EdDsa);
    let url: Uri = format!("http://{closed}/jwks.json").parse().unwrap();
    settings.keys = KeySource::Url { url, authorities: None };
    let tokens = Tokens::start(&settings, Clock::new(|| TimestampMs(0))).await.unwrap();
    let refused = tokens.verify(&Key::ed(1).token(|_, _| {})).await.err();
    assert_eq!(refused.map(|problem| problem.code), Some(Code::KeysUnavailable));
}

#[test]
fn a_set_of_keys_is_taken_whole_or_not() {
    let parse = |keys: &[Value]| {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), Algorithm::EdDsa)
    };
    let (one, two) = (Key::ed(1), Key::ed(2));
    let with = |mut key: Value, name: &str, value: Value| {
        key[name] = value;
        key
    };
    assert!(parse(&[one.public("one"), two.public("two"), Key::ec().public("three")]).is_ok());
    let for_encryption = with(one.public("one"), "use", "enc".into());
    assert!(matches!(parse(&[for_encryption]), Err(KeySetError::NoKey { .. })));
    let other = with(one.public("one"), "alg", "ES256".into());
    assert!(matches!(parse(&[other]), Err(KeySetError::NoKey { .. })));
    assert!(matches!(parse(&[]), Err(KeySetError::NoKey { .. })));
    let twice = [one.public("one"), two.public("one")];
    assert!(matches!(parse(&twice), Err(KeySetError::Names)));
    let short = with(one.public("one"), "x", "AAAA".into());
    assert!(matches!(parse(&[short]), Err(KeySetError::Key)));
    let many: Vec<_> = (0..65).map(|number| one.public(&number.to_string())).collect();
    assert!(matches!(parse(&many), Err(KeySetError::TooMany { count: 65 })));
    let form = KeySet::parse(b"[]", Algorithm::EdDsa);
    assert!(matches!(form, Err(KeySetError::Form)));
    let long = vec![b' '; limits::KEY_SET_MAX_BYTES + 1];
    assert!(matches!(KeySet::parse(&long, Algorithm::EdDsa), Err(KeySetError::TooLong)));
}
