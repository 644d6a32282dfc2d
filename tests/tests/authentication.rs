//! A cluster that wants tokens and signatures: what those who have them can do through any node, and
//! what all others get, who change nothing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use hyper::{Method, header::AUTHORIZATION};
use oncekey_api::{device::Status, header, path};
use oncekey_client::{
    Client, FetchOptions, NewDevice, Signer, SqliteKeyStore, WriteError,
    http::{AnyNode, Config},
    transport,
};
use oncekey_cluster::{
    Cluster,
    http::{Http, Reply},
    issuer::{Claims, Issuer, OPERATOR_SCOPE},
};
use oncekey_tests::small;
use oncekey_types::{DeviceId, NodeId, TimestampMs, UserId};
use serde_json::{Value, json};

type Device = Client<AnyNode>;

fn nodes(cluster: &Cluster, user: &str) -> Result<AnyNode> {
    let endpoints = cluster.endpoints();
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse()).collect::<Result<_, _>>()?;
    Ok(AnyNode::new(cluster.as_user(Config::new(endpoints, user.parse()?)?, user)))
}

fn device(cluster: &Cluster, user: &str) -> Result<Device> {
    let new = NewDevice::new(user.parse()?, 1);
    Ok(Client::create(SqliteKeyStore::in_memory()?, nodes(cluster, user)?, new)?)
}

