//! Who may do what: every credential that is missing, wrong or somebody else's, what it gets, and that
//! it changed nothing.

use oncekey_api::path;
use oncekey_types::RegistrationId;
use serde_json::{Value, json};

use crate::support::{
    Device, Fixture, Reply, Request,
    credentials::{Issuer, Signing, params},
    device::now,
    hostile_table,
};

/// A node that wants tokens and signatures, with a registered device of Bob.
struct World {
    node: Fixture,
    issuer: Issuer,
    bob: Device,
}

/// A request that must be refused.
struct Case {
    name: String,
    request: Request,
    status: u16,
    code: &'static str,
}

fn case(name: &str, request: Request, status: u16, code: &'static str) -> Case {
    Case { name: name.to_owned(), request, status, code }
}

/// The cases, which `docs/hostile-input.md` has under `heading`, whatever they are tried with.
fn tabled(heading: &str, cases: Vec<Case>) -> Vec<Case> {
    let row = |case: &Case| {
        let sent = case.name.split_once(", ").map_or(&*case.name, |(_, sent)| sent);
        (sent.to_owned(), format!("{} `{}`", case.status, case.code))
    };
    hostile_table::check(heading, cases.iter().map(row)).unwrap_or_else(|table| panic!("{table}"));
    cases
}

impl World {
    async fn new() -> Self {
        let issuer = Issuer::new();
        let auth = issuer.auth();
        let node = Fixture::start_with(|config| config.auth = auth).await;
        let mut world = Self { node, issuer, bob: Device::new("bob", 1) };
        let request = world.bob.register(3);
        let request = request.signed(&world.bob).bearer(&world.issuer.token("bob"));
        let reply = world.node.send(request).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let number = reply.json()["registration"].as_u64().unwrap();
        world.bob.registration = Some(RegistrationId(u32::try_from(number).unwrap()));
        world
    }

    /// All that can be seen of Bob.
    async fn look(&self) -> (Value, Value) {
        let token = self.issuer.token("carol");
        let user = self.node.send(Request::get(self.bob.user_path()).bearer(&token)).await;
        let status = Request::get(self.bob.path("/prekeys")).signed(&self.bob);
        let status = self.node.send(status).await;
        assert_eq!((user.status, status.status), (200, 200), "{user:?} {status:?}");
        let mut status = status.json();
        status.as_object_mut().unwrap().remove("signed_prekey_age_ms");
        (user.json(), status)
    }

    async fn refuse_all(&self, cases: Vec<Case>) {
        for Case { name, request, status, code } in cases {
            let before = self.look().await;
            let reply = self.node.send(request.clone()).await;
            let got = (reply.status, reply.problem_code());
            assert_eq!(got, (status, code.to_owned()), "{name}: {request:?} got {reply:?}");
            check_challenge(&name, &reply);
            assert_eq!(self.look().await, before, "{name}: {request:?} changed something");
        }
    }
}

/// A 401 says what is lacking (RFC 6750, RFC 9421).
fn check_challenge(name: &str, reply: &Reply) {
    let challenge = reply.header("www-authenticate");
    match reply.status {
        401 if reply.problem_code().contains("signature") => {
            let accept = reply.header("accept-signature").unwrap_or_default();
            assert!(accept.contains("\"content-digest\"") && accept.contains("tag="), "{name}");
            assert_eq!(challenge, Some("Signature realm=\"oncekey\""), "{name}");
        }
        401 => {
            assert!(challenge.is_some_and(|text| text.starts_with("Bearer ")), "{name}: {reply:?}")
        }
        _ => {}
    }
}

