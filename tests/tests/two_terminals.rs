//! Two people at two terminals, through a real cluster: `oncekey device` as they would type it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use oncekey_cluster::{Cluster, binary, issuer::Claims};
use oncekey_tests::{LIMIT, small};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// A terminal: a home, and a passphrase in its environment.
struct Terminal {
    home: PathBuf,
    endpoints: String,
    passphrase: Option<&'static str>,
    token: Option<String>,
}

/// What a command said and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Terminal {
    fn new(cluster: &Cluster, home: PathBuf) -> Self {
        let endpoints = cluster.endpoints().join(",");
        Self { home, endpoints, passphrase: Some("correct horse"), token: None }
    }

    /// `oncekey device …`, with nothing on its standard input.
    async fn run(&self, arguments: &[&str]) -> Result<Said> {
        self.fed(arguments, "").await
    }

    /// The same with `input` on its standard input.
    async fn fed(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut command = Command::new(binary::find()?);
        command
            .arg("device")
            .args(arguments)
            .env_clear()
            .env("ONCEKEY_HOME", &self.home)
            .env("ONCEKEY_ENDPOINTS", &self.endpoints)
            .env("ONCEKEY_EXPORT_PASSPHRASE", "battery staple")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(passphrase) = self.passphrase {
            command.env("ONCEKEY_PASSPHRASE", passphrase);
        }
        if let Some(token) = &self.token {
            command.env("ONCEKEY_TOKEN", token);
        }
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output =
            timeout(LIMIT, child.wait_with_output()).await.context("it does not end")??;
        Ok(Said::from(output))
    }

    /// Runs a command that must go well, and gives what it printed.
    async fn good(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments).await?.ending(0).map(|said| said.out)
    }

    async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.good(&[&["--json"], arguments].concat()).await?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// A new device that has published.
    async fn published(cluster: &Cluster, home: PathBuf, user: &str) -> Result<Self> {
        let mut terminal = Self::new(cluster, home);
        terminal.token = cluster.issuer().map(|issuer| issuer.token(&Claims::new(user)));
        terminal.good(&["new", "--user", user]).await?;
        terminal.good(&["publish", "--keys", "20"]).await?;
        Ok(terminal)
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Said {
    fn ending(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "{:?}\n{}\n{}", self.code, self.out, self.err);
        Ok(self)
    }

    fn saying(self, text: &str) -> Result<Self> {
        let said = self.out.contains(text) || self.err.contains(text);
        ensure!(said, "no {text:?} in\n{}\n{}", self.out, self.err);
        Ok(self)
    }
}

#[tokio::test]
async fn two_people_write_to_each_other_and_compare_their_number() -> Result<()> {
    let cluster = small().authenticated().start().await?;
    let homes = tempfile::tempdir()?;
    let alice = Terminal::published(&cluster, homes.path().join("alice"), "alice").await?;
    let bob = Terminal::published(&cluster, homes.path().join("bob"), "bob").await?;

    let to_bob = alice.good(&["send", "bob", "hello"]).await?;
    bob.fed(&["inbox"], &to_bob).await?.ending(0)?.saying("from alice, device 1: hello")?;
    bob.fed(&["inbox"], &to_bob).await?.ending(0)?.saying("opened before")?;
    alice.fed(&["inbox"], &to_bob).await?.ending(0)?.saying("for another device")?;
    let damaged = to_bob.replace("\nAQAB", "\nAQAC");
    bob.fed(&["inbox"], &damaged).await?.ending(1)?.saying("not opened")?;
    bob.fed(&["inbox"], "no message").await?.ending(1)?.saying("no message in the input")?;

    let file = homes.path().join("to-alice");
    let name = file.display().to_string();
    bob.fed(&["send", "alice", "--out", &name], "hi\u{1b}[2J\n").await?.ending(0)?;
    // On its way, while the prekey that it was written to is replaced.
    alice.good(&["rotate"]).await?;
    alice.run(&["inbox", &name]).await?.ending(0)?.saying("from bob, device 1: hi\\u{1b}[2J")?;

    let (ours, theirs) = (
        alice.json(&["safety-number", "bob"]).await?,
        bob.json(&["safety-number", "alice"]).await?,
    );
    ensure!(ours["digits"].as_str().is_some_and(|digits| digits.len() == 60), "{ours}");
    ensure!(ours["digits"] == theirs["digits"], "{ours} and {theirs}");
    alice
        .run(&["safety-number", "bob", "--qr", "--offline"])
        .await?
        .ending(0)?
        .saying("████ ▄▄▄▄▄ █")?;

    let status = alice.json(&["status"]).await?;
    let registered = &status["registered"];
    ensure!(registered["signed_prekey"] == 2 && registered["one_time_prekeys"] == 19, "{status}");
    ensure!(status["devices"]["devices"] == serde_json::json!([1]), "{status}");
    cluster.finish().await
}

