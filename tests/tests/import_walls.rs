//! Who may import whom: the crates of the workspace depend on each other as this table says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate, and what it may import of ours.
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("x3dh", &["types"]),
    ("store", &["types"]),
    ("api", &["types"]),
    ("storage", &["types"]),
    ("raft", &["types", "store", "storage"]),
    ("server", &["types", "x3dh", "store", "api", "raft"]),
    ("client", &["types", "x3dh", "api"]),
    // x3dh for `oncekey conformance` alone.
    ("cli", &["types", "api", "server", "client", "cluster", "x3dh"]),
    ("cluster", &["types", "api", "client"]),
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
];

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
