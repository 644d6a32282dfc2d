//! The log against power cuts, damage and faults.
//!
//! A script of steps runs against the log on a simulated disk, one step at a time, and against a
//! plain model. After a crash the log must hold what the model held after the last acknowledged
//! step, or after the one in flight, and nothing in between.

mod behaviour;
mod crash;
mod damage;
mod faults;
mod histories;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::disk::{SimDisk, Tear};

/// Small segments, so that a short script fills and reuses many.
fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 1024,
        preallocate_bytes: 128,
        spare_segments: 1,
        cache_bytes: 0,
        queue_bytes: 1 << 20,
        idle_mark_ms: None,
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// Adds so many entries behind the last.
    Append {
        group: u32,
        count: u64,
        bytes: usize,
    },
    Vote {
        group: u32,
        vote: u8,
    },
    /// Enqueued only; rides along with a later step.
    Committed {
        group: u32,
        committed: u8,
    },
    /// Drops so many of the last entries.
    Truncate {
        group: u32,
        count: u64,
    },
    /// Drops all but so many of the last entries.
    Purge {
        group: u32,
        keep: u64,
    },
    /// Purges beyond the end, as after a snapshot.
    Skip {
        group: u32,
        ahead: u64,
    },
}

/// What a group holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct ModelGroup {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    next: u64,
    entries: BTreeMap<u64, Bytes>,
}

/// What the log holds. `written` counts entries, so that no two payloads are alike.
#[derive(Clone, Default)]
struct Model {
    groups: BTreeMap<GroupId, ModelGroup>,
    written: u64,
}

impl Model {
    fn apply(&mut self, step: &Step) -> Call {
        match *step {
            Step::Append { group, count, bytes } => {
                let id = GroupId(group);
                let group = self.groups.entry(id).or_default();
                let first = group.next;
                let mut payloads = Vec::new();
                for index in first..first + count {
                    let payload = payload(self.written, bytes);
                    self.written += 1;
                    group.entries.insert(index, payload.clone());
                    payloads.push(payload);
                }
                group.next += count;
                Call::Append(id, first, payloads)
            }
            Step::Vote { group, vote } => {
                let vote = Bytes::from(vec![vote; 9]);
                self.groups.entry(GroupId(group)).or_default().vote = Some(vote.clone());
                Call::Vote(GroupId(group), vote)
            }
            Step::Committed { group, committed } => {
                let committed = Bytes::from(vec![committed; 5]);
                self.groups.entry(GroupId(group)).or_default().committed = Some(committed.clone());
                Call::Committed(GroupId(group), committed)
            }
            Step::Truncate { group, count } => {
                let id = GroupId(group);
                let group = self.groups.entry(id).or_default();
                let count = count.min(group.entries.len() as u64);
                let from = group.next - count;
                group.entries.split_off(&from);
                group.next = from;
                Call::Truncate(id, from)
            }
            Step::Purge { group, keep } => {
                let next = self.groups.entry(GroupId(group)).or_default().next;
                self.purge(group, next.saturating_sub(keep + 1))
            }
            Step::Skip { group, ahead } => {
                let next = self.groups.entry(GroupId(group)).or_default().next;
                self.purge(group, next + ahead)
            }
        }
    }

    fn purge(&mut self, group: u32, upto: u64) -> Call {
        let id = GroupId(group);
        let marker = Bytes::from(format!("purged {upto}"));
        let group = self.groups.entry(id).or_default();
        if group.purged.as_ref().is_none_or(|(purged, _)| *purged <= upto) {
            group.entries = group.entries.split_off(&(upto + 1));
            group.next = group.next.max(upto + 1);
            group.purged = Some((upto, marker.clone()));
        }
        Call::Purge(id, upto, marker)
    }

    /// Without groups that hold nothing.
    fn content(&self) -> BTreeMap<GroupId, ModelGroup> {
        let mut content = self.groups.clone();
        content.retain(|_, group| {
            group.next = 0;
            *group != ModelGroup::default()
        });
        content
    }
}

/// A call of the log's interface.
enum Call {
    Append(GroupId, u64, Vec<Bytes>),
    Vote(GroupId, Bytes),
    Committed(GroupId, Bytes),
    Truncate(GroupId, u64),
    Purge(GroupId, u64, Bytes),
}

impl Call {
    /// Makes the call and waits until the log has answered.
    fn make(self, wal: &Wal) -> Result<(), WalFault> {
        let (done, answer) = done();
        match self {
            Self::Append(group, first, payloads) => wal.append(group, first, payloads, done),
            Self::Vote(group, vote) => wal.save_vote(group, vote, done),
            Self::Committed(group, committed) => {
                wal.save_committed(group, committed);
                return Ok(());
            }
            Self::Truncate(group, from) => wal.truncate(group, from, Some(done)),
            Self::Purge(group, upto, marker) => wal.purge(group, upto, marker, Some(done)),
        }
        answer.recv().expect("every job is answered")
    }
}

