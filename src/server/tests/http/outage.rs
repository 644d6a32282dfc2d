//! What one node of three answers when the others are gone.

use std::net::SocketAddr;

use futures_util::future::join_all;
use oncekey_raft::Member;
use oncekey_types::NodeId;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{Device, Fixture, Request, config, eventually};

/// Addresses held by sockets that never listen: nobody else is given them, and a node may listen
/// there, because both set `SO_REUSEADDR`. Nodes must know each other's before they start.
fn hold_addresses(number: usize) -> (Vec<SocketAddr>, Vec<TcpSocket>) {
    let hold = |_| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (socket.local_addr().unwrap(), socket)
    };
    (0..number).map(hold).unzip()
}

/// Three nodes of one cluster.
async fn three_nodes() -> (Vec<Fixture>, Vec<TcpSocket>) {
    let (peers, held) = hold_addresses(3);
    let ids = [1, 2, 3].map(NodeId);
    let members = ids.into_iter().zip(&peers).map(|(id, peer)| {
        (id, Member { peer: peer.to_string(), public: format!("node-{id}.example:8080") })
    });
    let members: std::collections::BTreeMap<_, _> = members.collect();
    let nodes = ids.into_iter().zip(&peers).map(|(id, peer)| {
        let disk = tempfile::tempdir().unwrap();
        let mut config = config(&disk);
        config.node.node = id;
        config.node.peer_listen = *peer;
        config.node.me = members[&id].clone();
        config.node.members = members.clone();
        config.http.write_timeout = std::time::Duration::from_secs(1);
        Fixture::serve(config, disk)
    });
    (join_all(nodes).await, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_node_answers_from_its_replica_and_pops_nothing() {
    let (mut nodes, _held) = three_nodes().await;
    let mut bob = Device::new("bob", 1);
    let register = bob.register(3);
    eventually(async || {
        let reply = nodes[0].send(register.clone()).await;
        if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    let rotate = bob.rotate();
    while nodes.len() > 1 {
        nodes.pop().unwrap().ended().await.unwrap();
    }
    let node = &nodes[0];

    let fetch = |body: &Value| Request::fetch(bob.bundles_path(), "key", body);
    let local = eventually(async || {
        let reply = node.send(fetch(&json!({}))).await;
        // The replica may have to apply what was committed before.
        if reply.status == 200 { Ok(reply) } else { Err(format!("{reply:?}")) }
    })
    .await;
    let body = local.json();
    assert_eq!(body["bundles"][0]["one_time_prekey"], Value::Null, "{local:?}");
    assert_eq!(body["bundles"][0]["one_time_prekey_status"], "unavailable");
    assert!(body["as_of"].as_u64().unwrap() > 0, "{local:?}");
    assert_eq!((&body["repeated"], local.header("oncekey-index")), (&json!(false), None));

    let named = node.send(fetch(&json!({"devices": [1]}))).await;
    assert_eq!(named.status, 200, "a key of no record is no conflict: {named:?}");
    let user = node.send(Request::get(bob.user_path())).await.json();
    assert!(user["as_of"].as_u64().unwrap() > 0, "{user}");

    for (what, request) in [
        ("a required prekey", fetch(&json!({"require_opk": true}))),
        ("a write", rotate),
        ("a status", Request::get(bob.path("/prekeys"))),
        ("a user it may not know yet", Request::get("/v1/users/carol")),
        (
            "bundles of a user it may not know yet",
            Request::fetch("/v1/users/carol/bundles", "key", &json!({})),
        ),
    ] {
        let reply = node.send(request).await;
        assert_eq!((reply.status, reply.problem_code().as_str()), (503, "no_quorum"), "{what}");
        assert_eq!(reply.header("retry-after"), Some("1"), "{what}");
    }
    let ready = node.ask_admin(Request::get("/readyz")).await;
    assert_eq!((ready.status, ready.problem_code().as_str()), (503, "not_ready"));
    assert!(!ready.json()["reasons"].as_array().unwrap().is_empty(), "{ready:?}");
    let metrics = node.ask_admin(Request::get("/metrics")).await.body;
    assert!(metrics.contains("oncekey_bundles_unavailable_total 2"), "{metrics}");
}
