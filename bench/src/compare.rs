//! The order of a comparison.
//!
//! Round by round, so that a slow hour of the machine hits all, and so that ratios can be formed
//! of figures that were measured close to each other.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::{
    Run, front,
    load::{self, Measured, Span, Target},
    machine::{self, Machine, Sync},
    oncekey::{self, Shards},
    pool::{Issued, KEYS_PER_USER, Turns},
    process::{self, Process, User},
    results::{Results, Way},
    rivals::Rival,
    store::Address,
    wait,
};

/// The no-ops' names and titles.
const NO_OP_TITLED: (&str, &str) = ("no-op", "axum without work");
const OWN_NO_OP_TITLED: (&str, &str) =
    ("no-op-oncekey-bench", "axum without work, driven by oncekey bench");

/// Compares, prints the tables and writes the file.
pub(crate) async fn run(arguments: &Run) -> Result<()> {
    machine::require_disk(&arguments.dir)?;
    let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(&arguments.dir)?;
    // PostgreSQL runs as another user and has to get to its folder.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
    let results = Results::new(Machine::describe()?, arguments.warm_up_ms, arguments.duration_ms);
    let mut comparison = Comparison { arguments, results };
    for round in 1..=arguments.runs {
        let start = Instant::now();
        let dir = dir.path().join(format!("round-{round}"));
        fs::create_dir(&dir)?;
        comparison.round(&dir).await?;
        say(&format!("round {round} of {}: {} s", arguments.runs, start.elapsed().as_secs()));
    }
    if let Some(file) = &arguments.json {
        let json = comparison.results.json()?;
        fs::write(file, json).with_context(|| file.display().to_string())?;
    }
    let _ = io::stdout().write_all(comparison.results.markdown().as_bytes());
    Ok(())
}

struct Comparison<'a> {
    arguments: &'a Run,
    results: Results,
}

impl Comparison<'_> {
    /// Measures everything once.
    async fn round(&mut self, dir: &Path) -> Result<()> {
        self.results.add_sync(Sync::measure(dir)?);
        self.no_op(dir).await?;
        for &rival in &self.arguments.rivals {
            let dir = dir.join(rival.name());
            fs::create_dir(&dir)?;
            self.rival(rival, &dir).await?;
            fs::remove_dir_all(&dir)?;
        }
        if let Some(program) = &self.arguments.oncekey {
            for shards in Shards::ALL {
                for step in oncekey::measure(program, dir, self.arguments, shards).await? {
                    if let Shards::Default = shards {
                        self.add(OWN_NO_OP_TITLED, Way::Http, step.clients, step.no_op);
                    }
                    self.add(shards.titled(), Way::Http, step.clients, step.pops);
                }
            }
        }
        Ok(())
    }

    async fn no_op(&mut self, dir: &Path) -> Result<()> {
        let (_process, port) = start_front(dir, None).await?;
        // Nothing is popped; any user will do.
        let turns = Arc::new(Turns::new(1));
        let mut issued = Issued::new(0);
        self.drive(NO_OP_TITLED, Way::Http, Target::Front(port), &turns, &mut issued).await
    }

    async fn rival(&mut self, rival: Rival, dir: &Path) -> Result<()> {
        let users = self.users(rival)?;
        let start = Instant::now();
        let running = rival.start(dir, users).await?;
        let (title, seconds) = (rival.title(), start.elapsed().as_secs());
        say(&format!("{title}: {} keys loaded, {seconds} s", u64::from(users) * KEYS_PER_USER));
        let turns = Arc::new(Turns::new(users));
        let mut issued = Issued::new(users);
        let titled = (rival.name(), title);
        let bare = Target::Bare(&running.address);
        self.drive(titled, Way::Bare, bare, &turns, &mut issued).await?;
        let (_process, port) = start_front(dir, Some(&running.address)).await?;
        self.drive(titled, Way::Front, Target::Front(port), &turns, &mut issued).await
    }

    /// Measures a target with each number of clients.
    async fn drive(
        &mut self,
        titled: (&'static str, &'static str),
        way: Way,
        target: Target<'_>,
        turns: &Arc<Turns>,
        issued: &mut Issued,
    ) -> Result<()> {
        let span = Span {
            warm_up: Duration::from_millis(self.arguments.warm_up_ms),
            measured: Duration::from_millis(self.arguments.duration_ms),
        };
        for &clients in &self.arguments.clients {
            let clients = usize::from(clients);
            let measured = load::run(target, clients, turns, issued, span)
                .await
                .with_context(|| format!("{}, {clients} clients", titled.1))?;
            self.add(titled, way, clients, measured);
        }
        Ok(())
    }

    fn add(
        &mut self,
        titled: (&'static str, &'static str),
        way: Way,
        clients: usize,
        measured: Measured,
    ) {
        say(&format!(
            "{}, {}, {clients} clients: {:.0} pops/s, p50 {} µs, p99 {} µs, {} errors",
            titled.1,
            way.title(),
            measured.pops_per_second,
            measured.p50_us,
            measured.p99_us,
            measured.errors
        ));
        self.results.add(titled, way, clients, measured);
    }

    /// Users whose keys last for a round, whatever the rival can do.
    fn users(&self, rival: Rival) -> Result<u32> {
        let milliseconds = self.arguments.warm_up_ms + self.arguments.duration_ms;
        // Bare, then behind the front.
        let pops = |clients: &u16| 2 * rival.ceiling(usize::from(*clients)) * milliseconds / 1000;
        let keys: u64 = self.arguments.clients.iter().map(pops).sum();
        Ok(u32::try_from(keys.div_ceil(KEYS_PER_USER))?.max(1))
    }
}

/// Starts a front and returns its port.
async fn start_front(dir: &Path, store: Option<&Address>) -> Result<(Process, u16)> {
    let mut command = process::command(&std::env::current_exe()?, User::Same, "KILL");
    command.arg("front");
    if let Some(address) = store {
        command.args(["--store", &address.to_string()]);
    }
    let mut process = [Process::start(dir, "front", command, Signal::KILL)?];
    let log = process[0].log().to_owned();
    let port = wait::until("the front", &mut process, async || {
        let output = fs::read_to_string(&log)?;
        let line = output.lines().find_map(|line| line.strip_prefix(front::READY));
        Ok(line.context("it does not listen yet")?.parse()?)
    })
    .await?;
    let [process] = process;
    Ok((process, port))
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
