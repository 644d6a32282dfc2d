//! JSON between clients and nodes, in both directions.

use oncekey_api::{Problem, bundle, cluster, device, event::EventReader, key, report, user};
use oncekey_client::fuzzing::bundle as parse_bundle;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Target, choose, chosen, comes_back, take};

/// Bodies of requests, as a node parses them.
pub const REQUEST_BODY: Target =
    Target { name: "request_body", run: request_body, seeds: request_bodies, claim_bytes: 0 };

/// Bodies of replies, as a client parses them.
pub const REPLY_BODY: Target =
    Target { name: "reply_body", run: reply_body, seeds: reply_bodies, claim_bytes: 0 };

/// The stream of events, as a client takes it apart.
pub const EVENT_STREAM: Target =
    Target { name: "event_stream", run: event_stream, seeds: event_streams, claim_bytes: 0 };

/// Parses a body and writes it anew.
type Again = fn(&[u8]) -> Option<Vec<u8>>;

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Vec<u8>> {
    serde_json::to_vec(&serde_json::from_slice::<T>(bytes).ok()?).ok()
}

const REQUESTS: &[Again] = &[
    again::<device::Register>,
    again::<device::ReplaceSignedPreKey>,
    again::<device::AddOneTimePreKeys>,
    again::<key::DeviceList>,
    again::<bundle::Fetch>,
    again::<bundle::FetchMany>,
    again::<report::Report>,
    again::<cluster::Replace>,
];

const REPLIES: &[Again] = &[
    again::<device::Registered>,
    again::<device::Pool>,
    again::<device::Status>,
    again::<user::User>,
    again::<user::DeviceListPut>,
    again::<bundle::Fetched>,
    again::<bundle::FetchedMany>,
    again::<cluster::Cluster>,
    again::<Problem>,
];

fn request_body(data: &[u8]) {
    if let Some((again, body)) = choose(REQUESTS, data) {
        comes_back(body, again);
    }
}

fn reply_body(data: &[u8]) {
    let Some((again, body)) = choose(REPLIES, data) else { return };
    comes_back(body, again);
    if let Ok(fetched) = serde_json::from_slice::<bundle::Fetched>(body) {
        for wire in &fetched.bundles {
            let Ok(parsed) = parse_bundle(&fetched.user, wire) else { continue };
            assert_eq!(parsed.identity.as_bytes()[..], wire.identity_key.key.0);
            assert_eq!(parsed.one_time_prekey.is_some(), wire.one_time_prekey.is_some());
        }
    }
}

/// However a stream is cut, its events are the same.
fn event_stream(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let whole = EventReader::default().push(stream);
    if whole.as_ref().is_ok_and(|events| !events.is_empty()) {
        take();
    }
    let mut reader = EventReader::default();
    let parts = stream.chunks(usize::from(*cut) + 1);
    let in_parts: Result<Vec<_>, _> = parts.map(|part| reader.push(part)).collect();
    assert_eq!(whole, in_parts.map(|events| events.concat()), "the events depend on the cuts");
}

fn spk() -> Value {
    json!({"id": 12, "key": KEY, "created": 1_790_000_000, "expires": 1_794_000_000, "signature": SIGNATURE})
}

fn opk() -> Value {
    json!({"id": 341, "key": KEY, "signature": SIGNATURE})
}

fn identity() -> Value {
    json!({"kind": "ed25519", "key": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
}

const KEY: &str = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const SIGNATURE: &str =
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn list() -> Value {
    json!({"account_key": KEY, "list": "AANib2I", "signature": SIGNATURE})
}

fn numbered(bodies: impl IntoIterator<Item = Value>) -> Vec<Vec<u8>> {
    let bodies = bodies.into_iter().enumerate();
    bodies.map(|(number, body)| chosen(number, body.to_string().as_bytes())).collect()
}

fn request_bodies() -> Vec<Vec<u8>> {
    numbered([
        json!({
            "seq": 1, "identity_key": identity(), "authentication_key": KEY,
            "authentication_signature": SIGNATURE, "signed_prekey": spk(),
            "one_time_prekeys": [opk()], "device_list": list(),
        }),
        json!({"seq": 2, "signed_prekey": spk()}),
        json!({"seq": 3, "one_time_prekeys": [opk(), opk()]}),
        list(),
        json!({"devices": [1, 2], "require_opk": true}),
        json!({"users": [{"user": "bob", "devices": [1]}, {"user": "carol"}]}),
        json!({"opk_missing": 3, "aead_failed": 1}),
        json!({"old": 1, "new": {"id": 4, "peer": "d:7080", "public": "https://d:8080"}}),
    ])
}

fn reply_bodies() -> Vec<Vec<u8>> {
    let pool =
        json!({"count": 3, "low_watermark": 20, "signed_prekey": 12, "highest_accepted": 341});
    let fetched = json!({
        "user": "bob", "device_list_seq": 1, "repeated": false, "as_of": null,
        "bundles": [{
            "device": 1, "registration": 7, "identity_key": identity(), "signed_prekey": spk(),
            "one_time_prekey": opk(), "one_time_prekey_status": "issued",
        }],
    });
    let route = json!({"shard": 3, "leader": "127.0.0.1:8081", "index": 9});
    let problem = json!({
        "type": "urn:oncekey:problem:unknown_user", "title": "x", "status": 404,
        "code": "unknown_user", "detail": "no such user", "conflicts": [3], "reasons": ["x"],
    });
    numbered([
        json!({"registration": 7, "pool": pool}),
        pool.clone(),
        json!({
            "registration": 7, "seq": 9, "pool": pool, "signed_prekey_age_ms": 1000,
            "ids": [[1, 3], [9, 9]], "digest": KEY,
        }),
        json!({
            "user": "bob", "device_list": list(), "as_of": null,
            "devices": [{
                "device": 1, "registration": 7, "identity_key": identity(),
                "authentication_key": KEY, "authentication_signature": SIGNATURE,
            }],
        }),
        json!({"seq": 2}),
        fetched.clone(),
        json!({"results": [
            {"user": "bob", "route": route, "fetched": fetched},
            {"user": "carol", "route": route, "problem": problem},
        ]}),
        json!({
            "node": 1, "members": [{
                "id": 1, "peer": "a:1", "public": "a:2", "state": "active", "version": "0.1.0",
                "alive": true,
            }],
            "placement": [{"shard": 0, "leader": 1, "replicas": [1], "target": null}],
            "shards": [{
                "shard": 0, "leader": 1, "term": 1, "last_log": 2, "applied": 2, "voters": [1],
                "learners": [],
            }],
        }),
        problem,
    ])
}

fn event_streams() -> Vec<Vec<u8>> {
    let text = "\u{10}:\n\nevent: pool_low\ndata: {\"count\":3,\"low_watermark\":20}\n\nid: 7\r\n\
                event: device_list_changed\r\ndata:{\"seq\":7}\r\n\r\n";
    vec![text.as_bytes().to_vec()]
}