/// What a request that needs a token gets without a good one.
fn bad_tokens(of: &str, good: &Request, issuer: &Issuer) -> Vec<Case> {
    type Edit = fn(&mut Value, &mut Value);
    let edits: [(&str, Edit, &str); 8] = [
        ("alg none", |header, _| header["alg"] = "none".into(), "token_invalid"),
        ("alg HS256", |header, _| header["alg"] = "HS256".into(), "token_invalid"),
        ("a key that is not known", |header, _| header["kid"] = "two".into(), "token_invalid"),
        ("another issuer", |_, claims| claims["iss"] = "mallory".into(), "token_invalid"),
        ("another audience", |_, claims| claims["aud"] = "others".into(), "token_invalid"),
        ("no end", |_, claims| claims["exp"] = Value::Null, "token_invalid"),
        ("over", |_, claims| claims["exp"] = (now().0 - 60).into(), "token_expired"),
        ("not yet", |_, claims| claims["nbf"] = (now().0 + 120).into(), "token_expired"),
    ];
    let mut cases: Vec<_> = edits
        .into_iter()
        .map(|(what, edit, code)| {
            let token = issuer.token_with("bob", edit);
            case(&format!("{of}, {what}"), good.clone().bearer(&token), 401, code)
        })
        .collect();
    let good_token = issuer.token("bob");
    let unsigned = format!("{}.", good_token.rsplit_once('.').unwrap().0);
    let basic = good.clone().header("Authorization", "Basic Ym9iOmJvYg==");
    cases.extend([
        case(
            &format!("{of}, no token"),
            good.clone().without("Authorization"),
            401,
            "token_missing",
        ),
        case(&format!("{of}, a password"), basic, 401, "token_invalid"),
        case(&format!("{of}, not signed"), good.clone().bearer(&unsigned), 401, "token_invalid"),
        case(&format!("{of}, no token at all"), good.clone().bearer("x"), 401, "token_invalid"),
    ]);
    cases
}

#[tokio::test]
async fn a_fetch_needs_a_good_token_and_nothing_else() {
    let world = World::new().await;
    let fetch = Request::fetch(world.bob.bundles_path(), "k", &json!({}));
    let user = Request::get(world.bob.user_path());
    let many = Request::fetch(path::BUNDLES, "k", &json!({"users": [{"user": "bob"}]}));
    for (of, request) in [("fetch", fetch.clone()), ("user", user), ("fetch of many", many)] {
        world.refuse_all(tabled("A token", bad_tokens(of, &request, &world.issuer))).await;
    }
    let signed = fetch.clone().signed(&world.bob);
    world.refuse_all(vec![case("by signature", signed, 401, "token_missing")]).await;

    let alice = world.issuer.token("alice");
    let first = world.node.send(fetch.clone().bearer(&alice)).await.json();
    assert_eq!(first["bundles"][0]["one_time_prekey"]["id"], 1);
    let claimed = fetch.bearer(&world.issuer.token("mallory")).header("Oncekey-Caller", "alice");
    let other = world.node.send(claimed).await.json();
    assert_eq!(other["repeated"], false, "the caller is who the token says: {other}");
}

#[tokio::test]
async fn a_first_registration_needs_the_users_token_and_a_signature_of_the_key_it_brings() {
    let world = World::new().await;
    let (carol, mallory) = (world.issuer.token("carol"), world.issuer.token("mallory"));
    let mut device = Device::new("carol", 1);
    let unsigned = device.register(2);
    let good = unsigned.clone().signed(&device).bearer(&carol);
    let tokens = bad_tokens("registration", &good, &world.issuer);
    world.refuse_all(tabled("A token", tokens)).await;
    let other_key = unsigned.clone().signed_with(&device, |signing| {
        let by = Device::new("carol", 2);
        signing.signature =
            Some(by.authentication.sign(signing.base().as_bytes()).as_bytes().to_vec());
    });
    let cases = vec![
        case("of another user", good.clone().bearer(&mallory), 403, "other_user"),
        case(
            "an operator's token",
            good.clone().bearer(&world.issuer.operator()),
            403,
            "other_user",
        ),
        case("not signed", unsigned.clone().bearer(&carol), 401, "signature_missing"),
        case("another key", other_key.bearer(&carol), 401, "request_signature_invalid"),
    ];
    world.refuse_all(tabled("Who registers a device", cases)).await;
    let reply = world.node.send(Request::get(device.user_path()).bearer(&carol)).await;
    assert_eq!(reply.problem_code(), "unknown_user", "nothing was registered");
    assert_eq!(world.node.send(good.clone()).await.status, 200);
    assert_eq!(world.node.send(good).await.status, 200, "the same again is a re-send");
}

