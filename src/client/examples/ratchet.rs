//! A conversation: a handshake through the cluster, and from there on a Double Ratchet.
//!
//! With `oncekey dev --open` in another terminal:
//!
//! ```text
//! cargo run -p oncekey-client --features ratchet --example ratchet -- [NODE…]
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;

use oncekey_client::{Client, FetchOptions, NewDevice, NotSent, SqliteKeyStore, ratchet::Ratchet};
use oncekey_types::UserId;

mod support;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = support::nodes("ratchet", 0)?;
    let make = |new| Client::create(SqliteKeyStore::in_memory()?, nodes.clone(), new);
    let bob: UserId = support::somebody("bob")?.parse()?;
    let alice = make(NewDevice::new(support::somebody("alice")?.parse()?, 1))?;
    let bob = make(NewDevice::new(bob, 1))?;
    bob.publish(10).await?;

    // The handshake carries the first message.
    let sent = alice.send_to_all(bob.user(), b"hello", b"", &FetchOptions::default()).await?;
    let mut outgoing = sent.devices.into_iter().next().ok_or(NotSent::NoBundle)?.outcome?;
    let mut received = bob.receive(&outgoing.message, b"")?;

    // Each ratchet takes the session's keys out of its key store. From here on an application keeps
    // the ratchet's state instead.
    let mut alices = alice.ratchet_of_sent(&mut outgoing)?;
    let mut bobs = bob.ratchet_of_received(&mut received)?;

    // Bob may answer at once; Alice may go on at the same time; the network mixes it all up.
    let one = bobs.encrypt(b"one")?;
    let two = bobs.encrypt(b"two")?;
    let three = alices.encrypt(b"three")?;
    println!("alice reads: {}", read(&mut alices, &two)?);
    println!("bob reads:   {}", read(&mut bobs, &three)?);

    // After every message an application seals and stores the state, before anything leaves or is
    // shown, and goes on from there after a restart.
    let state = bobs.to_bytes()?;
    let mut bobs = Ratchet::from_bytes(&state)?;
    let four = bobs.encrypt(b"four")?;
    println!("alice reads: {}", read(&mut alices, &four)?);
    println!("alice reads: {}", read(&mut alices, &one)?);
    match read(&mut alices, &one) {
        Ok(text) => println!("alice reads twice: {text}"),
        Err(error) => println!("not twice: {error}"),
    }
    Ok(())
}

fn read(ratchet: &mut Ratchet, message: &[u8]) -> Result<String, Box<dyn Error>> {
    Ok(String::from_utf8_lossy(&ratchet.decrypt(message)?).into_owned())
}
