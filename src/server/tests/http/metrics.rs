//! What a node exposes, held against the page that explains it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::json;

use crate::support::{Device, Fixture, Request};

/// Kind and labels of each metric.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// From the rows of `docs/metrics.md`.
fn explained() -> Metrics {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let metrics = rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning, _] = cells[..] else { panic!("not five cells: {row}") };
        assert!(!meaning.is_empty(), "{row}");
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (name.trim_matches('`').to_owned(), (kind.to_owned(), labels))
    });
    metrics.collect()
}

/// From what a node serves.
fn exposed(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (family, kind) = kind.split_once(' ').unwrap();
            let total = if kind == "counter" { "_total" } else { "" };
            name = format!("{family}{total}");
            metrics.insert(name.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, rest)) = line.split_once('{') {
            let labels = rest.split_once('}').unwrap().0;
            let labels = labels.split(',').map(|label| label.split_once('=').unwrap().0);
            let labels = labels.filter(|label| *label != "le").map(str::to_owned);
            metrics.get_mut(&name).unwrap().1.extend(labels);
        }
    }
    metrics
}

#[tokio::test]
async fn every_metric_is_explained_with_its_kind_and_labels_and_no_other() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 2).await;
    for key in ["a", "a", "b", "c"] {
        node.send(Request::fetch(bob.bundles_path(), key, &json!({}))).await;
    }
    let text = node.ask_admin(Request::get("/metrics")).await.body;
    let (mut explained, exposed) = (explained(), exposed(&text));
    // A node alone has no replicas to be behind.
    if let Some((_, labels)) = explained.get_mut("oncekey_shard_replica_lag_entries") {
        assert_eq!(labels.len(), 2);
        labels.clear();
    }
    // Nor has it certificates.
    for (name, (_, labels)) in &mut explained {
        if name.starts_with("oncekey_certificate_") {
            labels.clear();
        }
    }
    assert_eq!(explained, exposed, "docs/metrics.md (left) and the node (right) differ");
}

#[tokio::test]
async fn what_fetches_met_is_in_the_histograms() {
    let node = Fixture::start().await;
    let mut bob = Device::new("bob", 1);
    node.register(&mut bob, 2).await;
    for key in ["a", "b", "c"] {
        node.send(Request::fetch(bob.bundles_path(), key, &json!({}))).await;
    }
    let text = node.ask_admin(Request::get("/metrics")).await.body;
    for line in [
        // One left, none left, none at all.
        "oncekey_pool_size_bucket{le=\"0.0\"} 2",
        "oncekey_pool_size_bucket{le=\"1.0\"} 3",
        "oncekey_pool_size_bucket{le=\"+Inf\"} 3",
        "oncekey_pool_size_sum 1.0",
        "oncekey_signed_prekey_age_seconds_bucket{le=\"86400.0\"} 3",
        "oncekey_signed_prekeys_expired_total 0",
        // A registration and three fetches, one after the other.
        "oncekey_entry_commands_bucket{le=\"1.0\"} 4",
        "oncekey_entry_commands_sum 4.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for histogram in ["oncekey_wal_write_duration_seconds", "oncekey_wal_sync_duration_seconds"] {
        let none = format!("{histogram}_count 0");
        assert!(!text.lines().any(|found| found == none), "{none}");
    }
}