/// What is sent by hand.
struct Sent {
    name: &'static str,
    method: Method,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Value,
    wanted: (u16, &'static str),
}

impl Sent {
    async fn to(&self, endpoint: &str) -> Result<Reply> {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let url = format!("{endpoint}{}", self.target);
        Http::default().json(self.method.clone(), &url, &headers, &self.body).await
    }
}

fn bearer(token: &str) -> (&'static str, String) {
    (AUTHORIZATION.as_str(), format!("Bearer {token}"))
}

/// What the servers hold of Bob's device, apart from what time alone changes.
async fn held(bob: &Device) -> Result<Status> {
    let status = bob.status().await?.server;
    Ok(Status { signed_prekey_age_ms: 0, ..status })
}

fn fetches(issuer: &Issuer, foreign: &Issuer) -> Result<Vec<Sent>> {
    let bob: UserId = "bob".parse()?;
    let claims = Claims::new("alice");
    let hour = Duration::from_secs(3600);
    let expired = Claims { issued: SystemTime::now() - 2 * hour, ..claims.clone() };
    let tokens = [
        ("no token", None, "token_missing"),
        ("expired", Some(issuer.token(&expired)), "token_expired"),
        ("of another key", Some(foreign.token(&claims)), "token_invalid"),
        (
            "of another issuer",
            Some(issuer.token(&Claims { issuer: "x".into(), ..claims.clone() })),
            "token_invalid",
        ),
        (
            "for another service",
            Some(issuer.token(&Claims { audience: "x".into(), ..claims })),
            "token_invalid",
        ),
        (
            "none",
            Some(issuer.sign(&json!({"alg": "none"}), &json!({"sub": "alice"}))),
            "token_invalid",
        ),
    ];
    let sent = tokens.into_iter().map(|(name, token, code)| Sent {
        name,
        method: Method::POST,
        target: path::user_bundles(&bob),
        headers: token
            .iter()
            .map(|token| bearer(token))
            .chain([(header::IDEMPOTENCY_KEY, "by-hand".to_owned())])
            .collect(),
        body: json!({}),
        wanted: (401, code),
    });
    Ok(sent.collect())
}

/// Writes to Bob's device by somebody who has Bob's token, a key of his own, and Bob's signatures of
/// other requests.
fn writes(issuer: &Issuer, authority: &str, body: &Value) -> Result<Vec<Sent>> {
    let bob: UserId = "bob".parse()?;
    let one = DeviceId(1);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let key = oncekey_client::machine::Device::generate(bob.clone(), one, None, &mut rand::rng());
    let signer: Signer = key.signer(TimestampMs(u64::try_from(now)?));
    let target = path::signed_prekey(&bob, one);
    let signed = |target: &str, body: &Value| {
        let bytes = serde_json::to_vec(body)?;
        let fields = signer.sign(transport::Method::Put, authority, target, &bytes, Duration::ZERO);
        anyhow::Ok(vec![
            (header::CONTENT_DIGEST, fields.content_digest),
            (header::SIGNATURE_INPUT, fields.signature_input),
            (header::SIGNATURE, fields.signature),
        ])
    };
    let bobs = issuer.token(&Claims::new("bob"));
    let invalid = (401, "request_signature_invalid");
    let put = |name, headers, wanted| Sent {
        name,
        method: Method::PUT,
        target: target.clone(),
        headers,
        body: body.clone(),
        wanted,
    };
    Ok(vec![
        put("Bob's token alone", vec![bearer(&bobs)], (401, "signature_missing")),
        put("another key", signed(&target, body)?, invalid),
        put("over another path", signed("/v1/users/bob/devices/1", body)?, invalid),
        put("over another body", signed(&target, &json!({}))?, invalid),
        Sent {
            name: "removal by Bob's token",
            method: Method::DELETE,
            target: path::device(&bob, one),
            headers: vec![bearer(&bobs)],
            body: Value::Null,
            wanted: (403, "scope_missing"),
        },
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tokens_and_signatures_all_works_and_without_nothing_does() -> Result<()> {
    let mut cluster = small().authenticated().start().await?;
    let issuer = Arc::clone(cluster.issuer().expect("it was asked for"));
    let bob = device(&cluster, "bob")?;
    bob.publish(20).await?;
    bob.rotate().await?;
    let alice = device(&cluster, "alice")?;
    let to_bob = "bob".parse()?;
    let fetched = alice.fetch(&to_bob, &FetchOptions::default()).await?;
    ensure!(fetched.bundles.len() == 1 && fetched.bundles[0].bundle.is_ok(), "{fetched:?}");
    bob.replenish(20).await?;

    let before = held(&bob).await?;
    let folder = tempfile::tempdir()?;
    let foreign = Issuer::create(folder.path())?;
    let rotation = json!({"seq": 99, "signed_prekey": {
        "id": 9, "key": "A".repeat(43), "created": 1, "expires": 2, "signature": "A".repeat(86)
    }});
    for endpoint in cluster.endpoints() {
        let authority = endpoint.trim_start_matches("http://");
        let all = [fetches(&issuer, &foreign)?, writes(&issuer, authority, &rotation)?];
        for sent in all.iter().flatten() {
            let reply = sent.to(&endpoint).await?;
            let got = (reply.status.as_u16(), reply.problem()?.code.as_str());
            ensure!(got == sent.wanted, "{} at {endpoint}: {got:?}: {}", sent.name, reply.text());
            ensure!(held(&bob).await? == before, "{} changed something", sent.name);
        }
    }
    let usurper = device(&cluster, "bob")?;
    let refused = usurper.publish(5).await;
    ensure!(matches!(refused, Err(WriteError::Replaced)), "{refused:?}");

    // Any node knows the keys after a change of leaders.
    let leader = cluster.leader_of(&to_bob).await?;
    cluster.kill(leader)?;
    bob.rotate().await?;
    alice.fetch(&to_bob, &FetchOptions::default()).await?;
    cluster.restart(leader).await?;

    remove_as_operator(&cluster, &issuer, leader).await?;
    ensure!(bob.tend().await?.is_none(), "it is gone, and learns it");
    bob.publish(5).await?;
    cluster.finish().await
}

async fn remove_as_operator(cluster: &Cluster, issuer: &Issuer, node: NodeId) -> Result<()> {
    let claims = Claims { scope: OPERATOR_SCOPE.into(), ..Claims::new("root") };
    let removal = Sent {
        name: "removal by an operator",
        method: Method::DELETE,
        target: path::device(&"bob".parse()?, DeviceId(1)),
        headers: vec![bearer(&issuer.token(&claims))],
        body: Value::Null,
        wanted: (204, ""),
    };
    let reply = removal.to(&cluster.endpoint(node)).await?;
    ensure!(reply.status == removal.wanted.0, "{}", reply.text());
    Ok(())
}
