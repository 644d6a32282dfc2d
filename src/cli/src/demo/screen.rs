//! What the demo shows while it runs: bars on a terminal, plain lines elsewhere.

use std::{
    fmt::Display,
    io::{self, IsTerminal},
    sync::atomic::{AtomicU64, Ordering},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;

const TEMPLATE: &str = "{prefix:>16} [{bar:40}] {pos}/{len}";

pub(super) struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { bars: io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Shows a line, above the bars.
    pub(super) fn say(&self, text: impl Display) {
        match &self.bars {
            Some(bars) => bars.suspend(|| output::line(text)),
            None => output::line(text),
        }
    }

    pub(super) fn bar(&self, name: &'static str, length: usize) -> Bar {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        match &self.bars {
            Some(bars) => {
                let style = ProgressStyle::with_template(TEMPLATE);
                let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = bars.add(ProgressBar::new(length).with_style(style).with_prefix(name));
                Bar::Drawn(bar)
            }
            None => Bar::Plain { name, length, done: AtomicU64::new(0) },
        }
    }
}

/// Progress of one thing.
pub(super) enum Bar {
    Drawn(ProgressBar),
    /// A line at every quarter.
    Plain {
        name: &'static str,
        length: u64,
        done: AtomicU64,
    },
}

impl Bar {
    pub(super) fn advance(&self, by: usize) {
        let by = u64::try_from(by).unwrap_or(u64::MAX);
        match self {
            Self::Drawn(bar) => bar.inc(by),
            Self::Plain { name, length, done } => {
                let before = done.fetch_add(by, Ordering::Relaxed);
                let quarter = |done: u64| 4 * done / (*length).max(1);
                if quarter(before + by) > quarter(before) {
                    output::line(format_args!("{name}: {} of {length}", before + by));
                }
            }
        }
    }

    pub(super) fn finish(&self) {
        match self {
            Self::Drawn(bar) => bar.finish(),
            Self::Plain { .. } => {}
        }
    }
}
