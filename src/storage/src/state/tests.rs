//! The same suite over every engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::MutexGuard;
#[cfg(feature = "sled")]
use std::sync::{Mutex, PoisonError};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Two sleds in one process can deadlock, so tests with one take turns.
#[cfg(feature = "sled")]
static SLED: Mutex<()> = Mutex::new(());

/// A state that can be closed and opened again.
struct Bench {
    kind: EngineKind,
    engine: Option<StateEngine>,
    dir: TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Bench {
    fn new(kind: EngineKind) -> Self {
        let turn = match kind {
            EngineKind::Fjall => None,
            #[cfg(feature = "sled")]
            EngineKind::Sled => Some(SLED.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        let dir = tempfile::tempdir().unwrap();
        let engine = Some(open(dir.path(), kind).unwrap());
        Self { kind, engine, dir, _turn: turn }
    }

    fn engine(&self) -> &StateEngine {
        self.engine.as_ref().unwrap()
    }

    fn shard(&self, id: u16) -> ShardSpace {
        self.engine().shard(ShardId(id)).unwrap()
    }

    fn reopen(&mut self) {
        self.engine = None;
        self.engine = Some(open(self.dir.path(), self.kind).unwrap());
    }

    /// Keys in the database, whoever they belong to.
    fn raw_keys(&self) -> usize {
        self.engine().checkpoint().unwrap();
        self.engine().engine.range(&[], &[0xff; 20], usize::MAX).unwrap().len()
    }
}

fn open(dir: &Path, kind: EngineKind) -> Result<StateEngine, EngineError> {
    StateEngine::open(dir, kind, &EngineOptions { cache_bytes: 1 << 20 })
}

fn put(key: &str, value: &str) -> Change {
    (key.into(), Some(value.into()))
}

fn record(key: &str, value: &str) -> Record {
    (key.into(), value.into())
}

fn all(space: &ShardSpace) -> Vec<Record> {
    space.view().unwrap().range(&[], None, usize::MAX).unwrap()
}

fn get(space: &ShardSpace, key: &str) -> Option<String> {
    let value = space.read().get(key.as_bytes()).unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

fn a_commit_is_seen_at_once_and_after_opening_again(kind: EngineKind) {
    let mut bench = Bench::new(kind);
    let space = bench.shard(3);
    assert_eq!(space.header(), None);
    space.commit([put("a", "1"), put("b", "2")], b"h1").unwrap();
    space.commit([("a".into(), None), put("c", "")], b"h2").unwrap();
    let expected = [record("b", "2"), record("c", "")];
    assert_eq!(all(&space), expected);
    drop(space);
    bench.engine().checkpoint().unwrap();
    bench.reopen();
    let space = bench.shard(3);
    assert_eq!(all(&space), expected);
    assert_eq!(space.header().unwrap(), b"h2");
    assert_eq!(get(&space, "a"), None);
    assert_eq!(get(&space, "b").unwrap(), "2");
}

fn shards_do_not_see_each_other(kind: EngineKind) {
    let bench = Bench::new(kind);
    let spaces = [0, 1, 255].map(|id| (id, bench.shard(id)));
    for (id, space) in &spaces {
        space.commit([put("k", &id.to_string())], &id.to_be_bytes()).unwrap();
    }
    spaces[1].1.reset().unwrap();
    for (id, space) in &spaces {
        let expected = if *id == 1 { vec![] } else { vec![record("k", &id.to_string())] };
        assert_eq!(all(space), expected, "shard {id}");
        assert_eq!(space.header().is_none(), *id == 1, "shard {id}");
    }
}

fn a_range_keeps_its_bounds_and_its_limit(kind: EngineKind) {
    let bench = Bench::new(kind);
    let space = bench.shard(0);
    let keys = ["a", "ab", "b", "c"];
    space.commit(keys.map(|key| put(key, "")), b"").unwrap();
    let view = space.view().unwrap();
    let range = |from: &str, to: Option<&str>, limit| {
        let records = view.range(from.as_bytes(), to.map(str::as_bytes), limit).unwrap();
        records.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(range("ab", Some("c"), 9), ["ab", "b"]);
    assert_eq!(range("ab", None, 2), ["ab", "b"]);
    assert_eq!(range("", Some(""), 9), [""; 0]);
    assert_eq!(range("c", Some("a"), 9), [""; 0]);
}

fn a_view_stays_as_it_was_and_keeps_no_flush_waiting(kind: EngineKind) {
    let bench = Bench::new(kind);
    let space = bench.shard(0);
    let keys = ["a", "b", "d"];
    space.commit(keys.map(|key| put(key, "1")), b"h1").unwrap();
    let before = keys.map(|key| record(key, "1"));
    let view = space.view().unwrap();
    for round in ["2", "3"] {
        let changes = [put("a", round), ("b".into(), None), put("c", round), put("e", round)];
        space.commit(changes, round.as_bytes()).unwrap();
        bench.engine().checkpoint().unwrap();
        assert_eq!(view.header().unwrap().unwrap(), b"h1");
        assert_eq!(view.get(b"a").unwrap().unwrap(), b"1");
        assert_eq!(view.get(b"c").unwrap(), None);
        for limit in 1..5 {
            assert_eq!(view.range(&[], None, limit).unwrap(), before[..limit.min(3)]);
            assert_eq!(view.range(b"b", Some(b"d"), limit).unwrap(), [record("b", "1")]);
            assert_eq!(view.range(b"c", None, limit).unwrap(), [record("d", "1")]);
        }
    }
    drop(view);
    assert_eq!(
        all(&space),
        [record("a", "3"), record("c", "3"), record("d", "1"), record("e", "3")]
    );
}

fn a_view_outlives_the_installation_of_a_snapshot(kind: EngineKind) {
    let bench = Bench::new(kind);
    let space = bench.shard(0);
    space.commit([put("old", "1")], b"h1").unwrap();
    let keys = bench.raw_keys();
    let view = space.view().unwrap();
    for header in [b"h2", b"h3"] {
        let mut staging = space.stage();
        staging.put([record("new", "2")]).unwrap();
        staging.install(header).unwrap();
        assert_eq!(view.range(&[], None, 9).unwrap(), [record("old", "1")]);
        assert_eq!(view.header().unwrap().unwrap(), b"h1");
        assert_eq!(space.header().unwrap(), header);
        assert_eq!(all(&space), [record("new", "2")]);
    }
    drop(view);
    space.reset().unwrap();
    assert_eq!(bench.raw_keys(), keys - 1, "a pointer for a header, and no record is left");
}

fn a_staged_snapshot_is_invisible_until_installed(kind: EngineKind) {
    let mut bench = Bench::new(kind);
    let space = bench.shard(7);
    space.commit([put("old", "1"), put("both", "1")], b"h1").unwrap();
    let keys = bench.raw_keys();
    let mut staging = space.stage();
    staging.put([record("both", "2")]).unwrap();
    staging.put([record("new", "2")]).unwrap();
    assert_eq!(all(&space), [record("both", "1"), record("old", "1")]);
    staging.install(b"h2").unwrap();
    let expected = [record("both", "2"), record("new", "2")];
    assert_eq!(all(&space), expected);
    assert_eq!(bench.raw_keys(), keys + 1, "only a pointer more: the old generation is gone");
    drop(space);
    bench.reopen();
    let space = bench.shard(7);
    assert_eq!(all(&space), expected);
    assert_eq!(space.header().unwrap(), b"h2");
}

fn an_unfinished_snapshot_leaves_nothing_behind(kind: EngineKind) {
    let mut bench = Bench::new(kind);
    let space = bench.shard(7);
    space.commit([put("old", "1")], b"h1").unwrap();
    let keys = bench.raw_keys();
    let mut dropped = space.stage();
    dropped.put([record("x", "2")]).unwrap();
    drop(dropped);
    assert_eq!(bench.raw_keys(), keys);
    let mut cut_off = space.stage();
    cut_off.put([record("y", "2")]).unwrap();
    bench.engine().checkpoint().unwrap();
    cut_off.forget();
    drop(space);
    bench.reopen();
    assert_eq!(bench.raw_keys(), keys + 1, "still there before the shard is opened");
    let space = bench.shard(7);
    assert_eq!(bench.raw_keys(), keys);
    assert_eq!(all(&space), [record("old", "1")]);
}

fn a_checkpoint_is_in_a_copy_of_the_files(kind: EngineKind) {
    let mut bench = Bench::new(kind);
    let space = bench.shard(0);
    for n in 0..50u32 {
        space.commit([put(&n.to_string(), "value")], &n.to_be_bytes()).unwrap();
    }
    bench.engine().checkpoint().unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_files(bench.dir.path(), copy.path());
    space.commit([put("late", "value")], b"late").unwrap();
    drop(space);
    bench.engine = None;
    let copied = open(copy.path(), kind).unwrap();
    let space = copied.shard(ShardId(0)).unwrap();
    assert_eq!(all(&space).len(), 50);
    assert_eq!(space.header().unwrap(), 49u32.to_be_bytes());
}

fn the_state_of_another_version_is_refused(kind: EngineKind) {
    let mut bench = Bench::new(kind);
    let version = 2u32.to_be_bytes();
    let mut future = std::iter::once((key::format(), Some(&version[..])));
    bench.engine().engine.apply(&mut future).unwrap();
    bench.engine().checkpoint().unwrap();
    bench.engine = None;
    let refused = open(bench.dir.path(), kind).err().unwrap();
    assert!(matches!(refused, EngineError::Format { found: 2, expected: 1 }), "{refused}");
}

fn every_history_equals_that_of_a_map(kind: EngineKind) {
    let config = ProptestConfig { cases: 24, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60))| {
        let mut bench = Bench::new(kind);
        let mut model = Model::default();
        for step in steps {
            apply(&mut bench, &mut model, step);
            for id in SHARDS {
                let space = bench.shard(id);
                let expected = model.now.get(&id).cloned().unwrap_or_default();
                // Reading fills the cache, so what is out of date in it would be found.
                for key in KEYS {
                    let value = space.read().get(&[key]).unwrap();
                    prop_assert_eq!(value.as_ref(), expected.records.get(&vec![key]));
                }
                prop_assert_eq!(&space.header(), &expected.header);
            }
            for (view, then) in &model.views {
                prop_assert_eq!(&read(view), then);
            }
        }
    });
}

const SHARDS: std::ops::Range<u16> = 0..3;
const KEYS: std::ops::Range<u8> = 0..20;

#[derive(Clone, Debug)]
enum Step {
    Commit {
        shard: u16,
        changes: Vec<(u8, Option<u8>)>,
        header: u8,
    },
    Flush {
        shard: u16,
    },
    View {
        shard: u16,
    },
    CloseView,
    Install {
        shard: u16,
        keys: Vec<u8>,
        header: u8,
    },
    Discard {
        shard: u16,
        keys: Vec<u8>,
    },
    Reset {
        shard: u16,
    },
    Reopen,
    /// The process dies and starts again.
    Die,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || prop::collection::vec(KEYS, 0..8);
    let changes = prop::collection::vec((KEYS, prop::option::of(any::<u8>())), 0..8);
    prop_oneof![
        8 => (SHARDS, changes, any::<u8>())
            .prop_map(|(shard, changes, header)| Step::Commit { shard, changes, header }),
        3 => SHARDS.prop_map(|shard| Step::Flush { shard }),
        2 => SHARDS.prop_map(|shard| Step::View { shard }),
        1 => Just(Step::CloseView),
        2 => (SHARDS, keys(), any::<u8>())
            .prop_map(|(shard, keys, header)| Step::Install { shard, keys, header }),
        1 => (SHARDS, keys()).prop_map(|(shard, keys)| Step::Discard { shard, keys }),
        1 => SHARDS.prop_map(|shard| Step::Reset { shard }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Die),
    ]
}

#[derive(Clone, PartialEq, Debug, Default)]
struct State {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    header: Option<Vec<u8>>,
}

#[derive(Default)]
struct Model {
    now: BTreeMap<u16, State>,
    /// What the engine has been given.
    flushed: BTreeMap<u16, State>,
    /// Views that are open, with what they must show.
    views: Vec<(ShardView, State)>,
}

impl Model {
    fn flush(&mut self, shard: u16) {
        if let Some(state) = self.now.get(&shard) {
            self.flushed.insert(shard, state.clone());
        }
    }
}

fn apply(bench: &mut Bench, model: &mut Model, step: Step) {
    match step {
        Step::Commit { shard, changes, header } => {
            let State { records, header: model_header } = model.now.entry(shard).or_default();
            // One change per key: a batch has no order among its changes.
            let changes: BTreeMap<u8, Option<u8>> = changes.into_iter().collect();
            for (key, value) in &changes {
                match value {
                    Some(value) => records.insert(vec![*key], vec![*value]),
                    None => records.remove(&vec![*key]),
                };
            }
            *model_header = Some(vec![header]);
            let changes =
                changes.into_iter().map(|(key, value)| (vec![key], value.map(|value| vec![value])));
            bench.shard(shard).commit(changes, &[header]).unwrap();
        }
        Step::Flush { shard } => {
            bench.shard(shard).flush().unwrap();
            model.flush(shard);
        }
        Step::View { shard } => {
            let state = model.now.get(&shard).cloned().unwrap_or_default();
            model.views.push((bench.shard(shard).view().unwrap(), state));
            model.flush(shard);
        }
        Step::CloseView => {
            model.views.pop();
        }
        Step::Install { shard, keys, header } => {
            let records: BTreeMap<_, _> =
                keys.into_iter().map(|key| (vec![key], vec![key])).collect();
            let mut staging = bench.shard(shard).stage();
            staging.put(records.clone()).unwrap();
            staging.install(&[header]).unwrap();
            model.now.insert(shard, State { records, header: Some(vec![header]) });
            model.flush(shard);
        }
        Step::Discard { shard, keys } => {
            let mut staging = bench.shard(shard).stage();
            staging.put(keys.into_iter().map(|key| (vec![key], vec![key]))).unwrap();
        }
        Step::Reset { shard } => {
            bench.shard(shard).reset().unwrap();
            model.now.insert(shard, State::default());
            model.flush(shard);
        }
        Step::Reopen => {
            model.views.clear();
            bench.engine().checkpoint().unwrap();
            bench.reopen();
            model.flushed.clone_from(&model.now);
        }
        Step::Die => {
            model.views.clear();
            bench.reopen();
            model.now.clone_from(&model.flushed);
        }
    }
}

/// All that `view` shows, some records at a time.
fn read(view: &ShardView) -> State {
    let mut records = BTreeMap::new();
    let mut from = Vec::new();
    loop {
        let some = view.range(&from, None, 3).unwrap();
        let Some((last, _)) = some.last() else { break };
        from = [last.as_slice(), &[0]].concat();
        records.extend(some);
    }
    State { records, header: view.header().unwrap() }
}

fn a_writer_that_gathers_too_much_waits_for_the_engine(kind: EngineKind) {
    let bench = Bench::new(kind);
    let space = bench.shard(0);
    let value = vec![7; 100 << 10];
    let mut was_due = false;
    for n in 0..100u8 {
        space.commit([(vec![n], Some(value.clone()))], &[n]).unwrap();
        was_due |= space.is_flush_due();
    }
    assert!(was_due);
    // Without a single call to flush most of it has reached the engine.
    assert!(bench.engine().engine.range(&[], &[0xff; 20], usize::MAX).unwrap().len() > 50);
    space.flush().unwrap();
    assert!(!space.is_flush_due());
    for n in 0..100u8 {
        assert_eq!(space.read().get(&[n]).unwrap().as_ref(), Some(&value));
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

macro_rules! suite {
    ($kind:expr; $($test:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                super::$test($kind);
            }
        )*
    };
}

macro_rules! suite_of {
    ($($(#[$attribute:meta])* $module:ident: $kind:expr),* $(,)?) => {
        $(
            $(#[$attribute])*
            mod $module {
                use super::EngineKind;

                suite! { $kind;
                    a_commit_is_seen_at_once_and_after_opening_again,
                    shards_do_not_see_each_other,
                    a_range_keeps_its_bounds_and_its_limit,
                    a_view_stays_as_it_was_and_keeps_no_flush_waiting,
                    a_view_outlives_the_installation_of_a_snapshot,
                    a_staged_snapshot_is_invisible_until_installed,
                    an_unfinished_snapshot_leaves_nothing_behind,
                    a_checkpoint_is_in_a_copy_of_the_files,
                    the_state_of_another_version_is_refused,
                    every_history_equals_that_of_a_map,
                    a_writer_that_gathers_too_much_waits_for_the_engine,
                }
            }
        )*
    };
}

suite_of! {
    over_fjall: EngineKind::Fjall,
    #[cfg(feature = "sled")]
    over_sled: EngineKind::Sled,
}

#[cfg(feature = "sled")]
#[test]
fn the_state_of_another_engine_is_refused() {
    let bench = Bench::new(EngineKind::Fjall);
    let refused = open(bench.dir.path(), EngineKind::Sled).err().unwrap();
    assert!(matches!(refused, EngineError::OtherEngine { found: "fjall", .. }), "{refused}");
}

#[test]
fn engines_are_known_by_name() {
    assert_eq!("fjall".parse(), Ok(EngineKind::Fjall));
    assert_eq!(EngineKind::Fjall.to_string(), "fjall");
    assert!("rocksdb".parse::<EngineKind>().is_err());
}
