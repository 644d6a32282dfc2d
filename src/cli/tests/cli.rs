//! The command line: what it says and how it ends.

#![expect(clippy::expect_used, reason = "a test may fail where it finds out")]

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

fn oncekey(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oncekey"))
        .args(arguments)
        .env_remove("RUST_LOG")
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

/// A folder with the configuration `text`, which may name the folder as `{dir}`.
fn configuration(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("node.toml");
    let text = text.replace("{dir}", &dir.path().display().to_string());
    fs::write(&file, text).expect("the folder is ours");
    (dir, file)
}

#[test]
fn help_teaches_every_command_and_every_exit_code() {
    let output = oncekey(&["--help"]);
    assert!(output.status.success());
    let help = stdout(&output);
    for word in
        ["serve", "dev", "demo", "config", "completions", "Exit codes", "handed out at most once"]
    {
        assert!(help.contains(word), "no {word:?} in\n{help}");
    }
    for command in
        ["serve", "dev", "demo", "device", "token", "bench", "backup", "restore", "completions"]
    {
        let output = oncekey(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(!stdout(&output).contains("--parent"), "{command} shows what is not for people");
    }
}

#[test]
fn a_device_is_taught_with_two_terminals_and_its_exit_code() {
    let help = stdout(&oncekey(&["device", "--help"]));
    for word in ["ONCEKEY_PASSPHRASE", "oncekey dev`", "inbox", "safety-number", "  4  "] {
        assert!(help.contains(word), "no {word:?} in\n{help}");
    }
    assert!(!help.contains("--passphrase <"), "a passphrase is no argument\n{help}");
}

#[test]
fn a_pool_is_planned_without_a_device_and_for_scripts() {
    let plan = ["device", "plan", "--taken", "70", "--over-days", "7"];
    let text = stdout(&oncekey(&plan));
    assert!(text.contains("= 140 + 48 + 4 = 192"), "{text}");
    let json = stdout(&oncekey(&[&plan[..], &["--json"]].concat()));
    assert!(json.contains("\"watermark\":192"), "{json}");
    assert_eq!(oncekey(&["device", "plan", "--taken", "70"]).status.code(), Some(2));
}

#[test]
fn a_passphrase_that_is_not_to_be_had_is_an_error_of_usage() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path().join("home").display().to_string();
    let new = ["device", "--home", &home, "new", "--user", "alice"];
    // In a session of its own there is no terminal to ask on.
    let mut command = Command::new("setsid");
    let command = command.args(["--wait", env!("CARGO_BIN_EXE_oncekey")]).args(new);
    let Ok(output) = command.env_remove("ONCEKEY_PASSPHRASE").stdin(Stdio::null()).output() else {
        return;
    };
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("ONCEKEY_PASSPHRASE is not set"), "{}", stderr(&output));
}

#[test]
fn the_version_is_that_of_the_package() {
    let output = oncekey(&["--version"]);
    assert_eq!(stdout(&output).trim(), concat!("oncekey ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_command_and_an_unknown_one_are_errors_of_usage() {
    assert_eq!(oncekey(&[]).status.code(), Some(2));
    assert_eq!(oncekey(&["fly"]).status.code(), Some(2));
}

#[test]
fn the_printed_configuration_names_every_section() {
    let output = oncekey(&["config"]);
    assert!(output.status.success());
    for section in ["[node]", "[listen]", "[cluster]", "[storage]", "[raft]", "[http]", "[log]"] {
        assert!(stdout(&output).contains(section), "no {section}");
    }
}

#[test]
fn a_shell_can_be_taught_the_command_line() {
    let output = oncekey(&["completions", "bash"]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("oncekey"));
}

#[test]
fn a_bad_configuration_is_told_in_one_line_with_its_key_and_file() {
    let (_dir, file) = configuration("[node]\nid = 1\ndata_dir = \"{dir}/data\"\ncolour = 3\n");
    let file = file.to_str().expect("UTF-8");
    let output = oncekey(&["serve", "--config", file]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output).trim_end(),
        format!("error: node.colour is not a key of the configuration ({file})")
    );
}

#[test]
fn a_missing_configuration_is_told_by_its_path() {
    let output = oncekey(&["serve", "--config", "/nowhere/node.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/nowhere/node.toml"), "{}", stderr(&output));
}

#[test]
fn nothing_is_open_by_default() {
    let node = "[node]\nid = 1\ndata_dir = \"{dir}/data\"\n\
        [cluster]\nmembers = [{ id = 1, peer = \"127.0.0.1:1\", public = \"127.0.0.1:2\" }]\n";
    let refused = |text: &str| {
        let (dir, file) = configuration(text);
        let output = oncekey(&["serve", "--config", file.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(!dir.path().join("data").exists(), "the data folder was made");
        stderr(&output)
    };
    let error = refused(node);
    for key in ["auth.issuer", "auth.audience", "auth.jwks_file", "auth.jwks_url", "auth.mode"] {
        assert!(error.contains(key), "no {key} in {error}");
    }
    if cfg!(feature = "failpoints") {
        return;
    }
    for listener in ["public", "admin"] {
        let text = format!("{node}[auth]\nmode = \"open\"\n[listen]\n{listener} = \"0.0.0.0:1\"\n");
        let error = refused(&text);
        let wanted =
            format!("auth.mode is open, which is for this machine alone, and listen.{listener}");
        assert!(error.contains(&wanted), "{error}");
    }
}

#[test]
fn a_token_is_minted_with_a_key_that_is_made_once() {
    let (dir, _file) = configuration("");
    let issuer = dir.path().join("issuer").display().to_string();
    let made = oncekey(&["token", "key", "--dir", &issuer]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert!(stdout(&made).contains("jwks_file = "), "{}", stdout(&made));
    assert_eq!(oncekey(&["token", "key", "--dir", &issuer]).status.code(), Some(1), "once");
    let key = format!("{issuer}/issuer.jwk");
    let token = oncekey(&["token", "mint", "--key", &key, "--user", "alice"]);
    assert_eq!(stdout(&token).trim().split('.').count(), 3, "{}", stderr(&token));
}

#[test]
fn an_address_in_use_is_told_and_nothing_is_written() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (dir, file) = configuration(
        "[node]\nid = 1\ndata_dir = \"{dir}/data\"\n[auth]\nmode = \"open\"\n\
         [cluster]\nmembers = [{ id = 1, peer = \"127.0.0.1:1\", public = \"127.0.0.1:2\" }]\n",
    );
    let set = format!("listen.public={address}");
    let output = oncekey(&["serve", "--config", file.to_str().expect("UTF-8"), "--set", &set]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
    assert!(!dir.path().join("data").exists(), "the data folder was made");
}

#[test]
fn a_node_whose_parent_is_gone_does_not_start() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let output = oncekey(&["serve", "--parent", "1", "--config", "/nowhere/node.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the parent 1 is gone"), "{}", stderr(&output));
}

#[test]
fn a_folder_of_somebody_else_is_not_used_for_a_cluster() {
    let (dir, _file) = configuration("");
    let output = oncekey(&["dev", "--dir", dir.path().to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is not empty and has no cluster"), "{}", stderr(&output));
}
