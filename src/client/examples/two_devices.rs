//! Bob has a phone and a laptop: one fetch, one handshake for each, and no device that he has not
//! signed for.
//!
//! With `oncekey dev --open` in another terminal:
//!
//! ```text
//! cargo run -p oncekey-client --example two_devices -- [NODE…]
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;

use oncekey_client::{Answer, Client, FetchOptions, NewDevice, Received, SqliteKeyStore};
use oncekey_types::UserId;

mod support;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes = support::nodes("two-devices", 0)?;
    let make = |new| Client::create(SqliteKeyStore::in_memory()?, nodes.clone(), new);
    let bob: UserId = support::somebody("bob")?.parse()?;

    // The first device makes the account key and with it the first list of devices.
    let phone = make(NewDevice::new(bob.clone(), 1).with_new_account())?;
    phone.publish(20).await?;
    let alice = support::somebody("alice")?.parse()?;
    let alice = make(NewDevice::new(alice, 1).with_new_account())?;
    alice.publish(20).await?;
    write(&alice, &bob, &[&phone]).await?;

    // The second shows who it is, over a way that no server has a hand in: a code to scan, say.
    // Until the phone has signed for it, Alice takes nothing from a server that shows it.
    let laptop = make(NewDevice::new(bob.clone(), 2))?;
    laptop.publish(20).await?;
    write(&alice, &bob, &[&phone, &laptop]).await?;
    let code = laptop.pairing_code().to_string();
    println!("the laptop shows {code}");
    phone.add_paired(&code.parse()?).await?;
    write(&alice, &bob, &[&phone, &laptop]).await?;
    for event in alice.open_questions()? {
        println!("alice is told: {:?}", event.change);
        alice.answer(&event, Answer::Accept)?;
    }

    // What they read to each other, or scan.
    phone.refresh_device_list(alice.user()).await?;
    println!("bob's number:   {}", phone.safety_number(alice.user())?);
    println!("alice's number: {}", alice.safety_number(&bob)?);

    // The laptop is lost.
    phone.remove_device(laptop.address().device()).await?;
    write(&alice, &bob, &[&phone]).await?;
    Ok(())
}

type Device = Client<oncekey_client::http::AnyNode>;

/// Alice writes to Bob, and his devices read what there is for them.
async fn write(alice: &Device, bob: &UserId, devices: &[&Device]) -> Result<(), Box<dyn Error>> {
    let sent = alice.send_to_all(bob, b"hello, bob", b"", &FetchOptions::default()).await?;
    for outcome in sent.devices {
        let number = outcome.device;
        let outgoing = match outcome.outcome {
            Ok(outgoing) => outgoing,
            Err(why) => {
                println!("nothing for device {number}: {why}");
                continue;
            }
        };
        let device = devices.iter().find(|device| device.address().device() == number);
        let device = device.ok_or("a device that is not Bob's")?;
        match device.receive(&outgoing.message, b"")? {
            Received::New { payload, .. } => {
                println!("device {number} reads: {}", String::from_utf8_lossy(payload.as_bytes()));
            }
            Received::Duplicate { .. } => println!("device {number} has read this before"),
        }
    }
    println!();
    Ok(())
}
