//! How far long work has come.
//!
//! Guarantees: a bar on a terminal; elsewhere a line every [`INTERVAL`], and none of work that is
//! done before. Both tell how fast it goes and how long it will take.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::output;

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// The progress of one piece of work, shared by all who do it.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    unit: &'static str,
    /// Units done in one step.
    step: u64,
    said: Arc<Mutex<Instant>>,
}

impl Progress {
    /// Begins work of `steps`, each of `step` units.
    pub(super) fn start(what: &'static str, steps: u64, step: u64, unit: &'static str) -> Self {
        let template = format!(
            "{what:>16} [{{bar:40}}] {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left"
        );
        let style = ProgressStyle::with_template(&template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            bar: ProgressBar::new(steps * step).with_style(style),
            what,
            unit,
            step,
            said: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// One step is done.
    pub(super) fn step(&self) {
        self.bar.inc(self.step);
        if !self.bar.is_hidden() {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= INTERVAL {
            *said = Instant::now();
            output::line(self.text());
        }
    }

    /// All is done.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn text(&self) -> String {
        let Self { bar, what, unit, .. } = self;
        format!(
            "{what}: {} of {} {unit}, {:.0}/s, {} left",
            bar.position(),
            bar.length().unwrap_or_default(),
            bar.per_sec(),
            HumanDuration(bar.eta())
        )
    }
}
