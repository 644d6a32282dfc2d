//! Judging a history.
//!
//! One file for each invariant that a history must satisfy, numbered 1 to 9; two more that judge
//! the whole: the `witness` replays the operations in the order of their log indexes, and the
//! `search` looks for an order of a short history without any hint.
//!
//! Guarantees: a checker looks at the history alone and names the operations that break its
//! invariant. None blames a cluster for what a lost reply may explain: a call without an answer
//! counts as carried out at any time since it was sent, or never. What lacks evidence is said to
//! be not judged; it is never said to hold.
//!
//! Leaves out: how the history came about.

mod conservation;
mod count;
mod empty;
mod evidence;
mod fifo;
mod idempotence;
#[cfg(test)]
mod invented;
#[cfg(test)]
mod mistakes;
mod model;
mod provenance;
mod register;
mod replicas;
mod report;
mod search;
#[cfg(test)]
mod story;
#[cfg(test)]
mod touching;
mod unique;
mod wgl;
mod witness;

use std::fmt;

use serde::Serialize;

use crate::history::{History, record::OperationId};
use evidence::Evidence;
pub use report::{Broken, Report};

/// Violations of one invariant that are kept; beyond, they are counted.
const KEPT_MAX: usize = 20;

/// What a history must satisfy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// 1: no key goes to two requests.
    Unique,
    /// 2: every key was uploaded for its device, with these bytes, before it was handed out.
    Provenance,
    /// 3: a retry gets the same answer, and brings no key back.
    Idempotence,
    /// 4: a pool that is said to be empty was empty at some moment of the call.
    Empty,
    /// 5: in the end, each key was handed out or is in its pool.
    Conservation,
    /// 6: a pool that is said to hold n keys held n keys at some moment of the call.
    Count,
    /// 7: identity keys and signed prekeys are those of some moment of the call.
    Register,
    /// 8: keys leave in the order in which they came.
    Fifo,
    /// 9: replicas agree.
    Replicas,
    /// The log explains every answer.
    Witness,
    /// Some order explains every answer.
    Search,
}

impl Invariant {
    /// All, in order.
    pub const ALL: [Self; 11] = [
        Self::Unique,
        Self::Provenance,
        Self::Idempotence,
        Self::Empty,
        Self::Conservation,
        Self::Count,
        Self::Register,
        Self::Fifo,
        Self::Replicas,
        Self::Witness,
        Self::Search,
    ];

    /// Its name, as it is written on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Provenance => "provenance",
            Self::Idempotence => "idempotence",
            Self::Empty => "empty",
            Self::Conservation => "conservation",
            Self::Count => "count",
            Self::Register => "register",
            Self::Fifo => "fifo",
            Self::Replicas => "replicas",
            Self::Witness => "witness",
            Self::Search => "search",
        }
    }

    /// What it demands, in one line.
    #[must_use]
    pub const fn demand(self) -> &'static str {
        match self {
            Self::Unique => "no key goes to two requests",
            Self::Provenance => "every key handed out was uploaded before, with these bytes",
            Self::Idempotence => "a retry gets the same answer and brings no key back",
            Self::Empty => "a pool said to be empty was empty",
            Self::Conservation => "each key was handed out or is in its pool",
            Self::Count => "a pool said to hold n keys held n keys",
            Self::Register => "identity keys and signed prekeys are current",
            Self::Fifo => "keys leave in the order in which they came",
            Self::Replicas => "replicas agree at equal applied index",
            Self::Witness => "the log explains every answer",
            Self::Search => "some order explains every answer",
        }
    }

    /// Judges `evidence`.
    fn check(self, evidence: &Evidence<'_>) -> Finding {
        match self {
            Self::Unique => unique::check(evidence),
            Self::Provenance => provenance::check(evidence),
            Self::Idempotence => idempotence::check(evidence),
            Self::Empty => empty::check(evidence),
            Self::Conservation => conservation::check(evidence),
            Self::Count => count::check(evidence),
            Self::Register => register::check(evidence),
            Self::Fifo => fifo::check(evidence),
            Self::Replicas => replicas::check(evidence),
            Self::Witness => witness::check(evidence),
            Self::Search => search::check(evidence),
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How operations break an invariant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Violation {
    /// The operations.
    pub operations: Vec<OperationId>,
    /// How, for people.
    pub message: String,
}

/// What a checker found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// The invariant.
    pub invariant: Invariant,
    /// How much was judged: keys, answers, accounts or replicas, whatever the invariant is about.
    pub judged: u64,
    /// How often it is broken.
    pub violated: u64,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// What could not be judged, and why.
    pub not_judged: Vec<String>,
}

/// What a finding comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds for everything that could be judged.
    Holds,
    /// It is broken.
    Violated,
    /// There was nothing to judge it by.
    NotJudged,
}

impl Finding {
    fn new(invariant: Invariant) -> Self {
        let (violations, not_judged) = (Vec::new(), Vec::new());
        Self { invariant, judged: 0, violated: 0, violations, not_judged }
    }

    /// Adds a violation by `operations`.
    fn violation(
        &mut self,
        operations: impl IntoIterator<Item = OperationId>,
        message: impl Into<String>,
    ) {
        self.violated += 1;
        if self.violations.len() < KEPT_MAX {
            let mut operations: Vec<_> = operations.into_iter().collect();
            operations.sort_unstable();
            operations.dedup();
            self.violations.push(Violation { operations, message: message.into() });
        }
    }

    /// Whether there was something to judge, and nothing was left out.
    #[must_use]
    pub fn is_judged_in_full(&self) -> bool {
        self.judged > 0 && self.not_judged.is_empty()
    }

    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.violated > 0 {
            Verdict::Violated
        } else if self.judged == 0 && !self.not_judged.is_empty() {
            Verdict::NotJudged
        } else {
            Verdict::Holds
        }
    }
}

/// Judges `history` by every invariant.
#[must_use]
pub fn check(history: &History) -> Report {
    let evidence = Evidence::of(history);
    let findings = Invariant::ALL.map(|invariant| invariant.check(&evidence)).into();
    Report::new(history, findings)
}

#[cfg(test)]
mod tests;
