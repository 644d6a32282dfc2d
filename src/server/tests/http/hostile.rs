//! Bad input to every endpoint: what it gets, and that it changed nothing.

use oncekey_api::path;
use oncekey_types::{Seq, UnixSeconds, limits};
use oncekey_x3dh::device_list::DeviceListHash;
use serde_json::{Value, json};

use crate::support::{Device, Fixture, Request, device::now, eventually, hostile_table};

/// A request that must be refused.
struct Case {
    name: &'static str,
    request: Request,
    status: u16,
    code: &'static str,
}

fn case(name: &'static str, request: Request, status: u16, code: &'static str) -> Case {
    Case { name, request, status, code }
}

/// The cases, which `docs/hostile-input.md` has under `heading`.
fn tabled(heading: &str, cases: Vec<Case>) -> Vec<Case> {
    let row = |case: &Case| (case.name.to_owned(), format!("{} `{}`", case.status, case.code));
    hostile_table::check(heading, cases.iter().map(row)).unwrap_or_else(|table| panic!("{table}"));
    cases
}

/// Sends each case and looks at `device` before and after.
async fn refuse_all(node: &Fixture, device: &Device, cases: Vec<Case>) {
    for Case { name, request, status, code } in cases {
        let before = node.look_at(device).await;
        let reply = node.send(request.clone()).await;
        assert_eq!(
            (reply.status, reply.problem_code().as_str()),
            (status, code),
            "{name}: {request:?} got {reply:?}"
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{name}");
        assert_eq!(node.look_at(device).await, before, "{name}: {request:?} changed something");
    }
}

/// A node with one registered device that has three one-time prekeys.
async fn node_with_bob() -> (Fixture, Device) {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 3).await;
    (node, bob)
}

/// What is refused of any endpoint with a JSON body; `good` is one that would be taken.
fn bad_bodies(good: &Request) -> Vec<Case> {
    let with_body = |body: &str| good.clone().body(body.as_bytes());
    let with_type = |media_type: &str| good.clone().header("Content-Type", media_type);
    vec![
        case("empty", with_body(" "), 400, "malformed_json"),
        case("cut off", with_body("{"), 400, "malformed_json"),
        case("not JSON", with_body("seq=1"), 400, "malformed_json"),
        case("not UTF-8", good.clone().body(vec![b'"', 0xff, b'"']), 400, "malformed_json"),
        case("trailing bytes", with_body(&format!("{} x", good.text())), 400, "malformed_json"),
        case("too deep", with_body(&"[".repeat(4096)), 422, "invalid_body"),
        case("an array", with_body("[]"), 422, "invalid_body"),
        case("a number", with_body("7"), 422, "invalid_body"),
        case("null", with_body("null"), 422, "invalid_body"),
        case(
            "an unknown field",
            good.clone().edit(|body| body["admin"] = json!(true)),
            422,
            "invalid_body",
        ),
        case("another type", with_type("text/plain"), 415, "unsupported_media_type"),
        case("form data", with_type("application/jsonp"), 415, "unsupported_media_type"),
        case("no type", good.clone().without("Content-Type"), 415, "unsupported_media_type"),
        case("too long", with_body(&" ".repeat(limits::BODY_MAX_BYTES + 1)), 413, "body_too_large"),
        case(
            "a parameter",
            Request { target: format!("{}?admin=1", good.target), ..good.clone() },
            400,
            "malformed_query",
        ),
        case(
            "another method",
            Request { method: "PATCH", ..good.clone() },
            405,
            "method_not_allowed",
        ),
    ]
}

/// Keys that are no keys, by their bytes.
fn bad_x25519_keys() -> Vec<(&'static str, Value)> {
    let key = |bytes: &[u8]| serde_json::to_value(oncekey_api::Base64(bytes.to_vec())).unwrap();
    let mut high_bit = [9; 32];
    high_bit[31] = 0x89;
    let mut p_plus_nine = [0xff; 32];
    (p_plus_nine[0], p_plus_nine[31]) = (0xf6, 0x7f);
    let mut one = [0; 32];
    one[0] = 1;
    vec![
        ("an X25519 key of no bytes", key(&[])),
        ("an X25519 key of 31 bytes", key(&[9; 31])),
        ("an X25519 key of 33 bytes", key(&[9; 33])),
        ("an X25519 key with bit 255 set", key(&high_bit)),
        ("an X25519 key with u above p", key(&p_plus_nine)),
        ("an X25519 key of order 1", key(&[0; 32])),
        ("an X25519 key of order 4", key(&one)),
    ]
}

