//! Bad requests that are HTTP all the same.

use hyper::{Method, header::CONTENT_TYPE};
use oncekey_api::{Code, header::IDEMPOTENCY_KEY, path};
use oncekey_types::DeviceId;
use serde_json::{Value, json};

use crate::Good;

/// A bad request and what it must get.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) want: (u16, Code),
}

/// Writes of a device: forms, keys, signatures, order.
pub(crate) fn device(good: &Good) -> Vec<Case> {
    let one = DeviceId(1);
    let user = &good.user;
    let short = "AAAA";
    let zeros = "A".repeat(43);
    let ones = format!("{}8", "_".repeat(42));
    let put = |name: &str, body: &Value, want| {
        json_case(name, Method::PUT, path::device(user, one), body, want)
    };
    let add = |name: &str, body: &Value, want| {
        json_case(name, Method::POST, path::one_time_prekeys(user, one), body, want)
    };
    let rotate = |name: &str, body: &Value, want| {
        json_case(name, Method::PUT, path::signed_prekey(user, one), body, want)
    };
    let mut cases = Vec::new();
    for key in [
        "/identity_key/key",
        "/authentication_key",
        "/signed_prekey/key",
        "/one_time_prekeys/0/key",
    ] {
        for (what, value) in [("short", short), ("of zeros", &zeros), ("of ones", &ones)] {
            let name = format!("register with {key} {what}");
            cases.push(put(&name, &with(&good.register, key, value), (422, Code::InvalidKey)));
        }
    }
    for signature in
        ["/authentication_signature", "/signed_prekey/signature", "/one_time_prekeys/3/signature"]
    {
        let name = format!("register with another {signature}");
        let other = with(&good.register, signature, "A".repeat(86));
        cases.push(put(&name, &other, (422, Code::InvalidSignature)));
        let name = format!("register with a short {signature}");
        let other = with(&good.register, signature, short);
        cases.push(put(&name, &other, (422, Code::InvalidSignature)));
    }
    let keys = good.register["one_time_prekeys"].as_array().cloned().unwrap_or_default();
    let swapped: Vec<_> = keys.iter().rev().cloned().collect();
    let many: Vec<_> = keys.iter().cycle().take(201).cloned().collect();
    let growing = (409, Code::OneTimePreKeyIdsNotGrowing);
    let seq = |body: &Value| body["seq"].as_u64().unwrap_or_default();
    let next = seq(&good.add) + 10;
    let mut following = with(&good.register, "/seq", next);
    following["follows"] = 1.into();
    cases.extend([
        put(
            "a key too many",
            &with(&good.register, "/one_time_prekeys", many.clone()),
            (422, Code::LimitExceeded),
        ),
        put("ids that fall", &with(&good.register, "/one_time_prekeys", swapped), growing),
        put(
            "an old registration under a new number",
            &with(&good.register, "/seq", next),
            (409, Code::RegistrationChanged),
        ),
        put("the keys of an old registration in one that follows it", &following, growing),
        put(
            "an expired signed prekey",
            &with(&good.register, "/signed_prekey/expires", 1),
            (422, Code::InvalidValidity),
        ),
        put(
            "a kind of key nobody has",
            &with(&good.register, "/identity_key/kind", "rsa"),
            (422, Code::InvalidBody),
        ),
        put("a negative number", &with(&good.register, "/seq", -1), (422, Code::InvalidBody)),
        put(
            "a number too large",
            &with(&good.register, "/signed_prekey/id", 1u64 << 32),
            (422, Code::InvalidBody),
        ),
        put(
            "padding",
            &with(&good.register, "/authentication_key", format!("{zeros}=")),
            (422, Code::InvalidBody),
        ),
        put(
            "null for a key",
            &with(&good.register, "/signed_prekey", Value::Null),
            (422, Code::InvalidBody),
        ),
        add(
            "an upload of nothing",
            &with(&good.add, "/one_time_prekeys", json!([])),
            (422, Code::LimitExceeded),
        ),
        add(
            "too large an upload",
            &with(&good.add, "/one_time_prekeys", many),
            (422, Code::LimitExceeded),
        ),
        add("an upload again under a new number", &with(&good.add, "/seq", next), growing),
        add(
            "an upload with another signature",
            &with(&good.add, "/one_time_prekeys/0/signature", "A".repeat(86)),
            (422, Code::InvalidSignature),
        ),
        rotate(
            "a rotation again under a new number",
            &with(&good.rotate, "/seq", next),
            (409, Code::SignedPreKeyIdNotGrowing),
        ),
        rotate(
            "a rotation under an old number",
            &with(&good.rotate, "/seq", 1),
            (409, Code::StaleSeq),
        ),
        rotate(
            "a rotation with another id",
            &with(&good.rotate, "/signed_prekey/id", 77),
            (422, Code::InvalidSignature),
        ),
    ]);
    let stranger = DeviceId(2);
    cases.extend([
        json_case(
            "another device's registration",
            Method::PUT,
            path::device(user, stranger),
            &good.register,
            (422, Code::InvalidSignature),
        ),
        json_case(
            "an upload for nobody",
            Method::POST,
            path::one_time_prekeys(user, stranger),
            &good.add,
            (404, Code::UnknownDevice),
        ),
        json_case(
            "a rotation for nobody",
            Method::PUT,
            path::signed_prekey(user, stranger),
            &good.rotate,
            (404, Code::UnknownDevice),
        ),
        json_case(
            "the status of nobody",
            Method::GET,
            path::prekeys(user, stranger),
            &Value::Null,
            (404, Code::UnknownDevice),
        ),
        json_case(
            "a removal with a bad number",
            Method::DELETE,
            format!("{}?seq=x", path::device(user, one)),
            &Value::Null,
            (400, Code::MalformedQuery),
        ),
        json_case(
            "a removal under an old number",
            Method::DELETE,
            format!("{}?seq=1", path::device(user, one)),
            &Value::Null,
            (409, Code::StaleSeq),
        ),
        json_case(
            "a device list of nothing",
            Method::PUT,
            path::device_list(user),
            &json!({"account_key": zeros, "list": "", "signature": ""}),
            (422, Code::InvalidKey),
        ),
    ]);
    cases
}

