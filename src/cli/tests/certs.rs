//! `oncekey certs`: what it writes, and that it never writes twice.

#![expect(clippy::expect_used, reason = "a test may fail where it finds out")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

fn certs(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oncekey"))
        .arg("certs")
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn keys_are_for_their_owner_and_the_configuration_is_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("certs");
    let node = ["node", "--cluster", "Prod", "--id", "3"];
    let server = ["server", "--name", "a.example", "--name", "10.0.0.1", "--as", "public"];
    for (arguments, says) in [
        (&["ca"][..], "peer_ca = "),
        (&node, "node-3.prod.oncekey until 20"),
        (&server, "a.example, 10.0.0.1 until 20"),
    ] {
        let output = certs(&dir, arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = stdout(&output);
        assert!(text.contains(says) && text.contains("[tls]"), "{text}");
    }
    let mode = |file: &str| {
        let file = dir.join(file);
        fs::metadata(&file).expect("a file was written").permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    for name in ["ca", "node-3", "public"] {
        assert_eq!(mode(&format!("{name}-key.pem")), 0o600);
        assert!(mode(&format!("{name}.pem")) & 0o444 != 0);
    }
}

#[test]
fn nothing_is_ever_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let node = ["node", "--id", "1"];
    assert!(stderr(&certs(dir, &node)).contains("`oncekey certs ca` makes an authority"));
    assert!(certs(dir, &["ca"]).status.success());
    assert!(certs(dir, &node).status.success());
    let key = fs::read(dir.join("node-1-key.pem")).expect("a key was written");
    for arguments in [&["ca"][..], &node] {
        let output = certs(dir, arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("exists; it is not replaced"), "{}", stderr(&output));
    }
    // A certificate that is left without its key is not given another one.
    fs::remove_file(dir.join("node-1.pem")).expect("the folder is ours");
    assert!(!certs(dir, &node).status.success());
    assert_eq!(fs::read(dir.join("node-1-key.pem")).expect("the key stays"), key);
}

#[test]
fn the_help_shows_a_whole_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let help = stdout(&certs(folder.path(), &["--help"]));
    for word in ["oncekey certs ca", "--cluster prod", "both.pem", "ca-key.pem"] {
        assert!(help.contains(word), "no {word:?} in\n{help}");
    }
}
