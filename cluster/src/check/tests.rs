//! The checkers against random executions: content with correct ones, and each single mistake
//! planted into one is found.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    Invariant, Report, Verdict, check,
    invented::{Random, Size, execution},
    mistakes::{MISTAKES, Mistake},
};
use crate::history::{History, record::Record};

fn judged(records: &[Record]) -> Report {
    check(&History::from_records(records.iter().cloned()).unwrap())
}

/// As many as `PROPTEST_CASES` says, else few enough for every build.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(32),
    }
}

const SMALL: Size = Size { users: 2, steps: 150, overlap: 300 };

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_correct_execution_breaks_nothing(seed: u64, overlap in 1u64..1500, users in 1u64..6) {
        let report = judged(&execution(seed, Size { users, overlap, ..SMALL }));
        prop_assert_eq!(report.violated(), 0, "seed {}: {}", seed, report);
        for invariant in Invariant::ALL {
            let judged = report.finding(invariant).unwrap().judged;
            // Accounts of this size are often too large to be searched.
            prop_assert!(judged > 0 || invariant == Invariant::Search, "{}: {}", invariant, report);
        }
    }

    #[test]
    fn a_small_execution_is_explained_by_some_order(seed: u64, overlap in 1u64..1000) {
        let size = Size { users: 3, steps: 40, overlap };
        let report = judged(&execution(seed, size));
        let search = report.finding(Invariant::Search).unwrap();
        prop_assert_eq!(search.violated, 0, "seed {}: {}", seed, report);
        prop_assert_eq!(search.judged, 3, "seed {}: {}", seed, report);
    }

    #[test]
    fn a_single_mistake_is_found(seed: u64, overlap in 1u64..1500) {
        let records = execution(seed, Size { overlap, ..SMALL });
        for Mistake { name, breaks, plant } in MISTAKES {
            let mut planted = records.clone();
            if plant(&mut planted, &mut Random::new(seed)).is_none() {
                continue;
            }
            let report = judged(&planted);
            let broken = report.broken();
            prop_assert!(
                breaks.iter().any(|invariant| broken.contains(invariant)),
                "seed {}: {} was not found by {:?}: {}", seed, name, breaks, report
            );
            for finding in report.findings.iter().filter(|it| it.invariant != Invariant::Replicas) {
                for violation in &finding.violations {
                    prop_assert!(!violation.operations.is_empty(), "{}", finding);
                }
            }
        }
    }
}

#[test]
fn a_history_without_operations_shows_nothing() {
    let report = judged(&execution(1, SMALL)[..1]);
    for finding in &report.findings {
        assert!(!finding.is_judged_in_full(), "{finding}");
    }
    for needy in
        [Invariant::Idempotence, Invariant::Empty, Invariant::Conservation, Invariant::Count]
    {
        assert_eq!(report.finding(needy).unwrap().verdict(), Verdict::NotJudged, "{report}");
    }
}

#[test]
fn there_is_a_place_for_every_mistake() {
    let mut planted: BTreeMap<_, u32> = BTreeMap::new();
    for seed in 0..20 {
        let records = execution(seed, SMALL);
        for mistake in MISTAKES {
            let done = (mistake.plant)(&mut records.clone(), &mut Random::new(seed)).is_some();
            *planted.entry(mistake.name).or_default() += u32::from(done);
        }
    }
    assert!(planted.values().all(|times| *times >= 10), "{planted:?}");
}
