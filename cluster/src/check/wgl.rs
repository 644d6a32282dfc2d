//! Linearizability by search.
//!
//! The algorithm of Wing and Gong (*Testing and verifying concurrent objects*, 1993) as Lowe
//! improved it (*Testing for linearizability*, 2017): beginnings and ends of the operations stand
//! in one list in the order of time; an operation that may come next is one whose beginning stands
//! before the first end. Take one, cross it out, go on; at an end that is not crossed out, take the
//! last one back. A set of crossed-out operations that led to a state that was seen before is not
//! tried again.
//!
//! Guarantees: [`Found::Order`] and [`Found::None`] are right; an operation without an end may come
//! at any time after its beginning, or never. Leaves out: long histories. The time is exponential
//! in the number of operations at the same time, so a search is bounded and then says
//! [`Found::GaveUp`].

use std::collections::BTreeSet;

use crate::history::record::At;

/// What is searched an order for.
pub(super) trait State: Clone + Ord {
    /// What an operation does and answers.
    type Action;

    /// The state after `action`; none when it does not answer this in this state.
    fn step(&self, action: &Self::Action) -> Option<Self>;
}

/// An operation.
#[derive(Clone, Debug)]
pub(super) struct Operation<A> {
    pub(super) action: A,
    pub(super) invoked: At,
    /// [`At::NEVER`] when nobody knows whether it was carried out.
    pub(super) returned: At,
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// An order that explains everything.
    Order,
    /// There is none. The longest attempt put `ordered` in order; none of `next` could follow.
    None { ordered: Vec<usize>, next: Vec<usize> },
    /// It took too long.
    GaveUp,
}

/// Searches an order of `operations` from `initial`, in at most `steps_max` steps.
pub(super) fn search<S: State>(
    initial: S,
    operations: &[Operation<S::Action>],
    steps_max: u64,
) -> Found {
    let mut list = List::of(operations);
    let mut state = initial;
    let mut crossed = Set::of(operations.len());
    let mut seen = BTreeSet::new();
    let mut taken: Vec<(usize, S)> = Vec::new();
    let mut longest: Vec<usize> = Vec::new();
    let mut left = operations.iter().filter(|it| it.returned != At::NEVER).count();
    let mut entry = list.first();
    let mut steps = 0;
    while left > 0 {
        steps += 1;
        if steps > steps_max {
            return Found::GaveUp;
        }
        match entry.map(|place| (place, list.entries[place])) {
            Some((place, Entry::Begin(number))) => {
                let operation = &operations[number];
                let next = state.step(&operation.action).filter(|next| {
                    crossed.put(number, true);
                    let new = seen.insert((crossed.clone(), next.clone()));
                    if !new {
                        crossed.put(number, false);
                    }
                    new
                });
                if let Some(next) = next {
                    taken.push((place, std::mem::replace(&mut state, next)));
                    list.lift(place);
                    left -= usize::from(operation.returned != At::NEVER);
                    entry = list.first();
                } else {
                    entry = list.next(place);
                }
            }
            // An end that is not crossed out: what was taken so far leads nowhere.
            Some((_, Entry::End)) | None => {
                if taken.len() >= longest.len() {
                    longest = taken.iter().map(|(place, _)| list.number(*place)).collect();
                }
                let Some((place, before)) = taken.pop() else {
                    return dead_end(operations, longest);
                };
                state = before;
                list.unlift(place);
                let number = list.number(place);
                crossed.put(number, false);
                left += usize::from(operations[number].returned != At::NEVER);
                entry = list.next(place);
            }
        }
    }
    Found::Order
}

/// The longest attempt, and what should have come next.
fn dead_end<A>(operations: &[Operation<A>], ordered: Vec<usize>) -> Found {
    let rest = || (0..operations.len()).filter(|number| !ordered.contains(number));
    let first_end = rest().map(|number| operations[number].returned).min().unwrap_or(At::NEVER);
    let next = rest().filter(|number| operations[*number].invoked <= first_end).collect();
    Found::None { ordered, next }
}

/// Beginnings and ends, linked in the order of time.
struct List {
    entries: Vec<Entry>,
    /// Where the end of the operation of a beginning is.
    ends: Vec<Option<usize>>,
    /// The entry after and before each one; the last place stands for both ends of the list.
    after: Vec<usize>,
    before: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Entry {
    Begin(usize),
    End,
}

impl List {
    fn of<A>(operations: &[Operation<A>]) -> Self {
        let mut moments = Vec::with_capacity(2 * operations.len());
        for (number, operation) in operations.iter().enumerate() {
            // At one moment beginnings come first: the operations overlap.
            moments.push((operation.invoked, false, number));
            if operation.returned != At::NEVER {
                moments.push((operation.returned, true, number));
            }
        }
        moments.sort_unstable();
        let mut ends = vec![None; moments.len()];
        let mut begins = vec![0; operations.len()];
        for (place, (_, end, number)) in moments.iter().enumerate() {
            if *end {
                ends[begins[*number]] = Some(place);
            } else {
                begins[*number] = place;
            }
        }
        let count = moments.len();
        let entry = |(_, end, number)| if end { Entry::End } else { Entry::Begin(number) };
        Self {
            entries: moments.into_iter().map(entry).collect(),
            ends,
            after: (1..=count).chain([0]).collect(),
            before: [count].into_iter().chain(0..count).collect(),
        }
    }