#[tokio::test]
async fn a_home_comes_back_from_its_backup_and_the_old_one_notices() -> Result<()> {
    let cluster = small().start().await?;
    let homes = tempfile::tempdir()?;
    let alice = Terminal::published(&cluster, homes.path().join("alice"), "alice").await?;
    let bob = Terminal::published(&cluster, homes.path().join("bob"), "bob").await?;
    let lost = alice.good(&["send", "bob", "to the old prekeys"]).await?;
    let backup = homes.path().join("backup");
    let file = backup.display().to_string();
    bob.good(&["export", "--out", &file]).await?;
    ensure!(is_private(&backup)?, "others may read the backup");
    bob.run(&["export", "--out", &file]).await?.ending(1)?.saying("exists")?;

    let restored = Terminal::new(&cluster, homes.path().join("restored"));
    restored.good(&["import", &file]).await?;
    restored.good(&["publish", "--keys", "20"]).await?;
    let to_bob = alice.good(&["send", "bob", "hello again"]).await?;
    restored.fed(&["inbox"], &to_bob).await?.ending(0)?.saying("hello again")?;
    restored.fed(&["inbox"], &lost).await?.ending(1)?.saying("when the device was restored")?;
    bob.run(&["publish"]).await?.ending(1)?.saying("--discard-prekeys")?;
    cluster.finish().await
}

#[tokio::test]
async fn somebody_else_under_a_known_name_is_a_question_until_a_person_answers() -> Result<()> {
    let cluster = small().start().await?;
    let homes = tempfile::tempdir()?;
    let alice = Terminal::published(&cluster, homes.path().join("alice"), "alice").await?;
    let [bob, stranger] =
        ["bob", "stranger"].map(|name| Terminal::new(&cluster, homes.path().join(name)));
    for terminal in [&bob, &stranger] {
        terminal.good(&["new", "--user", "bob", "--without-account-key"]).await?;
    }
    bob.good(&["publish", "--keys", "9"]).await?;
    let first = alice.good(&["send", "bob", "hello"]).await?;
    bob.fed(&["inbox"], &first).await?.ending(0)?;
    alice.run(&["safety-number", "bob"]).await?.ending(1)?.saying("no safety number")?;

    bob.good(&["remove"]).await?;
    stranger.good(&["publish", "--keys", "9"]).await?;
    let said = alice.run(&["send", "bob", "a secret"]).await?.ending(4)?;
    ensure!(!said.out.contains("BEGIN"), "{}", said.out);
    said.saying("question 1: bob, device 1 shows another identity key")?
        .saying("oncekey device trust")?;
    let letter = stranger.good(&["send", "alice", "it is me"]).await?;
    alice.fed(&["inbox"], &letter).await?.ending(4)?.saying("not opened yet")?;
    alice.run(&["trust"]).await?.ending(0)?.saying("Either they have reinstalled, or")?;
    alice.run(&["trust", "accept", "7"]).await?.ending(1)?.saying("no question 7")?;
    alice.good(&["trust", "accept", "1"]).await?;
    alice.run(&["trust"]).await?.ending(0)?.saying("nothing waits")?;

    alice.fed(&["inbox"], &letter).await?.ending(0)?.saying("it is me")?;
    let second = alice.good(&["send", "bob", "hello to whoever is bob now"]).await?;
    stranger.fed(&["inbox"], &second).await?.ending(0)?.saying("whoever is bob now")?;
    bob.fed(&["inbox"], &second).await?.ending(1)?;
    cluster.finish().await
}