fn bad_ed25519_keys() -> Vec<(&'static str, Value)> {
    let key = |bytes: &[u8]| serde_json::to_value(oncekey_api::Base64(bytes.to_vec())).unwrap();
    // The neutral element, and the same encoded as y = p + 1.
    let (mut neutral, mut not_canonical) = ([0; 32], [0xff; 32]);
    neutral[0] = 1;
    (not_canonical[0], not_canonical[31]) = (0xee, 0x7f);
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    vec![
        ("an Ed25519 key of no bytes", key(&[])),
        ("an Ed25519 key of 33 bytes", key(&[1; 33])),
        ("an Ed25519 key of low order", key(&neutral)),
        ("an Ed25519 key that is not canonical", key(&not_canonical)),
        ("an Ed25519 key off the curve", key(&off_curve)),
    ]
}

#[tokio::test]
async fn a_bad_registration_changes_nothing() {
    let (node, bob) = node_with_bob().await;
    let mut eve = Device::new("bob", 2);
    let good = eve.register(2);
    refuse_all(&node, &bob, tabled("Any body", bad_bodies(&good))).await;
    let mut cases = Vec::new();
    for (name, key) in bad_ed25519_keys() {
        for pointer in ["/identity_key/key", "/authentication_key"] {
            let bad = good.clone().edit(|body| *body.pointer_mut(pointer).unwrap() = key.clone());
            cases.push(case(name, bad, 422, "invalid_key"));
        }
    }
    for (name, key) in bad_x25519_keys() {
        for pointer in ["/signed_prekey/key", "/one_time_prekeys/1/key"] {
            let bad = good.clone().edit(|body| *body.pointer_mut(pointer).unwrap() = key.clone());
            cases.push(case(name, bad, 422, "invalid_key"));
        }
    }
    for pointer in
        ["/authentication_signature", "/signed_prekey/signature", "/one_time_prekeys/1/signature"]
    {
        let with = |bytes: Vec<u8>| {
            let signature = serde_json::to_value(oncekey_api::Base64(bytes)).unwrap();
            good.clone().edit(|body| *body.pointer_mut(pointer).unwrap() = signature)
        };
        cases.push(case("a signature of zeros", with(vec![0; 64]), 422, "invalid_signature"));
        cases.push(case("a short signature", with(vec![1; 63]), 422, "invalid_signature"));
    }
    let edit = |pointer: &'static str, value: Value| {
        good.clone().edit(|body| *body.pointer_mut(pointer).unwrap() = value)
    };
    cases.extend([
        case("padding", edit("/authentication_key", json!("AA==")), 422, "invalid_body"),
        case("standard base64", edit("/authentication_key", json!("+/8A")), 422, "invalid_body"),
        case("an id over u32", edit("/signed_prekey/id", json!(1u64 << 32)), 422, "invalid_body"),
        case("a negative seq", edit("/seq", json!(-1)), 422, "invalid_body"),
        case("another kind", edit("/identity_key/kind", json!("rsa")), 422, "invalid_body"),
        case("XEdDSA", edit("/identity_key/kind", json!("curve25519")), 422, "invalid_key"),
        case("another id signed", edit("/signed_prekey/id", json!(9)), 422, "invalid_signature"),
        case(
            "an id twice",
            edit("/one_time_prekeys/1/id", json!(1)),
            409,
            "one_time_prekey_ids_not_growing",
        ),
        case(
            "a key twice",
            good.clone().edit(|body| {
                body["one_time_prekeys"][1]["key"] = body["one_time_prekeys"][0]["key"].clone();
            }),
            422,
            "invalid_key",
        ),
        case(
            "for another device",
            Request { target: bob.path(""), ..good.clone() },
            422,
            "invalid_signature",
        ),
    ]);
    refuse_all(&node, &bob, tabled("A registration", cases)).await;
    assert_eq!(node.send(good).await.status, 200, "the registration itself is good");
}

