//! What every endpoint does when all is well.

use oncekey_api::path;
use oncekey_x3dh::keys::IdentityPublic;
use serde_json::{Value, json};

use crate::support::{Device, Fixture, Reply, Request, eventually};

#[tokio::test]
async fn a_device_registers_and_sees_its_pool() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    let reply = node.send(bob.register(3)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    let pool = json!({"count": 3, "low_watermark": 20, "signed_prekey": 1, "highest_accepted": 3});
    assert_eq!(body["pool"], pool);
    let status = node.send(Request::get(bob.path("/prekeys"))).await.json();
    assert_eq!(status["pool"], pool);
    assert_eq!(status["registration"], body["registration"]);
    assert_eq!((&status["seq"], &status["ids"]), (&json!(1), &json!([[1, 3]])));
    assert!(status["signed_prekey_age_ms"].as_u64().unwrap() < 60_000, "{status}");
}

#[tokio::test]
async fn a_write_sent_again_is_answered_as_before() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 1).await;
    for request in [bob.add(5), bob.rotate()] {
        let first = node.send(request.clone()).await;
        let again = node.send(request).await;
        assert_eq!((first.status, &first.body), (200, &again.body));
    }
    let status = node.send(Request::get(bob.path("/prekeys"))).await.json();
    assert_eq!(status["pool"]["count"], 6);
    assert_eq!(status["pool"]["signed_prekey"], 2);
}

#[tokio::test]
async fn a_fetch_pops_one_prekey_and_its_retry_gets_the_same() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 2).await;
    let fetch = |key| Request::fetch(bob.bundles_path(), key, &json!({}));

    let first = node.send(fetch("a")).await;
    let bundle = &first.json()["bundles"][0];
    assert_eq!(bundle["one_time_prekey"]["id"], 1);
    assert_eq!(bundle["one_time_prekey_status"], "issued");
    assert_eq!(first.json()["repeated"], false);
    assert_eq!(first.header("oncekey-leader"), Some("node-1.example:8080"));
    assert!(first.header("oncekey-shard").is_some(), "{first:?}");

    let retry = node.send(fetch("a")).await;
    assert_eq!(retry.json()["bundles"], first.json()["bundles"]);
    assert_eq!(retry.json()["repeated"], true);
    assert_eq!(retry.header("oncekey-index"), first.header("oncekey-index"));

    assert_eq!(node.send(fetch("b")).await.json()["bundles"][0]["one_time_prekey"]["id"], 2);
    let dry = node.send(fetch("c")).await.json();
    assert_eq!(dry["bundles"][0]["one_time_prekey"], Value::Null);
    assert_eq!(dry["bundles"][0]["one_time_prekey_status"], "exhausted");
}

#[tokio::test]
async fn a_fetch_names_devices_or_gets_all() {
    let node = Fixture::start().await;
    let (mut one, mut two) = (Device::new("bob", 1), Device::new("bob", 2));
    node.register(&mut one, 2).await;
    node.register(&mut two, 2).await;
    let devices = |reply: Reply| -> Vec<Value> {
        let bundles = reply.json()["bundles"].clone();
        bundles.as_array().unwrap().iter().map(|bundle| bundle["device"].clone()).collect()
    };
    let all = node.send(Request::fetch(one.bundles_path(), "a", &json!({}))).await;
    assert_eq!(devices(all), [1, 2]);
    let some = json!({"devices": [2]});
    let second = node.send(Request::fetch(one.bundles_path(), "b", &some)).await;
    assert_eq!(devices(second), [2]);
}

