//! The command line.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Parser, Subcommand};
#[cfg(target_os = "linux")]
use oncekey_cluster::{Engine, chaos::Fault};
use oncekey_cluster::{bugs::Layer, check::Invariant};
use oncekey_planted::Bug;

const EXAMPLES: &str = "\
Examples:
  oncekey-cluster chaos --minutes 10
      Ten minutes of kills, power cuts, partitions and all the rest.
  oncekey-cluster chaos --power-cuts 1000
      A thousand power cuts.
  oncekey-cluster check history.jsonl
      Judge a history that a test, a demo or another harness has recorded.
  oncekey-cluster check history.jsonl --require conservation,witness
      The same; fail as well when one of these could not be judged.
  oncekey-cluster check history.jsonl --json | jq '.findings[] | select(.violated > 0)'
      Only what is broken.
  oncekey-cluster simulate --minutes 10
      Simulate clusters and their misfortunes, on all cores.
  oncekey-cluster simulate --seeds 100 --seed 1 --report target/simulation
      The same hundred runs each time, with a report as Markdown and JSON.
  oncekey-cluster bugs --report target/bugs
      Plant every bug and see what finds it; with the layer `processes` as root.";

#[cfg(target_os = "linux")]
const AFTER_CHAOS: &str = "\
Every node is a process with a network namespace, an address and an ext4 file system of its own;
namespaces, mounts and processes end with the command, whatever happens to it. Needs root, iproute2,
iptables, e2fsprogs and xfsprogs; clocks are moved when libfaketime is installed.

Each round makes a new cluster, brings about one fault after the other under load, heals all,
settles what is open, drains the pools and judges the history. The report is in DIR/report.md and
DIR/report.json; a round that was bad stays in DIR with its history and logs.

Exit code:
  0  enough was done and nothing was wrong
  1  an invariant is broken, a node ended by itself, or a cluster did not come back
  2  the run could not be done here, a kind of fault was never brought about, or too few fetches
     were answered";

const AFTER_CHECK: &str = "\
A history is a file of JSON lines: what clients asked, what they were answered and when, what was
done to the nodes, and where the run came to its end. docs/history.md describes it. A last line
that breaks off is left out and reported.

What is judged:
   1 unique        no key goes to two requests
   2 provenance    every key handed out was uploaded before, with these bytes
   3 idempotence   a retry gets the same answer and brings no key back
   4 empty         a pool said to be empty was empty
   5 conservation  each key was handed out or is in its pool (needs the mark `end`)
   6 count         a pool said to hold n keys held n keys
   7 register      identity keys and signed prekeys are current
   8 fifo          keys leave in the order in which they came
   9 replicas      replicas agree at equal applied index (needs `replica` records)
     witness       the log explains every answer (needs log indexes)
     search        some order explains every answer (small accounts only)

A call without an answer counts as carried out at any time, or never: no invariant is called broken
for what a lost reply may explain. What lacks evidence is reported as not judged.

Exit code:
  0  nothing is broken in what could be judged
  1  an invariant is broken; the report names the operations
  2  the history could not be judged: it cannot be read, too few fetches were answered, or an
     invariant that was required lacks evidence";

/// Judges recorded runs of an Oncekey cluster.
#[derive(Debug, Parser)]
#[command(name = "oncekey-cluster", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do everything to real nodes that can happen to them, and judge what their clients saw.
    #[cfg(target_os = "linux")]
    Chaos(Chaos),
    /// Judge a recorded history.
    Check(Check),
    /// Simulate clusters, their clients and their misfortunes, one seed after the other.
    ///
    /// Each run is a process of its own, repeats to the byte, and is judged like a history. Exit
    /// code: 0 nothing was found, 1 something was found, 2 the runs show too little.
    Simulate(Simulate),
    /// Plant bugs in the nodes, one at a time, and see which layer of the harness finds each.
    ///
    /// Builds the nodes with the bugs armed, in `target/planted`. Exit code: 0 every bug was found,
    /// 1 one was not, which is a hole in the harness, 2 it could not be found out.
    Bugs(Bugs),
}

/// Simulate clusters.
#[derive(Debug, clap::Args)]
pub(crate) struct Simulate {
    /// No run is begun after so many minutes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) minutes: u64,

    /// So many runs instead.
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    pub(crate) seeds: Option<u64>,

    /// The first seed; the others follow it. One that was not used lately when absent.
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,

    /// Runs at the same time; one for each core when absent.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// Simulated seconds with faults in each run.
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub(crate) seconds: u64,

    /// A folder for the report as Markdown and JSON.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) report: Option<PathBuf>,
}