#[tokio::test]
async fn a_bad_signed_prekey_changes_nothing() {
    let (node, mut bob) = node_with_bob().await;
    let rotate = |bob: &mut Device, created: u64, expires: u64| {
        let prekey = bob.signed_prekey_valid(UnixSeconds(created), UnixSeconds(expires));
        let body = json!({"seq": bob.seq(), "signed_prekey": prekey});
        Request::json("PUT", bob.path("/signed-prekey"), &body)
    };
    let time = now().0;
    let good = bob.rotate();
    refuse_all(&node, &bob, tabled("Any body", bad_bodies(&good))).await;
    let mut cases = Vec::new();
    cases.extend([
        case("expired", rotate(&mut bob, 1, time - 1), 422, "invalid_validity"),
        case("backwards", rotate(&mut bob, time + 99, time + 98), 422, "invalid_validity"),
    ]);
    for (name, key) in bad_x25519_keys() {
        let bad = good.clone().edit(|body| body["signed_prekey"]["key"] = key);
        cases.push(case(name, bad, 422, "invalid_key"));
    }
    for field in ["created", "expires"] {
        let bad = good.clone().edit(|body| body["signed_prekey"][field] = json!(time + 7));
        cases.push(case("other times", bad, 422, "invalid_signature"));
    }
    let mut eve = Device::new("bob", 1);
    eve.identity = oncekey_x3dh::keys::IdentityKeyPair::from_seed(&[3; 32]);
    (eve.next_seq, eve.next_signed_prekey) = (50, 50);
    cases.push(case("signed by another", eve.rotate(), 422, "invalid_signature"));
    bob.next_signed_prekey = 1;
    cases.push(case("an id again", bob.rotate(), 409, "signed_prekey_id_not_growing"));
    bob.next_seq = 1;
    bob.next_signed_prekey = 70;
    cases.push(case("a seq again", bob.rotate(), 409, "stale_seq"));
    let mut nobody = Device::new("bob", 9);
    cases.push(case("an unknown device", nobody.rotate(), 404, "unknown_device"));
    refuse_all(&node, &bob, tabled("A signed prekey", cases)).await;
    assert_eq!(node.send(good).await.status, 200, "the key itself is good");
}

#[tokio::test]
async fn bad_one_time_prekeys_change_nothing() {
    let (node, mut bob) = node_with_bob().await;
    let good = bob.add(2);
    refuse_all(&node, &bob, tabled("Any body", bad_bodies(&good))).await;
    let mut cases = Vec::new();
    for (name, key) in bad_x25519_keys() {
        let bad = good.clone().edit(|body| body["one_time_prekeys"][0]["key"] = key);
        cases.push(case(name, bad, 422, "invalid_key"));
    }
    let swapped = good.clone().edit(|body| {
        body["one_time_prekeys"].as_array_mut().unwrap().reverse();
    });
    let none = good.clone().edit(|body| body["one_time_prekeys"] = json!([]));
    cases.extend([
        case("falling ids", swapped, 409, "one_time_prekey_ids_not_growing"),
        case("none", none, 422, "limit_exceeded"),
        case(
            "signed for another id",
            good.clone().edit(|body| body["one_time_prekeys"][1]["id"] = json!(77)),
            422,
            "invalid_signature",
        ),
    ]);
    (bob.next_seq, bob.next_prekey) = (20, 100);
    cases.push(case("too many", bob.add(201), 422, "limit_exceeded"));
    bob.next_prekey = 2;
    cases.push(case("ids again", bob.add(4), 409, "one_time_prekey_ids_not_growing"));
    (bob.next_seq, bob.next_prekey) = (1, 200);
    cases.push(case("a seq again", bob.add(1), 409, "stale_seq"));
    let mut nobody = Device::new("carol", 1);
    cases.push(case("an unknown user", nobody.add(1), 404, "unknown_device"));
    refuse_all(&node, &bob, tabled("One-time prekeys", cases)).await;
    assert_eq!(node.send(good).await.status, 200, "the keys themselves are good");
}

#[tokio::test]
async fn ids_in_conflict_are_named() {
    let (node, mut bob) = node_with_bob().await;
    bob.next_prekey = 2;
    let reply = node.send(bob.add(4)).await.json();
    assert_eq!((&reply["conflicts"], &reply["highest"]), (&json!([2, 3]), &json!(3)));
}

