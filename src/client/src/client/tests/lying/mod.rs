//! What the handshake withstands when the server lies and keys leak.
//!
//! `docs/threats-handshake.md` has the table: each row, what happens, and the test that shows it,
//! here or in the tests of `oncekey-x3dh`. A test below keeps table and tests together.

mod attacker;
mod lies;
mod rows;
mod server;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use oncekey_api::bundle::{Bundle, Fetched};
use oncekey_types::{RequestId, Slot};

use self::server::LyingServer;
use super::{TestClient, World, user_id};
use crate::{
    client::Client,
    http::AnyNode,
    transport::{Call, Credentials, Method},
};

/// A device that asks the lying server, over HTTP.
type Device = Client<AnyNode>;

/// A world whose server can lie. What devices do in the process, as the helpers of other tests
/// do, reaches the honest server behind it.
struct Town {
    world: World,
    server: LyingServer,
}

impl Town {
    async fn new() -> Self {
        let world = World::new();
        let server = LyingServer::start(world.server.clone()).await;
        Self { world, server }
    }

    /// A new device.
    fn device(&self, user: &str, number: u32) -> Device {
        self.over_http(self.world.device(user, number))
    }

    /// The same device, asking over HTTP. It calls itself `user/number`.
    fn over_http(&self, device: TestClient) -> Device {
        let caller = format!("{}/{}", device.user(), device.address().device());
        device.with_transport(self.server.client(&caller))
    }
}

/// The bundle of a new device of `world`, as its server holds it.
async fn bundle_of(world: &World, user: &str, number: u32) -> Bundle {
    world.device(user, number).publish(5).await.unwrap();
    let user = user_id(user);
    let call = Call {
        method: Method::Post,
        path: oncekey_api::path::user_bundles(&user),
        body: Bytes::from_static(b"{}"),
        idempotency_key: Some(RequestId::new("of-the-server").unwrap()),
        slot: Slot::of(&user),
        credentials: Credentials::Token,
    };
    let reply = world.server.answer(&call).unwrap();
    serde_json::from_slice::<Fetched>(&reply).unwrap().bundles.remove(0)
}

/// The tests that the last column of the document's tables names, without their modules.
fn named(document: &str) -> BTreeSet<String> {
    let rows = document.lines().filter_map(|line| line.trim().strip_suffix('|'));
    let last = rows.filter_map(|row| row.rsplit('|').next());
    let names = last.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(|name| name.rsplit("::").next().unwrap_or(name).to_owned()).collect()
}

/// The names of functions, and what may be, in the Rust files of a folder and those below.
fn functions(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
            // As macros that make a test of each line are told.
            let lines = text.lines().filter_map(|line| line.trim().split_once(" = "));
            let names = names.chain(lines.map(|(name, _)| name));
            found.extend(names.map(|name| (path.clone(), name.to_owned())));
        }
    }
}

#[test]
fn the_document_names_every_test_of_this_folder_and_none_that_is_not_there() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let document = crates.parent().unwrap().join("docs/threats-handshake.md");
    let named = named(&fs::read_to_string(document).unwrap());
    let here = crates.join("client/src/client/tests");
    let mut known = Vec::new();
    functions(&here, &mut known);
    functions(&crates.join("x3dh/tests/handshake"), &mut known);
    let names: BTreeSet<_> = known.iter().map(|(_, name)| name.clone()).collect();
    let missing: Vec<_> = named.difference(&names).collect();
    assert!(missing.is_empty(), "named and not there: {missing:?}");
    let must: BTreeSet<_> = known
        .iter()
        .filter(|(path, _)| {
            ["rows.rs", "lies.rs"].iter().any(|file| path == &here.join("lying").join(file))
        })
        .map(|(_, name)| name.clone())
        .filter(|name| name.matches('_').count() > 3)
        .collect();
    let forgotten: Vec<_> = must.difference(&named).collect();
    assert!(forgotten.is_empty(), "there and not named: {forgotten:?}");
    assert!(must.len() > 10, "the checker sees what is there: {must:?}");
}