#[tokio::test]
async fn a_registered_device_is_replaced_by_its_own_key_only() {
    let mut world = World::new().await;
    let bobs = world.issuer.token("bob");
    // Who has Bob's token, and no key of his device.
    let mut thief = Device::new("bob", 1);
    thief.authentication = Device::new("bob", 7).authentication;
    thief.next_prekey = 50;
    let first = thief.register(1);
    let first = first.signed(&thief).bearer(&bobs);
    thief.registration = world.bob.registration;
    let next = thief.register(1);
    let next = next.signed(&thief).bearer(&bobs);
    world.bob.next_prekey = 60;
    let mut ahead = Device::new("bob", 1);
    ahead.registration = Some(RegistrationId(9));
    ahead.next_prekey = 70;
    let ahead = ahead.register(1).signed(&world.bob);
    let cases = vec![
        case("as if it were new", first, 409, "registration_changed"),
        case("by another key", next, 401, "request_signature_invalid"),
        case("of a number to come", ahead, 409, "registration_changed"),
    ];
    world.refuse_all(tabled("Who replaces a registration", cases)).await;
    let again = world.bob.register(1);
    let reply = world.node.send(again.signed(&world.bob)).await;
    assert_eq!(reply.status, 200, "its own key needs no token: {reply:?}");
    let number =
        RegistrationId(u32::try_from(reply.json()["registration"].as_u64().unwrap()).unwrap());
    assert_ne!(Some(number), world.bob.registration);
}

/// What is wrong with a signature; `by` is another device of the same user.
fn bad_signatures(of: &str, request: &Request, bob: &Device, by: &Device) -> Vec<Case> {
    let now = now().0;
    let at = |created, valid| {
        move |signing: &mut Signing| signing.params = params("bob/1", created, valid)
    };
    let signed =
        |edit: &dyn Fn(&mut Signing)| request.clone().signed_with(bob, |signing| edit(signing));
    let cut =
        |text: &'static str| signed(&move |s: &mut Signing| s.params = s.params.replace(text, ""));
    let lacks = |name: &'static str| {
        signed(&move |s: &mut Signing| s.components.retain(|(known, _)| *known != name))
    };
    let lies = |name: &'static str, value: &'static str| {
        signed(&move |s: &mut Signing| s.set(name, value))
    };
    let extra = |s: &mut Signing| s.components.push(("content-type", "application/json".into()));
    let swap = |s: &mut Signing| s.components.swap(0, 1);
    let replace = |from: &'static str, to: &'static str| {
        signed(&move |s: &mut Signing| s.params = s.params.replace(from, to))
    };
    let by_other = |s: &mut Signing| {
        s.signature = Some(by.authentication.sign(s.base().as_bytes()).as_bytes().to_vec());
    };
    let by_account = |s: &mut Signing| s.signature = Some(vec![7; 64]);
    let short = |s: &mut Signing| s.signature = Some(vec![7; 63]);
    let invalid = (401, "request_signature_invalid");
    let time = (401, "signature_expired");
    [
        ("none", request.clone(), (401, "signature_missing")),
        ("input alone", signed(&|_| {}).without("Signature"), (401, "signature_missing")),
        ("no digest", signed(&|_| {}).without("Content-Digest"), invalid),
        ("another host", signed(&|_| {}).header("X-Forwarded-Host", "x"), (0, "")),
        ("not structured", signed(&|_| {}).header("Signature-Input", "((("), invalid),
        ("over another method", lies("@method", "PATCH"), invalid),
        ("over another host", lies("@authority", "elsewhere"), invalid),
        ("over another path", lies("@path", "/v1/users/bob/devices/2"), invalid),
        ("over another query", lies("@query", "?seq=99"), invalid),
        ("over another body", lies("content-digest", "sha-256=:AAAA:"), invalid),
        ("without the method", lacks("@method"), invalid),
        ("without the host", lacks("@authority"), invalid),
        ("without the path", lacks("@path"), invalid),
        ("without the query", lacks("@query"), invalid),
        ("without the digest", lacks("content-digest"), invalid),
        ("one component more", signed(&extra), invalid),
        ("another order", signed(&swap), invalid),
        ("without keyid", cut(";keyid=\"bob/1\""), invalid),
        ("without alg", cut(";alg=\"ed25519\""), invalid),
        ("without tag", cut(";tag=\"oncekey\""), invalid),
        ("another tag", replace("tag=\"oncekey\"", "tag=\"else\""), invalid),
        ("another algorithm", replace("ed25519", "rsa-pss-sha512"), invalid),
        ("a nonce", replace(";alg", ";nonce=\"1\";alg"), invalid),
        ("of another device", replace("bob/1", "bob/2"), invalid),
        ("of another user", replace("bob/1", "alice/1"), invalid),
        ("by another device's key", signed(&by_other), invalid),
        ("by nobody", signed(&by_account), invalid),
        ("63 bytes", signed(&short), invalid),
        ("too old", signed(&at(now - 200, 60)), time),
        ("of the future", signed(&at(now + 60, 60)), time),
        ("valid for 61 seconds", signed(&at(now, 61)), time),
        ("over before it began", signed(&at(now, 0)), time),
    ]
    .into_iter()
    .filter(|(_, _, (status, _))| *status != 0)
    .map(|(what, request, (status, code))| case(&format!("{of}, {what}"), request, status, code))
    .collect()
}

