//! Histories on disk.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use oncekey_types::{DeviceId, NodeId};
use tempfile::TempDir;

use super::{
    record::{Bundle, Call, Digest, EventKind, Issue, Outcome, Phase, Place, Spk},
    *,
};

/// A recorder into a new folder.
fn recorder() -> (TempDir, Recorder) {
    let dir = TempDir::new().unwrap();
    let recorder = Recorder::create(&dir.path().join("history.jsonl"), "a test").unwrap();
    (dir, recorder)
}

fn fetch(request: &str) -> Call {
    let (user, request) = ("bob".parse().unwrap(), request.parse().unwrap());
    Call::Fetch { user, request, devices: None, require_opk: false }
}

fn fetched(id: u32) -> Outcome {
    let bundle = Bundle {
        device: DeviceId(1),
        registration: RegistrationId(1),
        identity: Digest([1; 16]),
        spk: Spk(SignedPreKeyId(1), Digest([2; 16])),
        opk: Issue::Issued(Opk(OneTimePreKeyId(id), Digest([3; 16]))),
    };
    Outcome::Fetched { at: Place::default(), repeated: false, bundles: vec![bundle] }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn what_is_recorded_is_read_back_while_the_run_goes_on() {
    let (_dir, recorder) = recorder();
    recorder.event(EventKind::Start, Some(NodeId(2)), "127.0.0.1:8002");
    let first = recorder.invoke("alice", None, fetch("a"));
    recorder.complete(first, None, 1, Outcome::Unknown { why: "no reply".to_owned() });
    let again = recorder.invoke("alice", None, fetch("a"));
    recorder.complete(again, Some("http://127.0.0.1:8001".to_owned()), 2, fetched(7));
    let other = recorder.invoke("bob", None, fetch("a"));
    recorder.event(EventKind::Other("meteor".to_owned()), None, "");
    let history = recorder.history().unwrap();
    let [alices, bobs] = &history.fetches[..] else { panic!("{:?}", history.fetches) };
    assert_eq!(alices.tries.iter().map(|call| call.op).collect::<Vec<_>>(), [first, again]);
    assert!(alices.answer().is_some() && !alices.is_undecided());
    assert_eq!(alices.invoked(), alices.tries[0].invoked);
    assert_eq!(alices.returned(), alices.tries[1].returned);
    assert_eq!(bobs.tries[0].op, other);
    assert!(bobs.is_undecided());
    assert_eq!(history.events[1].kind, EventKind::Other("meteor".to_owned()));
    assert!(!history.reached(Phase::End));
    recorder.mark(Phase::End);
    assert!(recorder.history().unwrap().reached(Phase::End));
}

#[test]
fn a_torn_last_line_is_left_out_wherever_it_breaks_off() {
    let (_dir, recorder) = recorder();
    let op = recorder.invoke("alice", None, fetch("a"));
    recorder.complete(op, None, 1, fetched(7));
    let path = recorder.path().unwrap();
    let whole = fs::read_to_string(path).unwrap();
    let last = whole.trim_end().rfind('\n').unwrap() + 1;
    for length in last + 1..whole.len() - 1 {
        fs::write(path, &whole[..length]).unwrap();
        let history = History::open(path).unwrap();
        assert_eq!(history.torn, Some(Torn { line: 3, bytes: length - last }));
        assert!(history.fetches[0].is_undecided(), "cut at {length}");
    }
    // Only the end of the line is missing: all is there.
    fs::write(path, &whole[..whole.len() - 1]).unwrap();
    let history = History::open(path).unwrap();
    assert_eq!(history.torn, None);
    assert!(history.fetches[0].answer().is_some());
}

#[test]
fn a_line_in_the_middle_that_is_no_record_is_refused_with_its_number() {
    let (_dir, recorder) = recorder();
    let path = recorder.path().unwrap();
    append(path, "{\"invoke\":{\"op\"\n{\"mark\":{\"at_ns\":1,\"phase\":\"end\"}}\n");
    let error = History::open(path).unwrap_err();
    assert!(matches!(error, ReadError::Line { line: 2, .. }), "{error}");
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let invoke = |op: u64, at: u64| {
        format!(
            r#"{{"invoke":{{"op":{op},"at_ns":{at},"client":"c","call":{{"fetch":{{"user":"u","request":"r"}}}}}}}}"#
        )
    };
    let ended = |op: u64, at: u64, outcome: &str| {
        format!(r#"{{"return":{{"op":{op},"at_ns":{at},"attempts":1,"outcome":{outcome}}}}}"#)
    };
    let unknown = r#"{"unknown":{"why":"lost"}}"#;
    for (lines, why) in [
        (vec![ended(0, 1, unknown)], "has not begun"),
        (vec![invoke(1, 1), invoke(1, 2)], "numbers must grow"),
        (vec![invoke(1, 5), ended(1, 4, unknown)], "a time that cannot be"),
        (vec![invoke(1, 1), ended(1, 2, unknown), ended(1, 3, unknown)], "has not begun"),
        (vec![invoke(1, 1), ended(1, 2, r#"{"removed":{"at":{}}}"#)], "another kind of call"),
        (vec![invoke(1, 1).replace("\"client\"", "\"who\"")], "unknown field"),
    ] {
        let (_dir, recorder) = recorder();
        let path = recorder.path().unwrap();
        append(path, &(lines.join("\n") + "\n"));
        let error = History::open(path).unwrap_err().to_string();
        assert!(error.contains(why), "{error} is not about {why}");
    }
}

#[test]
fn a_file_of_something_else_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("history.jsonl");
    fs::write(&path, "").unwrap();
    assert!(matches!(History::open(&path), Err(ReadError::Empty)));
    for line in [
        r#"{"mark":{"at_ns":1,"phase":"end"}}"#,
        r#"{"begin":{"format":"jepsen","version":1,"source":""}}"#,
        r#"{"begin":{"format":"oncekey-history","version":2,"source":""}}"#,
    ] {
        fs::write(&path, format!("{line}\n")).unwrap();
        assert!(matches!(History::open(&path), Err(ReadError::Line { line: 1, .. })), "{line}");
    }
    fs::write(&path, vec![b'x'; 2 * 1024 * 1024]).unwrap();
    let error = History::open(&path).unwrap_err().to_string();
    assert!(error.contains("limit"), "{error}");
}

#[test]
fn a_history_is_never_written_over() {
    let (_dir, recorder) = recorder();
    assert!(Recorder::create(recorder.path().unwrap(), "another").is_err());
}

#[test]
fn a_history_that_cannot_be_written_says_so() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let recorder = Recorder::new(Full, || Duration::ZERO, "a test", None);
    let error = recorder.check().unwrap_err().to_string();
    assert!(error.contains("not complete"), "{error}");
}

#[test]
fn simulated_time_and_the_seed_are_recorded() {
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let out = Shared::default();
    let recorder = Recorder::new(out.clone(), || Duration::from_secs(3), "a test", Some(17));
    recorder.mark(Phase::Heal);
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap());
    let history = History::from_records(records).unwrap();
    assert_eq!(history.begin.seed, Some(17));
    assert_eq!(history.marks[0].at_ns, At(3_000_000_000));
}

#[test]
fn a_leader_that_is_killed_under_fetches_is_counted() {
    let (_dir, recorder) = recorder();
    for (node, address) in [(1, "127.0.0.1:8001"), (2, "127.0.0.1:8002")] {
        recorder.event(EventKind::Start, Some(NodeId(node)), address);
    }
    let led_by_two = || {
        let mut outcome = fetched(7);
        if let Outcome::Fetched { at, .. } = &mut outcome {
            at.leader = Some("127.0.0.1:8002".to_owned());
        }
        outcome
    };
    let before = recorder.invoke("alice", None, fetch("a"));
    recorder.complete(before, None, 1, led_by_two());
    recorder.event(EventKind::Kill, Some(NodeId(2)), "");
    let first = recorder.invoke("alice", None, fetch("b"));
    let second = recorder.invoke("carol", None, fetch("b"));
    recorder.event(EventKind::Kill, Some(NodeId(1)), "");
    recorder.event(EventKind::Kill, Some(NodeId(2)), "");
    recorder.complete(first, None, 2, fetched(8));
    recorder.complete(second, None, 1, fetched(9));
    let summary = recorder.history().unwrap().summary();
    assert_eq!(summary.killed_in_flight, 2);
    assert_eq!(summary.leaders_killed_in_flight, 1);
    assert_eq!(summary.in_flight_at_kills, 4);
    assert_eq!((summary.answered, summary.retried, summary.issued), (3, 1, 3));
    assert_eq!(summary.events["kill"], 3);
}
