//! `oncekey-cluster check` as it is used: its exit codes and its reports.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// A key for each of two requests, a read of the rest, the end.
const GOOD: &str = r#"{"begin":{"format":"oncekey-history","version":1,"source":"a test"}}
{"invoke":{"op":0,"at_ns":10,"client":"bob-1","call":{"register":{"user":"bob","device":1,"seq":1,"identity":"AQEBAQEBAQEBAQEBAQEBAQ","spk":[1,"AgICAgICAgICAgICAgICAg"],"opks":[[1,"AwMDAwMDAwMDAwMDAwMDAw"],[2,"BAQEBAQEBAQEBAQEBAQEBA"],[3,"BQUFBQUFBQUFBQUFBQUFBQ"]]}}}}
{"return":{"op":0,"at_ns":20,"attempts":1,"outcome":{"written":{"at":{"shard":0,"index":4},"registration":1,"pool":{"count":3,"spk":1,"highest":3}}}}}
{"invoke":{"op":1,"at_ns":30,"client":"alice","call":{"fetch":{"user":"bob","request":"a"}}}}
{"event":{"at_ns":32,"kind":"kill","node":2}}
{"return":{"op":1,"at_ns":40,"attempts":2,"outcome":{"fetched":{"at":{"shard":0,"index":5},"bundles":[{"device":1,"registration":1,"identity":"AQEBAQEBAQEBAQEBAQEBAQ","spk":[1,"AgICAgICAgICAgICAgICAg"],"opk":{"issued":[1,"AwMDAwMDAwMDAwMDAwMDAw"]}}]}}}}
{"invoke":{"op":2,"at_ns":50,"client":"carol","call":{"fetch":{"user":"bob","request":"a"}}}}
{"return":{"op":2,"at_ns":60,"attempts":1,"outcome":{"fetched":{"at":{"shard":0,"index":6},"bundles":[{"device":1,"registration":1,"identity":"AQEBAQEBAQEBAQEBAQEBAQ","spk":[1,"AgICAgICAgICAgICAgICAg"],"opk":{"issued":[2,"BAQEBAQEBAQEBAQEBAQEBA"]}}]}}}}
{"invoke":{"op":3,"at_ns":70,"client":"bob-1","call":{"status":{"user":"bob","device":1}}}}
{"return":{"op":3,"at_ns":80,"attempts":1,"outcome":{"status":{"at":{"shard":0,"index":6},"registration":1,"pool":{"count":1,"spk":1,"highest":3},"ids":[[3,3]]}}}}
{"mark":{"at_ns":90,"phase":"end"}}
"#;

fn written(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("history.jsonl");
    fs::write(&path, text).unwrap();
    path
}

fn check(history: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_oncekey-cluster");
    Command::new(program).arg("check").arg(history).args(arguments).output().unwrap()
}

fn judged(text: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let dir = TempDir::new().unwrap();
    let output = check(&written(&dir, text), arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_good_history_is_exit_code_0() {
    let (code, out, _) = judged(GOOD, &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(" 1 unique       holds, 2 judged"), "{out}");
    assert!(out.contains("nodes killed with fetches on their way: 1"), "{out}");
}

#[test]
fn a_double_issue_is_exit_code_1_and_the_report_names_the_operations() {
    let doubled =
        GOOD.replace(r#"[2,"BAQEBAQEBAQEBAQEBAQEBA"]}}"#, r#"[1,"AwMDAwMDAwMDAwMDAwMDAw"]}}"#);
    let (code, out, _) = judged(&doubled, &[]);
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("fetch a of alice (operation 1), fetch a of carol (operation 2)"),
        "{out}"
    );
    let (code, out, _) = judged(&doubled, &["--json"]);
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["findings"][0]["invariant"], "unique");
    assert_eq!(report["findings"][0]["violations"][0]["operations"], serde_json::json!([1, 2]));
}

#[test]
fn a_torn_last_line_is_left_out_and_reported() {
    let (code, out, _) = judged(GOOD.trim_end_matches("}\n"), &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("the last line is torn"), "{out}");
    assert!(out.contains("the history does not come to its end"), "{out}");
}

#[test]
fn what_cannot_be_judged_is_exit_code_2() {
    for (text, arguments, why) in [
        ("nonsense\n", &[][..], "line 1"),
        ("", &[], "empty"),
        (GOOD, &["--min-fetches", "3"], "2 fetches were answered"),
        (GOOD, &["--require", "unique,replicas"], "replicas was required"),
        (GOOD, &["--require", "everything"], "known are all, unique"),
    ] {
        let (code, out, error) = judged(text, arguments);
        assert_eq!(code, Some(2), "{out}{error}");
        assert!(error.contains(why), "{error} is not about {why}");
    }
    let (code, ..) = judged(GOOD, &["--require", "unique,conservation,witness,search"]);
    assert_eq!(code, Some(0));
    let output = check(Path::new("/no/such/history"), &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_help_teaches_the_format_the_invariants_and_the_exit_codes() {
    let output = check(Path::new("--help"), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["docs/history.md", "conservation", "Exit code:", "--require"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn the_history_in_the_documentation_is_one() {
    let text = include_str!("../../docs/history.md");
    let (_, rest) = text.split_once("```json\n").unwrap();
    let (history, _) = rest.split_once("```").unwrap();
    let (code, out, error) = judged(history, &[]);
    assert_eq!(code, Some(0), "{out}{error}");
    for invariant in ["unique", "provenance", "register", "witness", "search"] {
        assert!(out.contains(&format!(" {invariant:<12} holds")), "{out}");
    }
}
