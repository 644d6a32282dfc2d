//! A data folder of the previous format is brought up to date and goes on where it was; one of a
//! later format is refused in a line, and nothing is changed.
//!
//! `fixtures/data-format-1` is the folder of a node of a program of that time, killed after bob had
//! registered with 30 one-time prekeys and 12 of them had been handed out. The zeros at the end of
//! each file are left out; `lengths.txt` says how long it was.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hyper::Method;
use oncekey_api::{
    bundle::{Fetch, Fetched},
    device::Status,
    header, path,
};
use oncekey_cluster::{Cluster, http::Http};
use oncekey_tests::LIMIT;
use oncekey_types::{DeviceId, NodeId, OneTimePreKeyId, UserId};
use serde_json::Value;

const NODE: NodeId = NodeId(1);

/// A node over a copy of the old folder, not yet started. The cluster's name is the folder's.
fn node_of_the_fixture(folder: &Path) -> Result<(Cluster, PathBuf)> {
    let dir = folder.join("fixture");
    let data = folder.join("data");
    unpack(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/data-format-1"), &data)?;
    let cluster = Cluster::builder()
        .nodes(1)
        .shards(1)
        .dir(&dir)
        .data_dir(NODE, &data)
        .set("storage.wal_segment_bytes", 8 * 1024 * 1024)
        .prepare()?;
    Ok((cluster, data))
}

fn unpack(from: &Path, to: &Path) -> Result<()> {
    for line in fs::read_to_string(from.join("lengths.txt"))?.lines() {
        let (length, name) = line.split_once(' ').context("a line has a length and a name")?;
        let file = to.join(name);
        fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
        fs::copy(from.join(name), &file)?;
        fs::OpenOptions::new().write(true).open(&file)?.set_len(length.parse()?)?;
    }
    Ok(())
}

fn version(data: &Path) -> Result<Value> {
    let identity: Value = serde_json::from_slice(&fs::read(data.join("identity.json"))?)?;
    Ok(identity["version"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_the_previous_format_goes_on_where_it_was() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut cluster, data) = node_of_the_fixture(folder.path())?;
    ensure!(version(&data)? == 1, "the fixture is of the previous format");
    // After an upgrade, and once more as a folder of the new format.
    for (next, left) in [(13, 18), (14, 17)] {
        cluster.restart(NODE).await?;
        let bob: UserId = "bob".parse()?;
        let http = Http::with_limit(LIMIT);
        let status = format!("{}{}", cluster.endpoint(NODE), path::prekeys(&bob, DeviceId(1)));
        let status: Status = http.bare(Method::GET, &status).await?.parse()?;
        ensure!(status.pool.count == left, "{status:?}");
        ensure!(status.pool.highest_accepted == Some(OneTimePreKeyId(30)), "{status:?}");
        let fetch = format!("{}{}", cluster.endpoint(NODE), path::user_bundles(&bob));
        let name = format!("next-{next}");
        let names = [(header::IDEMPOTENCY_KEY, name.as_str()), (header::CALLER, "alice")];
        let fetched: Fetched =
            http.json(Method::POST, &fetch, &names, &Fetch::default()).await?.parse()?;
        let key = fetched.bundles[0].one_time_prekey.as_ref().context("a key")?;
        ensure!(key.id == OneTimePreKeyId(next), "{key:?}");
        cluster.stop(NODE).await?;
        ensure!(version(&data)? == 2, "the folder is brought up to date");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_a_later_format_is_refused_in_a_line() -> Result<()> {
    // In each, the number of the format: in the identity, and in the head of a segment of the log.
    let identity = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace("\"version\": 1", "\"version\": 3");
        text.into_bytes()
    };
    let segment = |bytes: &[u8]| [&bytes[..8], &9u32.to_le_bytes(), &bytes[12..]].concat();
    type Change<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Change<'_>, &str); 2] = [
        ("identity.json", &identity, "has format 3, this program reads formats 1 to 2"),
        ("log/0000000000000001.log", &segment, "has format 9"),
    ];
    for (name, change, line) in cases {
        let folder = tempfile::tempdir()?;
        let (mut cluster, data) = node_of_the_fixture(folder.path())?;
        let file = data.join(name);
        fs::write(&file, change(&fs::read(&file)?))?;
        let before = fs::read(&file)?;
        cluster.launch(NODE)?;
        let status = cluster.wait_exit(NODE, LIMIT).await?;
        ensure!(!status.success(), "the node ended as if all were well");
        oncekey_tests::expect_log_line(&cluster, NODE, line)?;
        ensure!(fs::read(&file)? == before, "{name} was changed");
    }
    Ok(())
}
