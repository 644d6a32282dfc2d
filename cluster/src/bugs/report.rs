//! What came of the search, as Markdown and as JSON.

use std::fmt;

use oncekey_planted::Bug;
use serde::Serialize;

use super::layer::Catch;

/// What came of the search for one bug.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The bug.
    pub bug: &'static str,
    /// What it does.
    pub about: &'static str,
    /// The layers that found it.
    pub catches: Vec<Catch>,
}

impl Found {
    pub(super) fn new(bug: Bug) -> Self {
        Self { bug: bug.name(), about: bug.about().trim(), catches: Vec::new() }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.bug)?;
        if self.catches.is_empty() {
            return write!(f, " NOT FOUND");
        }
        for Catch { layer, after_ms, what } in &self.catches {
            write!(f, " {layer} after {:.1} s ({what})", seconds(*after_ms))?;
        }
        Ok(())
    }
}

/// What came of all searches.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Bug by bug.
    pub found: Vec<Found>,
}

impl Report {
    /// The bugs that no layer found: holes in the harness.
    pub fn holes(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(|found| found.catches.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, holes) = (self.found.len(), self.holes().count());
        writeln!(f, "{} of {all} planted bugs found.\n", all - holes)?;
        writeln!(f, "| bug | what it does | found by | after, s | by what |")?;
        writeln!(f, "|---|---|---|---:|---|")?;
        for Found { bug, about, catches } in &self.found {
            if catches.is_empty() {
                writeln!(f, "| `{bug}` | {about} | **nobody** | – | – |")?;
            }
            for Catch { layer, after_ms, what } in catches {
                let after = seconds(*after_ms);
                let what = what.replace('|', "\\|");
                writeln!(f, "| `{bug}` | {about} | {layer} | {after:.1} | {what} |")?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bugs::Layer;

    #[test]
    fn a_bug_that_nobody_found_is_a_hole_and_stands_out() {
        let mut report = Report { found: Bug::ALL[..2].iter().copied().map(Found::new).collect() };
        report.found[0].catches.push(Catch {
            layer: Layer::Simulation,
            after_ms: 1500,
            what: "seed 1: a|b".to_owned(),
        });
        let text = report.to_string();
        assert!(text.starts_with("1 of 2 planted bugs found."), "{text}");
        assert!(text.contains("| simulation | 1.5 | seed 1: a\\|b |"), "{text}");
        assert!(text.contains("**nobody**"), "{text}");
        let holes: Vec<_> = report.holes().map(|found| found.bug).collect();
        assert_eq!(holes, [Bug::ALL[1].name()]);
    }
}
