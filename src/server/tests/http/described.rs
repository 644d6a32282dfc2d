//! The description of the interface says what the node asks for, operation by operation.

use std::net::SocketAddr;

use oncekey_api::path;
use serde_json::{Value, json};

use crate::support::{Device, Fixture, Request, credentials::Issuer, http};

const METHODS: [&str; 4] = ["GET", "PUT", "POST", "DELETE"];

/// A request for the operation that shows nothing of who asks, and lacks nothing else that is looked
/// at before.
fn bare(method: &'static str, target: &str) -> Request {
    let named = [("{user}", "bob"), ("{device}", "1"), ("{shard}", "0"), ("{epoch}", "2")];
    let named = named
        .into_iter()
        .fold(target.to_owned(), |target, (name, value)| target.replace(name, value));
    let target_path = named.replace("{backup}", &"0".repeat(32));
    match (method, target) {
        ("PUT", path::DEVICE) => Device::new("bob", 1).register(1),
        ("GET", path::EVENTS) => Request::get(format!("{target_path}?user=bob&device=1")),
        ("GET", _) => Request::get(target_path),
        ("DELETE", _) => Request::new("DELETE", target_path),
        (method, _) => Request { method, ..Request::fetch(target_path, "k", &json!({})) },
    }
}

/// Asks for everything that `described` describes without a credential; gives how many operations
/// refused that.
async fn ask_for_all(node: &Fixture, described: &Value) -> usize {
    let mut refused = 0;
    for (target, item) in described["paths"].as_object().unwrap() {
        for method in METHODS {
            let operation = &item[method.to_ascii_lowercase()];
            let Some(tag) = operation["tags"][0].as_str() else { continue };
            let to: SocketAddr = if tag == "operators" { node.admin } else { node.public };
            let reply = http::send(to, bare(method, target)).await;
            let ways = operation["security"].as_array().unwrap();
            let anyone = ways.is_empty() || ways.contains(&json!({}));
            assert_eq!(reply.status != 401, anyone, "{method} {target}: {ways:?}, {reply:?}");
            refused += usize::from(!anyone);
        }
    }
    refused
}

#[tokio::test]
async fn what_refuses_a_request_without_a_credential_is_described_so() {
    let (clients, operators) = (11, 13);
    for (beyond_loopback, tokens, wanted) in
        [(true, true, clients + operators), (false, true, clients), (false, false, 0)]
    {
        let issuer = Issuer::new();
        let node = Fixture::start_with(|config| {
            if tokens {
                config.auth = issuer.auth();
            }
            if beyond_loopback {
                config.admin.set_ip([0, 0, 0, 0].into());
            }
        })
        .await;
        let description = Request::get(path::OPENAPI).bearer(&issuer.operator());
        let described = node.ask_admin(description).await;
        assert_eq!(described.status, 200, "{described:?}");
        assert_eq!(ask_for_all(&node, &described.json()).await, wanted);
    }
}
