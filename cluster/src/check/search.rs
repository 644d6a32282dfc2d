//! Some order explains every answer: linearizability of an account, by search.
//!
//! For an account with few operations the [search](super::wgl) looks for an order of its fetches,
//! writes and reads that respects their times and in which a [correct account](super::model) gives
//! each of its answers. It uses no log index and none of the other checkers, and it knows that all
//! devices of a fetch are served at one moment.
//!
//! Needs: all writes of the account. Leaves out: accounts with more than
//! [`OPERATIONS_MAX`] operations, and those whose search takes more than [`STEPS_MAX`] steps: their
//! linearizability is unknown, and they are counted as such.

use std::collections::BTreeMap;

use super::{
    Finding, Invariant,
    evidence::{Evidence, of_fetch, of_write},
    model::{Account, Action},
    wgl::{self, Found, Operation, State},
};
use crate::history::{History, Name, record::OperationId};

/// Operations of an account that are searched an order for.
const OPERATIONS_MAX: usize = 256;
/// Steps of one search.
const STEPS_MAX: u64 = 200_000;
/// Operations named in a violation.
const NAMED_MAX: usize = 8;

impl<'a> State for Account<'a> {
    type Action = Action<'a>;

    fn step(&self, action: &Action<'a>) -> Option<Self> {
        self.fits(action).ok()?;
        let mut next = self.clone();
        next.apply(action);
        Some(next)
    }
}

pub(super) fn check(evidence: &Evidence<'_>) -> Finding {
    search(evidence, STEPS_MAX)
}

/// Searches each account, in at most `steps_max` steps.
fn search(evidence: &Evidence<'_>, steps_max: u64) -> Finding {
    let mut finding = Finding::new(Invariant::Search);
    let (mut long, mut gave_up) = (0_u64, 0_u64);
    for (operations, ids) in accounts(evidence.history).into_values() {
        if operations.len() > OPERATIONS_MAX {
            long += 1;
            continue;
        }
        match wgl::search(Account::default(), &operations, steps_max) {
            Found::Order => finding.judged += 1,
            Found::None { ordered, next } => {
                finding.judged += 1;
                explain(&operations, &ids, &ordered, &next, &mut finding);
            }
            Found::GaveUp => gave_up += 1,
        }
    }
    if long > 0 {
        let why = format!("{long} accounts: unknown, more than {OPERATIONS_MAX} operations");
        finding.not_judged.push(why);
    }
    if gave_up > 0 {
        let why = format!("{gave_up} accounts: unknown, more than {steps_max} steps");
        finding.not_judged.push(why);
    }
    finding
}

type Operations<'a> = (Vec<Operation<Action<'a>>>, Vec<OperationId>);

/// What was asked of each account, and may have been carried out.
fn accounts(history: &History) -> BTreeMap<Name, Operations<'_>> {
    let mut accounts: BTreeMap<_, Operations<'_>> = BTreeMap::new();
    let mut add = |user, operation, id| {
        let (operations, ids) = accounts.entry(user).or_default();
        // One more than is searched says that there are too many.
        if operations.len() <= OPERATIONS_MAX {
            operations.push(operation);
            ids.push(id);
        }
    };
    for fetch in &history.fetches {
        let Some(id) = of_fetch(fetch).next() else { continue };
        let answer = fetch.answer().map(|answer| &*answer.says);
        if answer.is_none() && !fetch.is_undecided() {
            continue;
        }
        let action = Action::Fetch { devices: fetch.devices.as_deref(), answer };
        let (invoked, returned) = (fetch.invoked(), fetch.returned());
        add(fetch.user, Operation { action, invoked, returned }, id);
    }
    for write in &history.writes {
        let Some(id) = of_write(write).next() else { continue };
        let answer = write.answer().map(|answer| &answer.says);
        if answer.is_none() && !write.is_undecided() {
            continue;
        }
        let action = Action::Write { device: write.device, content: &write.content, answer };
        let (invoked, returned) = (write.invoked(), write.returned());
        add(write.user, Operation { action, invoked, returned }, id);
    }
    for read in &history.reads {
        let (invoked, returned) = (read.invoked, read.returned);
        let action = Action::Read(read);
        add(read.user, Operation { action, invoked, returned }, read.op);
    }
    accounts
}