#[tokio::test]
async fn a_second_device_is_written_to_once_the_first_has_signed_for_it() -> Result<()> {
    let cluster = small().start().await?;
    let homes = tempfile::tempdir()?;
    let alice = Terminal::published(&cluster, homes.path().join("alice"), "alice").await?;
    let phone = Terminal::published(&cluster, homes.path().join("phone"), "bob").await?;
    let laptop = Terminal::new(&cluster, homes.path().join("laptop"));
    laptop.good(&["new", "--user", "bob", "--device", "2", "--without-account-key"]).await?;
    laptop.good(&["publish", "--keys", "5"]).await?;
    let said = alice.run(&["send", "bob", "hello"]).await?.ending(1)?;
    let said = said.saying("nothing for device 2")?.saying("1 of 2 devices get no message")?;
    phone.fed(&["inbox"], &said.out).await?.ending(0)?.saying("hello")?;

    let code = laptop.json(&["pair"]).await?;
    let code = code["code"].as_str().context("a code")?;
    laptop.run(&["add", code]).await?.ending(1)?.saying("on one that has it")?;
    alice.run(&["add", code]).await?.ending(1)?;
    phone.run(&["add", &code[..code.len() - 4]]).await?.ending(1)?;
    phone.run(&["add", code]).await?.ending(0)?.saying("position 2: 1, 2")?;

    let said = alice.run(&["send", "bob", "hello, both"]).await?.ending(0)?;
    let said = said.saying("bob has added device 2")?;
    for device in [&phone, &laptop] {
        device.fed(&["inbox"], &said.out).await?.ending(0)?.saying("hello, both")?;
    }
    alice.good(&["trust", "accept", "1"]).await?;

    // What one writes goes to the other, and a lost one gets nothing any more.
    let copy = phone.good(&["send", "bob", "what I wrote"]).await?;
    laptop.fed(&["inbox"], &copy).await?.ending(0)?.saying("from bob, device 1: what I wrote")?;
    phone.run(&["remove", "2"]).await?.ending(0)?.saying("position 3: 1")?;
    let said = alice.run(&["send", "bob", "only the phone"]).await?.ending(0)?;
    said.saying("bob has removed device 2")?;
    laptop.run(&["status"]).await?.ending(0)?.saying("not registered")?;
    cluster.finish().await
}

#[tokio::test]
async fn security_first_writes_nothing_to_an_empty_pool_and_availability_first_says_so()
-> Result<()> {
    let cluster = small().start().await?;
    let homes = tempfile::tempdir()?;
    let bob = Terminal::new(&cluster, homes.path().join("bob"));
    bob.good(&["new", "--user", "bob"]).await?;
    bob.good(&["publish", "--keys", "1"]).await?;
    let strict = Terminal::new(&cluster, homes.path().join("strict"));
    strict.good(&["new", "--user", "eve", "--preset", "security-first"]).await?;
    let lax = Terminal::new(&cluster, homes.path().join("lax"));
    lax.good(&["new", "--user", "alice"]).await?;

    strict.run(&["send", "bob", "one"]).await?.ending(0)?;
    strict.run(&["send", "bob", "two"]).await?.ending(1)?;
    let sent = lax.run(&["send", "bob", "three"]).await?.ending(0)?;
    let sent = sent.saying("its one-time prekeys are used up")?;
    bob.fed(&["inbox"], &sent.out).await?.ending(0)?.saying("from alice, device 1: three")?;
    cluster.finish().await
}

#[tokio::test]
async fn a_letter_that_no_node_took_is_sent_under_the_key_it_printed() -> Result<()> {
    let mut cluster = small().start().await?;
    let homes = tempfile::tempdir()?;
    let alice = Terminal::published(&cluster, homes.path().join("alice"), "alice").await?;
    let bob = Terminal::published(&cluster, homes.path().join("bob"), "bob").await?;
    for node in cluster.nodes() {
        cluster.kill(node)?;
    }
    let said = alice.run(&["send", "bob", "hello"]).await?.ending(1)?;
    let (_, request) = said.err.trim().rsplit_once("--request ").context(said.err.clone())?;
    cluster.start_all().await?;
    let first = alice.good(&["send", "bob", "hello", "--request", request]).await?;
    bob.fed(&["inbox"], &first).await?.ending(0)?.saying("hello")?;
    cluster.finish().await
}

#[tokio::test]
async fn a_home_opens_with_its_passphrase_alone() -> Result<()> {
    let cluster = small().start().await?;
    let homes = tempfile::tempdir()?;
    let mut alice = Terminal::new(&cluster, homes.path().join("alice"));
    alice.run(&["status"]).await?.ending(1)?.saying("no device lives in")?;
    ensure!(!alice.home.exists(), "looking has made a home");
    alice.good(&["new", "--user", "alice"]).await?;
    alice.run(&["new", "--user", "alice"]).await?.ending(1)?.saying("lives in")?;
    alice.run(&["status"]).await?.ending(0)?.saying("not registered")?;
    ensure!(is_private(&alice.home.join("keystore.sqlite3"))?, "others may read the key store");

    alice.passphrase = Some("wrong horse");
    alice.run(&["status"]).await?.ending(1)?.saying("the passphrase does not open")?;
    let file = homes.path().join("passphrase");
    fs::write(&file, "correct horse\n")?;
    let file = file.display().to_string();
    alice.run(&["--passphrase-file", &file, "status"]).await?.ending(0)?;
    cluster.finish().await
}

#[cfg(unix)]
fn is_private(path: &Path) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode().trailing_zeros() >= 6)
}