#[tokio::test]
async fn what_a_device_writes_or_reads_needs_its_signature() {
    let mut world = World::new().await;
    let other = Device::new("bob", 2);
    let rotate = world.bob.rotate();
    let add = world.bob.add(2);
    let remove = Request::new("DELETE", format!("{}?seq=50", world.bob.path("")));
    let status = Request::get(world.bob.path("/prekeys"));
    let report = Request::json("POST", path::REPORTS, &json!({"replay": 1}));
    let events = Request::get(path::events(&world.bob.user, world.bob.device));
    let all = [
        ("rotation", rotate),
        ("upload", add),
        ("removal", remove),
        ("status", status),
        ("report", report),
        ("events", events),
    ];
    for (of, request) in all {
        let mut cases = tabled("A signature", bad_signatures(of, &request, &world.bob, &other));
        if of == "report" {
            // It names its device in the signature alone.
            cases.retain(|case| !case.name.contains("of another"));
        }
        if of == "removal" {
            // Without a signature it may be an operator's.
            let bobs = request.clone().bearer(&world.issuer.token("bob"));
            cases.push(case("removal by token", bobs, 403, "scope_missing"));
        }
        world.refuse_all(cases).await;
    }
}

#[tokio::test]
async fn a_signature_by_the_identity_key_is_refused() {
    let mut world = World::new().await;
    // As if the device had one key for both.
    let seed = world.bob.identity.to_seed().unwrap();
    let by_identity = oncekey_x3dh::keys::AuthenticationKeyPair::from_seed(&seed);
    let request = world.bob.rotate();
    let request = request.signed_with(&world.bob, |signing| {
        let signature = by_identity.sign(signing.base().as_bytes());
        signing.signature = Some(signature.as_bytes().to_vec());
    });
    world.refuse_all(vec![case("by IK", request, 401, "request_signature_invalid")]).await;
}

#[tokio::test]
async fn a_body_that_was_changed_on_the_way_is_refused() {
    let mut world = World::new().await;
    let signed = world.bob.add(1).signed(&world.bob);
    let changed = signed.clone().edit(|body| body["seq"] = 99.into());
    let dressed = {
        // With a digest that fits the new body, which the signature does not cover.
        let fitting = changed.clone().signed(&world.bob);
        let digest = fitting.headers.iter().find(|(name, _)| name == "Content-Digest").unwrap();
        changed.clone().header("Content-Digest", &digest.1)
    };
    let cases = vec![
        case("another body", changed, 401, "request_signature_invalid"),
        case("another body and digest", dressed, 401, "request_signature_invalid"),
    ];
    world.refuse_all(tabled("A body changed on the way", cases)).await;
    assert_eq!(world.node.send(signed).await.status, 200, "as it was signed it is taken");
}

