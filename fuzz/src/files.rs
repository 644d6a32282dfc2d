//! Files that people bring: backups, exports, configurations, histories.

use std::path::Path;

use oncekey_backup::fuzzing::{manifest_again, sealed, shard_again};
use oncekey_client::{
    Export, StoreKey, Unlock,
    fuzzing::{change_again, export_secret, export_secret_again},
};
use oncekey_cluster::{check, history::History};
use oncekey_server::{Config, Overrides};
use oncekey_types::{DeviceId, OneTimePreKeyId, Seq, SignedPreKeyId};
use oncekey_x3dh::keys::{AccountKeyPair, AuthenticationKeyPair, IdentityKeyPair};

use crate::{
    Target, choose, chosen, comes_back,
    examples::{DEVICE, NOW, bob, device_list},
    state::backup_chunks,
    take,
};

/// A backup: its manifest, as it is and with the checksum put right, and the stream of a shard.
pub const BACKUP: Target = Target { name: "backup", run: backup, seeds: backups, claim_bytes: 0 };

/// The export of an identity: the box around it, and what is in it.
pub const EXPORT: Target =
    Target { name: "export", run: run_export, seeds: exports, claim_bytes: 0 };

/// A change of trust, as the key store keeps it.
pub const TRUST_CHANGE: Target = Target {
    name: "trust_change",
    run: |data| comes_back(data, change_again),
    seeds: trust_changes,
    claim_bytes: 0,
};

/// The configuration of a node: a file, or variables, one on each line.
pub const CONFIGURATION: Target =
    Target { name: "configuration", run: configuration, seeds: configurations, claim_bytes: 0 };

/// A history of a run, read and judged.
pub const HISTORY: Target =
    Target { name: "history", run: history, seeds: histories, claim_bytes: 0 };

/// Reads a part of a backup.
type Part = fn(&[u8]);

const PARTS: &[Part] = &[
    |manifest| comes_back(manifest, manifest_again),
    |manifest| {
        if let Some(manifest) = sealed(manifest) {
            comes_back(&manifest, manifest_again);
        }
    },
    shard,
];

fn backup(data: &[u8]) {
    if let Some((part, bytes)) = choose(PARTS, data) {
        part(bytes);
    }
}

/// However a stream is cut, it is refused or written as it came.
fn shard(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let whole = shard_again(std::iter::once(stream));
    if let Some(written) = &whole {
        take();
        assert_eq!(written, stream, "what is written is not what came");
    }
    let in_parts = shard_again(stream.chunks(usize::from(*cut) + 1));
    assert_eq!(whole, in_parts, "the backup depends on the cuts");
}

fn backups() -> Vec<Vec<u8>> {
    let manifest = serde_json::json!({
        "format": 1, "backup": "09".repeat(16), "cluster": "trial", "epoch": 1,
        "taken_ms": NOW, "program": "0.1.0",
        "members": [{"id": 1, "peer": "a:1", "public": "a:2"}],
        "shards": [{
            "shard": 0, "file": "shard-00000.backup", "index": 17, "bytes": 1000,
            "sha256": "07".repeat(32), "users": 2, "devices": 3, "one_time_prekeys": 40,
        }],
        "totals": {"users": 2, "devices": 3, "one_time_prekeys": 40},
        "checksum": "00".repeat(32),
    })
    .to_string();
    let right = sealed(manifest.as_bytes()).expect("it is a manifest");
    let frames = backup_chunks().iter().fold(vec![7], |mut stream, chunk| {
        let length = u32::try_from(chunk.len()).expect("the state is small");
        stream.extend(length.to_be_bytes());
        stream.extend(chunk);
        stream
    });
    vec![chosen(0, &right), chosen(1, manifest.as_bytes()), chosen(2, &frames)]
}

fn key() -> Unlock {
    StoreKey::from_bytes(&[7; 32]).into()
}