#[tokio::test]
async fn a_pool_has_its_limit() {
    let (node, mut bob) = node_with_bob().await;
    for _ in 0..4 {
        assert_eq!(node.send(bob.add(200)).await.status, 200);
    }
    let cases = vec![case("over the limit", bob.add(198), 409, "pool_full")];
    refuse_all(&node, &bob, tabled("A full pool", cases)).await;
}

#[tokio::test]
async fn a_bad_device_list_changes_nothing() {
    let (node, bob) = node_with_bob().await;
    let put = |body: &Value| Request::json("PUT", path::device_list(&bob.user), body);
    let (list, hash) = bob.first_device_list();
    let good = put(&list);
    refuse_all(&node, &bob, tabled("Any body", bad_bodies(&good))).await;
    let mut cases = Vec::new();
    for (name, key) in bad_ed25519_keys() {
        let bad = good.clone().edit(|body| body["account_key"] = key);
        cases.push(case(name, bad, 422, "invalid_key"));
    }
    let (of_carol, _) = Device::new("carol", 1).first_device_list();
    let (skips, _) = bob.device_list(Seq(3), hash);
    cases.extend([
        case(
            "garbage",
            good.clone().edit(|b| b["list"] = json!("AAAA")),
            422,
            "invalid_device_list",
        ),
        case("of another user", put(&of_carol), 422, "invalid_device_list"),
        case("not the next", put(&skips), 409, "device_list_out_of_order"),
    ]);
    let mut other = Device::new("bob", 1);
    other.account = oncekey_x3dh::keys::AccountKeyPair::from_seed(&[5; 32]);
    let (of_other, _) = other.first_device_list();
    cases.push(case(
        "signed by another",
        good.clone().edit(|body| body["account_key"] = of_other["account_key"].clone()),
        422,
        "invalid_signature",
    ));
    refuse_all(&node, &bob, tabled("A device list", cases)).await;
    assert_eq!(node.send(good).await.status, 200, "the list itself is good");
    let (forked, _) = bob.device_list(Seq(2), DeviceListHash([8; 32]));
    let (taken_over, _) = other.device_list(Seq(2), hash);
    let cases = vec![
        case("of another account key", put(&of_other), 409, "device_list_other_account"),
        case("next of another account key", put(&taken_over), 409, "device_list_other_account"),
        case("not chained", put(&forked), 409, "device_list_broken_chain"),
    ];
    refuse_all(&node, &bob, tabled("The next device list", cases)).await;
}

#[tokio::test]
async fn a_bad_fetch_pops_nothing() {
    let (node, bob) = node_with_bob().await;
    let fetch = |body: &Value| Request::fetch(bob.bundles_path(), "key", body);
    let good = fetch(&json!({}));
    refuse_all(&node, &bob, tabled("Any body", bad_bodies(&good))).await;
    let all: Vec<_> = (1..=33).collect();
    let mut twice = good.clone();
    twice.headers.push(("Idempotency-Key".into(), "other".into()));
    let cases = vec![
        case(
            "no idempotency key",
            good.clone().without("Idempotency-Key"),
            400,
            "idempotency_key_missing",
        ),
        case("an empty key", good.clone().header("Idempotency-Key", ""), 400, "malformed_header"),
        case(
            "a long key",
            good.clone().header("Idempotency-Key", &"k".repeat(65)),
            400,
            "malformed_header",
        ),
        case(
            "a key with a space",
            good.clone().header("Idempotency-Key", "a b"),
            400,
            "malformed_header",
        ),
        case("two keys", twice, 400, "malformed_header"),
        case(
            "a long caller",
            good.clone().header("Oncekey-Caller", &"c".repeat(256)),
            400,
            "malformed_header",
        ),
        case("no devices", fetch(&json!({"devices": []})), 422, "limit_exceeded"),
        case("devices twice", fetch(&json!({"devices": [1, 1]})), 422, "limit_exceeded"),
        case("devices falling", fetch(&json!({"devices": [2, 1]})), 422, "limit_exceeded"),
        case("too many devices", fetch(&json!({"devices": all})), 422, "limit_exceeded"),
        case("an unknown device", fetch(&json!({"devices": [1, 4]})), 404, "unknown_device"),
        case(
            "an unknown user",
            Request { target: "/v1/users/nobody/bundles".into(), ..good.clone() },
            404,
            "unknown_user",
        ),
        case("a word for a flag", fetch(&json!({"require_opk": "yes"})), 422, "invalid_body"),
    ];
    refuse_all(&node, &bob, tabled("A fetch", cases)).await;
    assert_eq!(node.send(good.clone()).await.status, 200, "the fetch itself is good");
    let reused = vec![case(
        "a key used for another request",
        fetch(&json!({"devices": [1]})),
        422,
        "idempotency_key_reused",
    )];
    refuse_all(&node, &bob, tabled("An idempotency key again", reused)).await;
}

