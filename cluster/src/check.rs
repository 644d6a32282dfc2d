//! What every [`History`] must satisfy.
//!
//! Guarantees: each rule looks at the history alone and names the operations that break it; a
//! fetch without an answer counts as possibly committed, so no rule blames a cluster for a key
//! that a lost reply took along.
//!
//! Leaves out: identity keys and signed prekeys, and counts of the pool.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use oncekey_types::{DeviceId, LogIndex, OneTimePreKeyId, RequestId};

use crate::history::{Answer, Handed, History, Key, Operation};

/// Violations shown in one message.
const SHOWN_MAX: usize = 20;

/// A rule that a history breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A key went to two requests.
    DoubleIssue {
        /// The key.
        key: Key,
        /// The requests.
        requests: BTreeSet<RequestId>,
    },
    /// A request got two different answers.
    Forked {
        /// The request.
        request: RequestId,
        /// The keys of each answer.
        answers: Vec<Vec<Key>>,
    },
    /// A key was handed out that nobody uploaded, or with other bytes than before.
    Foreign {
        /// The key.
        key: Key,
        /// Who got it.
        request: RequestId,
    },
    /// A key was handed out after a later one of its device.
    OutOfOrder {
        /// The earlier key, handed out later.
        key: Key,
        /// The later key, handed out before.
        after: OneTimePreKeyId,
    },
    /// A commit has a lower index than one that was answered before it was asked for.
    BackInTime {
        /// The request.
        request: RequestId,
        /// Its index.
        index: LogIndex,
        /// The index answered before.
        after: LogIndex,
    },
    /// A request was never decided, so nothing can be said about the rest.
    Undecided {
        /// The request.
        request: RequestId,
        /// What was seen last.
        last: String,
    },
    /// A key is neither handed out nor in the pool.
    Lost {
        /// The key.
        key: Key,
    },
    /// A key is in the pool and was handed out, or was never uploaded.
    Surplus {
        /// The key.
        key: Key,
    },
}

/// The rules that a history breaks.
#[derive(Clone, Debug)]
pub struct Violations(pub Vec<Violation>);

/// Checks all rules that need no more than the history: unique, one answer, provenance, order.
///
/// # Errors
///
/// Every violation.
pub fn history(history: &History) -> Result<(), Violations> {
    let mut found = unique(history);
    found.extend(one_answer(history));
    found.extend(provenance(history));
    found.extend(order(history));
    none(found)
}

/// Checks what must hold once every request has been retried to an answer and `remaining` are the
/// keys still in the pool: uploaded = handed out ⊎ remaining.
///
/// # Errors
///
/// Every violation.
pub fn conservation(history: &History, remaining: &BTreeSet<Key>) -> Result<(), Violations> {
    let mut found = Vec::new();
    for (request, operations) in history.by_request() {
        if let Some(Answer::Undecided(last)) = operations.last().map(|last| &last.answer)
            && !operations.iter().any(|operation| operation.is_committed())
        {
            found.push(Violation::Undecided { request: request.clone(), last: last.clone() });
        }
    }
    let handed = history.handed();
    for key in &history.uploaded {
        if !handed.contains(key) && !remaining.contains(key) {
            found.push(Violation::Lost { key: *key });
        }
    }
    for key in remaining {
        if handed.contains(key) || !history.uploaded.contains(key) {
            found.push(Violation::Surplus { key: *key });
        }
    }
    none(found)
}

/// No key goes to two requests.
fn unique(history: &History) -> Vec<Violation> {
    let mut owners: BTreeMap<Key, BTreeSet<&RequestId>> = BTreeMap::new();
    for operation in &history.operations {
        for handed in operation.keys() {
            owners.entry(handed.key).or_default().insert(&operation.request);
        }
    }
    owners
        .into_iter()
        .filter(|(_, requests)| requests.len() > 1)
        .map(|(key, requests)| Violation::DoubleIssue {
            key,
            requests: requests.into_iter().cloned().collect(),
        })
        .collect()
}