#[tokio::test]
async fn over_the_limit_the_prekey_is_withheld_and_the_bundle_served() {
    let node = Fixture::start_with(|config| config.node.policy.per_caller.capacity = 1).await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 5).await;
    let fetch = |key, caller| {
        Request::fetch(bob.bundles_path(), key, &json!({})).header("Oncekey-Caller", caller)
    };
    let status = |reply: Reply| reply.json()["bundles"][0]["one_time_prekey_status"].clone();
    assert_eq!(status(node.send(fetch("a", "alice")).await), "issued");
    assert_eq!(status(node.send(fetch("b", "alice")).await), "withheld");
    assert_eq!(status(node.send(fetch("a", "carol")).await), "issued");

    let strict = json!({"require_opk": true});
    let request =
        Request::fetch(bob.bundles_path(), "c", &strict).header("Oncekey-Caller", "alice");
    let refused = node.send(request).await;
    assert_eq!(refused.problem_code(), "one_time_prekey_required");
    assert_eq!(refused.json()["one_time_prekey_status"], "withheld");
}

#[tokio::test]
async fn each_user_of_a_multi_user_fetch_has_its_own_outcome() {
    let node = Fixture::start().await;
    let mut users: Vec<_> = (0..8).map(|n| Device::new(&format!("user {n}"), 1)).collect();
    for user in &mut users {
        node.register(user, 2).await;
    }
    let ask = |names: &[&str]| {
        let users: Vec<_> = names.iter().map(|name| json!({"user": name})).collect();
        Request::fetch(path::BUNDLES, "key", &json!({"users": users}))
    };
    let names = ["user 0", "nobody", "user 1", "user 2", "user 3"];
    let first = node.send(ask(&names)).await.json();
    let result = |of: &Value, at: usize| of["results"][at].clone();
    for (at, name) in names.iter().enumerate() {
        assert_eq!(result(&first, at)["user"], *name);
    }
    assert_eq!(result(&first, 1)["problem"]["code"], "unknown_user");
    assert_eq!(result(&first, 0)["fetched"]["bundles"][0]["one_time_prekey"]["id"], 1);
    assert_eq!(result(&first, 0)["route"]["leader"], "node-1.example:8080");

    // A retry that names other users as well repeats what was given.
    let again = node.send(ask(&["user 7", "user 0"])).await.json();
    assert_eq!(result(&again, 1)["fetched"]["repeated"], true);
    assert_eq!(result(&again, 1)["fetched"]["bundles"], result(&first, 0)["fetched"]["bundles"]);
}

#[tokio::test]
async fn a_user_is_seen_without_a_pop() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob/ü %", 1);
    node.register(&mut bob, 1).await;
    let (list, hash) = bob.first_device_list();
    let put = Request::json("PUT", path::device_list(&bob.user), &list);
    assert_eq!(node.send(put.clone()).await.json(), json!({"seq": 1}));
    let seen = node.send(Request::get(bob.user_path())).await.json();
    assert_eq!(seen["user"], "bob/ü %");
    assert_eq!(seen["device_list"], list);
    assert_eq!(seen["devices"][0]["device"], 1);
    assert_eq!(seen["as_of"], Value::Null);
    let (next, _) = bob.device_list(oncekey_types::Seq(2), hash);
    let put = Request::json("PUT", path::device_list(&bob.user), &next);
    assert_eq!(node.send(put).await.json(), json!({"seq": 2}));
    let fetched = node.send(Request::fetch(bob.bundles_path(), "a", &json!({}))).await.json();
    assert_eq!(fetched["device_list_seq"], 2);
    assert_eq!(fetched["bundles"][0]["one_time_prekey"]["id"], 1);
}

#[tokio::test]
async fn a_bundle_verifies_as_the_device_signed_it() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 1).await;
    let reply = node.send(Request::fetch(bob.bundles_path(), "a", &json!({}))).await;
    let fetched: oncekey_api::bundle::Fetched = serde_json::from_str(&reply.body).unwrap();
    let identity = IdentityPublic::from_ed25519(&fetched.bundles[0].identity_key.key.0).unwrap();
    assert_eq!(identity, *bob.identity.public());
}

#[tokio::test]
async fn a_removed_device_is_gone() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 1).await;
    let seq = bob.seq();
    let target = path::remove_device(&bob.user, bob.device, seq);
    let reply = node.send(Request::new("DELETE", target)).await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    let gone = node.send(Request::get(bob.path("/prekeys"))).await;
    assert_eq!((gone.status, gone.problem_code().as_str()), (404, "unknown_device"));
    let fetch = node.send(Request::fetch(bob.bundles_path(), "a", &json!({}))).await;
    assert_eq!(fetch.problem_code(), "unknown_user");
}

