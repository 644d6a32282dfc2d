//! The dashboard and the alerts, in a real Prometheus that watches a real cluster.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hyper::Method;
use oncekey_cluster::{
    Cluster,
    http::Http,
    ports::Port,
    wait::{self, Seen},
    workload::{Load, Workload},
};
use oncekey_tests::Bob;
use oncekey_types::NodeId;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LIMIT, cluster, file, installed, metrics};

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const DASHBOARD: &str = "deploy/grafana/oncekey.json";
const RUNBOOK: &str = "docs/runbook.md";
/// Only a node with certificates has it; the tests of TLS look at it.
const OF_CERTIFICATES: &str = "oncekey_certificate_expiry_timestamp_seconds";

#[test]
fn the_alerts_pass_their_tests() {
    let Some(promtool) = installed("promtool", "the tests of the alerts") else { return };
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let ended = Command::new(&promtool)
            .args(arguments)
            .current_dir(file("deploy/prometheus"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        let complained = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "promtool {arguments:?}:\n{said}{complained}");
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_a_test() {
    let alerts = fs::read_to_string(file(ALERTS)).unwrap();
    let runbook = fs::read_to_string(file(RUNBOOK)).unwrap();
    let tests = fs::read_to_string(file("deploy/prometheus/alerts_test.yml")).unwrap();
    let anchors: BTreeSet<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let values = |key: &str| -> Vec<String> {
        let lines = alerts.lines().filter_map(|line| line.trim().strip_prefix(key));
        lines.map(|value| value.trim().to_owned()).collect()
    };
    let (names, urls) = (values("- alert:"), values("runbook_url:"));
    assert!(names.len() > 10 && names.len() == urls.len(), "{names:?} {urls:?}");
    for (name, url) in names.iter().zip(&urls) {
        let (page, anchor) = url.rsplit_once('#').unwrap();
        assert!(page.ends_with(RUNBOOK), "{name}: {url}");
        assert!(anchors.contains(anchor), "{name}: the runbook has no {anchor}: {anchors:?}");
        assert!(runbook.contains(name), "{name} is not named in the runbook");
        let calm = format!("alertname: {name} }}");
        assert!(tests.contains(&calm), "{name} is never tested not to fire");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is never tested to fire");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_every_alert_reads_metrics_that_there_are() -> Result<()> {
    // Short logs, so that states are checkpointed while somebody looks.
    let mut cluster = cluster().set("raft.log_entries_max", 100).start().await?;
    let bob = Bob::publish(&cluster, "bob", 2, 900).await?;
    let mut load = Load::new("load", 4, 1_000_000);
    load.pause = Duration::from_millis(20);
    let load = Workload::start(&bob.fetcher(&cluster.endpoints())?, &load);
    load.decide(100, LIMIT).await?;

    let panels = panels()?;
    let mut names = BTreeSet::new();
    for (_, query) in &panels {
        names.extend(metrics_in(query));
    }
    names.extend(metrics_in(&fs::read_to_string(file(ALERTS))?));
    let mut served = String::new();
    for node in cluster.nodes() {
        served.push_str(&metrics(&cluster, node).await?);
    }
    for name in names.iter().filter(|name| *name != OF_CERTIFICATES) {
        let is_there = |line: &str| {
            line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        ensure!(served.lines().any(is_there), "no node exposes {name}");
    }

    if let Some(prometheus) = Prometheus::start(&cluster).await? {
        for (title, query) in &panels {
            prometheus.has_data(title, query).await?;
        }
        prometheus.evaluates_all_alerts().await?;
        cluster.kill(NodeId(3))?;
        prometheus.notices("OncekeyNodeDown").await?;
        cluster.restart(NodeId(3)).await?;
    }
    load.stop();
    load.finish().await?;
    cluster.finish().await
}

/// Title and query of every panel and annotation of the dashboard.
fn panels() -> Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file(DASHBOARD))?)?;
    let mut queries = Vec::new();
    let panels = dashboard["panels"].as_array().context("a dashboard has panels")?;
    for panel in panels {
        let title = panel["title"].as_str().context("a panel has a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().context("a target has a query")?;
            queries.push((title.to_owned(), query.to_owned()));
        }
        let explained = panel["type"] == "row" || panel["description"].is_string();
        ensure!(explained, "{title} is not explained");
    }
    ensure!(queries.len() > 20, "the dashboard is nearly empty");
    Ok(queries)
}

/// The metrics that a query names.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '/');
    let words = query.split(word).filter(|word| !word.contains('/'));
    let ours = words.filter(|word| word.starts_with("oncekey_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// A Prometheus with the rules of `deploy` that scrapes a cluster every second.
struct Prometheus {
    url: String,
    http: Http,
    _process: tokio::process::Child,
    _port: Port,
    _dir: TempDir,
}

impl Prometheus {
    async fn start(cluster: &Cluster) -> Result<Option<Self>> {
        let what = "the dashboard's queries in a real Prometheus";
        let Some(program) = installed("prometheus", what) else { return Ok(None) };
        let dir = tempfile::tempdir()?;
        let targets: Vec<_> = cluster
            .nodes()
            .into_iter()
            .map(|node| cluster.admin(node).trim_start_matches("http://").to_owned())
            .collect();
        // JSON is YAML.
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [fs::canonicalize(file(ALERTS))?],
            "scrape_configs": [
                {"job_name": "oncekey", "static_configs": [{"targets": targets}]},
            ],
        });
        let config_file = dir.path().join("prometheus.yml");
        fs::write(&config_file, config.to_string())?;
        let port = Port::any()?;
        let process = tokio::process::Command::new(program)
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let url = format!("http://{}", port.address());
        Ok(Some(Self { url, http: Http::default(), _process: process, _port: port, _dir: dir }))
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let reply = self.http.bare(Method::GET, &format!("{}{path}", self.url)).await?;
        let reply: Value = serde_json::from_str(&reply.text())?;
        ensure!(reply["status"] == "success", "{path}: {reply}");
        Ok(reply["data"].clone())
    }

    /// Waits until `query` has a value that is a number.
    async fn has_data(&self, title: &str, query: &str) -> Result<()> {
        let query = query.replace("$job", "oncekey").replace("$__rate_interval", "10s");
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        wait::until(LIMIT, &format!("data for {title:?}: {query}"), async || {
            let data = match self.get(&format!("/api/v1/query?query={encoded}")).await {
                Ok(data) => data,
                // It may still start; a query that is wrong stays wrong and is told at the end.
                Err(error) => return Ok(Seen::not_yet(format!("{error:#}"))),
            };
            let values = data["result"].as_array().cloned().unwrap_or_default();
            let number =
                |value: &Value| value["value"][1].as_str().is_some_and(|text| text != "NaN");
            Ok(Seen::when(values.iter().any(number), || data.to_string()))
        })
        .await
    }

    async fn evaluates_all_alerts(&self) -> Result<()> {
        wait::until(LIMIT, "every alert to be evaluated", async || {
            let rules = self.rules().await?;
            let healthy = rules.iter().filter(|rule| rule["health"] == "ok").count();
            let firing: Vec<_> = rules
                .iter()
                .filter(|rule| rule["state"] == "firing")
                .map(|rule| &rule["name"])
                .collect();
            ensure!(firing.is_empty(), "all is well, yet {firing:?} fire");
            Ok(Seen::when(rules.len() > 10 && healthy == rules.len(), || format!("{rules:#?}")))
        })
        .await
    }

    async fn notices(&self, alert: &str) -> Result<()> {
        wait::until(LIMIT, &format!("{alert} to be pending"), async || {
            let rules = self.rules().await?;
            let rule = rules.iter().find(|rule| rule["name"] == alert).context("no such alert")?;
            let state = rule["state"].as_str().unwrap_or_default();
            Ok(Seen::when(state == "pending" || state == "firing", || state.to_owned()))
        })
        .await
    }

    async fn rules(&self) -> Result<Vec<Value>> {
        let groups = self.get("/api/v1/rules").await?;
        let groups = groups["groups"].as_array().cloned().unwrap_or_default();
        Ok(groups.iter().filter_map(|group| group["rules"].as_array().cloned()).flatten().collect())
    }
}