/// All committed answers of a request are equal.
fn one_answer(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (request, operations) in history.by_request() {
        let answers: Vec<&[Handed]> = operations
            .iter()
            .filter(|operation| operation.is_committed())
            .map(|operation| operation.keys())
            .collect();
        if answers.windows(2).any(|pair| pair[0] != pair[1]) {
            let answers =
                answers.iter().map(|keys| keys.iter().map(|handed| handed.key).collect()).collect();
            found.push(Violation::Forked { request: request.clone(), answers });
        }
    }
    found
}

/// Every key handed out was uploaded, and has the same bytes each time.
fn provenance(history: &History) -> Vec<Violation> {
    let mut bytes = BTreeMap::new();
    let mut found = Vec::new();
    for operation in &history.operations {
        for Handed { key, public } in operation.keys() {
            let same = *bytes.entry(*key).or_insert(public) == public;
            if !same || !history.uploaded.contains(key) {
                found.push(Violation::Foreign { key: *key, request: operation.request.clone() });
            }
        }
    }
    found
}

/// A request as one logical operation: from its first attempt to its first answer.
struct Logical<'a> {
    invoked: Duration,
    returned: Duration,
    index: Option<LogIndex>,
    first: &'a Operation,
}

/// What is asked for after an answer is served after it: keys by growing id, commits by growing
/// index.
fn order(history: &History) -> Vec<Violation> {
    let logical = logical(history);
    let mut by_return: Vec<_> = logical.iter().collect();
    by_return.sort_by_key(|operation| operation.returned);
    let mut by_invocation: Vec<_> = logical.iter().collect();
    by_invocation.sort_by_key(|operation| operation.invoked);

    let mut found = Vec::new();
    let mut answered = by_return.into_iter().peekable();
    let mut highest: BTreeMap<DeviceId, OneTimePreKeyId> = BTreeMap::new();
    let mut last_index = None;
    for operation in by_invocation {
        while let Some(before) = answered.next_if(|before| before.returned < operation.invoked) {
            last_index = last_index.max(before.index);
            for Handed { key, .. } in before.first.keys() {
                let highest = highest.entry(key.device).or_insert(key.id);
                *highest = (*highest).max(key.id);
            }
        }
        for Handed { key, .. } in operation.first.keys() {
            if let Some(after) = highest.get(&key.device)
                && *after > key.id
            {
                found.push(Violation::OutOfOrder { key: *key, after: *after });
            }
        }
        if let (Some(index), Some(after)) = (operation.index, last_index)
            && index < after
        {
            let request = operation.first.request.clone();
            found.push(Violation::BackInTime { request, index, after });
        }
    }
    found
}

fn logical(history: &History) -> Vec<Logical<'_>> {
    history
        .by_request()
        .values()
        .filter_map(|operations| {
            let invoked = operations.first()?.invoked;
            let first = operations.iter().find(|operation| operation.is_committed())?;
            let Answer::Committed { index, .. } = &first.answer else { return None };
            Some(Logical { invoked, returned: first.returned?, index: *index, first })
        })
        .collect()
}

