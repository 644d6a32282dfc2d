//! Invariant 9: replicas agree.
//!
//! Two replicas of a shard that have applied the same entries hold the same state: their digests
//! are equal at equal applied index. One replica that is asked twice counts as two.
//!
//! Needs: `replica` records. Leaves out: replicas that were never caught at the same index, and
//! states that differ in what the digest leaves out.

use std::collections::BTreeMap;

use super::{Finding, Invariant, evidence::Evidence};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Replicas);
    let mut states: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for replica in &evidence.history.replicas {
        states.entry((replica.shard, replica.applied)).or_default().push(replica);
    }
    for ((shard, applied), replicas) in states {
        let [first, others @ ..] = &replicas[..] else { continue };
        for other in others {
            finding.judged += 1;
            if other.state != first.state {
                finding.violation(
                    [],
                    format!(
                        "node {} and node {} differ in shard {shard} at applied index {applied}",
                        first.node, other.node
                    ),
                );
            }
        }
    }
    if finding.judged == 0 {
        let why = "no two replicas were read at the same applied index";
        finding.not_judged.push(why.to_owned());
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Replicas, Verdict, story::Story};

    #[test]
    fn replicas_that_agree_are_right() {
        let mut story = Story::with_keys(&[1]);
        story.replica(1, 5, "x");
        story.replica(2, 5, "x");
        story.replica(3, 4, "y");
        story.holds(Replicas);
    }

    #[test]
    fn replicas_that_differ_are_found() {
        let mut story = Story::with_keys(&[1]);
        story.replica(1, 5, "x");
        story.replica(2, 5, "y");
        let message = &story.judged(Replicas).violations[0].message;
        assert!(message.contains("node 1 and node 2") && message.contains('5'), "{message}");
    }

    #[test]
    fn a_replica_that_changes_without_an_entry_is_found() {
        let mut story = Story::with_keys(&[1]);
        story.replica(1, 5, "x");
        story.replica(1, 5, "y");
        assert_eq!(story.judged(Replicas).violated, 1);
    }

    #[test]
    fn replicas_at_different_entries_are_not_compared() {
        let mut story = Story::with_keys(&[1]);
        story.replica(1, 5, "x");
        story.replica(2, 6, "y");
        assert_eq!(story.judged(Replicas).verdict(), Verdict::NotJudged);
    }
}
