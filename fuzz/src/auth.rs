//! Who asks: tokens, the keys that they are verified with, and signatures of requests.

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use oncekey_api::{
    Base64, header, path,
    signature::{ACCEPT, LIFETIME_MAX_S, content_digest},
};
use oncekey_client::transport::Method;
use oncekey_server::{
    config::auth::{Algorithm, KeySource, Tokens},
    fuzzing::{KnownKeys, RequestParts, Signed, signature},
};
use oncekey_types::{DeviceId, limits};
use serde_json::{Value, json};

use crate::{
    Target, choose, chosen,
    examples::{DEVICE, NOW, bob},
    take,
};

/// Tokens: as they come, and with a signature under whatever they say.
pub const TOKEN: Target = Target { name: "token", run: token, seeds: tokens, claim_bytes: 0 };

/// Sets of keys.
pub const KEY_SET: Target =
    Target { name: "key_set", run: key_set, seeds: key_sets, claim_bytes: 0 };

/// Signatures of requests.
pub const REQUEST_SIGNATURE: Target =
    Target { name: "request_signature", run: request_signature, seeds: requests, claim_bytes: 0 };

const ALGORITHMS: &[Algorithm] = &[Algorithm::EdDsa, Algorithm::Es256];

fn settings(algorithm: Algorithm) -> Tokens {
    Tokens {
        issuer: "issuer".into(),
        audience: "oncekey".into(),
        algorithm,
        keys: KeySource::File(PathBuf::new()),
        refresh: Duration::from_secs(600),
        skew: Duration::from_secs(30),
        operator_scope: "operator".into(),
        authorities: Vec::new(),
    }
}

/// The key of the issuer is one that a device has: both are Ed25519.
fn public_key() -> Value {
    let x = Base64::from(*DEVICE.authentication().public().as_bytes());
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x})
}

static KEYS: LazyLock<KnownKeys> = LazyLock::new(|| {
    let set = json!({ "keys": [public_key()] }).to_string();
    KnownKeys::parse(set.as_bytes(), &settings(Algorithm::EdDsa)).expect("it is a set of keys")
});

/// The token of this header and these claims, whatever they are.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let part = |bytes: &[u8]| Base64(bytes.to_vec()).to_text();
    let text = format!("{}.{}", part(header), part(claims));
    let signature = DEVICE.authentication().sign(text.as_bytes());
    format!("{text}.{}", part(signature.as_bytes()))
}

const AS_IT_COMES: u8 = 0;
const SIGNED: u8 = 1;

fn token(data: &[u8]) {
    match choose(&[AS_IT_COMES, SIGNED], data) {
        Some((AS_IT_COMES, text)) => {
            let Ok(text) = std::str::from_utf8(text) else { return };
            if KEYS.verify(text, NOW).is_ok() {
                take();
                assert_eq!(text, genuine(), "a token that nobody signed is taken");
            }
        }
        Some((_, parts)) => {
            let line = parts.iter().position(|byte| *byte == b'\n').unwrap_or(parts.len());
            let (header, claims) = parts.split_at(line);
            let claims = claims.get(1..).unwrap_or_default();
            if let Ok((user, is_operator)) = KEYS.verify(&signed(header, claims), NOW) {
                take();
                check_claims(header, claims, user.as_str(), is_operator);
            }
        }
        None => {}
    }
}

/// What a token that is taken says, read by another parser.
fn check_claims(header: &[u8], claims: &[u8], user: &str, is_operator: bool) {
    let [header, claims] =
        [header, claims].map(|json| serde_json::from_slice::<Value>(json).expect("it is JSON"));
    assert_eq!(header["alg"], "EdDSA");
    assert!(header["crit"].is_null(), "{header}");
    assert_eq!(claims["iss"], "issuer");
    let is_for = |audience: &Value| *audience == "oncekey";
    let audiences = claims["aud"].as_array().map(Vec::as_slice);
    assert!(is_for(&claims["aud"]) || audiences.is_some_and(|all| all.iter().any(is_for)));
    assert_eq!(claims["sub"], user);
    let (now, skew) = (NOW.to_seconds().0, 30);
    assert!(claims["exp"].as_u64().is_some_and(|end| end.saturating_add(skew) > now), "{claims}");
    let begins = claims["nbf"].as_u64().unwrap_or(0);
    assert!(begins.saturating_sub(skew) <= now, "{claims}");
    let scopes = claims["scope"].as_str().unwrap_or_default();
    assert_eq!(scopes.split(' ').any(|scope| scope == "operator"), is_operator);
}

fn header_and_claims() -> (Value, Value) {
    let claims = json!({
        "iss": "issuer", "aud": ["others", "oncekey"], "sub": "alice", "exp": NOW.to_seconds().0 + 60,
        "nbf": NOW.to_seconds().0, "scope": "read operator",
    });
    (json!({"alg": "EdDSA", "typ": "JWT", "kid": "one"}), claims)
}

fn genuine() -> String {
    let (header, claims) = header_and_claims();
    signed(header.to_string().as_bytes(), claims.to_string().as_bytes())
}

fn tokens() -> Vec<Vec<u8>> {
    let (header, claims) = header_and_claims();
    vec![
        chosen(AS_IT_COMES.into(), genuine().as_bytes()),
        chosen(SIGNED.into(), format!("{header}\n{claims}").as_bytes()),
    ]
}

