//! Invariant 1: no key goes to two requests.
//!
//! For every key k, at most one logical operation has an answer that holds k. A reply that was
//! given counts even when its client saw it late, or a later reply of the same request said
//! otherwise; an answer without a quorum counts too.
//!
//! Needs: the answers. Leaves out: replies that nobody received. They are found as keys that are
//! missing in the end, by [conservation](super::conservation).

use super::{
    Finding, Invariant,
    evidence::{Evidence, of_fetch},
};

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::new(Invariant::Unique);
    let mut handed: Vec<_> = evidence
        .handed()
        .map(|handed| (handed.of.user, handed.device, handed.opk.0, handed.fetch))
        .collect();
    handed.sort_unstable();
    handed.dedup();
    for same in handed.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
        finding.judged += 1;
        if let [(_, device, id, _), _, ..] = same {
            let fetches = same.iter().map(|(.., fetch)| &evidence.history.fetches[*fetch]);
            let requests: Vec<_> = fetches.clone().map(|fetch| evidence.say(fetch)).collect();
            finding.violation(
                fetches.flat_map(of_fetch),
                format!(
                    "key {id} of device {device} went to {} requests: {}",
                    same.len(),
                    requests.join(", ")
                ),
            );
        }
    }
    finding
}