#[tokio::test]
async fn a_required_prekey_that_is_not_there_is_a_problem() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 0).await;
    let request = Request::fetch(bob.bundles_path(), "key", &json!({"require_opk": true}));
    let reply = node.send(request).await;
    assert_eq!((reply.status, reply.problem_code().as_str()), (409, "one_time_prekey_required"));
    assert_eq!(reply.json()["one_time_prekey_status"], "exhausted");
    assert_eq!(reply.json()["device"], 1);
}

#[tokio::test]
async fn a_bad_multi_user_fetch_pops_nothing() {
    let (node, bob) = node_with_bob().await;
    let fetch = |users: Value| Request::fetch(path::BUNDLES, "key", &json!({"users": users}));
    let good = fetch(json!([{"user": "bob"}]));
    refuse_all(&node, &bob, tabled("Any body", bad_bodies(&good))).await;
    let many: Vec<_> = (0..65).map(|n| json!({"user": n.to_string()})).collect();
    let long = "x".repeat(256);
    let cases = vec![
        case("no users", fetch(json!([])), 422, "limit_exceeded"),
        case("too many users", fetch(json!(many)), 422, "limit_exceeded"),
        case(
            "a user twice",
            fetch(json!([{"user": "bob"}, {"user": "bob"}])),
            422,
            "limit_exceeded",
        ),
        case("no devices", fetch(json!([{"user": "bob", "devices": []}])), 422, "limit_exceeded"),
        case("an empty user", fetch(json!([{"user": ""}])), 422, "invalid_body"),
        case("a long user", fetch(json!([{"user": long}])), 422, "invalid_body"),
        case("an unknown field", fetch(json!([{"user": "bob", "x": 1}])), 422, "invalid_body"),
        case(
            "no idempotency key",
            good.clone().without("Idempotency-Key"),
            400,
            "idempotency_key_missing",
        ),
    ];
    refuse_all(&node, &bob, tabled("A fetch of many users", cases)).await;
    assert_eq!(node.send(good).await.status, 200, "the fetch itself is good");
}

#[tokio::test]
async fn a_bad_path_leads_nowhere() {
    let (node, bob) = node_with_bob().await;
    let get = |target: String| Request::get(target);
    let long = "x".repeat(256);
    let mut cases = vec![
        case("no such path", get("/v2/users/bob".into()), 404, "not_found"),
        case("the root", get("/".into()), 404, "not_found"),
        case("an empty user", get("/v1/users//devices/1/prekeys".into()), 400, "malformed_path"),
        case("a slash at the end", get("/v1/users/bob/".into()), 404, "not_found"),
        case("a percent sign alone", get("/v1/users/bo%b".into()), 400, "malformed_path"),
        case("no hexadecimal", get("/v1/users/b%zzb".into()), 400, "malformed_path"),
        case("cut off", get("/v1/users/bob%4".into()), 400, "malformed_path"),
        case("not UTF-8", get("/v1/users/%ff%fe".into()), 400, "malformed_path"),
        case("a long user", get(format!("/v1/users/{long}")), 400, "malformed_path"),
        case("an unknown user", get("/v1/users/nobody".into()), 404, "unknown_user"),
        case("a parameter", get("/v1/users/bob?x=1".into()), 400, "malformed_query"),
        case("health in public", get("/livez".into()), 404, "not_found"),
        case("the cluster in public", get("/v1/cluster".into()), 404, "not_found"),
        case("TRACE", Request::new("TRACE", "/v1/users/bob"), 405, "method_not_allowed"),
        case("an odd method", Request::new("BREW", "/v1/users/bob"), 405, "method_not_allowed"),
    ];
    for device in ["x", "-1", "4294967296", "01", "+1", "1.0", "%20", "%31%00"] {
        let target = format!("/v1/users/bob/devices/{device}/prekeys");
        cases.push(case("a device that is no number", get(target), 400, "malformed_path"));
        let target = format!("/v1/users/bob/devices/{device}");
        let remove = Request::new("DELETE", target);
        cases.push(case("a device that is no number", remove, 400, "malformed_path"));
    }
    cases.push(case(
        "an unknown device",
        get("/v1/users/bob/devices/2/prekeys".into()),
        404,
        "unknown_device",
    ));
    for query in ["x=1", "seq=", "seq=01", "seq=1&seq=2", "seq=18446744073709551616"] {
        let target = format!("{}?{query}", bob.path(""));
        cases.push(case("a bad query", Request::new("DELETE", target), 400, "malformed_query"));
    }
    let remove = |device| Request::new("DELETE", format!("/v1/users/bob/devices/{device}"));
    cases.push(case("removing an unknown device", remove(2), 404, "unknown_device"));
    let stale = Request::new("DELETE", format!("{}?seq=1", bob.path("")));
    cases.push(case("removing with a seq again", stale, 409, "stale_seq"));
    refuse_all(&node, &bob, tabled("A target", cases)).await;
}

