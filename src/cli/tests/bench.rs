//! `oncekey bench` as an operator runs it, with everything on and small.

#![expect(clippy::expect_used, reason = "a test may fail where it finds out")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// A short benchmark of nodes of its own, which reports to the file `json`.
fn bench(json: &Path) -> Command {
    let program = env!("CARGO_BIN_EXE_oncekey");
    let mut bench = Command::new(program);
    bench.args(["bench", "--local", "--runs", "1", "--warm-up-ms", "200", "--duration-ms", "1000"]);
    bench.arg("--json").arg(json).env("ONCEKEY_BIN", program).env_remove("RUST_LOG");
    bench
}

/// The report of `bench` in the file `json`, and what it said.
fn measured(mut bench: Command, json: &Path) -> (Value, String) {
    let output = bench.stdin(Stdio::null()).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}\n{said}");
    let report = fs::read(json).expect("the report");
    (serde_json::from_slice(&report).expect("JSON"), said)
}

/// The number at `pointer`, which must be there.
fn number(report: &Value, pointer: &str) -> f64 {
    let found = report.pointer(pointer).and_then(Value::as_f64);
    found.ok_or_else(|| format!("no number at {pointer} in {report:#}")).expect("a figure")
}

#[test]
fn a_local_cluster_is_measured_loses_its_leader_restarts_and_issues_no_key_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let (json, svg) = (dir.path().join("bench.json"), dir.path().join("bench.svg"));
    let mut bench = bench(&json);
    bench.args(["--shards", "2", "--clients", "1,8", "--stored", "1000,3000"]);
    bench.args(["--noop", "--kill-leader", "--idle-s", "1", "--restart"]).arg("--svg").arg(&svg);
    let (report, said) = measured(bench, &json);
    assert!(said.contains("double issues"), "{said}");
    assert_eq!(report["version"], 1);
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(4), "{report:#}");
    for step in ["/steps/0", "/steps/3"] {
        for figure in ["median/per_second", "median/p999_us", "noop_median/per_second", "over_noop"]
        {
            let value = number(&report, &format!("{step}/{figure}"));
            assert!(value > 0.0, "{step}/{figure} is {value}");
        }
    }
    assert!(number(&report, "/loads/1/stored_opks") >= 3000.0);
    assert!(number(&report, "/loads/1/sizes/2/state_bytes_per_opk") > 0.0);
    assert_eq!(report["restarts"].as_array().map(Vec::len), Some(6), "{report:#}");
    assert!(number(&report, "/restarts/5/ready_s") > 0.0);
    assert!(number(&report, "/steps/1/median/entries_per_second") > 0.0);
    assert!(number(&report, "/steps/1/median/syncs_per_second") > 0.0);
    assert!(said.contains("restart until ready"), "{said}");
    assert!(number(&report, "/failover/rounds/0/cluster_gap_ms") > 0.0);
    assert!(number(&report, "/stock/delivered") > 0.0);
    for zero in ["/counts/double_issues", "/stock/undelivered", "/stock/still_held"] {
        assert!(number(&report, zero).abs() < f64::EPSILON, "{zero} in {report:#}");
    }
    if cfg!(target_os = "linux") {
        assert!(number(&report, "/steps/0/p50_over_sync") > 0.0);
        assert!(number(&report, "/steps/1/runs/0/pops/written_bytes_per_answer") > 0.0);
        assert!(number(&report, "/loads/0/sizes/2/resident_bytes") > 0.0);
        assert!(number(&report, "/loads/0/sizes/2/resident_peak_bytes") > 0.0);
        assert_eq!(report.pointer("/idle/nodes/2/node"), Some(&3.into()), "{report:#}");
    }
    assert!(fs::read_to_string(svg).expect("the picture").contains("leader killed"));
}

#[test]
fn a_bench_without_a_cluster_is_an_error_of_usage() {
    for arguments in [
        &["bench"][..],
        &["bench", "--endpoints", "http://127.0.0.1:1", "--kill-leader"],
        &["bench", "--endpoints", "http://127.0.0.1:1", "--local"],
        &["bench", "--endpoints", "http://127.0.0.1:1", "--restart"],
        &["bench", "--endpoints", "http://127.0.0.1:1", "--idle-s", "1"],
        &["bench", "--local", "--clients", "0"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_oncekey"))
            .args(arguments)
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn nodes_that_want_tokens_over_tls_are_measured_with_tokens() {
    let dir = tempfile::tempdir().expect("a folder");
    let json = dir.path().join("bench.json");
    let mut bench = bench(&json);
    bench.args(["--tls", "--tokens", "--clients", "8", "--stored", "1000"]);
    let (report, _) = measured(bench, &json);
    assert_eq!(report["settings"]["tokens"], true, "{report:#}");
    assert!(number(&report, "/stock/delivered") > 0.0);
    for zero in ["/counts/without_key", "/counts/refused", "/stock/undelivered"] {
        assert!(number(&report, zero).abs() < f64::EPSILON, "{zero} in {report:#}");
    }
}