fn run_export(data: &[u8]) {
    // Nobody can make a box without the key, but for those who hold it.
    if let Ok(export) = Export::from_bytes(data, &key()) {
        take();
        assert_eq!(*export.device.user(), bob(), "a forged export opens");
    }
    comes_back(data, export_secret_again);
}

fn exports() -> Vec<Vec<u8>> {
    let list = device_list();
    let account = DEVICE.account().map(|account| AccountKeyPair::from_seed(&account.to_seed()));
    let identity = DEVICE.identity().to_seed().expect("it was made from one");
    let export = Export {
        device: oncekey_client::machine::Device::from_keys(
            bob(),
            DeviceId(1),
            IdentityKeyPair::from_seed(&identity),
            AuthenticationKeyPair::from_seed(&DEVICE.authentication().to_seed()),
            account,
        ),
        seq: Seq(7),
        highest_signed_prekey: SignedPreKeyId(12),
        highest_one_time_prekey: OneTimePreKeyId(341),
        identities: vec![(DEVICE.address().clone(), *DEVICE.identity().public())],
        device_lists: vec![(bob(), list)],
        trust_events: Vec::new(),
    };
    let secret = export_secret(&export).expect("the device has its seed");
    vec![secret, export.to_bytes(&key()).expect("the device has its seed")]
}

fn trust_changes() -> Vec<Vec<u8>> {
    [
        r#"{"rolled_back":{"user":"bob","pinned":3,"offered":2}}"#,
        r#"{"forked":{"user":"bob","offered":2}}"#,
        r#"{"disappeared":{"user":"bob","pinned":3}}"#,
        r#"{"devices":{"user":"bob","seq":2,"added":[],"renewed":[],"removed":[1],"trusted":true}}"#,
        r#"{"identity":{"user":"Ym9i","device":1,"pinned":"AddamAGCsQq31Uv-08lkBzoO4XLz2qYjJa8CGmj3B1Ea","offered":"AddamAGCsQq31Uv-08lkBzoO4XLz2qYjJa8CGmj3B1Ea"}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

const FILE: u8 = 0;
const VARIABLES: u8 = 1;

/// A configuration is taken or refused, and read the same way twice.
fn configuration(data: &[u8]) {
    let Some((form, text)) = choose(&[FILE, VARIABLES], data) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let read = || match form {
        FILE => {
            let file = Some((Path::new("node.toml"), text));
            Config::from_sources(file, [], &Overrides::default())
        }
        _ => {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            let variables = lines.map(|(name, value)| (name.to_owned(), value.to_owned()));
            Config::from_sources(None, variables, &Overrides::default())
        }
    };
    match (read(), read()) {
        (Ok(one), Ok(other)) => {
            take();
            assert_eq!((one.http, one.admin), (other.http, other.admin));
        }
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        _ => panic!("a configuration is taken once and refused once"),
    }
}

fn configurations() -> Vec<Vec<u8>> {
    let file = "[node]\nid = 1\ndata_dir = \"data\"\n[cluster]\nmembers = [{ id = 1, peer = \
                \"a:1\", public = \"a:2\" }]\n[log]\nformat = \"json\"\n[policy]\n\
                per_caller_capacity = 0\n";
    let variables = "ONCEKEY_NODE_ID=1\nONCEKEY_NODE_DATA_DIR=data\nONCEKEY_CLUSTER_JOIN=[\"a:1\"]\n\
                     ONCEKEY_LISTEN_PUBLIC=[::1]:8080\nONCEKEY_HTTP_BODY_MAX_BYTES=2048\n";
    let example = oncekey_server::config::example();
    vec![chosen(0, file.as_bytes()), chosen(1, variables.as_bytes()), chosen(0, example.as_bytes())]
}

/// A history is read or refused, and one that is read can be judged.
fn history(data: &[u8]) {
    if let Ok(history) = History::from_bytes(data) {
        take();
        let _ = check::check(&history).to_string();
    }
}

fn histories() -> Vec<Vec<u8>> {
    vec![include_bytes!("../history.jsonl").to_vec()]
}