#[tokio::test]
async fn a_write_that_is_replayed_is_answered_as_before_or_refused_for_its_number() {
    let mut world = World::new().await;
    let first = world.bob.rotate().signed(&world.bob);
    let second = world.bob.add(2).signed(&world.bob);
    let answer = world.node.send(first.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let again = world.node.send(first.clone()).await;
    assert_eq!((again.status, again.json()), (200, answer.json()), "the same write once more");
    assert_eq!(world.node.send(second.clone()).await.status, 200);
    let low = world.bob.next_seq;
    world.bob.next_seq = 1;
    let stale = world.bob.rotate().signed(&world.bob);
    world.bob.next_seq = low;
    world.refuse_all(vec![case("a lower seq", stale, 409, "stale_seq")]).await;
    let (before, upload) = (world.look().await, world.node.send(second).await);
    assert_eq!(upload.status, 200, "the last upload again");
    assert_eq!(world.look().await, before, "and adds nothing");
}

#[tokio::test]
async fn a_device_is_removed_by_itself_by_an_operator_or_when_its_user_struck_it_off() {
    let mut world = World::new().await;
    let target = world.bob.path("");
    let numbered = |seq: u64| Request::new("DELETE", format!("{target}?seq={seq}"));
    let plain = Request::new("DELETE", target.clone());
    let bobs = world.issuer.token("bob");
    let eve = world.issuer.token("eve");
    let cases = vec![
        case("nobody", plain.clone(), 401, "signature_missing"),
        case("no number", plain.clone().signed(&world.bob), 400, "seq_missing"),
        case("a number used", numbered(1).signed(&world.bob), 409, "stale_seq"),
        case("its user alone", plain.clone().bearer(&bobs), 403, "scope_missing"),
        case("another user", plain.clone().bearer(&eve), 403, "scope_missing"),
    ];
    world.refuse_all(tabled("Who removes a device", cases)).await;

    // A list that names another device of Bob's, and this one no more.
    let mut other = Device::new("bob", 2);
    other.next_prekey = 1;
    let (list, _) = other.first_device_list();
    let put = Request::json("PUT", path::device_list(&world.bob.user), &list);
    let cases = vec![
        case("a list without a token", put.clone(), 401, "token_missing"),
        case("a list by another", put.clone().bearer(&eve), 403, "other_user"),
    ];
    world.refuse_all(tabled("Who puts a device list", cases)).await;
    assert_eq!(world.node.send(put.bearer(&bobs)).await.status, 200);
    assert_eq!(world.node.send(plain.clone().bearer(&bobs)).await.status, 204);
    // Gone: known to those with a token only.
    let status = Request::get(world.bob.path("/prekeys")).signed(&world.bob);
    let reply = world.node.send(status.clone()).await;
    assert_eq!(reply.problem_code(), "request_signature_invalid", "{reply:?}");
    let reply = world.node.send(status.bearer(&bobs)).await;
    assert_eq!((reply.status, reply.problem_code().as_str()), (404, "unknown_device"), "{reply:?}");

    world.bob.registration = None;
    world.bob.next_prekey = 90;
    for remove in [plain.bearer(&world.issuer.operator()), numbered(500).signed(&world.bob)] {
        let again = world.bob.register(1).signed(&world.bob).bearer(&bobs);
        assert_eq!(world.node.send(again).await.status, 200);
        let reply = world.node.send(remove).await;
        assert_eq!(reply.status, 204, "{reply:?}");
    }
}

#[tokio::test]
async fn on_loopback_an_operator_needs_no_token_for_the_admin_listener() {
    let world = World::new().await;
    let reply = world.node.ask_admin(Request::get(path::CLUSTER)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}
