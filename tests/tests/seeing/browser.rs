//! Chromium, driven by WebDriver (W3C) through `chromedriver`.
//!
//! Guarantees: a new, empty profile; driver and browser end with the [`Browser`]. Leaves out: all of
//! WebDriver that the tests do not need.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use hyper::Method;
use oncekey_cluster::http::Http;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::installed;

/// Time for one command; a browser starts slowly on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// A browser with one window.
pub(crate) struct Browser {
    http: Http,
    session: String,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser; nothing when there is none, after a word that `what` is skipped.
    pub(crate) async fn start(what: &str) -> Result<Option<Self>> {
        let (Some(chromium), Some(driver)) =
            (installed("chromium", what), installed("chromedriver", what))
        else {
            return Ok(None);
        };
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("chromedriver does not start")?;
        let port = port(&mut driver).await?;
        let profile = tempfile::tempdir()?;
        let options = json!({
            "binary": chromium,
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--hide-scrollbars", "--disable-dev-shm-usage",
                format!("--user-data-dir={}", profile.path().display()),
            ],
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let http = Http::with_limit(COMMAND_LIMIT);
        let driver_url = format!("http://127.0.0.1:{port}");
        let reply = http.json(Method::POST, &format!("{driver_url}/session"), &[], &wanted).await?;
        let session = value(&reply.text())?;
        let id = session["sessionId"].as_str().context("a session without an id")?;
        let session = format!("{driver_url}/session/{id}");
        Ok(Some(Self { http, session, _driver: driver, _profile: profile }))
    }

    /// Opens a page and waits until it has loaded.
    pub(crate) async fn open(&self, url: &str) -> Result<()> {
        self.command("url", &json!({"url": url})).await.map(drop)
    }

    /// What `script` returns in the page.
    pub(crate) async fn run(&self, script: &str) -> Result<Value> {
        self.command("execute/sync", &json!({"script": script, "args": []})).await
    }

    /// Shows the page as a window of this width would, in the light or in the dark.
    pub(crate) async fn look(&self, width: u32, height: u32, dark: bool) -> Result<()> {
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &media).await?;
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size).await
    }

    /// Writes what the window shows to `file`, as PNG.
    pub(crate) async fn photograph(&self, file: &Path) -> Result<()> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let reply = self.http.bare(Method::GET, &format!("{}/screenshot", self.session)).await?;
        let image = value(&reply.text())?;
        let image = STANDARD.decode(image.as_str().context("a screenshot is text")?)?;
        fs::write(file, image).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the page complained of since the last time, refused loads and broken policies included.
    pub(crate) async fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.command("se/log", &json!({"type": "browser"})).await?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        Ok(entries.iter().map(|entry| entry["message"].to_string()).collect())
    }

    async fn devtools(&self, command: &str, params: &Value) -> Result<()> {
        let body = json!({"cmd": command, "params": params});
        self.command("goog/cdp/execute", &body).await.map(drop)
    }

    async fn command(&self, command: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/{command}", self.session);
        let reply = self.http.json(Method::POST, &url, &[], body).await?;
        value(&reply.text()).with_context(|| command.to_owned())
    }

    /// Ends the browser.
    pub(crate) async fn close(self) -> Result<()> {
        self.http.bare(Method::DELETE, &self.session).await?.expect_success()
    }
}

/// The port that a driver says it listens on.
async fn port(driver: &mut Child) -> Result<u16> {
    let output = driver.stdout.take().context("chromedriver without output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(port) = line.split_once("started successfully on port ") {
            let port = port.1.trim_end_matches('.').parse()?;
            // It writes more, which nobody reads: the pipe must not fill up.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(port);
        }
    }
    bail!("chromedriver ended before it listened")
}

/// The value of a reply, or its error.
fn value(reply: &str) -> Result<Value> {
    let reply: Value = serde_json::from_str(reply).with_context(|| reply.to_owned())?;
    let value = &reply["value"];
    if let Some(error) = value["error"].as_str() {
        bail!("{error}: {}", value["message"]);
    }
    Ok(value.clone())
}
