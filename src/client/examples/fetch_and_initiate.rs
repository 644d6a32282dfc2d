//! Alice writes to every device of a user, who may be offline, and to none that she cannot trust.
//!
//! With `oncekey dev --open` in another terminal, which publishes a device of `bob`:
//!
//! ```text
//! cargo run -p oncekey-client --example fetch_and_initiate -- bob [NODE…]
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{env, error::Error};

use oncekey_client::{
    BundleRefused, Client, FetchError, FetchOptions, NewDevice, SqliteKeyStore, http::AnyNode,
};
use oncekey_types::UserId;

mod support;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bob: UserId = env::args().nth(1).unwrap_or_else(|| "bob".to_owned()).parse()?;
    let alice = support::somebody("alice")?;
    let nodes = support::nodes(&format!("{alice}/1"), 1)?;
    let store = SqliteKeyStore::in_memory()?;
    let alice = Client::create(store, nodes, NewDevice::new(alice.parse()?, 1))?;

    let fetched = fetch(&alice, &bob).await?;
    if let Some(as_of) = fetched.as_of {
        println!("no quorum is within reach; the bundles are as of {as_of}, without one-time keys");
    }
    for device in fetched.hidden {
        println!("device {device} is on the signed list, and the server shows no keys of it");
    }
    for device in fetched.bundles {
        let number = device.device;
        match device.bundle {
            // Stored with its session before it is returned: sending it again is always right,
            // and never making another.
            Ok(bundle) => {
                let one_time_prekey = device.one_time_prekey_status;
                let outgoing = alice.initiate(bundle, b"hello", b"my application")?;
                let bytes = outgoing.message.len();
                println!(
                    "device {number}: {bytes} bytes to send, one-time prekey {one_time_prekey:?}"
                );
            }
            Err(BundleRefused::IdentityChanged(_) | BundleRefused::Questioned { .. }) => {
                println!("device {number}: waits for the user's answer");
            }
            Err(refused) => println!("device {number}: not to be used, for {refused}"),
        }
    }
    for event in alice.open_questions()? {
        println!("to ask the user: {:?}", event.change);
    }
    Ok(())
}

/// One fetch is one idempotency key: when its outcome is unknown, the same key is sent again, and
/// gets what the first attempt may have popped. (`AnyNode` does the same among the nodes; this is
/// for when none of them answered for a while.)
async fn fetch(
    alice: &Client<AnyNode>,
    bob: &UserId,
) -> Result<oncekey_client::Fetched, FetchError> {
    let mut options = FetchOptions::default();
    for _ in 0..3 {
        match alice.fetch(bob, &options).await {
            Err(FetchError::Call { request, error }) if error.is_retryable() => {
                println!("{error}; once more");
                options.request = Some(request);
            }
            fetched => return fetched,
        }
    }
    alice.fetch(bob, &options).await
}
