//! Bugs that are planted, to see which layer of the harness finds them.
//!
//! Guarantees: every layer is first run without a bug and must find nothing; a bug counts as found
//! only when a layer says that something is wrong. Leaves out: the bugs themselves, see
//! `oncekey-planted`, and the layers, each of which can be run by itself.

mod build;
mod layer;
mod report;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use oncekey_planted::Bug;

pub use build::Programs;
pub use layer::{Catch, Layer};
pub use report::{Found, Report};

/// A search for planted bugs.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// What to look for.
    pub bugs: Vec<Bug>,
    /// Where, the quickest first; the one that finds a bug ends the search for it.
    pub layers: Vec<Layer>,
    /// Longest time that a layer looks for one bug. Tests have twice the time that they take
    /// without one, when that is longer.
    pub patience: Duration,
    /// Whether the layers behind the first that finds a bug look for it, too.
    pub all_layers: bool,
}

impl Hunt {
    /// Looks for every bug and tells `say` what came of it.
    ///
    /// # Errors
    ///
    /// When a layer cannot be run, or finds something where nothing was planted.
    pub fn run(&self, programs: &Programs, mut say: impl FnMut(&str)) -> Result<Report> {
        let mut patience = BTreeMap::new();
        for layer in &self.layers {
            let started = Instant::now();
            if let Some(Catch { what, .. }) = layer.look(programs, None, self.patience)? {
                bail!("{layer} finds something although nothing is planted: {what}");
            }
            let took = started.elapsed();
            say(&format!("{layer}: nothing found without a bug, {} s", took.as_secs()));
            let twice = if layer.is_tests() { 2 * took } else { Duration::ZERO };
            patience.insert(*layer, self.patience.max(twice));
        }
        let mut report = Report::default();
        for bug in &self.bugs {
            let found = self.look_for(*bug, programs, &patience)?;
            say(&found.to_string());
            report.found.push(found);
        }
        Ok(report)
    }

    fn look_for(
        &self,
        bug: Bug,
        programs: &Programs,
        patience: &BTreeMap<Layer, Duration>,
    ) -> Result<Found> {
        let mut found = Found::new(bug);
        for (layer, patience) in patience {
            if let Some(catch) = layer.look(programs, Some(bug), *patience)? {
                found.catches.push(catch);
                if !self.all_layers {
                    break;
                }
            }
        }
        Ok(found)
    }
}
