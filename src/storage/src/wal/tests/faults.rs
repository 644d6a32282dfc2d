//! Failing writes and syncs, and a full disk.

use super::*;

#[test]
fn after_a_failed_operation_nothing_is_tried_again_and_nothing_acknowledged_is_lost() {
    let script = script();
    let mut faults = 0;
    for operation in 0.. {
        let disk = SimDisk::new();
        disk.fail_at(operation);
        let Ok((mut bed, _)) = Bed::open(&disk) else { continue };
        let failed = bed.run(&script);
        bed.wal.shutdown();
        if disk.operations() <= operation {
            assert!(failed.is_ok());
            break;
        }
        let context = format!("operation {operation} failed");
        assert_eq!(disk.operations(), operation + 1, "{context}: something came after");
        assert_eq!(bed.faults.lock().unwrap().len(), 1, "{context}: the node heard of it once");
        let (done, answer) = done();
        bed.wal.save_vote(GroupId(1), Bytes::new(), done);
        assert!(answer.recv().unwrap().is_err(), "{context}: a later job is refused");
        // The process ends, the machine does not: what the page cache shows is read, and is
        // durable from then on.
        disk.kill();
        let found = content(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(bed.allows(&found), "{context}: found {found:#?}");
        disk.power_cut(Tear::Nothing);
        assert_eq!(content(&disk).unwrap(), found, "{context}: after a power cut");
        faults += 1;
    }
    assert!(faults > 100, "{faults} faults");
}

#[test]
fn the_node_hears_of_a_fault_before_any_caller() {
    let disk = SimDisk::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let node = heard.clone();
    let on_fault = move |_: &WalFault| node.lock().unwrap().push("node");
    let (wal, _) = Wal::open(Arc::new(disk.mount()), options(), on_fault).unwrap();
    disk.fail_at(disk.operations() + 1);
    let (sender, answered) = mpsc::channel();
    for name in ["first", "second"] {
        let (caller, sender) = (heard.clone(), sender.clone());
        let done = move |result: Result<(), WalFault>| {
            caller.lock().unwrap().push(name);
            sender.send(result.is_err()).unwrap();
        };
        wal.save_vote(GroupId(1), Bytes::from_static(b"vote"), Box::new(done));
    }
    assert_eq!([answered.recv(), answered.recv()], [Ok(true), Ok(true)]);
    assert_eq!(*heard.lock().unwrap(), ["node", "first", "second"]);
}

#[test]
fn a_done_that_panics_ends_the_log_and_leaves_nobody_waiting() {
    let (mut bed, _) = Bed::open(&SimDisk::new()).unwrap();
    bed.wal.save_vote(GroupId(1), Bytes::new(), Box::new(|_| panic!("planned by the test")));
    // Answered by the committer before it ends, or refused after.
    while bed.step(&Step::Vote { group: 1, vote: 1 }).is_ok() {}
    let refused = bed.step(&Step::Vote { group: 1, vote: 1 }).unwrap_err();
    assert!(matches!(refused, WalFault::Panicked), "{refused}");
    assert_eq!(bed.faults.lock().unwrap().len(), 1);
}

#[test]
fn a_full_disk_ends_the_log_with_a_clear_message_and_loses_nothing() {
    let script = script();
    let mut full = 0;
    for capacity in (500..6000).step_by(250) {
        let disk = SimDisk::new();
        disk.set_capacity(capacity);
        let Ok((mut bed, _)) = Bed::open(&disk) else { continue };
        let Err(fault) = bed.run(&script) else { continue };
        let context = format!("capacity {capacity}");
        assert!(matches!(fault, WalFault::DiskFull { .. }), "{context}: {fault}");
        assert!(fault.to_string().contains("no space left"), "{fault}");
        bed.wal.shutdown();
        disk.set_capacity(u64::MAX);
        disk.power_cut(Tear::Sectors(capacity));
        let found = content(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(bed.allows(&found), "{context}: found {found:#?}");
        full += 1;
    }
    assert!(full > 5, "the disk was full {full} times only");
}