/// Says where the longest attempt ended.
fn explain(
    operations: &[Operation<Action<'_>>],
    ids: &[OperationId],
    ordered: &[usize],
    next: &[usize],
    finding: &mut Finding,
) {
    let mut account = Account::default();
    for number in ordered {
        account.apply(&operations[*number].action);
    }
    let why = next.iter().find_map(|number| {
        let why = account.fits(&operations[*number].action).err()?;
        Some(format!("operation {}: {why}", ids[*number]))
    });
    let next: Vec<_> = next.iter().take(NAMED_MAX).map(|number| ids[*number]).collect();
    let names: Vec<_> = next.iter().map(ToString::to_string).collect();
    finding.violation(
        next,
        format!(
            "no order explains the answers: {} of {} operations have one, and none of {} can come \
             next ({})",
            ordered.len(),
            operations.len(),
            names.join(", "),
            why.unwrap_or_else(|| "each leads nowhere".to_owned())
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::super::{Invariant::Search, Verdict, evidence::Evidence, story::Story};

    #[test]
    fn overlapping_operations_with_some_order_are_right() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch_without_answer("a", 2);
        story.fetch("b", (3, 9), Some(2));
        story.fetch("c", (4, 8), None);
        story.upload((10, 11), &[3], 1);
        let finding = story.judged(Search);
        assert!(finding.verdict() == Verdict::Holds && finding.is_judged_in_full(), "{finding}");
    }

    #[test]
    fn a_fetch_whose_devices_were_served_at_two_moments_is_found() {
        let mut story = Story::with_keys(&[1]);
        story.registration = 2;
        story.register((2, 3), 2, &[1]);
        story.registration = 1;
        let a = story.fetch_all("a", (4, 20), &[Some(1), None]);
        let b = story.fetch_all("b", (5, 20), &[None, Some(1)]);
        story.breaks(Search, &[a, b]);
    }

    #[test]
    fn a_key_that_went_to_two_requests_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 3), Some(1));
        let b = story.fetch("b", (4, 5), Some(1));
        story.breaks(Search, &[b]);
    }

    #[test]
    fn an_empty_pool_before_a_key_without_an_upload_between_is_found() {
        let mut story = Story::with_keys(&[1]);
        let a = story.fetch("a", (2, 3), None);
        story.fetch("b", (4, 5), Some(1));
        story.breaks(Search, &[a]);
    }

    #[test]
    fn a_read_that_no_order_explains_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 3), Some(1));
        let read = story.read((4, 5), Some((1, 2)), 2);
        story.breaks(Search, &[read]);
        assert_eq!(story.judged(Search).judged, 1);
    }

    #[test]
    fn a_long_history_is_unknown() {
        // With its registration an account has one operation more.
        for (fetches, verdict) in [(255, Verdict::Holds), (256, Verdict::NotJudged)] {
            let mut story = Story::with_keys(&[]);
            for number in 0..fetches {
                story.fetch(&format!("r{number}"), (2 * number + 2, 2 * number + 3), None);
            }
            let finding = story.judged(Search);
            assert_eq!(finding.verdict(), verdict, "{finding}");
            let unknown = finding.not_judged.iter().any(|why| why.contains("unknown"));
            assert_eq!(unknown, verdict == Verdict::NotJudged, "{finding}");
        }
    }

    #[test]
    fn an_account_that_takes_too_many_steps_is_unknown() {
        let mut story = Story::with_keys(&[1, 2]);
        story.fetch("a", (2, 9), Some(2));
        story.fetch("b", (3, 9), Some(1));
        let history = story.history();
        let finding = super::search(&Evidence::of(&history), 2);
        assert_eq!(finding.verdict(), Verdict::NotJudged, "{finding}");
        assert_eq!(finding.not_judged, ["1 accounts: unknown, more than 2 steps"]);
    }
}