fn none(found: Vec<Violation>) -> Result<(), Violations> {
    if found.is_empty() { Ok(()) } else { Err(Violations(found)) }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violations", self.0.len())?;
        for violation in self.0.iter().take(SHOWN_MAX) {
            write!(f, "\n  {violation:?}")?;
        }
        if self.0.len() > SHOWN_MAX {
            write!(f, "\n  …")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

#[cfg(test)]
mod tests {
    use super::*;
    use oncekey_types::UserId;

    fn key(id: u32) -> Key {
        Key { device: DeviceId(1), id: OneTimePreKeyId(id) }
    }

    /// A fetch that took the keys `ids` between two instants.
    fn fetch(request: &str, invoked: u64, returned: u64, index: u64, ids: &[u32]) -> Operation {
        let keys = ids
            .iter()
            .map(|id| Handed { key: key(*id), public: id.to_be_bytes().into() })
            .collect();
        Operation {
            request: RequestId::new(request).unwrap(),
            asked: "a node".into(),
            invoked: Duration::from_millis(invoked),
            returned: Some(Duration::from_millis(returned)),
            attempts: 1,
            answer: Answer::Committed {
                index: Some(LogIndex(index)),
                repeated: false,
                keys,
                without: Vec::new(),
            },
        }
    }

    fn undecided(request: &str) -> Operation {
        let answer = Answer::Undecided("no reply".into());
        Operation { returned: None, answer, ..fetch(request, 0, 0, 0, &[]) }
    }

    /// Ten keys, four requests: `a` and `b` one after the other, `c` and `d` at the same time, and
    /// `b` once more at the end.
    fn sound() -> History {
        let uploaded = (1..=10).map(key).collect();
        let mut history = History::new(UserId::new("bob").unwrap(), uploaded);
        history.operations = vec![
            fetch("a", 0, 10, 5, &[1]),
            fetch("b", 20, 30, 6, &[2]),
            fetch("d", 40, 60, 8, &[4]),
            fetch("c", 41, 59, 7, &[3]),
            fetch("b", 70, 80, 6, &[2]),
        ];
        history
    }

    fn remaining(ids: std::ops::RangeInclusive<u32>) -> BTreeSet<Key> {
        ids.map(key).collect()
    }

    /// Plants something into the sound history and says what the rules find.
    fn planted(plant: impl FnOnce(&mut History)) -> Vec<Violation> {
        let mut planted = sound();
        plant(&mut planted);
        history(&planted).map_or_else(|violations| violations.0, |()| Vec::new())
    }

    #[test]
    fn a_sound_history_passes() {
        history(&sound()).unwrap();
        conservation(&sound(), &remaining(5..=10)).unwrap();
    }

    #[test]
    fn a_key_issued_twice_is_found() {
        let found = planted(|history| history.operations.push(fetch("e", 90, 99, 9, &[4])));
        assert!(
            found.iter().any(|v| matches!(v, Violation::DoubleIssue { requests, .. }
            if requests.len() == 2)),
            "{found:?}"
        );
    }

    #[test]
    fn a_retry_with_another_key_is_found() {
        let found = planted(|history| history.operations.push(fetch("d", 90, 99, 9, &[5])));
        assert!(matches!(&found[..], [Violation::Forked { answers, .. }] if answers.len() == 2));
        let found = planted(|history| history.operations.push(fetch("d", 90, 99, 9, &[])));
        assert!(matches!(&found[..], [Violation::Forked { .. }]), "{found:?}");
    }

    #[test]
    fn a_key_that_nobody_uploaded_is_found() {
        let found = planted(|history| history.operations.push(fetch("e", 90, 99, 9, &[11])));
        assert!(matches!(&found[..], [Violation::Foreign { .. }]), "{found:?}");
    }

    #[test]
    fn a_key_with_other_bytes_than_before_is_found() {
        let found = planted(|history| {
            let Answer::Committed { keys, .. } = &mut history.operations[4].answer else { return };
            keys[0].public = [9; 32].into();
        });
        assert!(found.iter().any(|v| matches!(v, Violation::Foreign { .. })), "{found:?}");
    }

    #[test]
    fn the_newest_key_first_is_found() {
        let found = planted(|history| history.operations[0] = fetch("a", 0, 10, 5, &[9]));
        assert!(found.iter().all(|v| matches!(v, Violation::OutOfOrder { .. })), "{found:?}");
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn an_answer_from_the_past_is_found() {
        let found = planted(|history| history.operations.push(fetch("e", 90, 99, 6, &[5])));
        assert!(matches!(&found[..], [Violation::BackInTime { .. }]), "{found:?}");
    }

    #[test]
    fn a_lost_key_and_a_key_that_came_back_are_found() {
        let violations = |ids| conservation(&sound(), &remaining(ids)).unwrap_err().0;
        assert_eq!(violations(6..=10), [Violation::Lost { key: key(5) }]);
        assert_eq!(violations(4..=10), [Violation::Surplus { key: key(4) }]);
        assert_eq!(violations(5..=11), [Violation::Surplus { key: key(11) }]);
    }

    #[test]
    fn a_request_without_an_answer_is_found_until_it_is_retried() {
        let mut history = sound();
        history.operations.push(undecided("e"));
        let found = conservation(&history, &remaining(5..=10)).unwrap_err().0;
        assert!(matches!(&found[..], [Violation::Undecided { .. }]), "{found:?}");
        history.operations.push(fetch("e", 90, 99, 9, &[5]));
        conservation(&history, &remaining(6..=10)).unwrap();
    }
}
