//! Alice writes to Bob through a running cluster.
//!
//! ```text
//! cargo run -p oncekey-client --example handshake -- 127.0.0.1:8081 127.0.0.1:8082
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;

use oncekey_client::{
    Client, FetchOptions, NewDevice, Received, SqliteKeyStore,
    http::{AnyNode, Config},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints =
        std::env::args().skip(1).map(|endpoint| endpoint.parse()).collect::<Result<Vec<_>, _>>()?;
    let nodes = AnyNode::new(Config::new(endpoints, "example-alice/1".parse()?)?);

    let store = SqliteKeyStore::in_memory()?;
    let bob = Client::create(store, nodes.clone(), NewDevice::new("example-bob".parse()?, 1))?;
    let published = bob.publish(20).await?;
    println!("bob has {} one-time prekeys out", published.pool.count);

    let store = SqliteKeyStore::in_memory()?;
    let alice = Client::create(store, nodes, NewDevice::new("example-alice".parse()?, 1))?;
    let bob_id = bob.user().clone();
    let fetched = alice.fetch(&bob_id, &FetchOptions::default()).await?;
    println!("alice has {} bundles", fetched.bundles.len());

    for device in fetched.bundles {
        if device.device != bob.address().device() {
            continue;
        }
        let outgoing = alice.initiate(device.bundle?, b"hello, bob", b"")?;
        println!("alice sends {} bytes", outgoing.message.len());
        match bob.receive(&outgoing.message, b"")? {
            Received::New { payload, session } => {
                let text = String::from_utf8_lossy(payload.as_bytes());
                println!("bob reads: {text}");
                println!("both have the session: {}", session.id == outgoing.session.id);
            }
            Received::Duplicate { .. } => println!("bob has read this before"),
        }
    }
    Ok(())
}
