//! What callers see of a log in good health.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::disk::RealDisk;

const GROUP: GroupId = GroupId(1);

fn entry(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn an_entry_is_read_at_once_and_a_truncated_one_never() {
    let (bed, _) = Bed::open(&SimDisk::new()).unwrap();
    let ignore = || -> Done { Box::new(|_| ()) };
    bed.wal.append(GROUP, 5, vec![entry("a"), entry("b"), entry("c")], ignore());
    assert_eq!(bed.wal.read(GROUP, 6..9).unwrap(), [(6, entry("b")), (7, entry("c"))]);
    bed.wal.truncate(GROUP, 6, None);
    bed.wal.append(GROUP, 6, vec![entry("d")], ignore());
    assert_eq!(bed.wal.read(GROUP, 0..9).unwrap(), [(5, entry("a")), (6, entry("d"))]);
    assert_eq!(bed.wal.entries(GROUP), Some((5, 6)));
    bed.wal.purge(GROUP, 6, Bytes::new(), None);
    assert_eq!(bed.wal.read(GROUP, 0..9).unwrap(), []);
    assert_eq!(bed.wal.entries(GROUP), None);
}

#[test]
fn a_limited_read_gives_at_least_one_entry() {
    let (mut bed, _) = Bed::open(&SimDisk::new()).unwrap();
    bed.step(&Step::Append { group: 1, count: 5, bytes: 92 }).unwrap();
    let count = |max_bytes| bed.wal.read_up_to(GROUP, 0..9, max_bytes).unwrap().len();
    assert_eq!([count(0), count(199), count(200), count(9999)], [1, 1, 2, 5]);
}

#[test]
fn a_request_against_the_rules_is_refused_and_changes_nothing() {
    let (mut bed, _) = Bed::open(&SimDisk::new()).unwrap();
    bed.step(&Step::Append { group: 1, count: 2, bytes: 1 }).unwrap();
    let too_long = Bytes::from(vec![0; oncekey_types::limits::WAL_RECORD_MAX_BYTES + 1]);
    let gap = Call::Append(GROUP, 3, vec![entry("gap")]);
    let overlap = Call::Append(GROUP, 1, vec![entry("overlap")]);
    let calls =
        [gap, overlap, Call::Append(GROUP, 2, vec![]), Call::Append(GROUP, 2, vec![too_long])];
    for call in calls {
        let refused = call.make(&bed.wal).unwrap_err();
        assert!(matches!(refused, WalFault::Refused { .. }), "{refused}");
    }
    assert_eq!(bed.wal.entries(GROUP), Some((0, 1)));
    bed.step(&Step::Append { group: 1, count: 1, bytes: 1 }).unwrap();
    assert!(bed.faults.lock().unwrap().is_empty());
}

#[test]
fn a_closed_log_takes_nothing_but_can_be_read() {
    let (mut bed, _) = Bed::open(&SimDisk::new()).unwrap();
    bed.step(&Step::Append { group: 1, count: 1, bytes: 1 }).unwrap();
    bed.wal.shutdown();
    let refused = bed.step(&Step::Vote { group: 1, vote: 1 }).unwrap_err();
    assert!(matches!(refused, WalFault::Closed), "{refused}");
    assert_eq!(bed.wal.read(GROUP, 0..9).unwrap().len(), 1);
    assert!(bed.faults.lock().unwrap().is_empty());
}

#[test]
fn jobs_of_a_group_are_answered_in_order_whoever_else_writes() {
    let disk = SimDisk::new();
    let options = WalOptions { segment_bytes: 8192, queue_bytes: 500, ..options() };
    let (bed, _) = Bed::open_with(&disk, options).unwrap();
    std::thread::scope(|scope| {
        for group in 0..4 {
            let wal = bed.wal.clone();
            scope.spawn(move || {
                let (sender, answers) = mpsc::channel();
                for index in 0..300u64 {
                    let sender = sender.clone();
                    let done = move |result: Result<(), WalFault>| {
                        result.unwrap();
                        sender.send(index).unwrap();
                    };
                    wal.append(GroupId(group), index, vec![payload(index, 20)], Box::new(done));
                }
                drop(sender);
                assert!(answers.iter().eq(0..300), "group {group}");
            });
        }
    });
    disk.power_cut(Tear::Nothing);
    for (group, found) in content(&disk).unwrap() {
        assert_eq!(found.entries.len(), 300, "{group:?}");
    }
}

#[test]
fn a_done_may_submit_even_when_the_queue_is_full() {
    let options = WalOptions { queue_bytes: 1, ..options() };
    let (bed, _) = Bed::open_with(&SimDisk::new(), options).unwrap();
    let (done, answer) = done();
    let wal = bed.wal.clone();
    let first = move |_| {
        for index in 1..9 {
            wal.append(GROUP, index, vec![entry("x")], Box::new(|_| ()));
        }
        wal.append(GROUP, 9, vec![entry("y")], done);
    };
    bed.wal.append(GROUP, 0, vec![entry("w")], Box::new(first));
    answer.recv().unwrap().unwrap();
}

#[test]
fn purging_the_groups_that_pin_the_oldest_segment_frees_it() {
    let (mut bed, _) = Bed::open(&SimDisk::new()).unwrap();
    for _ in 0..20 {
        bed.step(&Step::Append { group: 1, count: 1, bytes: 100 }).unwrap();
        bed.step(&Step::Append { group: 2, count: 1, bytes: 100 }).unwrap();
    }
    assert!(bed.wal.stats().segments > 3);
    // Segments are given up behind the answer, so there may be nothing to purge for a moment.
    let started = Instant::now();
    while bed.wal.stats().segments > 1 {
        for (group, last) in bed.wal.groups_pinning_oldest_segment() {
            Call::Purge(group, last, Bytes::new()).make(&bed.wal).unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", bed.wal.stats());
        std::thread::yield_now();
    }
    assert!(bed.wal.groups_pinning_oldest_segment().is_empty());
}

#[test]
fn segments_without_entries_are_given_up_on_their_own() {
    let (mut bed, _) = Bed::open(&SimDisk::new()).unwrap();
    for vote in 0..200 {
        bed.step(&Step::Vote { group: 1, vote }).unwrap();
    }
    bed.wal.shutdown();
    assert_eq!(bed.wal.stats().segments, 1);
    assert_eq!(content(&bed.disk).unwrap(), bed.submitted.content());
}

#[test]
fn a_committed_position_forces_no_sync() {
    let (bed, _) = Bed::open(&SimDisk::new()).unwrap();
    let before = bed.disk.operations();
    bed.wal.save_committed(GROUP, entry("7"));
    assert_eq!(bed.wal.stats().queued_bytes, 0);
    assert_eq!(bed.disk.operations(), before);
    bed.wal.shutdown();
    assert_eq!(content(&bed.disk).unwrap()[&GROUP].committed, Some(entry("7")));
}

#[test]
fn a_log_is_found_as_far_as_it_told_before_it_was_opened_again() {
    let disk = SimDisk::new();
    let (mut bed, _) = Bed::open(&disk).unwrap();
    bed.run(&script()).unwrap();
    let told = bed.wal.progress();
    disk.power_cut(Tear::Nothing);
    let (bed, recovery) = Bed::open(&disk).unwrap();
    assert_eq!(recovery.progress, told);
    assert!(bed.wal.progress() > told, "opening it wrote to it");
}

#[test]
fn dropping_the_last_handle_closes_the_log() {
    let disk = Arc::new(SimDisk::new().mount());
    let (wal, _) = Wal::open(disk.clone(), options(), |_| ()).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    for index in 0..50 {
        let calls = calls.clone();
        let done = move |result: Result<(), WalFault>| {
            result.unwrap();
            calls.fetch_add(1, Ordering::Relaxed);
        };
        wal.append(GROUP, index, vec![entry("x")], Box::new(done));
    }
    drop(wal);
    assert_eq!(calls.load(Ordering::Relaxed), 50);
    assert_eq!(Arc::strong_count(&disk), 1, "the disk is free again");
}

#[test]
fn a_log_on_a_real_disk_is_there_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let disk = RealDisk::open(dir.path()).unwrap();
        Wal::open(Arc::new(disk), options(), |fault| panic!("{fault}")).unwrap()
    };
    let (wal, recovery) = open();
    assert!(recovery.groups.is_empty());
    let mut model = Model::default();
    for step in script() {
        model.apply(&step).make(&wal).unwrap();
    }
    drop(wal);
    let (wal, recovery) = open();
    assert_eq!(read_content(&wal, &recovery), model.content());
}

