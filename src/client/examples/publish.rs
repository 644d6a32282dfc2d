//! A device that keeps its keys in a folder and itself reachable: run it once, and again at will.
//!
//! With `oncekey dev --open` in another terminal:
//!
//! ```text
//! ONCEKEY_PASSPHRASE='correct horse' \
//!     cargo run -p oncekey-client --example publish -- ./carol carol [NODE…]
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{env, error::Error};

use oncekey_client::{Client, NewDevice, Preset, SqliteKeyStore, Unlock, WriteError, keystore};

mod support;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (folder, user) = match (env::args().nth(1), env::args().nth(2)) {
        (Some(folder), Some(user)) => (folder, user),
        _ => return Err("usage: publish FOLDER USER [NODE…]".into()),
    };
    let nodes = support::nodes(&format!("{user}/1"), 2)?;

    // The store is locked with the passphrase; an application may have a key in the keychain of
    // the operating system instead (`StoreKey`).
    let unlock = Unlock::passphrase(env::var("ONCEKEY_PASSPHRASE")?)?;
    let device = match Client::open(SqliteKeyStore::open(&folder, &unlock)?, nodes.clone()) {
        Err(keystore::Error::NoDevice) => {
            let new = NewDevice::new(user.parse()?, 1).with_new_account();
            Client::create(SqliteKeyStore::open(&folder, &unlock)?, nodes, new)?
        }
        opened => opened?,
    };
    let config = Preset::AvailabilityFirst.config();
    let pool = config.pool;
    let device = device.with_config(config);

    // What is due: a new signed prekey, more one-time prekeys, secrets to delete. None: the device
    // is not registered yet.
    match device.tend().await {
        Ok(Some(tended)) => {
            println!("{} one-time prekeys were added", tended.added);
            if let Some(signed_prekey) = tended.rotated {
                println!("signed prekey {signed_prekey} took the place of an old one");
            }
            println!("look again in {} s, or on an event", tended.again_after.as_secs());
        }
        Ok(None) => {
            let published = device.publish(usize::try_from(pool.target)?).await?;
            println!("registered, number {}", published.registration);
        }
        // An old copy of the folder, or a second one in use: ask before throwing keys away.
        Err(WriteError::StoreIsOld) => {
            device.discard_prekeys().await?;
            device.publish(usize::try_from(pool.target)?).await?;
            println!("this folder was an old copy; it has new prekeys now");
        }
        Err(error) => return Err(error.into()),
    }
    let status = device.status().await?.server;
    println!("{} one-time prekeys are out; the plan is: {pool}", status.pool.count);
    Ok(())
}
