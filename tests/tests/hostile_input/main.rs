//! Malformed and hostile input to every endpoint gets a problem document and changes nothing.

mod cases;
mod raw;

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header::CONTENT_TYPE};
use oncekey_api::{
    device::Status,
    header::{IDEMPOTENCY_KEY, PROBLEM_JSON},
    path,
};
use oncekey_client::{
    CallError, Client, NewDevice, SqliteKeyStore,
    transport::{Answer, Call, Transport},
};
use oncekey_cluster::http::Http;
use oncekey_tests::{LIMIT, Nodes, any_node, hostile_table, small};
use oncekey_types::{DeviceId, UserId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use cases::Case;

/// Time that the nodes give a head and a body.
const SLOW_MS: i64 = 700;

/// Good requests of a device, as its client sent them: what the bad ones are made of.
struct Good {
    user: UserId,
    register: Value,
    rotate: Value,
    add: Value,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_input_gets_a_problem_and_changes_nothing() -> Result<()> {
    let mut cluster = small()
        .set("http.header_timeout_ms", SLOW_MS)
        .set("http.body_timeout_ms", SLOW_MS)
        .start()
        .await?;
    let (bob, good) = publish(any_node(&cluster.endpoints(), "bob/1", cluster.recorder())?).await?;
    let endpoint = cluster.endpoint(cluster.nodes()[0]);
    let http = Http::with_limit(LIMIT);
    let fetch = [(IDEMPOTENCY_KEY, "used")];
    let url = format!("{endpoint}{}", path::user_bundles(&good.user));
    http.json(Method::POST, &url, &fetch, &json!({})).await?.expect_success()?;

    let before = comparable(bob.status().await?.server);
    let mut wrong = Vec::new();
    let admin = cluster.admin(cluster.nodes()[0]);
    for (heading, base, cases) in [
        ("Nodes: writes of a device", &endpoint, cases::device(&good)),
        ("Nodes: fetches", &endpoint, cases::fetch(&good)),
        ("Nodes: bodies and targets", &endpoint, cases::http(&good)),
        ("Nodes: what operators send", &admin, cases::admin()),
    ] {
        let row = |case: &Case| (case.name.clone(), format!("{} `{}`", case.want.0, case.want.1));
        hostile_table::check(heading, cases.iter().map(row)).map_err(anyhow::Error::msg)?;
        for case in cases {
            let name = format!("{} to {} {}", case.name, case.method, case.target);
            if let Err(error) = send(&http, base, case).await {
                wrong.push(format!("{name}: {error:#}"));
            }
        }
    }
    let address = endpoint.trim_start_matches("http://").parse()?;
    let raw = raw::cases(&good);
    let gets = |want: &[Option<u16>]| {
        let one =
            |status: &Option<u16>| status.map_or("end".to_owned(), |status| status.to_string());
        want.iter().map(one).collect::<Vec<_>>().join(" or ")
    };
    let rows = raw.iter().map(|(name, _, want)| ((*name).to_owned(), gets(want)));
    hostile_table::check("Nodes: what is hardly HTTP", rows).map_err(anyhow::Error::msg)?;
    for (name, bytes, want) in raw {
        match raw::send(address, &bytes).await {
            Ok(status) if want.contains(&status) => {}
            Ok(status) => wrong.push(format!("{name}: status {status:?}, not one of {want:?}")),
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
    }
    ensure!(wrong.is_empty(), "{} of the cases:\n{}", wrong.len(), wrong.join("\n"));
    let after = comparable(bob.status().await?.server);
    ensure!(after == before, "something changed:\n{before:#?}\n{after:#?}");
    cluster.check_running()?;
    cluster.finish().await
}

/// Publishes a device and keeps what its client sent.
async fn publish(nodes: Nodes) -> Result<(Client<Recorder>, Good)> {
    let user: UserId = "bob".parse()?;
    let calls = Arc::default();
    let recorder = Recorder { nodes, calls: Arc::clone(&calls) };
    let store = SqliteKeyStore::in_memory()?;
    let bob = Client::create(store, recorder, NewDevice::new(user.clone(), 1))?;
    bob.publish(10).await?;
    // Twice each, so that the first is out of date.
    bob.rotate().await?;
    bob.rotate().await?;
    bob.replenish(15).await?;
    bob.replenish(20).await?;
    let sent = |target: String| -> Result<Value> {
        let calls = calls.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        let call = calls.iter().find(|call: &&Call| call.path == target && !call.body.is_empty());
        Ok(serde_json::from_slice(&call.with_context(|| format!("no call of {target}"))?.body)?)
    };
    let device = DeviceId(1);
    let register = sent(path::device(&user, device))?;
    let rotate = sent(path::signed_prekey(&user, device))?;
    let add = sent(path::one_time_prekeys(&user, device))?;
    Ok((bob, Good { user, register, rotate, add }))
}

/// What must not change. The age of the signed prekey does.
fn comparable(status: Status) -> Status {
    Status { signed_prekey_age_ms: 0, ..status }
}

async fn send(http: &Http, base: &str, case: Case) -> Result<()> {
    let url = format!("{base}{}", case.target);
    let mut request = Request::builder().method(case.method).uri(&url);
    for (name, value) in case.headers {
        request = request.header(name, value);
    }
    let reply = http.send(request.body(Full::from(Bytes::from(case.body)))?).await?;
    let (status, code) = case.want;
    let problem = reply.problem()?;
    ensure!(
        reply.status.as_u16() == status && problem.code == code,
        "got {} {}, not {status} {code}: {}",
        reply.status.as_u16(),
        problem.code,
        problem.detail
    );
    let kind = reply.headers.get(CONTENT_TYPE).context("a content type")?;
    ensure!(kind == PROBLEM_JSON, "the content type is {kind:?}");
    ensure!(reply.headers.get("cache-control").is_some_and(|value| value == "no-store"));
    Ok(())
}

/// Passes calls on and keeps them.
struct Recorder {
    nodes: Nodes,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Transport for Recorder {
    async fn call<R: DeserializeOwned + Send>(&self, call: &Call) -> Result<Answer<R>, CallError> {
        if let Ok(mut calls) = self.calls.lock() {
            calls.push(call.clone());
        }
        self.nodes.call(call).await
    }
}