/// A [`Done`] and where its result arrives.
fn done() -> (Done, mpsc::Receiver<Result<(), WalFault>>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

fn payload(number: u64, bytes: usize) -> Bytes {
    number.to_be_bytes().iter().copied().cycle().take(8 + bytes).collect()
}

/// An open log and the model of it.
struct Bed {
    disk: SimDisk,
    wal: Wal,
    /// After the last acknowledged step.
    acknowledged: Model,
    /// After the last step submitted.
    submitted: Model,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Bed {
    fn open(disk: &SimDisk) -> Result<(Self, Recovery), OpenError> {
        Self::open_with(disk, options())
    }

    fn open_with(disk: &SimDisk, options: WalOptions) -> Result<(Self, Recovery), OpenError> {
        let faults = Arc::<Mutex<Vec<String>>>::default();
        let seen = faults.clone();
        let on_fault = move |fault: &WalFault| seen.lock().unwrap().push(fault.to_string());
        let (wal, recovery) = Wal::open(Arc::new(disk.mount()), options, on_fault)?;
        let (acknowledged, submitted) = (Model::default(), Model::default());
        Ok((Self { disk: disk.clone(), wal, acknowledged, submitted, faults }, recovery))
    }

    fn step(&mut self, step: &Step) -> Result<(), WalFault> {
        self.submitted.apply(step).make(&self.wal)?;
        if !matches!(step, Step::Committed { .. }) {
            self.acknowledged = self.submitted.clone();
        }
        Ok(())
    }

    /// Runs steps until the first that fails.
    fn run(&mut self, script: &[Step]) -> Result<(), WalFault> {
        script.iter().try_for_each(|step| self.step(step))
    }

    /// Whether the content is what the model allows.
    fn allows(&self, content: &BTreeMap<GroupId, ModelGroup>) -> bool {
        *content == self.acknowledged.content() || *content == self.submitted.content()
    }
}

/// Opens the log and reads all that it holds.
fn content(disk: &SimDisk) -> Result<BTreeMap<GroupId, ModelGroup>, OpenError> {
    let (bed, recovery) = Bed::open(disk)?;
    Ok(read_content(&bed.wal, &recovery))
}

fn read_content(wal: &Wal, recovery: &Recovery) -> BTreeMap<GroupId, ModelGroup> {
    let mut content = BTreeMap::new();
    for (id, group) in &recovery.groups {
        let entries: BTreeMap<_, _> = wal.read(*id, 0..u64::MAX).unwrap().into_iter().collect();
        let bounds = entries.keys().next().copied().zip(entries.keys().next_back().copied());
        assert_eq!(bounds, group.entries, "what is reported is what can be read");
        let RecoveredGroup { vote, committed, purged, .. } = group.clone();
        content.insert(*id, ModelGroup { vote, committed, purged, next: 0, entries });
    }
    content.retain(|_, group| *group != ModelGroup::default());
    content
}

/// Everything a log goes through: appends of all sizes, votes, positions, truncations, purges,
/// many new segments, reused ones, and one batch that is longer than a segment.
fn script() -> Vec<Step> {
    let mut script = vec![
        Step::Vote { group: 1, vote: 1 },
        Step::Append { group: 1, count: 3, bytes: 20 },
        Step::Vote { group: 9, vote: 7 },
        Step::Append { group: 2, count: 1, bytes: 0 },
        Step::Committed { group: 1, committed: 1 },
    ];
    for round in 0..8 {
        script.extend([
            Step::Append { group: 1, count: 4, bytes: 30 },
            Step::Append { group: 2, count: 1, bytes: 200 },
            Step::Committed { group: 2, committed: round },
            Step::Truncate { group: 1, count: 2 },
            Step::Append { group: 1, count: 2, bytes: 90 },
            Step::Vote { group: 2, vote: round },
            Step::Purge { group: 1, keep: 3 },
        ]);
        if round % 2 == 1 {
            script.push(Step::Purge { group: 2, keep: 1 });
        }
        if round == 4 {
            script.push(Step::Append { group: 3, count: 2, bytes: 700 });
            script.push(Step::Skip { group: 3, ahead: 10 });
        }
    }
    script.push(Step::Committed { group: 1, committed: 99 });
    script.push(Step::Append { group: 3, count: 1, bytes: 10 });
    script
}