/// Fetches.
pub(crate) fn fetch(good: &Good) -> Vec<Case> {
    let target = path::user_bundles(&good.user);
    let one =
        |name: &str, body: Value, want| json_case(name, Method::POST, target.clone(), &body, want);
    let many = |name: &str, body: Value, want| {
        json_case(name, Method::POST, path::BUNDLES.to_owned(), &body, want)
    };
    let key = |name: &str, keys: &[&str], want| {
        let mut case = one(name, json!({}), want);
        case.headers.retain(|(header, _)| *header != IDEMPOTENCY_KEY);
        case.headers.extend(keys.iter().map(|key| (IDEMPOTENCY_KEY, (*key).to_owned())));
        case
    };
    let limit = (422, Code::LimitExceeded);
    let users = |count: u32| {
        let users: Vec<_> = (0..count).map(|n| json!({"user": format!("u{n}")})).collect();
        json!({ "users": users })
    };
    let mut reused =
        key("another fetch under a used key", &["used"], (422, Code::IdempotencyKeyReused));
    reused.body = br#"{"devices":[1]}"#.to_vec();
    vec![
        key("no idempotency key", &[], (400, Code::IdempotencyKeyMissing)),
        key("an empty idempotency key", &[""], (400, Code::MalformedHeader)),
        key("two idempotency keys", &["a", "b"], (400, Code::MalformedHeader)),
        key("a long idempotency key", &["k".repeat(65).as_str()], (400, Code::MalformedHeader)),
        key("an idempotency key with a space", &["a b"], (400, Code::MalformedHeader)),
        key("an idempotency key that is not ASCII", &["ü"], (400, Code::MalformedHeader)),
        reused,
        one("no devices", json!({"devices": []}), limit),
        one("devices out of order", json!({"devices": [2, 1]}), limit),
        one("a device twice", json!({"devices": [1, 1]}), limit),
        one("too many devices", json!({"devices": (0..33).collect::<Vec<_>>()}), limit),
        one("an unknown device", json!({"devices": [9]}), (404, Code::UnknownDevice)),
        one("an unknown field", json!({"require_otpk": true}), (422, Code::InvalidBody)),
        one("a list for an object", json!([]), (422, Code::InvalidBody)),
        json_case(
            "an unknown user",
            Method::POST,
            "/v1/users/nobody/bundles".to_owned(),
            &json!({}),
            (404, Code::UnknownUser),
        ),
        json_case(
            "an unknown user's devices",
            Method::GET,
            "/v1/users/nobody".to_owned(),
            &Value::Null,
            (404, Code::UnknownUser),
        ),
        many("no users", json!({"users": []}), limit),
        many("too many users", users(65), limit),
        many("a user twice", json!({"users": [{"user": "a"}, {"user": "a"}]}), limit),
        many("a user without a name", json!({"users": [{"user": ""}]}), (422, Code::InvalidBody)),
        many(
            "a user with a long name",
            json!({"users": [{"user": "u".repeat(256)}]}),
            (422, Code::InvalidBody),
        ),
    ]
}