#[tokio::test]
async fn an_operator_sees_health_metrics_and_the_cluster() {
    let node = Fixture::start().await;
    assert_eq!(node.ask_admin(Request::get("/livez")).await.status, 200);
    eventually(async || {
        let ready = node.ask_admin(Request::get("/readyz")).await;
        if ready.status == 200 { Ok(()) } else { Err(ready.body) }
    })
    .await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 1).await;
    for key in ["a", "a", "b"] {
        node.send(Request::fetch(bob.bundles_path(), key, &json!({}))).await;
    }
    let metrics = node.ask_admin(Request::get("/metrics")).await.body;
    for line in [
        "oncekey_http_requests_total{endpoint=\"register\",code=\"ok\"} 1",
        "oncekey_fetches_total{outcome=\"fresh\"} 2",
        "oncekey_fetches_total{outcome=\"repeated\"} 1",
        "oncekey_shard_leader{shard=\"0\"} 1",
        "# UNIT oncekey_http_request_duration_seconds seconds",
        // The one that asks.
        "oncekey_http_requests_in_flight 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    for status in ["issued", "exhausted"] {
        let of_bob = format!("status=\"{status}\"}} 1");
        let of_bundles =
            metrics.lines().filter(|line| line.starts_with("oncekey_bundles_total{shard="));
        assert_eq!(of_bundles.filter(|line| line.ends_with(&of_bob)).count(), 1, "{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n") && !metrics.contains("bob"), "{metrics}");
    let cluster = eventually(async || {
        let cluster = node.ask_admin(Request::get("/v1/cluster")).await.json();
        if cluster["members"][0].is_object() { Ok(cluster) } else { Err(cluster.to_string()) }
    })
    .await;
    assert_eq!(cluster["node"], 1);
    assert_eq!(cluster["members"][0]["public"], "node-1.example:8080");
    assert_eq!(cluster["shards"].as_array().unwrap().len(), 2);
    assert_eq!(cluster["shards"][0]["leader"], 1);
}

#[tokio::test]
async fn a_report_moves_a_counter_for_each_reason_and_a_caller_reports_once_in_a_minute() {
    let node = Fixture::start().await;
    let report = |caller: &str| {
        let counts = json!({"opk_missing": 2, "spk_unknown": 1, "signature_invalid": 4});
        Request::json("POST", path::REPORTS, &counts).header("Oncekey-Caller", caller)
    };
    for caller in ["alice", "bob"] {
        let reply = node.send(report(caller)).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    }
    let again = node.send(report("alice")).await;
    assert_eq!((again.status, again.problem_code().as_str()), (429, "too_many_reports"));
    let metrics = node.ask_admin(Request::get("/metrics")).await.body;
    for line in [
        "oncekey_handshake_failures_total{reason=\"opk_missing\"} 4",
        "oncekey_handshake_failures_total{reason=\"spk_unknown\"} 2",
        "oncekey_handshake_failures_total{reason=\"signature_invalid\"} 8",
        "oncekey_handshake_failures_total{reason=\"opk_reused\"} 0",
        "oncekey_http_requests_total{endpoint=\"report\",code=\"too_many_reports\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("alice") && !metrics.contains("bob"), "{metrics}");
}

/// Its shards have leaders before the membership has one, and knows it.
#[tokio::test]
async fn a_node_that_has_formed_its_cluster_stays_ready() {
    let node = Fixture::start().await;
    let ready = async || node.ask_admin(Request::get("/readyz")).await;
    eventually(async || {
        let reply = ready().await;
        if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    eventually(async || {
        let reply = ready().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let members = node.ask_admin(Request::get(path::CLUSTER)).await.json()["members"].clone();
        if members[0]["state"] == "active" { Ok(()) } else { Err(members.to_string()) }
    })
    .await;
    assert_eq!(ready().await.status, 200);
}