#[test]
fn a_log_without_a_thread_writes_when_it_is_told_to() {
    let disk = SimDisk::new();
    let woken = Arc::new(AtomicUsize::new(0));
    let wake = {
        let woken = woken.clone();
        move || {
            woken.fetch_add(1, Ordering::Relaxed);
        }
    };
    let open = |wake: Box<dyn Fn() + Send + Sync>| {
        Wal::open_without_thread(Arc::new(disk.mount()), options(), |_| (), wake).unwrap()
    };
    let (wal, _) = open(Box::new(wake));
    let durable = Arc::new(AtomicUsize::new(0));
    for vote in 1..=2u8 {
        let durable = durable.clone();
        let done = Box::new(move |result: Result<(), WalFault>| {
            result.unwrap();
            durable.store(vote.into(), Ordering::Relaxed);
        });
        wal.save_vote(GROUP, vec![vote].into(), done);
    }
    assert_eq!((woken.load(Ordering::Relaxed), durable.load(Ordering::Relaxed)), (1, 0));
    assert!(wal.work());
    assert_eq!(durable.load(Ordering::Relaxed), 2, "one batch takes all that waits");

    wal.save_vote(GROUP, vec![3].into(), Box::new(|_| ()));
    disk.power_cut(Tear::Nothing);
    drop(wal);
    let (wal, recovery) = open(Box::new(|| ()));
    assert_eq!(recovery.groups[&GROUP].vote.as_deref(), Some(&[2][..]));

    wal.save_vote(GROUP, vec![4].into(), Box::new(|_| ()));
    drop(wal);
    let (_, recovery) = open(Box::new(|| ()));
    assert_eq!(recovery.groups[&GROUP].vote.as_deref(), Some(&[4][..]));
}