/// Do everything to real nodes that can happen to them.
#[cfg(target_os = "linux")]
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_CHAOS)]
pub(crate) struct Chaos {
    /// How long to bring about faults, in minutes.
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub(crate) minutes: f64,

    /// Power cuts in rounds that have nothing else, at a high rate.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) power_cuts: usize,

    /// Nodes of a cluster.
    #[arg(long, value_name = "3|5", default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=9))]
    pub(crate) nodes: u16,

    /// What decides what is done; any when not said.
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// Only these faults, separated by commas.
    #[arg(long, value_name = "FAULTS", value_delimiter = ',')]
    pub(crate) faults: Vec<Fault>,

    /// The engine of the nodes, fjall or sled.
    #[arg(long, default_value_t = Engine::Fjall)]
    pub(crate) engine: Engine,

    /// How long faults are brought about before a cluster is judged and another one is made.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) round_seconds: u64,

    /// The program of the nodes; built with failpoints when not said.
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,

    /// Where the report goes.
    #[arg(long, value_name = "DIR", default_value = "target/chaos-report")]
    pub(crate) out: PathBuf,

    /// Keep the histories and logs of good rounds as well.
    #[arg(long)]
    pub(crate) keep: bool,

    /// Install what is missing, with apt-get.
    #[arg(long)]
    pub(crate) install: bool,
}

#[cfg(target_os = "linux")]
impl Chaos {
    /// The faults asked for, or all.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        if self.faults.is_empty() { Fault::ALL.into() } else { self.faults.clone() }
    }
}

/// Plant bugs.
#[derive(Debug, clap::Args)]
pub(crate) struct Bugs {
    /// These bugs, separated by commas; all when absent.
    #[arg(long, value_name = "BUGS", value_delimiter = ',', value_parser = bug)]
    pub(crate) bugs: Vec<Bug>,

    /// These layers, separated by commas; all when absent: state-machine, storage, raft, simulation
    /// and, as root, processes.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', value_parser = layer)]
    pub(crate) layers: Vec<Layer>,

    /// Longest time that a layer looks for one bug.
    #[arg(long, value_name = "S", default_value_t = 180)]
    pub(crate) patience_s: u64,

    /// Go on to the next layer when a bug was found.
    #[arg(long)]
    pub(crate) all_layers: bool,

    /// A folder for the report as Markdown and JSON.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) report: Option<PathBuf>,
}

impl Bugs {
    /// The layers, each before the slower ones.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        let asked = |layer: &Layer| self.layers.is_empty() || self.layers.contains(layer);
        Layer::ALL.into_iter().filter(asked).collect()
    }
}

fn bug(text: &str) -> Result<Bug, String> {
    let found = Bug::ALL.iter().copied().find(|bug| bug.name() == text);
    found.ok_or_else(|| {
        let names: Vec<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("known are {}", names.join(", "))
    })
}

fn layer(text: &str) -> Result<Layer, String> {
    let found = Layer::ALL.into_iter().find(|layer| layer.name() == text);
    found.ok_or_else(|| {
        let names: Vec<_> = Layer::ALL.iter().map(|layer| layer.name()).collect();
        format!("known are {}", names.join(", "))
    })
}

/// Judge a recorded history.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_CHECK)]
pub(crate) struct Check {
    /// The history, a file of JSON lines.
    pub(crate) history: PathBuf,

    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Fail unless these were judged, separated by commas, or `all`.
    #[arg(long, value_name = "INVARIANTS", value_delimiter = ',', value_parser = required)]
    pub(crate) require: Vec<Required>,

    /// Fail when fewer fetches were answered: such a run shows nothing.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) min_fetches: usize,
}

/// What must have been judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Required {
    /// This.
    One(Invariant),
    /// Everything.
    All,
}

impl Required {
    /// Whether `invariant` is meant.
    pub(crate) fn is(self, invariant: Invariant) -> bool {
        match self {
            Self::One(one) => one == invariant,
            Self::All => true,
        }
    }
}

fn required(text: &str) -> Result<Required, String> {
    if text == "all" {
        return Ok(Required::All);
    }
    let found = Invariant::ALL.into_iter().find(|invariant| invariant.name() == text);
    found.map(Required::One).ok_or_else(|| {
        let names: Vec<_> = Invariant::ALL.iter().map(|invariant| invariant.name()).collect();
        format!("known are all, {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_invariant_and_what_it_demands() {
        for invariant in Invariant::ALL {
            let line = format!("{:<14}{}", invariant.name(), invariant.demand());
            assert!(AFTER_CHECK.contains(&line), "no line {line:?}");
        }
    }
}