/// What is wrong before anybody looks at keys, at every endpoint with a body.
pub(crate) fn http(good: &Good) -> Vec<Case> {
    let one = DeviceId(1);
    let mut cases = Vec::new();
    for (method, target) in [
        (Method::PUT, path::device(&good.user, one)),
        (Method::PUT, path::signed_prekey(&good.user, one)),
        (Method::POST, path::one_time_prekeys(&good.user, one)),
        (Method::PUT, path::device_list(&good.user)),
        (Method::POST, path::user_bundles(&good.user)),
        (Method::POST, path::BUNDLES.to_owned()),
    ] {
        let base = |name: &str, body: &[u8], want| {
            let case = json_case(name, method.clone(), target.clone(), &Value::Null, want);
            Case { body: body.to_vec(), ..case }
        };
        let large = vec![b' '; 65 * 1024];
        let deep = "[".repeat(20_000);
        let media = |name: &str, kind: Option<&str>| {
            let mut case = base(name, b"{}", (415, Code::UnsupportedMediaType));
            case.headers.retain(|(header, _)| *header != CONTENT_TYPE.as_str());
            case.headers.extend(kind.map(|kind| (CONTENT_TYPE.as_str(), kind.to_owned())));
            case
        };
        let mut query = base("an unknown parameter", b"{}", (400, Code::MalformedQuery));
        query.target.push_str("?dry_run=true");
        cases.extend([
            base("nothing", b"", (400, Code::MalformedJson)),
            base("half a body", b"{\"", (400, Code::MalformedJson)),
            base("bytes that are not UTF-8", b"\xff\xfe{}", (400, Code::MalformedJson)),
            base("zero bytes", &[0; 64], (400, Code::MalformedJson)),
            base("a deep list", deep.as_bytes(), (422, Code::InvalidBody)),
            base("a number", b"1e999", (400, Code::MalformedJson)),
            base("too many bytes", &large, (413, Code::BodyTooLarge)),
            base("a string", b"\"bob\"", (422, Code::InvalidBody)),
            media("no media type", None),
            media("text", Some("text/plain")),
            query,
        ]);
    }
    cases.extend(target_cases());
    cases
}

/// Paths and methods.
pub(crate) fn target_cases() -> Vec<Case> {
    let malformed = (400, Code::MalformedPath);
    let get = |name: &str, target: &str, want| {
        json_case(name, Method::GET, target.to_owned(), &Value::Null, want)
    };
    vec![
        get("a long user", &format!("/v1/users/{}", "u".repeat(256)), malformed),
        get("a user that is not UTF-8", "/v1/users/%ff%fe", malformed),
        get("half a percent sign", "/v1/users/bob%4", malformed),
        get("a device that is a word", "/v1/users/bob/devices/one/prekeys", malformed),
        get("a device with a sign", "/v1/users/bob/devices/+1/prekeys", malformed),
        get("a device with zeros", "/v1/users/bob/devices/01/prekeys", malformed),
        get("a device too large", "/v1/users/bob/devices/4294967296/prekeys", malformed),
        get("a path that leads nowhere", "/v1/nothing", (404, Code::NotFound)),
        get("dots", "/v1/users/../cluster", (404, Code::NotFound)),
        get("an operator's path", path::CLUSTER, (404, Code::NotFound)),
        get("the wrong method", path::BUNDLES, (405, Code::MethodNotAllowed)),
        json_case(
            "a method nobody has",
            Method::PATCH,
            path::BUNDLES.to_owned(),
            &json!({}),
            (405, Code::MethodNotAllowed),
        ),
    ]
}

/// Requests to the operators' listener.
pub(crate) fn admin() -> Vec<Case> {
    let replace = |name: &str, body: &Value, want| {
        json_case(name, Method::POST, path::CLUSTER_REPLACE.to_owned(), body, want)
    };
    let member = json!({"id": 9, "peer": "127.0.0.1:1", "public": "127.0.0.1:2"});
    vec![
        replace(
            "a replacement of nobody",
            &json!({"old": 77, "new": member}),
            (404, Code::UnknownNode),
        ),
        replace("a replacement without a new node", &json!({"old": 1}), (422, Code::InvalidBody)),
        replace("a replacement by nothing", &Value::Null, (422, Code::InvalidBody)),
        json_case(
            "a client's path",
            Method::POST,
            path::BUNDLES.to_owned(),
            &json!({}),
            (404, Code::NotFound),
        ),
        json_case(
            "a write to a reading path",
            Method::POST,
            path::CLUSTER.to_owned(),
            &json!({}),
            (405, Code::MethodNotAllowed),
        ),
    ]
}

pub(crate) fn json_case(
    name: &str,
    method: Method,
    target: String,
    body: &Value,
    want: (u16, Code),
) -> Case {
    let body = body.to_string().into_bytes();
    let headers = vec![
        (CONTENT_TYPE.as_str(), "application/json".to_owned()),
        (IDEMPOTENCY_KEY, "fresh".to_owned()),
    ];
    Case { name: name.to_owned(), method, target, headers, body, want }
}

/// `body` with another value at `pointer`.
pub(crate) fn with(body: &Value, pointer: &str, value: impl Into<Value>) -> Value {
    let mut body = body.clone();
    if let Some(place) = body.pointer_mut(pointer) {
        *place = value.into();
    }
    body
}
