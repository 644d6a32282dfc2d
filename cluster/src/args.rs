//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use oncekey_cluster::check::Invariant;

const EXAMPLES: &str = "\
Examples:
  oncekey-cluster check history.jsonl
      Judge a history that a test, a demo or another harness has recorded.
  oncekey-cluster check history.jsonl --require conservation,witness
      The same; fail as well when one of these could not be judged.
  oncekey-cluster check history.jsonl --json | jq '.findings[] | select(.violated > 0)'
      Only what is broken.";

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
    /// Judge a recorded history.
    Check(Check),
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
