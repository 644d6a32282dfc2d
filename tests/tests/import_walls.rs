//! Who may import whom: the crates of the workspace depend on each other as this table says.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate, and what it may import of ours.
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("x3dh", &["types"]),
    ("planted", &[]),
    ("store", &["types", "planted"]),
    ("api", &["types"]),
    ("storage", &["types", "planted"]),
    ("raft", &["types", "store", "storage", "planted"]),
    ("server", &["types", "x3dh", "store", "api", "raft", "planted"]),
    // What a backup keeps is the state machine's to say, see its snapshots; how nodes are reached is
    // the client's.
    ("backup", &["types", "store", "api", "client"]),
    ("client", &["types", "x3dh", "api"]),
    // x3dh for `oncekey conformance` alone.
    ("cli", &["types", "api", "server", "client", "cluster", "backup", "x3dh"]),
    ("cluster", &["types", "api", "client", "planted"]),
    // Both sides of the network, in one process.
    ("simulator", &["types", "x3dh", "api", "storage", "raft", "server", "client", "cluster"]),
    ("tests", &["types", "api", "client", "cluster"]),
];

/// Libraries that stay behind one crate, so that they can be exchanged.
const FENCED: &[(&str, &[&str])] = &[
    ("openraft", &["raft"]),
    ("fjall", &["storage"]),
    ("sled", &["storage"]),
    // cli for the no-op that `oncekey bench` compares with.
    ("axum", &["server", "cli"]),
    ("rusqlite", &["client"]),
    ("vodozemac", &["client"]),
    ("object_store", &["backup"]),
];

/// What an application that uses the client library must not have to build, and neither must
/// whoever uses the handshake alone.
const SERVER_ONLY: &[&str] = &[
    "openraft",
    "fjall",
    "sled",
    "axum",
    "prometheus-client",
    "bincode",
    "clap",
    "utoipa",
    "vodozemac",
    "qrcode",
    "oncekey-store",
    "oncekey-storage",
    "oncekey-raft",
    "oncekey-server",
];

/// Crates that the client library may have below it, the build scripts' included.
const CLIENT_CRATES_MAX: usize = 105;

#[test]
fn the_libraries_stay_light() -> Result<()> {
    for (package, most) in [("oncekey-client", CLIENT_CRATES_MAX), ("oncekey-x3dh", 45)] {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--quiet", "-p", package])
            .args(["-e", "normal,build", "--prefix", "none", "--no-dedupe", "--format", "{p}"])
            .output()?;
        let text = String::from_utf8_lossy(&tree.stdout);
        ensure!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let names = text.lines().filter_map(|line| line.split_once(' '));
        let crates: BTreeSet<_> = names.collect();
        let names: BTreeSet<_> = crates.iter().map(|(name, _)| *name).collect();
        ensure!(names.contains(package), "no tree of {package} in\n{text}");
        for heavy in SERVER_ONLY {
            ensure!(!names.contains(heavy), "{package} builds {heavy}");
        }
        ensure!(crates.len() <= most, "{package} builds {} crates: {names:?}", crates.len());
    }
    Ok(())
}

#[test]
fn no_crate_imports_more_than_it_may() -> Result<()> {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ALLOWED.iter().map(|(name, imports)| (*name, imports.iter().copied().collect())).collect();
    let metadata = MetadataCommand::new().no_deps().exec()?;
    let mut seen = BTreeSet::new();
    for package in metadata.workspace_packages() {
        let name = package.name.strip_prefix("oncekey-").unwrap_or(&package.name);
        let Some(allowed) = allowed.get(name) else {
            anyhow::bail!("{name} is not in the table");
        };
        seen.insert(name.to_owned());
        for dependency in &package.dependencies {
            // Tests may use what they like, as long as it ships with nothing.
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            if let Some(import) = dependency.name.strip_prefix("oncekey-") {
                ensure!(allowed.contains(import), "{name} may not import {import}");
            }
            for (library, crates) in FENCED {
                ensure!(
                    dependency.name != *library || crates.contains(&name),
                    "{library} belongs to {crates:?}, {name} may not import it"
                );
            }
        }
    }
    let known: BTreeSet<_> = allowed.keys().map(|name| (*name).to_owned()).collect();
    ensure!(seen == known, "the table has {known:?}, the workspace has {seen:?}");
    Ok(())
}