/// A set that is taken is within its limits, and its names lead to its keys.
fn key_set(data: &[u8]) {
    let Some((algorithm, bytes)) = choose(ALGORITHMS, data) else { return };
    let Some(keys) = KnownKeys::parse(bytes, &settings(algorithm)) else { return };
    take();
    let names: Vec<_> = keys.names().collect();
    assert!((1..=limits::KEY_SET_KEYS_MAX).contains(&names.len()), "{} keys", names.len());
    assert!(bytes.len() <= limits::KEY_SET_MAX_BYTES);
    assert!(names.iter().all(|name| keys.has(*name)), "a name leads nowhere: {names:?}");
    assert_eq!(keys.has(None), names.len() == 1, "a token without a name is for the only key");
    // Whatever the keys are, what nobody signed is not taken.
    assert!(keys.verify(&genuine(), NOW).is_err() || algorithm == Algorithm::EdDsa);
}

fn key_sets() -> Vec<Vec<u8>> {
    // The generator of P-256, which is a point as any other.
    let (x, y) = (
        "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
        "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
    );
    let ec = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "x": x, "y": y});
    let set = |keys: Value| json!({ "keys": keys }).to_string();
    let (mut other, ed) = (public_key(), public_key());
    other["kid"] = "two".into();
    vec![
        chosen(0, set(json!([ed, other, ec])).as_bytes()),
        chosen(1, set(json!([ec, ed])).as_bytes()),
    ]
}

/// A request as text: method and target, fields, an empty line, the body.
fn read(data: &[u8]) -> Option<Signed> {
    let end = data.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (&data[..end], &data[end + 2..]);
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let fields: Option<Vec<_>> = lines
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
        })
        .collect();
    let parts = RequestParts { method, target, fields: &fields?, body };
    let signed = signature(parts, NOW, DEVICE.authentication().public())?;
    check_base(&signed, parts);
    Some(signed)
}

/// What is signed is the request, line by line, and nothing that can be taken for another line.
fn check_base(signed: &Signed, request: RequestParts<'_>) {
    let lines: Vec<_> = signed.base.split('\n').collect();
    let [method, authority, target, query, digest, parameters] = lines[..] else {
        panic!("not six lines: {:?}", signed.base)
    };
    assert_eq!(method, format!("\"@method\": {}", request.method));
    let host = request.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = host.map(|(_, host)| host.to_ascii_lowercase()).unwrap_or_default();
    assert_eq!(authority.as_bytes(), [b"\"@authority\": ", &host[..]].concat());
    let (path, asked) = (target.strip_prefix("\"@path\": "), query.strip_prefix("\"@query\": ?"));
    let (Some(path), Some(asked)) = (path, asked) else { panic!("{target:?}, {query:?}") };
    // A target may also be a whole address; what stands in front of its path is not signed.
    let ours = request.target.split('#').next().unwrap_or_default();
    let ours = ours.split_once('?').unwrap_or((ours, ""));
    assert!(ours.0.ends_with(path) || path == "/", "{path:?} of {:?}", request.target);
    assert_eq!(asked, ours.1);
    assert_eq!(digest, format!("\"content-digest\": {}", content_digest(request.body)));
    let parameters = parameters.strip_prefix("\"@signature-params\": ").expect("they come last");
    let components = ACCEPT.trim_start_matches("oncekey=").split(';').next().unwrap_or_default();
    assert!(parameters.starts_with(components), "{parameters}");
    let number = |name: &str| {
        let (_, rest) = parameters.split_once(&format!(";{name}="))?;
        rest.split(';').next()?.parse::<u64>().ok()
    };
    let (created, expires) = (number("created"), number("expires"));
    let (Some(created), Some(expires)) = (created, expires) else { panic!("{parameters}") };
    assert!(created < expires && expires - created <= LIFETIME_MAX_S, "{parameters}");
    assert!(created.abs_diff(NOW.to_seconds().0) <= LIFETIME_MAX_S + 30, "{parameters}");
}

fn request_signature(data: &[u8]) {
    let Some(signed) = read(data) else { return };
    take();
    if signed.is_of_key {
        let known = requests().iter().filter_map(|seed| read(seed)).any(|known| known == signed);
        assert!(known, "a request that nobody signed is taken: {:?}", signed.base);
    }
}

fn requests() -> Vec<Vec<u8>> {
    let signer = DEVICE.signer(NOW);
    [
        (Method::Put, path::signed_prekey(&bob(), DeviceId(1)), &b"{\"seq\":1}"[..]),
        (Method::Get, path::events(&bob(), DeviceId(1)), b""),
    ]
    .into_iter()
    .map(|(method, target, body)| {
        let fields = signer.sign(method, "node:8080", &target, body, Duration::ZERO);
        let names = [header::CONTENT_DIGEST, header::SIGNATURE_INPUT, header::SIGNATURE];
        let values = [fields.content_digest, fields.signature_input, fields.signature];
        let fields = names.iter().zip(values).map(|(name, value)| format!("{name}:{value}\n"));
        let head = format!("{method} {target}\nhost:node:8080\n{}\n", fields.collect::<String>());
        [head.as_bytes(), body].concat()
    })
    .collect()
}