#[tokio::test]
async fn a_refused_method_is_told_which_ones_there_are() {
    let (node, bob) = node_with_bob().await;
    let reply = node.send(Request::new("POST", bob.path(""))).await;
    assert_eq!(reply.header("allow"), Some("PUT,DELETE"), "{reply:?}");
}

#[tokio::test]
async fn bad_requests_of_operators_change_nothing() {
    let (node, _) = node_with_bob().await;
    let new = json!({"id": 4, "peer": "d:1", "public": "d:2"});
    let good = Request::json("POST", path::CLUSTER_REPLACE, &json!({"old": 9, "new": new}));
    let before = eventually(async || {
        let members = node.ask_admin(Request::get(path::CLUSTER)).await.json()["members"].clone();
        let told = members[0]["version"].is_string() && members[0]["state"] == "active";
        if told { Ok(members) } else { Err(members.to_string()) }
    })
    .await;
    for Case { name, request, status, code } in tabled("Any body", bad_bodies(&good)) {
        let reply = node.ask_admin(request).await;
        assert_eq!((reply.status, reply.problem_code().as_str()), (status, code), "{name}");
    }
    // Found by schemathesis: this one was taken, and left the node without a quorum.
    for (field, value) in [("id", json!(0)), ("peer", json!("")), ("public", json!("d:0"))] {
        let mut new = new.clone();
        new[field] = value;
        let body = json!({"old": 1, "new": new});
        let reply = node.ask_admin(Request::json("POST", path::CLUSTER_REPLACE, &body)).await;
        assert_eq!((reply.status, reply.problem_code().as_str()), (422, "invalid_body"), "{field}");
    }
    let unknown = node.ask_admin(good).await;
    assert_eq!((unknown.status, unknown.problem_code().as_str()), (404, "unknown_node"));
    let lost = node.ask_admin(Request::get("/v1/users/bob")).await;
    assert_eq!((lost.status, lost.problem_code().as_str()), (404, "not_found"));
    assert_eq!(node.ask_admin(Request::get(path::CLUSTER)).await.json()["members"], before);
}

#[tokio::test]
async fn a_bad_report_moves_no_counter() {
    let (node, bob) = node_with_bob().await;
    let good = Request::json("POST", path::REPORTS, &json!({"replay": 1}));
    refuse_all(&node, &bob, tabled("Any body", bad_bodies(&good))).await;
    let mut cases = Vec::new();
    let counts = |counts: Value| Request::json("POST", path::REPORTS, &counts);
    for (name, bad, code) in [
        ("another reason", json!({"replay": 1, "peer": 1}), "invalid_body"),
        ("a name", json!({"replay": "bob"}), "invalid_body"),
        ("a negative count", json!({"replay": -1}), "invalid_body"),
        ("too many", json!({"replay": limits::REPORT_COUNT_MAX + 1}), "limit_exceeded"),
    ] {
        cases.push(case(name, counts(bad), 422, code));
    }
    refuse_all(&node, &bob, tabled("A report", cases)).await;
    let metrics = node.ask_admin(Request::get("/metrics")).await.body;
    let line = "oncekey_handshake_failures_total{reason=\"replay\"} 0";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}
