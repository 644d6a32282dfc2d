//! The status page in a real browser, before a cluster that works, loses nodes and comes back.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use oncekey_cluster::{
    Cluster,
    wait::{self, Seen},
    workload::{Load, Workload},
};
use oncekey_tests::Bob;
use oncekey_types::NodeId;
use serde_json::Value;

use super::{LIMIT, browser::Browser, cluster};

/// Longer than a run: the workload is stopped.
const FOR_LONG: usize = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_page_tells_at_every_moment_what_is_so() -> Result<()> {
    let Some(browser) = Browser::start("the status page in Chromium").await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster().dir(folder.path().join("europe")).start().await?;
    let load = start_load(&cluster).await?;
    let page = Page { browser, pictures: pictures()? };
    page.browser.look(1200, 1180, false).await?;
    page.browser.open(&format!("{}/", cluster.admin(NodeId(1)))).await?;

    page.says_that_all_is_well().await?;
    page.shows("a rate", "return document.querySelector('.figure.issued b').textContent > '0'")
        .await?;
    page.shows("a curve", "return document.querySelectorAll('.chart path.issued').length === 1")
        .await?;
    let facts = "return [document.querySelectorAll('.node').length, \
                 document.querySelectorAll('tbody tr').length, \
                 document.querySelectorAll('.chip.leads').length, \
                 document.querySelectorAll('.pool').length > 5]";
    let facts = page.browser.run(facts).await?;
    ensure!(facts == serde_json::json!([3, 4, 4, true]), "nodes, shards, leaders, pools: {facts}");
    let complaints = page.browser.complaints().await?;
    ensure!(complaints.is_empty(), "the page complains: {complaints:?}");
    page.curve_of(Duration::from_secs(40)).await?;
    page.all_looks("well").await?;

    cluster.kill(NodeId(3))?;
    page.says("Node 3 does not answer.").await?;
    page.shows("a card", "return document.querySelectorAll('.node.gone').length === 1").await?;
    page.all_looks("one-gone").await?;

    cluster.kill(NodeId(2))?;
    page.says("No quorum.").await?;
    page.all_looks("no-quorum").await?;

    cluster.kill(NodeId(1))?;
    page.says("This node does not answer.").await?;
    page.all_looks("silent").await?;

    for node in [1, 2, 3] {
        cluster.launch(NodeId(node))?;
    }
    page.says_that_all_is_well().await?;
    for workload in &load {
        workload.stop();
    }
    page.browser.close().await?;
    cluster.finish().await
}

/// Fetches of users with many keys, with few and with none.
async fn start_load(cluster: &Cluster) -> Result<Vec<Workload>> {
    let mut load = Vec::new();
    for (name, keys, callers, pause_ms) in [
        ("bob", 900, 2, 60),
        ("carol", 400, 2, 160),
        ("dave", 150, 1, 90),
        ("erin", 0, 1, 400),
        ("frank", 900, 2, 70),
        ("grace", 700, 2, 80),
    ] {
        let bob = Bob::publish(cluster, name, 2, keys).await?;
        let fetcher = bob.fetcher(&cluster.endpoints())?;
        let mut each = Load::new(name, callers, FOR_LONG);
        each.pause = Duration::from_millis(pause_ms);
        load.push(Workload::start(&fetcher, &each));
    }
    Ok(load)
}

/// A page that is looked at.
struct Page {
    browser: Browser,
    pictures: PathBuf,
}

/// Where pictures are left for people to look at.
fn pictures() -> Result<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("status-page");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

impl Page {
    /// Waits for a headline.
    async fn says(&self, headline: &str) -> Result<()> {
        self.until(headline, "return document.getElementById('headline').textContent", |found| {
            found == headline
        })
        .await
    }

    /// Waits for the headline of a cluster that lacks nothing. The disk of the machine that runs the
    /// test may be nearly full; the page is right to say so.
    async fn says_that_all_is_well(&self) -> Result<()> {
        let headline = "return document.getElementById('headline').textContent";
        self.until("All is well.", headline, |found| {
            let found = found.as_str().unwrap_or_default();
            found == "All is well." || found.ends_with("is nearly full.")
        })
        .await
    }

    /// Waits until `script` returns true.
    async fn shows(&self, what: &str, script: &str) -> Result<()> {
        self.until(what, script, |found| *found == Value::Bool(true)).await
    }

    /// Waits until the curve goes back so far.
    async fn curve_of(&self, age: Duration) -> Result<()> {
        // Names of the page's script are no properties of its window.
        let old = format!("history.length && Date.now() - history[0].at > {}", age.as_millis());
        let script = format!("return eval({old:?})");
        self.until("a curve", &script, |found| *found == Value::Bool(true)).await
    }

    async fn until(&self, what: &str, script: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        wait::until(LIMIT, &format!("the page to show {what:?}"), async || {
            let found = self.browser.run(script).await?;
            Ok(Seen::when(is(&found), || found.to_string()))
        })
        .await
    }

    /// Takes a picture in the light, in the dark, and on a phone.
    async fn all_looks(&self, name: &str) -> Result<()> {
        for (look, width, height, dark) in
            [("light", 1200, 1180, false), ("dark", 1200, 1180, true), ("phone", 400, 2100, false)]
        {
            self.browser.look(width, height, dark).await?;
            let wide = "return document.documentElement.scrollWidth <= window.innerWidth";
            let fits = self.browser.run(wide).await?;
            ensure!(fits == Value::Bool(true), "{name}, {look}: the page is wider than its window");
            self.browser.photograph(&self.pictures.join(format!("{name}-{look}.png"))).await?;
        }
        self.browser.look(1200, 1180, false).await
    }
}