    fn first(&self) -> Option<usize> {
        self.next(self.entries.len())
    }

    fn next(&self, place: usize) -> Option<usize> {
        Some(self.after[place]).filter(|next| *next < self.entries.len())
    }

    fn number(&self, place: usize) -> usize {
        match self.entries[place] {
            Entry::Begin(number) => number,
            Entry::End => 0,
        }
    }

    /// Crosses out a beginning and its end.
    fn lift(&mut self, place: usize) {
        self.unlink(place);
        if let Some(end) = self.ends[place] {
            self.unlink(end);
        }
    }

    /// Puts back what was crossed out last.
    fn unlift(&mut self, place: usize) {
        if let Some(end) = self.ends[place] {
            self.link(end);
        }
        self.link(place);
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.before[place], self.after[place]);
        self.after[before] = after;
        self.before[after] = before;
    }

    fn link(&mut self, place: usize) {
        let (before, after) = (self.before[place], self.after[place]);
        self.after[before] = place;
        self.before[after] = place;
    }
}

/// A set of small numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Set(Vec<u64>);

impl Set {
    fn of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn put(&mut self, number: usize, within: bool) {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if within {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A register of a small number.
    impl State for u8 {
        type Action = Access;

        fn step(&self, action: &Access) -> Option<u8> {
            match action {
                Access::Write(value) => Some(*value),
                Access::Read(value) => (value == self).then_some(*self),
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    pub(in crate::check) enum Access {
        Write(u8),
        Read(u8),
    }

    use Access::{Read, Write};

    fn operation(action: Access, invoked: u64, returned: u64) -> Operation<Access> {
        let returned = if returned == 0 { At::NEVER } else { At(returned) };
        Operation { action, invoked: At(invoked), returned }
    }

    fn found(operations: &[Operation<Access>]) -> Found {
        search(0, operations, 100_000)
    }

    #[test]
    fn operations_at_the_same_time_may_come_in_any_order() {
        let history =
            [operation(Write(1), 1, 9), operation(Read(1), 2, 3), operation(Read(0), 2, 4)];
        assert_eq!(found(&history), Found::Order);
        let history =
            [operation(Write(1), 1, 9), operation(Read(1), 2, 3), operation(Read(0), 4, 5)];
        assert!(matches!(found(&history), Found::None { next, .. } if next == [2]));
    }

    #[test]
    fn an_operation_without_an_end_may_come_late_or_never() {
        let late = [operation(Write(1), 1, 0), operation(Read(0), 2, 3), operation(Read(1), 4, 5)];
        assert_eq!(found(&late), Found::Order);
        assert_eq!(found(&late[..2]), Found::Order);
        let early = [operation(Read(1), 1, 2), operation(Write(1), 3, 0)];
        assert!(matches!(found(&early), Found::None { .. }));
    }

    #[test]
    fn a_search_that_takes_too_long_says_so() {
        let history: Vec<_> = (0..40)
            .map(|n| operation(Write(n), 1, 100))
            .chain([operation(Read(99), 1, 100)])
            .collect();
        assert_eq!(search(0, &history, 1000), Found::GaveUp);
    }

    /// Every order, tried one by one.
    fn by_brute_force(operations: &[Operation<Access>], state: u8, done: u32) -> bool {
        let rest = || (0..operations.len()).filter(|number| done >> number & 1 == 0);
        let first_end = rest().map(|number| operations[number].returned).min().unwrap_or(At::NEVER);
        first_end == At::NEVER
            || rest().filter(|number| operations[*number].invoked <= first_end).any(|number| {
                state
                    .step(&operations[number].action)
                    .is_some_and(|next| by_brute_force(operations, next, done | 1 << number))
            })
    }

    proptest! {
        #[test]
        fn the_search_finds_what_trying_every_order_finds(
            accesses in prop::collection::vec((any::<bool>(), 0u8..3, 1u64..12, 0u64..6), 1..7)
        ) {
            let operations: Vec<_> = accesses
                .into_iter()
                .map(|(write, value, invoked, lasts)| {
                    let action = if write { Write(value) } else { Read(value) };
                    operation(action, invoked, if lasts == 0 { 0 } else { invoked + lasts })
                })
                .collect();
            let expected = by_brute_force(&operations, 0, 0);
            prop_assert_eq!(found(&operations) == Found::Order, expected, "{:?}", operations);
        }
    }
}
